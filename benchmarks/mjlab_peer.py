"""The G1 walking with robolearn and with mjlab, on one machine in one run: stepping and training, as ratios.

mjlab pins another MuJoCo, so it lives in a virtual environment of its own:

    python -m venv .venv-mjlab && .venv-mjlab/bin/pip install mjlab==1.6.0
    python benchmarks/mjlab_peer.py --python .venv-mjlab/bin/python --num-envs 4096

Both train a G1 with 29 joints to follow velocities on a flat floor, with PPO, networks (512, 256, 128), 24 steps a
rollout, 5 epochs of 4 minibatches. Their tasks differ in terms and in the robot's geoms: this compares platforms, not
physics.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from robolearn.bench_learn import bench_learn
from robolearn.bench_sim import bench_sim
from robolearn.errors import RobolearnError
from robolearn.files import json_line
from robolearn.versions import versions

WORKER = Path(__file__).with_name("mjlab_worker.py")
NETWORKS = ["algo.hidden=[512,256,128]", "algo.num_steps=24", "algo.epochs=5", "algo.minibatches=4"]


def main() -> int:
    """Print one JSON line."""
    args = _arguments()
    try:
        result = compare(args)
    except RobolearnError as error:
        print(f"mjlab_peer: {error}", file=sys.stderr)
        return 2
    print(json_line(result))
    return 0


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Both platforms, one after the other."""
    numbers = {"num-envs": args.num_envs, "steps": args.steps, "iterations": args.iterations}
    theirs = _mjlab(args.python, args.device, numbers)
    world = "gpu" if args.device.startswith("cuda") else "cpu"
    mine = bench_sim("g1_walk", args.num_envs, args.steps, repeats=3, workers=0, world=world)
    overrides = ["task=g1_walk", f"num_envs={args.num_envs}", f"world={world}", *NETWORKS]
    learned = bench_learn(overrides, iterations=args.iterations)
    return {
        "benchmark": "mjlab",
        "device": args.device,
        "num_envs": args.num_envs,
        "env_steps_per_s": mine["env_steps_per_s"],
        "mjlab_env_steps_per_s": theirs["env_steps_per_s"],
        "env/mjlab": mine["env_steps_per_s"] / theirs["env_steps_per_s"],
        "samples_per_s": learned["samples_per_s"],
        "mjlab_samples_per_s": theirs["samples_per_s"],
        "samples/mjlab": learned["samples_per_s"] / theirs["samples_per_s"],
        "mjlab_versions": theirs["versions"],
        "versions": versions(),
    }


def _mjlab(python: str, device: str, numbers: dict[str, int]) -> dict[str, Any]:
    if not Path(python).exists():
        raise RobolearnError(f"no Python {python!r} with mjlab; see the head of benchmarks/mjlab_peer.py")
    options = [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
    done = subprocess.run([python, str(WORKER), "--device", device, *options], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RobolearnError(f"mjlab ended with status {done.returncode}: {last}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=".venv-mjlab/bin/python", help="the Python that has mjlab")
    parser.add_argument("--device", default="cuda:0", help="cuda:0, or cpu")
    for name, default in (("num-envs", 4096), ("steps", 60), ("iterations", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
