"""`robolearn play`: a film of a run's policy, beside the reference that it follows where there is one."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    randomize: dict[str, Any] = field(default_factory=dict)
    """randomize.<name>=[low,high] plays under other randomisation than the training's, null under none of it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``key=value`` settings and ``--json``."""
    settings.add_arguments(parser, Options)


def main(args: argparse.Namespace) -> int:
    """The verb: writes the film, and what was randomised in it; prints their paths."""
    options = settings.parse(Options, args.settings)
    path = film(options, Path(options.out) if options.out else Path(options.run) / "policy.mp4")
    drawn = draws_beside(path)
    if args.json:
        print(json_line({"video": str(path), "randomization": str(drawn) if drawn.exists() else None}))
    else:
        print(path, *([drawn] if drawn.exists() else []), sep="\n")
    return 0


def draws_beside(video: Path) -> Path:
    """Where the picture of what a film's worlds drew stands, if anything was randomised."""
    return video.with_name(f"{video.stem}.randomization.png")


def film(options: Options, out: Path) -> Path:
    """Write the film that ``options`` describe to ``out``, and `draws_beside` it.

    Raises:
        RobolearnError: no such run or checkpoint, no way to render, or a file that cannot be written.
    """
    from robolearn import films
    from robolearn.draws import plot_draws
    from robolearn.trained import Trained

    trained = Trained.load(options.run, options.checkpoint)
    randomize = {**trained.config.task.get("randomize", {}), **options.randomize}
    noisy = any(name.startswith("sensor_") for name, setting in options.randomize.items() if setting is not None)
    env = trained.env(options.split, seed=options.seed, sensor_noise=noisy, randomize=randomize)
    path = films.film(env, trained.controller(), out, worlds=options.worlds)
    draws_beside(out).unlink(missing_ok=True)
    plot_draws(env.task.randomizers.values(), draws_beside(out), title=f"{out.stem}: what {env.num_envs} worlds drew")
    return path


def render_run(run: Run, out: Path) -> Path | None:
    """What follows a training: the film, or one line that says why there is none on this machine."""
    from sim.opengl import RenderError

    try:
        return film(Options(run=str(run.path)), out)
    except RenderError as error:
        print(f"no video: {error}", file=sys.stderr)
        return None
