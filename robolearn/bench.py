"""`robolearn bench`: speed figures as ratios measured in one run."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from robolearn import settings
from robolearn.errors import RobolearnError, unknown
from robolearn.files import json_line

SUMMARY = "measure speed: bench sim"

BENCHMARKS = ("sim",)


@dataclass
class Options:
    """Settings of `robolearn bench`."""

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
    """Threads of the CPU engine; 0 uses every core."""
    world: str = "auto"
    """The engine: cpu, gpu, or auto, which takes the GPU where there is one."""
    device: str = "cuda"
    """Device of the GPU engine."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The task's own settings, such as settings.motions.objects=[cube]."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's name, ``key=value`` settings and ``--json``."""
    parser.add_argument("benchmark", help=f"one of: {', '.join(BENCHMARKS)}")
    settings.add_arguments(parser, Options)


def main(args: argparse.Namespace) -> int:
    """The verb: a small table on standard output, or JSON."""
    if args.benchmark not in BENCHMARKS:
        raise RobolearnError(unknown("benchmark", args.benchmark, BENCHMARKS))
    from robolearn.bench_sim import bench_sim
    from robolearn.versions import versions

    options = settings.parse(Options, args.settings)
    result = bench_sim(**asdict(options), progress=lambda text: print(text, file=sys.stderr))
    if args.json:
        print(json_line({**result, "versions": versions()}))
    else:
        _print(result)
    return 0


def _print(result: dict[str, Any]) -> None:
    print(f"{result['task']}: {result['num_envs']} worlds in {result['shards']} shards, medians of env-steps/s")
    print(f"  environment               {result['env_steps_per_s']:>9.0f}")
    print(f"  bare mujoco.batch         {result['raw_steps_per_s']:>9.0f}   environment: {result['env/raw']:.2f} of it")
    if "env/async" in result:
        name = f"AsyncVectorEnv, {result['async_workers']} workers"
        print(f"  {name:<25} {result['async_steps_per_s']:>9.0f}   environment: {result['env/async']:.1f} times")
