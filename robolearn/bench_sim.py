"""Simulation speed: the environment against the bare engine on the same work, and against gymnasium's workers."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch

from robolearn.bench_raw import Raw, RawBatch, RawWarp, synchronize
from robolearn.errors import RobolearnError
from robolearn.threads import one_thread
from sim.engines import Engine
from sim.env import Env
from sim.tasks import make_env


class BenchError(RobolearnError):
    """A benchmark that cannot be run as asked."""


def bench_sim(
    task: str = "dex_track",
    num_envs: int = 512,
    steps: int = 60,
    repeats: int = 5,
    workers: int = 4,
    threads: int = 0,
    world: str = "auto",
    device: str = "cuda",
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure env-steps/s, alternating the contestants in one process so that a noisy machine hits them alike.

    * ``env``: `Env.step` with the baseline's action, resets and observations included.
    * ``raw``: the bare engine (`mujoco.batch.Batch.step`, or replayed graphs of MuJoCo Warp) on the same models, from
      the same states, under the very controls that the environment sent; nothing is read, nothing is reset.
    * ``async``: the first model in ``workers`` processes under `gymnasium.vector.AsyncVectorEnv`, stepped as often.

    Args:
        task: name of the task.
        num_envs: worlds of the environment and of the bare engine.
        steps: control steps of one measurement.
        repeats: measurements of each contestant.
        workers: processes of ``AsyncVectorEnv``; 0 leaves it out.
        threads: threads of the CPU engine, 0 for every core.
        world: the engine: cpu, gpu, or auto.
        device: of the GPU engine.
        settings: the task's own settings.
        progress: told what is being done.

    Returns:
        Rates in env-steps/s and physics steps/s (medians), the ratios ``env/raw`` and ``env/async`` (medians of paired
        ratios), seconds to make the environment and to take its first step, and memory.

    Raises:
        BenchError: impossible numbers.
    """
    for name, value, least in (("num_envs", num_envs, 1), ("steps", steps, 1), ("repeats", repeats, 1)):
        if value < least:
            raise BenchError(f"bench sim: {name} must be at least {least}, got {value}")
    if workers < 0:
        raise BenchError(f"bench sim: workers must be at least 0, got {workers}")
    progress(f"making {num_envs} worlds of {task}")
    engine = Engine(world, threads, device).resolved()
    start = time.perf_counter()
    env = make_env(task, num_envs, seed=0, engine=engine, **(settings or {}))
    made = time.perf_counter()
    _run_env(env, 1)
    ready = time.perf_counter()
    _run_env(env, 99)  # past the start of the clips, into contacts; and warm
    decimation = env.task.decimation
    rates: dict[str, list[float]] = {"env": [], "raw": [], "async": []}
    pool = _AsyncWorkers(env, workers) if workers else None
    try:
        for k in range(repeats):
            progress(f"measurement {k + 1} of {repeats}")
            raw: Raw = RawBatch(env, threads) if engine.name == "cpu" else RawWarp(env)
            seconds, controls = _run_env(env, steps)
            rates["env"].append(num_envs * steps / seconds)
            rates["raw"].append(num_envs * steps / raw.run(controls))
            if pool is not None:
                rates["async"].append(workers * steps / pool.run(steps))
    finally:
        if pool is not None:
            pool.close()
    env.check()
    medians = {name: statistics.median(values) for name, values in rates.items() if values}
    result: dict[str, Any] = {
        "benchmark": "sim",
        "task": task,
        "world": engine.name,
        "num_envs": num_envs,
        "shards": len(env.world.shards),
        "decimation": decimation,
        "env_steps_per_s": medians["env"],
        "raw_steps_per_s": medians["raw"],
        "env/raw": _paired(rates["env"], rates["raw"]),
        "physics_steps_per_s": medians["env"] * decimation,
        "raw_physics_steps_per_s": medians["raw"] * decimation,
        "make_s": made - start,
        "first_step_s": ready - made,
        "memory_mb": memory_mb(env.device),
    }
    if pool is not None:
        result |= {"async_workers": workers, "async_steps_per_s": medians["async"]}
        result["env/async"] = _paired(rates["env"], rates["async"])
    return result


def memory_mb(device: torch.device) -> float:
    """Memory in use on a GPU, by everyone; on a CPU the most that this process has used."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return (total - free) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _paired(a: list[float], b: list[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


@one_thread()
@torch.inference_mode()
def _run_env(env: Env, steps: int) -> tuple[float, list[list[torch.Tensor]]]:
    """Seconds for ``steps`` control steps, and the controls sent to each shard at each of them.

    A GPU is waited for once, at the end; copying the controls, which is no part of the work, counts there as well.
    """
    action = torch.zeros(env.num_envs, env.num_actions, device=env.device)
    controls = []
    seconds = 0.0
    for k in range(steps):
        start = time.perf_counter()
        env.step(action)
        if k == steps - 1:
            synchronize(env.device)
        seconds += time.perf_counter() - start
        controls.append([shard.physics.bind("ctrl").clone() for shard in env.world.shards])
    return seconds, controls


class _MujocoEnv(gymnasium.Env):
    """One scene behind gymnasium's interface, as a worker of ``AsyncVectorEnv`` runs it."""

    def __init__(self, model: mujoco.MjModel, decimation: int, start: np.ndarray) -> None:
        self._model, self._data, self._decimation, self._start = model, mujoco.MjData(model), decimation, start
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (model.nq + model.nv,), np.float64)
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (model.nu,), np.float64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = self._start
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._data.ctrl[:] = action
        mujoco.mj_step(self._model, self._data, self._decimation)
        return self._observe(), 0.0, False, False, {}

    def _observe(self) -> np.ndarray:
        return np.concatenate([self._data.qpos, self._data.qvel])


class _AsyncWorkers:
    """The environment's first world in every worker, from where it is now and with the controls that it has now."""

    def __init__(self, env: Env, workers: int) -> None:
        physics, decimation = env.world.shards[0].physics, env.task.decimation
        start, control = (physics.bind(name)[0].double().cpu().numpy().copy() for name in ("qpos", "ctrl"))
        made = [lambda: _MujocoEnv(physics.model, decimation, start)] * workers
        self._env = gymnasium.vector.AsyncVectorEnv(made, context="fork")
        self._env.reset(seed=0)
        self._action = np.tile(control, (workers, 1))

    def run(self, steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            self._env.step(self._action)
        return time.perf_counter() - start

    def close(self) -> None:
        self._env.close()
