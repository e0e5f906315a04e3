"""Every benchmark, one after the other."""

from __future__ import annotations

import sys
from pathlib import Path

from robolearn.bench import measure, show
from robolearn.errors import RobolearnError
from sim.engines import Engine

Benchmark = tuple[str, list[str]]

SCALING = (256, 512, 1024, 2048, 4096, 8192, 16384)
"""Numbers of worlds on a GPU."""


def bench_all(world: str = "auto", quick: bool = False, out: Path | None = None, as_json: bool = False) -> int:
    """Run `plan`; what fails is said, and the rest goes on.

    Returns:
        0, or 1 where something failed.
    """
    failed = 0
    for benchmark, words in plan(Engine(world).resolved().name, quick):
        command = " ".join(["robolearn bench", benchmark, *words])
        print(command, file=sys.stderr)
        try:
            show(benchmark, {**measure(benchmark, words), "command": command}, out, as_json)
        except RobolearnError as error:
            print(f"{command}: {error}", file=sys.stderr)
            failed += 1
    return int(failed > 0)


def plan(engine: str, quick: bool = False) -> list[Benchmark]:
    """Benchmarks and their settings, stepping alone before whole trainings."""
    if quick:
        small = ["num_envs=8", "steps=2", "repeats=1", "workers=0", f"world={engine}"]
        few = ["num_envs=8", "iterations=1", "warm_up=1", "algo.num_steps=4", f"world={engine}"]
        pictures = ["num_envs=2", "seconds=0.1", "repeats=1", f"world={engine}"]
        return [("sim", small), ("cameras", pictures), ("learn", few)]
    sizes: list[Benchmark]
    cameras: list[Benchmark]
    learning: list[Benchmark]
    if engine == "cpu":
        sizes = [("sim", [f"task={task}", f"num_envs={n}"]) for task in ("dex_track", "g1_walk") for n in (512, 2048)]
        cameras = [("cameras", ["num_envs=64"]), ("cameras", ["num_envs=64", "cameras=[front]"])]
        learning = [("learn", [f"task={task}"]) for task in ("dex_track", "g1_walk")]
        return [*sizes, *cameras, *learning, ("start", [])]
    one_object: dict[str, list[str]] = {"dex_track": ["settings.motions.objects=[cube]"], "g1_walk": []}
    sizes = [
        ("sim", [f"task={task}", "world=gpu", f"num_envs={n}", "workers=0", *one_object[task]])
        for task in one_object
        for n in SCALING
    ]
    mixed: list[Benchmark] = [("sim", ["world=gpu", f"num_envs={n}", "workers=0"]) for n in (4096, 8192)]
    cameras = [("cameras", ["world=gpu", "num_envs=1024", "cameras=[front]"])]
    learning = [("learn", [f"task={task}", "world=gpu", "num_envs=4096"]) for task in one_object]
    return [*sizes, *mixed, *cameras, *learning, ("start", ["world=gpu", "num_envs=4096", "cold=true"])]
