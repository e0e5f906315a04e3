"""`robolearn bench`: speed figures as ratios measured in one run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from robolearn import settings
from robolearn.errors import RobolearnError, unknown
from robolearn.files import json_line

SUMMARY = "measure speed: bench sim, cameras, learn, start, or all of them"


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
    """Threads of the CPU engine; 0 uses every core."""
    world: str = "auto"
    """The engine: cpu, gpu, or auto, which takes the GPU where there is one."""
    device: str = "cuda"
    """Device of the GPU engine."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The task's own settings, such as settings.motions.objects=[cube]."""


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
    world: str = "auto"
    """The engine: cpu, gpu, or auto, which takes the GPU where there is one."""
    device: str = "cuda"
    """Device of the GPU engine."""


@dataclass
class LearnOptions:
    """Settings of `robolearn bench learn`; all others are those of `robolearn train`."""

    iterations: int = 10
    """Training iterations that are measured."""
    warm_up: int = 3
    """Iterations before that."""


@dataclass
class StartOptions:
    """Settings of `robolearn bench start`; all others are those of `robolearn train`."""

    repeats: int = 3
    """How often a training is started."""
    cold: bool = False
    """Begin with a start that finds no compiled kernels."""


@dataclass
class AllOptions:
    """Settings of `robolearn bench all`."""

    world: str = "auto"
    """The engine: cpu, gpu, or auto, which takes the GPU where there is one."""
    quick: bool = False
    """Small sizes, to see that everything runs; the figures say nothing."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's name, ``key=value`` settings, ``--out`` and ``--json``."""
    options = {name: settings_of for name, (settings_of, _) in BENCHMARKS.items()} | {"all": AllOptions}
    parser.add_argument("benchmark", help=f"one of: {', '.join(options)}")
    parser.add_argument("--out", metavar="FILE", help="append each result to FILE, a JSON object a line")
    settings.add_arguments(parser, SimOptions)
    parser.epilog = "\n\n".join(
        f"settings of bench {name}:\n{settings.describe(settings_of)}" for name, settings_of in options.items()
    )


def main(args: argparse.Namespace) -> int:
    """The verb: a small table on standard output, or JSON; 1 where one of several benchmarks failed."""
    if args.benchmark not in (*BENCHMARKS, "all"):
        raise RobolearnError(unknown("benchmark", args.benchmark, (*BENCHMARKS, "all")))
    out = Path(args.out) if args.out else None
    if args.benchmark == "all":
        from robolearn.bench_all import bench_all

        return bench_all(**asdict(settings.parse(AllOptions, args.settings)), out=out, as_json=args.json)
    show(args.benchmark, measure(args.benchmark, args.settings), out, args.json)
    return 0


def measure(benchmark: str, words: Sequence[str]) -> dict[str, Any]:
    """The result of one benchmark under ``key=value`` settings, with the versions that it was made with."""
    from robolearn.versions import versions

    options_class = BENCHMARKS[benchmark][0]
    overrides: dict[str, Any] = {}
    if options_class in (LearnOptions, StartOptions):
        own = {item.name for item in fields(options_class)}
        overrides["overrides"] = [word for word in words if word.partition("=")[0] not in own]
        words = [word for word in words if word not in overrides["overrides"]]
    options: Any = settings.parse(options_class, words)
    name = f"bench_{benchmark}"
    run = getattr(import_module(f"robolearn.{name}"), name)
    result = run(**asdict(options), **overrides, progress=lambda text: print(text, file=sys.stderr))
    return {**result, "versions": versions()}


def show(benchmark: str, result: dict[str, Any], out: Path | None, as_json: bool) -> None:
    """Print a result, and keep it in ``out``."""
    if out is not None:
        try:
            with out.open("a") as file:
                file.write(json_line(result) + "\n")
        except OSError as error:
            raise RobolearnError(f"cannot write {out}: {error.strerror}") from error
    if as_json:
        print(json_line(result), flush=True)
    else:
        BENCHMARKS[benchmark][1](result)


def _print_sim(result: dict[str, Any]) -> None:
    where = f"{result['num_envs']} worlds in {result['shards']} shards on the {result['world']}"
    bare = "bare mujoco.batch" if result["world"] == "cpu" else "bare MuJoCo Warp"
    print(f"{result['task']}: {where}, medians of env-steps/s")
    print(f"  environment               {result['env_steps_per_s']:>9.0f}")
    print(f"  {bare:<25} {result['raw_steps_per_s']:>9.0f}   environment: {result['env/raw']:.2f} of it")
    if "env/async" in result:
        name = f"AsyncVectorEnv, {result['async_workers']} workers"
        print(f"  {name:<25} {result['async_steps_per_s']:>9.0f}   environment: {result['env/async']:.1f} times")
    made, first, memory = result["make_s"], result["first_step_s"], result["memory_mb"]
    print(f"  made in {made:.1f} s, first step {first:.2f} s, {memory:.0f} MB")


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


def _print_learn(result: dict[str, Any]) -> None:
    print(f"{result['task']}, {result['algo']}: {result['num_envs']} worlds on the {result['world']}, samples/s")
    for label, name in (("training", ""), ("collecting alone", "collect_"), ("learning alone", "learn_")):
        print(f"  {label:<25} {result[f'{name}samples_per_s']:>9.0f}")
    made, first, memory = result["make_s"], result["first_iteration_s"], result["memory_mb"]
    print(f"  made in {made:.1f} s, first iteration {first:.2f} s, {memory:.0f} MB")


def _print_start(result: dict[str, Any]) -> None:
    cold = "" if result["cold_s"] is None else f", {result['cold_s']:.1f} s without compiled kernels"
    print(f"to the first training step: {result['warm_s']:.1f} s{cold}; at most {result['memory_mb']:.0f} MB")


BENCHMARKS: dict[str, tuple[type, Callable[[dict[str, Any]], None]]] = {
    "sim": (SimOptions, _print_sim),
    "cameras": (CameraOptions, _print_cameras),
    "learn": (LearnOptions, _print_learn),
    "start": (StartOptions, _print_start),
}
"""Benchmark → its settings, and what prints its result; ``robolearn.bench_<name>.bench_<name>`` measures."""
