"""Speed of the learner on the device at hand: eager, as CUDA graphs, compiled, in bfloat16; no physics.

    python benchmarks/learner.py                                   # the GPU if there is one, else the CPU
    python benchmarks/learner.py --device cpu --variants eager bf16 --seconds 10
    python benchmarks/learner.py --num-envs 16384 --hidden 512 256 128

The worlds are point masses in torch on the same device. Variants take turns, iteration by iteration, so that all meet
the same load of the machine; figures are medians. The last line is one JSON object, with ratios against the first
variant. An idle machine is needed for more than one thread: threads that wait for each other multiply any load.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from policies.ppo import PPO, PPOConfig
from policies.toy import PointMass
from robolearn.files import json_line
from robolearn.versions import versions

VARIANTS: dict[str, dict[str, Any]] = {
    "eager": {"cuda_graph": False},
    "graph": {"cuda_graph": True},
    "compile": {"cuda_graph": False, "compile": "default"},
    "compile+graph": {"cuda_graph": True, "compile": "default"},
    "max+graph": {"cuda_graph": True, "compile": "max"},
    "bf16": {"cuda_graph": False, "precision": "bf16"},
    "bf16+graph": {"cuda_graph": True, "precision": "bf16"},
    "bf16+compile+graph": {"cuda_graph": True, "precision": "bf16", "compile": "default"},
}
ON_CPU = ("eager", "compile", "bf16")
HALVES = ("collect", "learn")
WARM_UP = 2
"""Iterations in which things are compiled and captured."""


@dataclass
class Racer:
    """One variant: its learner, its worlds, and the seconds of its iterations."""

    ppo: PPO
    env: PointMass
    first_s: float = 0.0
    seconds: dict[str, list[float]] = field(default_factory=lambda: {half: [] for half in HALVES})

    def iterate(self) -> None:
        """One rollout and one update; both end when the device is done."""
        metrics = self.ppo.iterate(self.env)
        for half in HALVES:
            self.seconds[half].append(metrics[f"time/{half}"])

    def warm_up(self) -> None:
        """Compile and capture; the first iteration's seconds are kept apart."""
        start = time.perf_counter()
        self.ppo.iterate(self.env)
        self.first_s = time.perf_counter() - start
        for _ in range(WARM_UP - 1):
            self.ppo.iterate(self.env)


def race(names: Sequence[str], device: str, num_envs: int, config: dict[str, Any], seconds: float) -> dict[str, Racer]:
    """Let the variants take turns until ``seconds`` are over, at least three times each."""
    start = time.perf_counter()
    racers = {}
    for name in names:
        env = PointMass(num_envs, axes=22, seed=1, device=device)
        chosen = PPOConfig(**{**config, **VARIANTS[name]})
        racers[name] = Racer(PPO(env.observation_dims, env.num_actions, num_envs, chosen, seed=1, device=device), env)
        print(f"warming up: {name}", file=sys.stderr)
        racers[name].warm_up()
    rounds = 0
    while rounds < 3 or time.perf_counter() - start < seconds:
        for name in names if rounds % 2 == 0 else reversed(names):
            racers[name].iterate()
        rounds += 1
    return racers


def summary(racers: dict[str, Racer], samples: int) -> dict[str, dict[str, float]]:
    """Samples per second of each variant, and ratios against the first."""
    rows: dict[str, dict[str, float]] = {}
    for name, racer in racers.items():
        both = [sum(pair) for pair in zip(*racer.seconds.values(), strict=True)]
        row = {f"{half}_samples_per_s": samples / statistics.median(racer.seconds[half]) for half in HALVES}
        rows[name] = row | {"samples_per_s": samples / statistics.median(both), "first_iteration_s": racer.first_s}
        for speed in ("collect_samples_per_s", "learn_samples_per_s", "samples_per_s"):
            rows[name][speed.replace("samples_per_s", "ratio")] = rows[name][speed] / next(iter(rows.values()))[speed]
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; see ``--help``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="default: all that the device has")
    parser.add_argument("--num-envs", type=int, default=4096 if on_gpu else 256)
    parser.add_argument("--network", default="mlp", help="mlp or gru")
    parser.add_argument("--hidden", type=int, nargs="+", default=list(PPOConfig.hidden))
    parser.add_argument("--num-steps", type=int, default=PPOConfig.num_steps)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch on a CPU")
    parser.add_argument("--seconds", type=float, default=50.0, help="about how long to run, compiling included")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    names = args.variants or (list(VARIANTS) if args.device.startswith("cuda") else list(ON_CPU))
    config = {"hidden": args.hidden, "num_steps": args.num_steps, "network": args.network}
    racers = race(names, args.device, args.num_envs, config, args.seconds)
    rows = summary(racers, args.num_envs * args.num_steps)
    print(f"{'':>20} {'collect /s':>12} {'learn /s':>12} {'ratio':>7} {'both /s':>12} {'ratio':>7}", file=sys.stderr)
    for name, row in rows.items():
        collect, learn = row["collect_samples_per_s"], row["learn_samples_per_s"]
        line = f"{name:>20} {collect:>12.0f} {learn:>12.0f} {row['learn_ratio']:>7.2f}"
        print(f"{line} {row['samples_per_s']:>12.0f} {row['ratio']:>7.2f}", file=sys.stderr)
    result = {"benchmark": "learner", "device": _device_name(args.device), "threads": torch.get_num_threads()}
    print(json_line({**result, "num_envs": args.num_envs, **config, "variants": rows, "versions": versions()}))
    return 0


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


if __name__ == "__main__":
    sys.exit(main())
