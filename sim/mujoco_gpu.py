"""MuJoCo on a GPU: MuJoCo Warp, all worlds of one model at once."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import mujoco
import numpy as np
import torch

from sim import gpu_fields
from sim.gpu_capacity import (
    Capacity,
    CapacityError,
    GpuMemoryError,
    bytes_per_world,
    memory_text,
    overflow_text,
    probe,
)
from sim.gpu_device import is_out_of_memory, open_device, put_model
from sim.gpu_graphs import Graphs
from sim.gpu_refresh import POSITION, Refresh
from sim.physics import PhysicsError, quiet_mujoco
from sim.selection import Selection

log = logging.getLogger(__name__)

T = TypeVar("T")

_HUGE = 1e10
_FAULTS = (
    "non-finite or huge control",
    "non-finite or huge position",
    "non-finite or huge velocity",
    "speed {speed:.3g} above {limit:g}",
)
_ENGINE = "mujoco_warp"


class MujocoGpu:
    """`sim.physics.Physics` over MuJoCo Warp.

    The loop over time steps is one captured graph, and nothing but `check`, `reasons` and `state_dict` waits for the
    device. Warp's CPU device gives the same numbers slowly: it is there for tests, `sim.mujoco_cpu.MujocoCpu` is the
    engine for a CPU.

    Numbers are float32, so that a state drifts from the CPU engine's by rounding, and by more once contacts differ.

    On Warp's CPU device equal states give equal results, bit for bit. On a GPU they do up to rounding alone, and two
    runs of one seed are two samples: MuJoCo Warp 3.17 gives contacts and constraint rows their places by atomic
    counters, and what would sort them in its option ``deterministic`` is not written yet. The rest of the option would
    cost speed and still not make a run repeat, so it is left off.

    Args:
        model: the compiled model; it is copied.
        nworld: number of worlds, at least 1.
        device: torch's name of a GPU, ``cuda:0``, or ``cpu``.
        max_speed: generalised speed (rad/s or m/s) above which a world counts as unusable.
        nconmax: contacts a world, pooled; None to probe (`sim.gpu_capacity.probe`).
        njmax: constraint rows of a world; None to probe.

    Attributes:
        warp_model, warp_data: MuJoCo Warp's own, for what reads them in place, such as its renderer.
        capacity: the sizes in force.

    Raises:
        PhysicsError: impossible numbers, something in the model that MuJoCo Warp lacks, or the extra [gpu] is missing.
        GpuNotAvailable: no such GPU here.
        GpuMemoryError: so many worlds do not fit on it.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        nworld: int,
        device: str = "cuda:0",
        max_speed: float = 500.0,
        nconmax: int | None = None,
        njmax: int | None = None,
    ) -> None:
        for name, value in (("number of worlds", nworld), ("nconmax", nconmax), ("njmax", njmax)):
            if value is not None and value < 1:
                raise PhysicsError(f"{name} must be at least 1, got {value}")
        quiet_mujoco()
        self.model = copy.copy(model)
        self.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        self.nworld = nworld
        self.max_speed = max_speed
        self._gpu = open_device(device)
        self.device = self._gpu.torch
        self._free_bytes = torch.cuda.mem_get_info(self.device)[0] if self._gpu.is_cuda else 0
        self.warp_model = put_model(self._gpu, model)
        self.capacity = self._make_capacity(nconmax, njmax)
        self.warp_data = self._within_memory(self._make_data)
        self._gpu.synchronize()  # torch may work on another stream than Warp
        self._host = mujoco.MjData(self.model)
        self._bound: dict[str, torch.Tensor] = {}
        self._expanded: dict[str, torch.Tensor] = {}
        self._shared: dict[str, torch.Tensor] = {}  # (1, ...) what the model has for the expanded fields
        fields = {name: self._tensor(name) for name in gpu_fields.STATE}
        self._watched = fields["qpos"], fields["qvel"], fields["ctrl"]
        self._state = {name: values for name, values in fields.items() if values.numel()}
        self._default = {name: values[:1].clone() for name, values in self._state.items()}
        self._overflow = self._gpu.wp.to_torch(self.warp_data.overflow)
        self._flags = {
            "overflow": self._overflow,
            "overflowed": torch.zeros_like(self._overflow),  # before resets, which clear the other
            "faults": torch.zeros(nworld, len(_FAULTS), dtype=torch.bool, device=self.device),
            "fastest": torch.zeros(nworld, device=self.device),
        }
        self._refresh = Refresh(self._gpu, self.model, self.warp_model, self.warp_data)
        self._graphs = Graphs(self._gpu)

    def bind(self, name: str) -> torch.Tensor:
        """Live (n, ...) tensor of an `mujoco.MjData` field, float32 where MuJoCo has float64."""
        if name not in self._bound:
            self._bound[name] = self._state[name] if name in self._state else self._tensor(name)
            if self._refresh.want(name):
                self._graphs.clear()
        return self._bound[name]

    def expand(self, name: str) -> torch.Tensor:
        if name not in self._expanded:
            self._graphs.clear()
            values = gpu_fields.batch_model_field(self._gpu, self.warp_model, self.model, name, self.nworld)
            self._expanded[name] = values
            self._shared[name] = values[:1].clone()
        return self._expanded[name]

    def set_const(self, select: Selection | None = None) -> None:
        """Re-derive the constants that follow from expanded masses, inertias or sizes.

        The first call makes them per-world, for several seconds.
        """
        names = gpu_fields.DERIVED + (gpu_fields.BOUNDS if "geom_size" in self._expanded else ())
        derived = [self.expand(name) for name in names]
        before = [values.clone() for values in derived]
        self._run("set_const", self._derive)
        if select is not None:
            for values, old in zip(derived, before, strict=True):
                new = select.take(values)
                values.copy_(old)
                select.write(values, new)

    def step(self, nstep: int, refresh: bool = True) -> None:
        self._run((nstep, refresh), lambda: self._steps(nstep, refresh))

    def forward(self, select: Selection | None = None) -> None:
        """Bring the bound fields up to date; of all worlds, since on a GPU that costs no more than some."""
        if not self._refresh.idle:
            self._run("forward", self._forward)

    def reset(self, select: Selection | None = None) -> None:
        select = Selection.all(self.nworld, self.device) if select is None else select
        for name, values in self._state.items():
            default = self._default[name]
            select.write(values, default.expand(len(select), *default.shape[1:]))
        for name in self._bound.keys() - self._state.keys() - POSITION:
            select.fill(self._bound[name], 0)  # a fault's remains: no refresh reaches them, only the next step
        self._flags["overflowed"] |= self._overflow
        for name in ("overflow", "faults", "fastest"):
            select.fill(self._flags[name], 0)

    def unusable(self) -> torch.Tensor:
        qpos, qvel, ctrl = (_largest(values) for values in self._watched)
        limits = ((ctrl, _HUGE), (qpos, _HUGE), (qvel, _HUGE), (qvel, self.max_speed))
        # written so that a NaN counts as beyond its limit
        self._flags["faults"] |= torch.stack([~(value < limit) for value, limit in limits], dim=1)
        torch.fmax(self._flags["fastest"], qvel, out=self._flags["fastest"])
        return self._flags["faults"].any(dim=1)

    def reasons(self, ids: np.ndarray) -> tuple[str, ...]:
        rows = torch.as_tensor(ids, dtype=torch.long, device=self.device)
        faults, fastest = self._flags["faults"][rows].tolist(), self._flags["fastest"][rows].tolist()
        return tuple(self._reason(found, speed) for found, speed in zip(faults, fastest, strict=True))

    def check(self) -> None:
        """See whether contacts or constraints were left out since the last call; the host waits for the device.

        Raises:
            CapacityError: some were, with the setting to raise.
        """
        kinds = self._gpu.mjw.OverflowType
        flags = (self._flags["overflowed"] | self._overflow).cpu().numpy()
        self._flags["overflowed"].zero_()
        self._overflow.zero_()
        if missed := int((flags & kinds.EPA_HORIZON != 0).sum()):
            log.warning("%d worlds: a penetration was too intricate to resolve, its contact was left out once", missed)
        if text := overflow_text(flags, self.capacity, kinds):
            raise CapacityError(text)

    def state_dict(self) -> dict[str, Any]:
        outputs = {name: values for name, values in self._bound.items() if name not in self._state}
        parts = {"state": self._state, "outputs": outputs, "expanded": self._expanded, "flags": self._flags}
        host = {part: {name: values.cpu().clone() for name, values in named.items()} for part, named in parts.items()}
        return {"engine": _ENGINE, **host}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state.get("engine") != _ENGINE:
            raise PhysicsError("saved physics state is not of the GPU engine")
        self._check_shapes(state["state"])
        for name in state["expanded"]:
            self.expand(name)
        for name, live in self._expanded.items():  # what the saved engine had not expanded is the model's again
            live.copy_(state["expanded"].get(name, self._shared[name]))
        for part, named in (("state", self._state), ("flags", self._flags)):
            for name, live in named.items():
                live.copy_(state[part][name])
        self.forward()
        for name, values in state["outputs"].items():  # what no refresh computes, such as a gyroscope's reading
            self.bind(name).copy_(values)

    def _check_shapes(self, saved: Mapping[str, torch.Tensor]) -> None:
        for name, values in self._state.items():
            shape = tuple(saved[name].shape) if name in saved else ()
            if shape != tuple(values.shape):
                raise PhysicsError(
                    f"saved physics state has {name} of shape {shape}, "
                    f"this model and number of worlds need {tuple(values.shape)}"
                )

    def _make_capacity(self, nconmax: int | None, njmax: int | None) -> Capacity:
        if nconmax is not None and njmax is not None:
            return Capacity(nconmax, njmax)
        found = probe(self.model, self.warp_model.nxn_geom_pair_filtered.numpy().reshape(-1, 2))
        return Capacity(nconmax or found.nconmax, njmax or found.njmax)

    def _make_data(self) -> Any:
        sizes = self.capacity
        with self._gpu.scope():
            return self._gpu.mjw.make_data(self.model, self.nworld, nconmax=sizes.nconmax, njmax=sizes.njmax)

    def _within_memory(self, work: Callable[[], T]) -> T:
        """Do something that allocates; where there is no room, say how many worlds there would be room for."""
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not self._gpu.is_cuda or not is_out_of_memory(error):
                raise
            per_world = bytes_per_world(self._gpu, self.model, self.capacity)
            name = torch.cuda.get_device_name(self.device)
            raise GpuMemoryError(memory_text(self.nworld, per_world, self._free_bytes, name)) from error

    def _run(self, key: Hashable, work: Callable[[], None]) -> None:
        self._within_memory(lambda: self._graphs.run(key, work))

    def _tensor(self, name: str) -> torch.Tensor:
        return gpu_fields.data_tensor(self._gpu, self.warp_data, self._host, name)

    def _steps(self, nstep: int, refresh: bool) -> None:
        self._refresh.place_static(self._expanded)
        for _ in range(nstep):
            self._gpu.mjw.step(self.warp_model, self.warp_data)
        if refresh:
            self._refresh()

    def _forward(self) -> None:
        self._refresh.place_static(self._expanded)
        self._refresh()

    def _derive(self) -> None:
        mjw, model = self._gpu.mjw, self.warp_model
        bounds = [(array, self._gpu.wp.clone(array)) for array in (getattr(model, name) for name in gpu_fields.BOUNDS)]
        mjw.set_const_fixed(model, self.warp_data)
        if "geom_size" not in self._expanded:
            for array, compiled in bounds:  # which Warp derives again all the same, with other rounding
                self._gpu.wp.copy(array, compiled)
        mjw.set_const_0(model, self.warp_data, restore=False)
        self._refresh()

    def _reason(self, faults: list[bool], fastest: float) -> str:
        """The first fault that was found."""
        for found, text in zip(faults, _FAULTS, strict=True):
            if found:
                return text.format(speed=fastest, limit=self.max_speed)
        return "nothing is wrong"


def _largest(values: torch.Tensor) -> torch.Tensor:
    """(n,) the largest magnitude in each row of (n, k); NaN where there is one."""
    return values.abs().amax(dim=1) if values.shape[1] else values.new_zeros(len(values))
