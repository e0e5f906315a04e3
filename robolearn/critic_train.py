"""`robolearn critic train`: a small critic from simulated successes and failures, in minutes on a CPU."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import settings
from robolearn.critic_settings import critic_folder
from robolearn.errors import RobolearnError, unknown
from robolearn.files import json_line
from robolearn.settings import MISSING

if TYPE_CHECKING:
    from vlm_rewards.clips import ClipSet

SUMMARY = "make a small critic from simulated successes and failures"

KINDS = ("process", "success")
"""``process``: progress, success, hops and preferences; ``success``: success alone."""
LABELS = ("simulator", "time")
"""Who says how far an episode has come."""


class CriticTrainError(RobolearnError):
    """A critic that cannot be made as asked."""


@dataclass
class Options:
    """Settings of `robolearn critic train`."""

    critic: str = "process"
    """process (progress, success, preferences) or success (success alone)."""
    task: str = MISSING
    """An arm task: arm_reach, arm_push or arm_pick_place."""
    episodes: int = 1200
    """Simulated episodes to learn from; a quarter as many again are simulated for validation."""
    minutes: float = 5.5
    """Minutes of learning, after the episodes have been made."""
    size: int = 64
    """Height and width of the pictures, pixels."""
    noise: float = 1.0
    """Most standard deviation of the noise on the scripts' actions, in half of the episodes: what a policy that
    learns does is less tidy than what a script does."""
    seed: int = 0
    """Of the episodes and of the learning."""
    successes_only: bool = False
    """Learn from the expert alone: an ablation that shows why failures are needed."""
    labels: str = "simulator"
    """simulator: exact progress and success. time, with successes_only=true: those of recordings that nobody labelled,
    progress being the share of the episode that has passed, and done its last tenth."""
    data: str | None = None
    """A folder with episodes made before (train/ and validation/), instead of simulating; made if it is not there."""
    out: str | None = None
    """The critic's folder; default: critics/<task>-<critic>."""
    force: bool = False
    """Replace a critic that is there."""
    threads: int = 0
    """Threads; 0 uses every core."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``key=value`` settings and ``--json``."""
    settings.add_arguments(parser, Options)


def main(args: argparse.Namespace) -> int:
    """The verb: figures of the validation episodes on standard output, or JSON."""
    options = settings.parse(Options, args.settings)
    figures = train(options, _say)
    if args.json:
        print(json_line(figures))
    else:
        _print(figures)
    return 0


def train(options: Options, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Simulate, learn, calibrate and save a critic; return where it is and what was measured on validation.

    Raises:
        RobolearnError: an unknown kind or task, or a critic that is there already.
    """
    from vlm_rewards.clips import time_labelled
    from vlm_rewards.registry import DESCRIPTION

    if options.critic not in KINDS:
        raise CriticTrainError(unknown("critic to train", options.critic, KINDS))
    if options.episodes < 20 or not options.minutes > 0:
        raise CriticTrainError(
            f"a critic needs 20 episodes or more and some time, got {options.episodes} and {options.minutes:g} minutes"
        )
    if options.labels not in LABELS:
        raise CriticTrainError(unknown("label source", options.labels, LABELS))
    if options.labels == "time" and not options.successes_only:
        raise CriticTrainError("labels=time needs successes_only=true: time says nothing of the progress of failures")
    folder = Path(options.out) if options.out else critic_folder(options.task, options.critic)
    if (folder / DESCRIPTION).exists() and not options.force:
        raise CriticTrainError(f"{folder} holds a critic already; force=true replaces it, out=<folder> makes another")
    started = time.monotonic()
    training, validation = episodes(options, say)
    if options.labels == "time":
        training = time_labelled(training)  # what is chosen on validation is chosen by the truth, to its advantage
    simulated = time.monotonic() - started
    say(f"{len(training)} episodes, {training.num_frames} frames, made in {simulated:.0f} s; learning")
    figures = _fit(options, training, validation, folder, say)
    took = {"simulation_s": simulated, "total_s": time.monotonic() - started}
    _forget_card(folder)
    return {"critic": str(folder), "task": options.task, **took, **figures}


def episodes(options: Options, say: Callable[[str], None]) -> tuple[ClipSet, ClipSet]:
    """The episodes to learn from and those to choose by, read from ``data`` or simulated."""
    from robolearn.critic_data import collect
    from vlm_rewards.clips import ClipSet

    out = []
    for name, episodes, seed in (
        ("train", options.episodes, options.seed * 10 + 1),
        ("validation", max(20, options.episodes // 4), options.seed * 10 + 2),
    ):
        folder = None if options.data is None else Path(options.data) / name
        if folder is not None and (folder / "clips.json").is_file():
            out.append(ClipSet.load(folder))
            continue
        recipe = _recipe(options, name, episodes, seed)
        clips = collect(recipe, options.threads, lambda text, name=name: say(f"{name}: {text}"))  # type: ignore[misc]
        if folder is not None:
            clips.save(folder)
        out.append(clips)
    return out[0], out[1]


def shares(task: str, episodes: int, experts: float = 0.25) -> dict[str, int]:
    """How many episodes of each mode make ``episodes`` in all, a share of them the expert's."""
    from robolearn.critic_data import even_counts

    modes = [mode for mode in even_counts(task, 1) if mode != "expert"]
    each, left = divmod(round(episodes * (1.0 - experts)), len(modes))
    failures = {mode: each + (i < left) for i, mode in enumerate(modes)}
    return {"expert": episodes - sum(failures.values()), **failures}


def _recipe(options: Options, name: str, episodes: int, seed: int) -> Any:
    from robolearn.critic_data import Recipe

    only = options.successes_only and name == "train"
    counts = {"expert": episodes} if only else shares(options.task, episodes)
    return Recipe(options.task, counts, seed=seed, size=options.size, noise=options.noise)


def _fit(
    options: Options, training: ClipSet, validation: ClipSet, folder: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    common: dict[str, Any] = {"minutes": options.minutes, "seed": options.seed}
    if options.threads:
        common["threads"] = options.threads
    common["progress"] = _Progress(say)
    if options.critic == "success":
        from vlm_rewards.success import fit_success_classifier

        return fit_success_classifier(training, validation, folder, **common)
    from vlm_rewards.fit import fit_process_critic

    return fit_process_critic(training, validation, folder, **common)


class _Progress:
    """A line on standard error now and then."""

    def __init__(self, say: Callable[[str], None], every_s: float = 10.0) -> None:
        self._say, self._every, self._last = say, every_s, -every_s

    def __call__(self, share: float, means: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self._last >= self._every or share >= 1.0:
            self._last = now
            self._say("  ".join([f"{100 * share:3.0f}%", *(f"{name}={value:.3g}" for name, value in means.items())]))


def _forget_card(folder: Path) -> None:
    """A card speaks of the critic that was there before."""
    for path in folder.glob("card*"):
        path.unlink()


def _print(figures: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{figures['critic']}: validation", show_edge=False)
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in _flat(figures):
        table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(table)
    print(f"judge it before it is used: robolearn critic card critic={figures['critic']} task={figures['task']}")


def _flat(figures: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        elif name not in ("critic", "task"):
            rows.append((f"{prefix}{name}", value))
    return rows


def _say(text: str) -> None:
    print(text, file=sys.stderr)
