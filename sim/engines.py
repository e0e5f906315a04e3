"""Which engine steps the worlds, and on which device."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import mujoco
import torch

from robolearn.errors import RobolearnError, unknown
from sim.mujoco_cpu import MujocoCpu
from sim.physics import Physics, PhysicsError

log = logging.getLogger(__name__)

ENGINES = ("auto", "cpu", "gpu")


class EngineError(RobolearnError):
    """An engine that this machine cannot run, or a setting that it does not have."""


@dataclass(frozen=True)
class Engine:
    """A choice of engine; every shard of a world is made by the same one.

    Attributes:
        name: ``cpu`` (`mujoco.batch`), ``gpu`` (`mujoco_warp`), or ``auto``: the GPU where there is one.
        threads: of the CPU engine; 0 uses every core.
        device: of the GPU engine: ``cuda``, ``cuda:<number>``, or ``cpu``, Warp's slow but equal CPU device.
        nconmax: contacts for which the GPU engine has room, in each world on average; None: found by a probe.
        njmax: constraint rows for which the GPU engine has room in each world; None: found by a probe.
    """

    name: str = "cpu"
    threads: int = 0
    device: str = "cuda"
    nconmax: int | None = None
    njmax: int | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise EngineError(unknown("world", self.name, ENGINES))
        if self.threads < 0:
            raise EngineError(f"world.threads must be at least 0 (every core), got {self.threads}")
        for limit in ("nconmax", "njmax"):
            value = getattr(self, limit)
            if value is not None and value < 1:
                raise EngineError(f"world.{limit} must be at least 1, got {value}")

    def resolved(self) -> Engine:
        """The same with ``auto`` decided.

        Raises:
            PhysicsError: a GPU was asked for by name and cannot be used; what is missing is said.
        """
        if self.name == "cpu":
            return self
        if self.name == "gpu":
            from sim.gpu_device import open_device

            open_device(self.device)
            return self
        if not torch.cuda.is_available():
            return Engine("cpu", self.threads)
        from sim.gpu_device import open_device

        try:
            open_device(self.device)
        except PhysicsError as error:
            log.warning("a GPU is present but cannot be used, so the CPU steps the worlds: %s", error)
            return Engine("cpu", self.threads)
        return Engine("gpu", self.threads, self.device, self.nconmax, self.njmax)

    def physics(self, model: mujoco.MjModel, nworld: int) -> Physics:
        """``nworld`` worlds of one compiled model.

        Raises:
            PhysicsError: the engine cannot run here, or lacks a feature of the model.
        """
        chosen = self.resolved()
        if chosen.name == "cpu":
            return MujocoCpu(model, nworld, chosen.threads)
        from sim.mujoco_gpu import MujocoGpu

        return MujocoGpu(model, nworld, device=chosen.device, nconmax=chosen.nconmax, njmax=chosen.njmax)
