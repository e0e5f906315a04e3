"""Bare engines for a benchmark: an environment's models and states, stepped under given controls and nothing else."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any, Protocol

import mujoco
import torch
from mujoco.batch import Batch

from sim.env import Env

Controls = Sequence[Sequence[torch.Tensor]]
"""For each control step and shard, (n, nu)."""


class Raw(Protocol):
    """A bare engine."""

    def run(self, controls: Controls) -> float:
        """Seconds for one control step for each row of ``controls``."""


class RawBatch:
    """`mujoco.batch.Batch`, one for each of the environment's models, randomised fields included."""

    def __init__(self, env: Env, threads: int) -> None:
        self._decimation = env.task.decimation
        self._batches = []
        for shard in env.world.shards:
            state = shard.physics.state_dict()
            batch = Batch(shard.physics.model, shard.physics.nworld, threads)
            for name, values in state["expanded"].items():
                batch.expand(name)[...] = values.numpy()
            if state["expanded"]:
                batch.set_const()
            batch.state[...] = state["state"].numpy()
            self._batches.append(batch)

    def run(self, controls: Controls) -> float:
        rows = [[control.numpy() for control in row] for row in controls]
        start = time.perf_counter()
        for row in rows:
            for batch, control in zip(self._batches, row, strict=True):
                batch.ctrl = control
                batch.step(nstep=self._decimation)
        return time.perf_counter() - start


class RawWarp:
    """MuJoCo Warp by itself: for each model a captured graph of the physics steps of one control step, replayed.

    Physical properties are the model's own for all worlds, which is the quickest case. Buffers are as large as the
    environment's.
    """

    def __init__(self, env: Env) -> None:
        import mujoco_warp as mjw
        import warp as wp

        self._wp, self._device = wp, env.device
        self._parts: list[tuple[Any, Any, Any]] = []  # a graph lives as long as its arrays
        for shard in env.world.shards:
            physics: Any = shard.physics
            plain = copy.copy(physics.model)
            plain.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)  # unknown to Warp
            sizes = physics.capacity
            with wp.ScopedDevice(str(env.device)):
                model = mjw.put_model(plain)
                data = mjw.make_data(plain, physics.nworld, nconmax=sizes.nconmax, njmax=sizes.njmax)
                for name in ("qpos", "qvel", "ctrl"):
                    wp.to_torch(getattr(data, name)).copy_(physics.bind(name))
                synchronize(env.device)
                mjw.step(model, data)  # compiles
                with wp.ScopedCapture() as capture:
                    for _ in range(env.task.decimation):
                        mjw.step(model, data)
            self._parts.append((capture.graph, model, data))

    def run(self, controls: Controls) -> float:
        synchronize(self._device)
        start = time.perf_counter()
        for row in controls:
            for (graph, _, data), control in zip(self._parts, row, strict=True):
                self._wp.to_torch(data.ctrl).copy_(control)
                self._launch(graph)
        synchronize(self._device)
        return time.perf_counter() - start

    def _launch(self, graph: Any) -> None:
        if self._device.type == "cuda":
            self._wp.capture_launch(graph, stream=self._wp.stream_from_torch(self._device))
        else:
            self._wp.capture_launch(graph)


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; nothing to wait for on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
