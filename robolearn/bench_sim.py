"""Simulation speed: the environment against the bare engine on the same work, and against gymnasium's workers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from mujoco.batch import Batch

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
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure env-steps/s, alternating the contestants in one process so that a noisy machine hits them alike.

    * ``env``: `Env.step` with the baseline's action, resets and observations included.
    * ``raw``: `mujoco.batch.Batch.step` of the same models, from the same states, under the very controls that the
      environment sent; nothing is read, nothing is reset.
    * ``async``: the first model in ``workers`` processes under `gymnasium.vector.AsyncVectorEnv`, stepped as often.

    Args:
        task: name of the task.
        num_envs: worlds of the environment and of the bare engine.
        steps: control steps of one measurement.
        repeats: measurements of each contestant.
        workers: processes of ``AsyncVectorEnv``; 0 leaves it out.
        threads: threads of the engine, 0 for every core.
        progress: told what is being done.

    Returns:
        Rates in env-steps/s (medians) and the ratios ``env/raw`` and ``env/async`` (medians of paired ratios).

    Raises:
        BenchError: impossible numbers.
    """
    for name, value, least in (("num_envs", num_envs, 1), ("steps", steps, 1), ("repeats", repeats, 1)):
        if value < least:
            raise BenchError(f"bench sim: {name} must be at least {least}, got {value}")
    if workers < 0:
        raise BenchError(f"bench sim: workers must be at least 0, got {workers}")
    progress(f"making {num_envs} worlds of {task}")
    env = make_env(task, num_envs, seed=0, engine=Engine(threads=threads))
    model = env.world.shards[0].physics.model
    decimation = env.task.decimation
    _run_env(env, 100)  # past the start of the clips, into contacts; and warm
    rates: dict[str, list[float]] = {"env": [], "raw": [], "async": []}
    pool = _AsyncWorkers(model, workers, decimation) if workers else None
    try:
        for k in range(repeats):
            progress(f"measurement {k + 1} of {repeats}")
            batches = _copies(env, threads)
            seconds, controls = _run_env(env, steps)
            rates["env"].append(num_envs * steps / seconds)
            rates["raw"].append(num_envs * steps / _run_raw(batches, controls, decimation))
            if pool is not None:
                rates["async"].append(workers * steps / pool.run(steps))
    finally:
        if pool is not None:
            pool.close()
    result: dict[str, Any] = {
        "benchmark": "sim",
        "task": task,
        "num_envs": num_envs,
        "shards": len(env.world.shards),
        "decimation": decimation,
        "env_steps_per_s": statistics.median(rates["env"]),
        "raw_steps_per_s": statistics.median(rates["raw"]),
        "env/raw": _paired(rates["env"], rates["raw"]),
    }
    if pool is not None:
        result |= {"async_workers": workers, "async_steps_per_s": statistics.median(rates["async"])}
        result["env/async"] = _paired(rates["env"], rates["async"])
    return result


def _paired(a: list[float], b: list[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


@one_thread()
@torch.inference_mode()
def _run_env(env: Env, steps: int) -> tuple[float, list[list[np.ndarray]]]:
    """Seconds for ``steps`` control steps, and the controls sent to each shard at each of them."""
    action = torch.zeros(env.num_envs, env.num_actions)
    controls = []
    seconds = 0.0
    for _ in range(steps):
        start = time.perf_counter()
        env.step(action)
        seconds += time.perf_counter() - start
        controls.append([shard.physics.bind("ctrl").numpy().copy() for shard in env.world.shards])
    return seconds, controls


def _copies(env: Env, threads: int) -> list[Batch]:
    """Bare batches of the environment's models in the environment's states, randomised fields included."""
    batches = []
    for shard in env.world.shards:
        state = shard.physics.state_dict()
        batch = Batch(shard.physics.model, shard.physics.nworld, threads)
        for name, values in state["expanded"].items():
            batch.expand(name)[...] = values.numpy()
        if state["expanded"]:
            batch.set_const()
        batch.state[...] = state["state"].numpy()
        batches.append(batch)
    return batches


def _run_raw(batches: list[Batch], controls: list[list[np.ndarray]], decimation: int) -> float:
    start = time.perf_counter()
    for row in controls:
        for batch, control in zip(batches, row, strict=True):
            batch.ctrl = control
            batch.step(nstep=decimation)
    return time.perf_counter() - start


class _MujocoEnv(gymnasium.Env):
    """One scene behind gymnasium's interface, as a worker of ``AsyncVectorEnv`` runs it."""

    def __init__(self, model: mujoco.MjModel, decimation: int) -> None:
        self._model, self._data, self._decimation = model, mujoco.MjData(model), decimation
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (model.nq + model.nv,), np.float64)
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (model.nu,), np.float64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[2] = 0.3  # the hand above the object
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._data.ctrl[:] = action
        mujoco.mj_step(self._model, self._data, self._decimation)
        return self._observe(), 0.0, False, False, {}

    def _observe(self) -> np.ndarray:
        return np.concatenate([self._data.qpos, self._data.qvel])


class _AsyncWorkers:
    def __init__(self, model: mujoco.MjModel, workers: int, decimation: int) -> None:
        self._env = gymnasium.vector.AsyncVectorEnv([lambda: _MujocoEnv(model, decimation)] * workers, context="fork")
        self._env.reset(seed=0)
        self._action = np.zeros((workers, model.nu))
        self._action[:, 2] = 0.3

    def run(self, steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            self._env.step(self._action)
        return time.perf_counter() - start

    def close(self) -> None:
        self._env.close()
