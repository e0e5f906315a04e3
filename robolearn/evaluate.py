"""`robolearn eval`: a policy on whole held-out episodes, beside the baselines it has to beat."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robolearn import settings
from robolearn.files import json_line, write_atomic
from robolearn.settings import MISSING

if TYPE_CHECKING:
    from robolearn.judge import Controller, Verdict
    from robolearn.runs import Run
    from robolearn.trained import Trained
    from sim.env import Env

SUMMARY = "judge a run's policy on held-out episodes, beside baselines"


@dataclass
class Options:
    """Settings of `robolearn eval`."""

    run: str = MISSING
    """The run's folder."""
    checkpoint: str = "last"
    """last, best, or an iteration."""
    split: str = "heldout"
    """Clips or commands to judge on: heldout, train, or heldout_objects of a task with objects."""
    objects: bool = True
    """Judge on held-out objects too, where the task has objects."""
    baselines: bool = True
    """Run the baselines too."""
    seed: int = 1000
    """Of the randomisation that the worlds draw."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``key=value`` settings and ``--json``."""
    settings.add_arguments(parser, Options)


def main(args: argparse.Namespace) -> int:
    """The verb: a table on standard output, or JSON."""
    from robolearn.trained import Trained

    options = settings.parse(Options, args.settings)
    trained = Trained.load(options.run, options.checkpoint)
    result = evaluate(trained, options, _say)
    if args.json:
        print(json_line(result))
    else:
        print_table(result, sys.stdout)
    return 0


def evaluate_run(run: Run) -> dict[str, Any]:
    """What follows a training: evaluate the last checkpoint, print the table, keep ``evaluation.json`` in the run."""
    from robolearn.trained import Trained

    trained = Trained.load(run.path)
    result = evaluate(trained, Options(run=str(run.path)), _say)
    write_atomic(run.path / "evaluation.json", json.dumps(result, indent=2).encode())
    print_table(result, sys.stderr)
    return result


def evaluate(trained: Trained, options: Options, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Judge a policy: noise off and on, held-out objects, and every baseline, on the same episodes and worlds.

    Returns:
        Plain values: ``rows`` (name → metrics with mean, median and 95% interval), ``headline`` (the policy's success),
        ``margin`` over the best variant of the strongest baseline, in points, what was judged, and the ``marks`` of a
        run that was trained with a critic that should not have been used.
    """
    from robolearn.judge import judge
    from robolearn.trained import learner_for, policy_controller

    def env(split: str, **changes: Any) -> Env:
        return trained.env(split, seed=options.seed, **changes)

    controller = trained.controller()
    say(f"evaluating {trained.checkpoint} of {trained.run.path} on {options.split} episodes")
    quiet = env(options.split, sensor_noise=False)
    rows: dict[str, Verdict] = {"policy": judge(quiet, controller)}
    rows["policy, sensor noise"] = judge(env(options.split, sensor_noise=True), controller)
    motions = trained.config.task.get("motions")
    if options.objects and options.split == "heldout" and motions and not motions["folder"]:
        rows["policy, held-out objects"] = judge(env("heldout_objects", sensor_noise=False), controller)
    success = quiet.task.success
    if options.baselines:
        for name, variants in quiet.task.baselines.items():
            say(f"baseline: {name}")
            variant, verdict = best_variant(quiet, variants, success)
            rows[f"{name} {variant}".strip()] = verdict
        rows["untrained policy"] = judge(quiet, policy_controller(learner_for(trained.config, quiet)))
    beaten = [v.mean(success) for name, v in rows.items() if not name.startswith("policy")]
    return {
        "run": str(trained.run.path),
        "task": quiet.task.name,
        "checkpoint": trained.checkpoint,
        "split": options.split,
        "success": success,
        "report": list(quiet.task.report),
        "headline": rows["policy"].mean(success),
        "margin": 100.0 * (rows["policy"].mean(success) - max(beaten)) if beaten else None,
        "marks": list(trained.config.reward.marks),
        "rows": {name: verdict.to_dict() for name, verdict in rows.items()},
    }


def best_variant(env: Env, variants: Mapping[str, Callable[[Env], Any]], success: str) -> tuple[str, Verdict]:
    """The variant of a baseline with the highest success on these very episodes: the strongest it can be."""
    from robolearn.judge import judge

    def acting(function: Callable[[Env], Any]) -> Controller:
        return lambda env, obs: function(env)

    verdicts = {name: judge(env, acting(function)) for name, function in variants.items()}
    best = max(verdicts, key=lambda name: verdicts[name].mean(success))
    return best, verdicts[best]


def print_table(result: Mapping[str, Any], file: Any) -> None:
    """A table of means; the success rate with its 95% interval, other quantities with their median."""
    from rich.console import Console
    from rich.table import Table

    from robolearn.judge import RATES

    success = result["success"]
    table = Table(title=f"{result['task']}: {result['split']} episodes, {result['checkpoint']}", show_edge=False)
    table.add_column("", no_wrap=True)
    for name in result["report"]:
        table.add_column(f"{name} %" if name in RATES else name, justify="right", no_wrap=True)
    for column in ("diverged", "episodes"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, row in result["rows"].items():
        cells = [_cell(row.get(metric), metric in RATES, metric == success) for metric in result["report"]]
        table.add_row(name, *cells, str(round(row["diverged"]["mean"] * row["episodes"])), str(row["episodes"]))
    Console(file=file, width=None if file.isatty() else 200).print(table)
    print(f"rates: mean ({success} with its 95% interval); others: mean / median", file=file)
    for mark in result["marks"]:
        print(f"trained with a forced critic: {mark}", file=file)


def _cell(summary: Mapping[str, float] | None, rate: bool, interval: bool) -> str:
    if summary is None:
        return "-"
    if interval:
        return f"{100 * summary['mean']:.0f} [{100 * summary['low']:.0f}-{100 * summary['high']:.0f}]"
    return f"{100 * summary['mean']:.0f}" if rate else f"{summary['mean']:.2f} / {summary['median']:.2f}"


def _say(text: str) -> None:
    print(text, file=sys.stderr)
