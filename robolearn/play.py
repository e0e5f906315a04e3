"""`robolearn play`: a film of a run's policy, beside the reference that it follows where there is one."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robolearn import settings
from robolearn.files import json_line
from robolearn.settings import MISSING

if TYPE_CHECKING:
    from robolearn.runs import Run

SUMMARY = "film a run's policy, beside its reference if it follows one (mp4)"


@dataclass
class Options:
    """Settings of `robolearn play`."""

    run: str = MISSING
    """The run's folder."""
    checkpoint: str = "last"
    """last, best, or an iteration."""
    split: str = "heldout"
    """Clips or commands to show: heldout, train, or heldout_objects of a task with objects."""
    worlds: int = 4
    """How many episodes to show."""
    out: str = ""
    """The mp4; default: policy.mp4 in the run's folder."""
    seed: int = 1000
    """Of the randomisation that the worlds draw."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``key=value`` settings and ``--json``."""
    settings.add_arguments(parser, Options)


def main(args: argparse.Namespace) -> int:
    """The verb: writes the film and prints its path."""
    options = settings.parse(Options, args.settings)
    path = film(options, Path(options.out) if options.out else Path(options.run) / "policy.mp4")
    print(json_line({"video": str(path)}) if args.json else path)
    return 0


def film(options: Options, out: Path) -> Path:
    """Write the film that ``options`` describe to ``out``.

    Raises:
        RobolearnError: no such run or checkpoint, no way to render, or a file that cannot be written.
    """
    from robolearn import films
    from robolearn.trained import Trained

    trained = Trained.load(options.run, options.checkpoint)
    env = trained.env(options.split, seed=options.seed, sensor_noise=False)
    return films.film(env, trained.controller(), out, worlds=options.worlds)


def render_run(run: Run, out: Path) -> Path | None:
    """What follows a training: the film, or one line that says why there is none on this machine."""
    from sim.opengl import RenderError

    try:
        return film(Options(run=str(run.path)), out)
    except RenderError as error:
        print(f"no video: {error}", file=sys.stderr)
        return None
