"""`robolearn demo`: train, evaluate, export and film `dex_track`, in one command and a few minutes."""

from __future__ import annotations

import argparse
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robolearn import settings
from robolearn.errors import RobolearnError
from robolearn.files import json_line

SUMMARY = "train dex_track for a few minutes, then evaluate, export and film it"


@dataclass
class Options:
    """Settings of `robolearn demo`."""

    minutes: float | None = None
    """Minutes of training; default: the preset's own."""
    seed: int = 1
    """Of every random draw."""
    experiment: str = ""
    """A preset instead of the default task: see `robolearn list experiments`."""
    out: str = ""
    """The run's folder; default: runs/dex_track/<date and time>-s<seed>."""
    settings: list[str] = field(default_factory=list)
    """More settings of `robolearn train`, as key=value."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``key=value`` settings and ``--json``."""
    settings.add_arguments(parser, Options)


def main(args: argparse.Namespace) -> int:
    """The verb; the summary goes to standard output."""
    result = demo(settings.parse(Options, args.settings))
    if args.json:
        print(json_line(result))
        return 0
    print(f"tight success on held-out clips: {100 * result['headline']:.0f}%, {result['margin']:+.0f} points", end=" ")
    print("over the best baseline")
    for name in ("run", "video", "curves", "bundle", "seconds", "peak_memory_gb"):
        print(f"{name:<15} {result[name]}")
    return 0


def demo(options: Options) -> dict[str, Any]:
    """Run the demonstration.

    Returns:
        The evaluation, the files made, seconds it all took and the peak resident memory in GB.

    Raises:
        RobolearnError: training was interrupted, or anything its parts raise.
    """
    from robolearn.config import compose, to_train_config
    from robolearn.export import export_run
    from robolearn.train import train

    started = time.monotonic()
    overrides = [f"seed={options.seed}", *options.settings]
    overrides += [f"budget.minutes={options.minutes}"] if options.minutes is not None else []
    overrides += [f"run_dir={options.out}"] if options.out else []
    overrides += [f"experiment={options.experiment}"] if options.experiment else []
    trained = train(to_train_config(compose(overrides)))
    if trained is None or trained.outcome.signal is not None:
        raise RobolearnError("the demonstration was interrupted; see above how to continue the training")
    print("exporting", file=sys.stderr)
    bundle = export_run(trained.run)
    video = trained.run / "policy.mp4"
    return {
        **trained.evaluation,
        "run": str(trained.run),
        "env_steps": trained.outcome.env_steps,
        "startup_s": trained.startup_s,
        "video": str(video) if video.exists() else None,
        "curves": str(_existing(trained.run / "curves.png")),
        "bundle": str(bundle),
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2, 2),
    }


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None
