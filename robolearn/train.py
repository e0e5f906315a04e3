"""`robolearn train`: joins a task, a learner and a run folder; evaluation and rendering follow."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import settings
from robolearn.config import (
    ConfigError,
    TrainConfig,
    algorithm,
    compose,
    resumed,
    sweep,
    to_plain,
    to_train_config,
)
from robolearn.errors import did_you_mean
from robolearn.files import json_line, write_atomic
from robolearn.progress import Silent, clock, make_display
from robolearn.runs import Run, RunError, default_name

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from robolearn.training import Environment, Learner, Outcome

SUMMARY = "train a policy; resume=<run> continues a run, -m sweeps over comma lists"

_IMPORTED_AT = time.monotonic()

MakeEnv = Callable[[TrainConfig, int], Any]
"""``make_env(config, seed)`` → an environment with `TrainConfig.num_envs` worlds."""


@dataclass(frozen=True)
class Result:
    """What a training run came to.

    Attributes:
        run: its folder.
        outcome: totals, last metrics, and what interrupted it if anything did.
        startup_s: seconds from the start of the program to the first step of training; None without one.
        evaluation: what `robolearn.evaluate` found; empty if it was not asked.
    """

    run: Path
    outcome: Outcome
    startup_s: float | None
    evaluation: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "run": str(self.run),
            **asdict(self.outcome),
            "startup_s": self.startup_s,
            "evaluation": self.evaluation,
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``key=value`` settings of `TrainConfig`, and the flags."""
    settings.add_arguments(parser, TrainConfig)
    parser.add_argument("-m", "--multirun", action="store_true", help="one run for each combination of comma lists")
    parser.add_argument("--cfg", action="store_true", help="print the configuration and stop")
    parser.epilog = (
        "resume=<run> continues a run; budget.*, checkpoint.*, curves, evaluate and video may change.\n"
        f"task=, algo=, world= and experiment= choose by name (robolearn list).\n\n{parser.epilog}\n\n"
        "robolearn train --cfg prints the settings of the task and of the learner too."
    )


def main(args: argparse.Namespace) -> int:
    """The verb; 130 or 143 when a signal interrupted the training."""
    overrides: list[str] = [item for item in args.settings if not item.startswith("resume=")]
    runs = [item.removeprefix("resume=") for item in args.settings if item.startswith("resume=")]
    if len(runs) > 1:
        raise RunError(f"resume= names one run, not {len(runs)}")
    if args.cfg:
        print(_yaml(resumed(Run.open(runs[0]).config, overrides) if runs else compose(overrides)), end="")
        return 0
    if args.multirun:
        if runs:
            raise RunError("a sweep starts new runs: resume= and -m do not go together")
        return _sweep(overrides, args.json)
    result = resume(runs[0], overrides) if runs else train(to_train_config(compose(overrides)))
    if result is None:  # another process of the same torchrun writes and reports
        return 0
    if args.json:
        print(json_line(result.to_dict()))
    return 0 if result.outcome.signal is None else 128 + result.outcome.signal


def train(config: TrainConfig, make_env: MakeEnv | None = None) -> Result | None:
    """Train from scratch in a new run folder.

    Under ``torchrun`` every process calls this; all but the first return None.

    Raises:
        RobolearnError: a setting that cannot work, an unwritable folder, a number that is not finite.
    """
    first = _join_processes(config) == 0
    run = None
    if first:
        default = Path("runs") / str(config.task.get("name", "task")) / default_name(config.seed)
        folder = Path(config.run_dir) if config.run_dir else _free(default)
        run = Run.create(folder.parent, folder.name, to_plain(config), config.seed)
    return _train(config, run, None, make_env or make_environment)


def resume(path: str | Path, overrides: Sequence[str] = (), make_env: MakeEnv | None = None) -> Result | None:
    """Continue a run from its last whole checkpoint, or from the beginning if it has none yet.

    Args:
        path: the run's folder.
        overrides: ``key=value`` for the budget and what else does not touch the training.

    Raises:
        RobolearnError: not a run, in use, damaged, or an override that would change the training.
    """
    stored = Run.open(path)
    config = to_train_config(resumed(stored.config, overrides))
    first = _join_processes(config) == 0
    checkpoint = stored.load() if stored.checkpoint_paths() else None
    run = Run.open(path, write=True) if first else None
    if run is not None:
        for line in checkpoint.skipped if checkpoint else ():
            print(f"passed over: {line}", file=sys.stderr)
        for line in run.drift():
            print(line, file=sys.stderr)
        write_atomic(run.path / "config.yaml", _yaml(to_plain(config)).encode())
        run.rewind(checkpoint.iteration if checkpoint else 0)
    return _train(config, run, checkpoint.state if checkpoint else None, make_env or make_environment)


