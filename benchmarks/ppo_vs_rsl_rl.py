"""Hold `policies.ppo.PPO` against rsl_rl's PPO: same task, networks, batch and seeds, both in one run.

The two learners take turns, iteration by iteration, so that both meet the same load of the machine. Speed is
the median over iterations; learning alone leaves the time inside the environment out. The final reward is the
mean per step over the last tenth of the iterations; at equal iterations both have seen equally many samples.
Differences that remain: initial weights (rsl_rl has no small last layer), time-outs (rsl_rl bootstraps with the
value of the observation before the last), and rsl_rl adapts its learning rate in an update's first minibatch too.

    python benchmarks/ppo_vs_rsl_rl.py --task point_mass --iterations 100 --seeds 1 2 3
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
from rsl_rl.algorithms import PPO as RslPPO
from rsl_rl.utils import check_nan
from tensordict import TensorDict

from policies.ppo import PPO, PPOConfig
from policies.rollout import EnvLike
from policies.toy import PointMass
from robolearn.threads import one_thread


def make_env(task: str, num_envs: int, seed: int) -> EnvLike:
    """A task of the platform by name, or ``point_mass``: 22 axes in torch, no simulator needed."""
    if task == "point_mass":
        return PointMass(num_envs, axes=22, seed=seed)
    from sim.tasks import make_env as make_task

    return make_task(task, num_envs=num_envs, seed=seed)


class TimedEnv:
    """Passes steps through, adding up the time inside the environment and the mean reward."""

    def __init__(self, env: EnvLike) -> None:
        self.env = env
        self.num_envs, self.num_actions = env.num_envs, env.num_actions
        self.observation_dims, self.device = env.observation_dims, env.device
        self.seconds = 0.0
        self.rewards: list[float] = []

    def reset(self) -> Mapping[str, torch.Tensor]:
        """Reset the environment."""
        return self.env.reset()

    def step(self, action: torch.Tensor) -> Any:
        """Step the environment and its clock."""
        start = time.perf_counter()
        with one_thread():  # for both learners alike: idle workers would spin on the engine's cores
            step = self.env.step(action)
        self.seconds += time.perf_counter() - start
        self.rewards.append(float(step.reward.mean()))
        return step

    def check(self) -> None:
        """Let the environment say what was wrong with a rollout."""
        self.env.check()


class Ours:
    """This project's learner."""

    name = "robolearn"

    def __init__(self, env: TimedEnv, config: PPOConfig, seed: int) -> None:
        self.env = env
        self.ppo = PPO(env.observation_dims, env.num_actions, env.num_envs, config, seed)

    def iterate(self) -> None:
        """One rollout and one update."""
        self.ppo.iterate(self.env)


class Theirs:
    """rsl_rl's learner, driven as its own runner drives it."""

    name = "rsl_rl"

    def __init__(self, env: TimedEnv, config: PPOConfig, seed: int) -> None:
        self.env, self.steps = env, config.num_steps
        torch.manual_seed(seed)
        self.obs = self._pack(env.reset())
        network: dict[str, Any] = {
            "class_name": "MLPModel",
            "hidden_dims": list(config.hidden),
            "activation": config.activation,
            "obs_normalization": True,
        }
        spread = {"class_name": "GaussianDistribution", "init_std": config.init_std, "std_type": "log"}
        algorithm = {
            "class_name": "PPO",
            "num_learning_epochs": config.epochs,
            "num_mini_batches": config.minibatches,
            "clip_param": config.clip,
            "gamma": config.gamma,
            "lam": config.lam,
            "value_loss_coef": config.value_coef,
            "use_clipped_value_loss": config.value_clip is not None,
            "entropy_coef": config.entropy_coef,
            "learning_rate": config.lr,
            "max_grad_norm": config.max_grad_norm,
            "desired_kl": config.desired_kl,
            "schedule": config.schedule,
        }
        settings = {
            "algorithm": algorithm,
            "actor": {**network, "distribution_cfg": spread},
            "critic": network,
            "obs_groups": {"actor": ["policy"], "critic": ["critic"]},
            "num_steps_per_env": self.steps,
            "multi_gpu": None,
        }
        with contextlib.redirect_stdout(io.StringIO()):
            self.alg = RslPPO.construct_algorithm(self.obs, env, settings, "cpu")
        self.alg.train_mode()

    def _pack(self, obs: Mapping[str, torch.Tensor]) -> TensorDict:
        return TensorDict({k: obs[k].clone() for k in ("policy", "critic")}, batch_size=[self.env.num_envs])

    def iterate(self) -> None:
        """One rollout and one update."""
        with torch.inference_mode():
            for _ in range(self.steps):
                action = self.alg.act(self.obs)
                # The environment keeps tensors between modes, which inference tensors do not survive.
                with torch.inference_mode(False), torch.no_grad():
                    step = self.env.step(action.clone())
                self.obs = self._pack(step.obs)
                done = step.terminated | step.truncated
                check_nan(self.obs, step.reward, done)
                timeout = step.truncated & ~step.terminated
                self.alg.process_env_step(self.obs, step.reward, done.long(), {"time_outs": timeout})
            self.alg.compute_returns(self.obs)
        self.alg.update()


