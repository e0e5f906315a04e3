"""`robolearn export`: a run's policy as a bundle that a robot loads."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robolearn import settings
from robolearn.files import json_line
from robolearn.settings import MISSING

SUMMARY = "write a run's policy as a bundle (ONNX + LEAPP YAML) for a robot"


@dataclass
class Options:
    """Settings of `robolearn export`."""

    run: str = MISSING
    """The run's folder."""
    checkpoint: str = "last"
    """last, best, or an iteration."""
    out: str = ""
    """The bundle's folder; default: bundle in the run's folder."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``key=value`` settings and ``--json``."""
    settings.add_arguments(parser, Options)


def main(args: argparse.Namespace) -> int:
    """The verb: writes the bundle and prints its path."""
    options = settings.parse(Options, args.settings)
    path = export_run(options.run, Path(options.out) if options.out else None, options.checkpoint)
    print(json_line({"bundle": str(path)}) if args.json else path)
    return 0


def export_run(run: str | Path, out: Path | None = None, checkpoint: str = "last") -> Path:
    """Export a run's policy; the bundle is proven equal to the policy before it appears.

    Raises:
        RobolearnError: no such run or checkpoint, or a folder that cannot be written.
    """
    from robolearn.bundle import export
    from robolearn.policy_graph import PolicyGraph, sample_inputs
    from robolearn.trained import Trained
    from sim.engines import Engine

    trained = Trained.load(run, checkpoint, Engine("cpu", threads=1))
    env = trained.env(num_envs=1)
    graph = PolicyGraph(env, trained.learner.policy_module())
    return export(
        graph,
        graph.contract,
        out or trained.run.path / "bundle",
        mjcf=env.task.robot_mjcf,
        provenance=_provenance(trained),
        samples=sample_inputs(env),
    )


def _provenance(trained: Any) -> dict[str, Any]:
    rows = trained.run.metrics()
    latest = {name: value for name, value in rows[-1].items() if isinstance(value, float)} if rows else {}
    return {
        "task": trained.config.task["name"],
        "seed": trained.config.seed,
        "checkpoint": trained.checkpoint,
        "commit": str(trained.run.versions[-1].get("commit") or ""),
        "metrics": latest,
    }