def make_environment(config: TrainConfig, seed: int) -> Environment:
    """The worlds that ``config`` asks for."""
    from sim.tasks import make_env

    task = {key: value for key, value in config.task.items() if key != "name"}
    return make_env(config.task["name"], config.num_envs, seed=seed, threads=config.world.threads, **task)


def make_learner(config: TrainConfig, env: Any) -> Learner:
    """The learner that ``config`` asks for, with the sizes of ``env``."""
    learner, config_class = algorithm(str(config.algo.get("name")))
    chosen = config_class(**{key: value for key, value in config.algo.items() if key != "name"})
    made: Learner = learner(env.observation_dims, env.num_actions, env.num_envs, chosen, config.seed, config.device)
    return made


def finish(run: Run, config: TrainConfig) -> dict[str, Any]:
    """What follows a training that was not interrupted: curves, evaluation, video; returns the evaluation."""
    from robolearn.curves import plot_curves

    rows = run.metrics()
    if rows and config.curves:
        plot_curves(rows, run.path / "curves.png", title=run.path.name)
    evaluation: dict[str, Any] = {}
    if config.evaluate:
        from robolearn.evaluate import evaluate_run

        evaluation = evaluate_run(run)
    if config.video:
        from robolearn.play import render_run

        render_run(run, run.path / "policy.mp4")
    return evaluation


def _train(config: TrainConfig, run: Run | None, state: dict[str, Any] | None, make_env: MakeEnv) -> Result | None:
    import torch

    from robolearn.training import Training

    if config.threads:
        torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling fresh memory would find reads of uninitialised values, at a cost in every allocation.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    display = make_display(f"{config.task.get('name', '')} {run.path if run else ''}", silent=run is None)
    try:
        env = make_env(config, config.seed + 1_000_003 * rank)
        config.checkpoint.best = config.checkpoint.best or f"episode/{env.task.success}"
        training = Training(config, env, make_learner(config, env), run, display)
        if state is not None:
            training.restore(state)
        outcome = training.run_until_spent()
        if run is None:
            return None
        startup = None if training.first_step_at is None else training.first_step_at - _IMPORTED_AT
        _say_how_it_ended(display, run, outcome)
        recorded = {name for row in run.metrics() for name in row}
        if outcome.iteration and (best := config.checkpoint.best) not in recorded:
            display.note(f"no metric {best!r} was recorded, so no checkpoint is best; {did_you_mean(best, recorded)}")
        evaluation = finish(run, config) if outcome.signal is None else {}
        return Result(run.path, outcome, startup, evaluation)
    except KeyboardInterrupt:
        if run is not None:
            print(f"interrupted; continue with: robolearn train resume={run.path}", file=sys.stderr)
        raise
    finally:
        if run is not None:
            run.close()


def _say_how_it_ended(display: Silent, run: Run, outcome: Outcome) -> None:
    took = clock(outcome.elapsed_s)
    done = f"{outcome.iteration} iterations, {outcome.env_steps:,} env-steps, {took} of training"
    display.note(f"{done}; run folder: {run.path}")
    if outcome.signal is not None:
        name = signal.Signals(outcome.signal).name
        display.note(f"stopped by {name}; continue with: robolearn train resume={run.path}")


def _join_processes(config: TrainConfig) -> int:
    """Join the other processes of a ``torchrun``, if there are any; return this one's rank."""
    import torch

    from policies.distributed import init_from_env

    device = config.device.partition(":")[0]
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' is not available here; devices: cpu (robolearn doctor tells why)")
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"unknown device {config.device!r}; devices: cpu, cuda, cuda:<number>")
    return init_from_env()[0]


def _sweep(overrides: Sequence[str], as_json: bool) -> int:
    def job(config: DictConfig, folder: str) -> Result | None:
        made = to_train_config(config)
        made.run_dir = made.run_dir or folder
        result = train(made)
        if result is not None and result.outcome.signal is not None:
            raise KeyboardInterrupt
        return result

    done = [(chosen, result) for chosen, result in sweep(overrides, job) if result is not None]
    for chosen, result in done:
        print(f"{result.run}  {' '.join(chosen)}", file=sys.stderr)
    if as_json:
        print(json_line({"jobs": [{"overrides": chosen, **result.to_dict()} for chosen, result in done]}))
    return 0


def _free(path: Path) -> Path:
    """``path``, or the first of ``path-2``, ``path-3``, ... that does not exist."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _yaml(config: Any) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(config)
