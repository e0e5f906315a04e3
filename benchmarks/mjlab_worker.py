"""Runs under mjlab's own Python, not under this project's: speed of mjlab's environment and of its training.

Prints one JSON object as the last line. `benchmarks/mjlab_peer.py` starts it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from mjlab.envs import ManagerBasedRlEnv
from mjlab.rl import MjlabOnPolicyRunner, RslRlVecEnvWrapper
from mjlab.tasks.registry import load_env_cfg, load_rl_cfg, load_runner_cls


def main() -> None:
    """Measure stepping alone, then whole training iterations."""
    args = _arguments()
    start = time.perf_counter()
    settings = load_env_cfg(args.task)
    settings.scene.num_envs = args.num_envs
    env = RslRlVecEnvWrapper(ManagerBasedRlEnv(cfg=settings, device=args.device))
    made = time.perf_counter() - start
    action = torch.zeros(args.num_envs, env.num_actions, device=args.device)
    steps = [_seconds(lambda: _step(env, action, args.steps), args.device) for _ in range(args.repeats + 1)]
    agent = load_rl_cfg(args.task)
    agent.logger = "tensorboard"
    with tempfile.TemporaryDirectory() as folder:
        runner_class = load_runner_cls(args.task) or MjlabOnPolicyRunner
        runner = runner_class(env, asdict(agent), folder, args.device)
        runner.learn(num_learning_iterations=args.warm_up, init_at_random_ep_len=True)
        seconds = _seconds(lambda: runner.learn(num_learning_iterations=args.iterations), args.device)
    samples = agent.num_steps_per_env * args.num_envs
    print(
        json.dumps(
            {
                "make_s": made,
                "env_steps_per_s": args.num_envs * args.steps / sorted(steps[1:])[len(steps[1:]) // 2],
                "samples_per_s": samples * args.iterations / seconds,
                "num_steps": agent.num_steps_per_env,
                "versions": {name: version(name) for name in ("mjlab", "mujoco", "mujoco-warp", "torch", "rsl-rl-lib")},
            }
        )
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="Mjlab-Velocity-Flat-Unitree-G1")
    parser.add_argument("--device", default="cuda:0")
    for name, default in (("num-envs", 4096), ("steps", 60), ("repeats", 3), ("warm-up", 3), ("iterations", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


@torch.inference_mode()
def _step(env: Any, action: torch.Tensor, steps: int) -> None:
    for _ in range(steps):
        env.step(action)


def _seconds(work: Any, device: str) -> float:
    start = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
