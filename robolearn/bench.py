"""`robolearn bench`: speed figures as ratios measured in one run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any

from robolearn import settings
from robolearn.errors import RobolearnError, unknown
from robolearn.files import json_line

SUMMARY = "measure speed: bench sim, bench cameras"


@dataclass
class SimOptions:
    """Settings of `robolearn bench sim`."""

    task: str = "dex_track"
    """The task whose environment is measured."""
    num_envs: int = 512
    """Worlds of the environment and of the bare engine."""
    steps: int = 60
    """Control steps of one measurement."""
    repeats: int = 5
    """Measurements of each contestant, alternating."""
    workers: int = 4
    """Processes of gymnasium's AsyncVectorEnv; 0 leaves it out."""
    threads: int = 0
    """Threads of the engine; 0 uses every core."""


@dataclass
class CameraOptions:
    """Settings of `robolearn bench cameras`."""

    task: str = "dex_track"
    """The task whose cameras are measured."""
    num_envs: int = 64
    """Worlds."""
    height: int = 64
    """Of a picture, pixels."""
    width: int = 64
    """Of a picture, pixels."""
    seconds: float = 3.0
    """Of rendering by each contestant."""
    cameras: list[str] = field(default_factory=lambda: ["front", "wrist"])
    """The cameras, [front,wrist] unless given."""
    depth: bool = False
    """Make depth pictures as well."""
    segmentation: bool = False
    """Make segmentations as well."""
    threads: int = 0
    """Threads to draw on; 0 uses every core."""
    repeats: int = 5
    """Measurements of each contestant, alternating."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's name, ``key=value`` settings and ``--json``."""
    parser.add_argument("benchmark", help=f"one of: {', '.join(BENCHMARKS)}")
    settings.add_arguments(parser, SimOptions)
    parser.epilog = "\n\n".join(
        f"settings of bench {name}:\n{settings.describe(options)}" for name, (options, _) in BENCHMARKS.items()
    )


def main(args: argparse.Namespace) -> int:
    """The verb: a small table on standard output, or JSON."""
    if args.benchmark not in BENCHMARKS:
        raise RobolearnError(unknown("benchmark", args.benchmark, BENCHMARKS))
    from robolearn.versions import versions

    options_class, show = BENCHMARKS[args.benchmark]
    options: Any = settings.parse(options_class, args.settings)
    name = f"bench_{args.benchmark}"
    measure = getattr(import_module(f"robolearn.{name}"), name)
    result = measure(**asdict(options), progress=lambda text: print(text, file=sys.stderr))
    if args.json:
        print(json_line({**result, "versions": versions()}))
    else:
        show(result)
    return 0


def _print_sim(result: dict[str, Any]) -> None:
    print(f"{result['task']}: {result['num_envs']} worlds in {result['shards']} shards, medians of env-steps/s")
    print(f"  environment               {result['env_steps_per_s']:>9.0f}")
    print(f"  bare mujoco.batch         {result['raw_steps_per_s']:>9.0f}   environment: {result['env/raw']:.2f} of it")
    if "env/async" in result:
        name = f"AsyncVectorEnv, {result['async_workers']} workers"
        print(f"  {name:<25} {result['async_steps_per_s']:>9.0f}   environment: {result['env/async']:.1f} times")


def _print_cameras(result: dict[str, Any]) -> None:
    kinds = ", ".join(["RGB", *(kind for kind in ("depth", "segmentation") if result[kind])])
    size = f"{result['height']}x{result['width']} {kinds}"
    print(f"{result['task']}: {result['num_envs']} worlds in {result['shards']} shards, {size}, medians of pictures/s")
    print(
        f"  all worlds                {result['batch_pictures_per_s']:>9.0f}   cameras: {' '.join(result['cameras'])}"
    )
    print(f"  every eighth world        {result['masked_pictures_per_s']:>9.0f}")
    ratio = result["batch/renderer"]
    print(f"  mujoco.Renderer, RGB      {result['renderer_pictures_per_s']:>9.0f}   in batch: {ratio:.1f} times")


BENCHMARKS: dict[str, tuple[type, Callable[[dict[str, Any]], None]]] = {
    "sim": (SimOptions, _print_sim),
    "cameras": (CameraOptions, _print_cameras),
}
"""Benchmark → its settings, and what prints its result; ``robolearn.bench_<name>.bench_<name>`` measures."""