def race(task: str, num_envs: int, iterations: int, seed: int, config: PPOConfig) -> list[dict[str, Any]]:
    """Train both on one seed, taking turns; one result per learner."""
    learners = [kind(TimedEnv(make_env(task, num_envs, seed)), config, seed) for kind in (Ours, Theirs)]
    total: dict[str, list[float]] = {learner.name: [] for learner in learners}
    learning: dict[str, list[float]] = {learner.name: [] for learner in learners}
    for i in range(iterations):
        for learner in learners if i % 2 == 0 else reversed(learners):
            inside = learner.env.seconds
            start = time.perf_counter()
            learner.iterate()
            seconds = time.perf_counter() - start
            total[learner.name].append(seconds)
            learning[learner.name].append(seconds - (learner.env.seconds - inside))
    batch = num_envs * config.num_steps
    results = []
    for learner in learners:
        tail = learner.env.rewards[-max(1, iterations // 10) * config.num_steps :]
        results.append(
            {
                "learner": learner.name,
                "seed": seed,
                "samples": batch * iterations,
                "samples_per_s": batch / statistics.median(total[learner.name]),
                "learning_samples_per_s": batch / statistics.median(learning[learner.name]),
                "return": statistics.fmean(tail),
                "first": statistics.fmean(learner.env.rewards[: config.num_steps]),
            }
        )
    return results


def report(results: Sequence[dict[str, Any]], out: Any) -> None:
    """Print the table and the ratios to ``out``."""
    columns = ("seed", "learner", "samples/s", "learning alone /s", "first reward", "final reward")
    print("{:>5} {:>10} {:>12} {:>18} {:>13} {:>13}".format(*columns), file=out)
    for r in results:
        speed, alone = r["samples_per_s"], r["learning_samples_per_s"]
        line = f"{r['seed']:>5} {r['learner']:>10} {speed:>12.0f} {alone:>18.0f}"
        print(f"{line} {r['first']:>13.4f} {r['return']:>13.4f}", file=out)
    for key, label in (("samples_per_s", "samples/s"), ("learning_samples_per_s", "learning alone")):
        print(f"ratio robolearn / rsl_rl, {label}: {ratio(results, key):.2f}", file=out)


def ratio(results: Sequence[dict[str, Any]], key: str) -> float:
    """Ours over theirs, median over seeds."""
    ours = [r[key] for r in results if r["learner"] == Ours.name]
    theirs = [r[key] for r in results if r["learner"] == Theirs.name]
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; see ``--help``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="dex_track", help="a task's name, or point_mass")
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--num-envs", type=int, default=512)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--init-std", type=float, default=PPOConfig.init_std)
    parser.add_argument("--json", action="store_true", help="one JSON object per line on stdout, table on stderr")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    config = PPOConfig(init_std=args.init_std)
    results = []
    for seed in args.seeds:
        results += race(args.task, args.num_envs, args.iterations, seed, config)
    summary = {
        "benchmark": "ppo_vs_rsl_rl",
        "task": args.task,
        "num_envs": args.num_envs,
        "iterations": args.iterations,
        "ratio_samples_per_s": ratio(results, "samples_per_s"),
        "ratio_learning": ratio(results, "learning_samples_per_s"),
        "threads": args.threads,
        "machine": f"{platform.machine()} {platform.processor() or ''}".strip(),
        "torch": torch.__version__,
        "rsl_rl": version("rsl-rl-lib"),
    }
    report(results, sys.stderr if args.json else sys.stdout)
    if args.json:
        for row in (*results, summary):
            print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
