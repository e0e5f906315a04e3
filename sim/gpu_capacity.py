"""How many contacts, constraints and worlds a GPU has room for.

On the CPU buffers grow. On a GPU they are made once: a pool of ``nconmax`` contacts a world, shared by all worlds, and
``njmax`` constraint rows for each world by itself. What does not fit is left out of the simulation, so the sizes come
from a probe with a margin, and `overflow_text` says which one to raise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import mujoco
import numpy as np

from sim.gpu_device import GpuDevice
from sim.physics import PhysicsError

NCONMAX = 48
"""Contacts a world that MuJoCo Warp itself would allow for; a probe never gives less."""

NJMAX = 64
"""Constraint rows a world that MuJoCo Warp itself would allow for; a probe never gives less."""

_MARGIN = 1.5
_CONFIGURATIONS = 12
_STEPS = 20
_SCRATCH = 2.5


class CapacityError(PhysicsError):
    """Contacts or constraints did not fit in their buffers and were left out."""


class GpuMemoryError(PhysicsError):
    """So many worlds do not fit in the GPU's memory."""


@dataclasses.dataclass(frozen=True)
class Capacity:
    """Sizes of an engine's buffers.

    Attributes:
        nconmax: contacts a world, pooled over all worlds; candidate pairs of geoms count as well.
        njmax: constraint rows of each world.
    """

    nconmax: int
    njmax: int


def probe(model: mujoco.MjModel, pairs: np.ndarray, seed: int = 0) -> Capacity:
    """Sizes that the model needs, from a short simulation on the CPU.

    From the default state, every keyframe and random joint positions within their limits, it steps under random
    controls and takes the most contacts, pairs of geoms whose bounding spheres touch, and constraint rows seen, and
    half as many again. Random positions put limbs into each other and into the floor: a policy at work needs less.

    Args:
        model: the compiled model.
        pairs: (P, 2) geoms that may collide.
        seed: of the random positions and controls.

    Returns:
        At least `NCONMAX` and `NJMAX`, in steps of a third or a half.
    """
    rng = np.random.default_rng(seed)
    contacts = rows = 0
    for data in _starts(model, rng):
        for _ in range(_STEPS):
            mujoco.mj_step(model, data)
            if not np.abs(data.qvel).max(initial=0.0) < 1e6:
                break  # apart at the seams: what it would touch says nothing
            contacts = max(contacts, data.ncon, _close_pairs(model, data, pairs))
            rows = max(rows, data.nefc)
            low, high = model.actuator_ctrlrange.T
            data.ctrl[:] = np.where(model.actuator_ctrllimited, rng.uniform(low, high), rng.normal(size=model.nu))
    return Capacity(max(NCONMAX, _rounded(_MARGIN * contacts)), max(NJMAX, _rounded(_MARGIN * rows)))


def overflow_text(flags: np.ndarray, capacity: Capacity, kinds: Any) -> str:
    """What did not fit, in how many worlds, and which setting to raise.

    Args:
        flags: (n,) bits of ``mujoco_warp.OverflowType`` that each world has met.
        capacity: the sizes in force.
        kinds: ``mujoco_warp.OverflowType``.

    Returns:
        One line; empty where nothing was left out. A solver that stopped at its limit of iterations left nothing out:
        that limit bounds the work of a step, on every engine. The CPU engine does not count it either.
    """
    worlds = len(flags)
    rows = int((flags & (kinds.NEFC | kinds.NJMAX_NNZ) != 0).sum())
    parts = []
    if (flags & (kinds.BROADPHASE | kinds.NARROWPHASE | kinds.CCD) != 0).any():
        pool = worlds * capacity.nconmax
        parts.append(
            f"contacts overflowed: {worlds} worlds had more than {pool} contacts or candidate pairs together in one "
            f"step, nconmax={capacity.nconmax} each; set world.nconmax={2 * capacity.nconmax}"
        )
    if rows:
        parts.append(
            f"constraints overflowed: {rows} of {worlds} worlds needed more than njmax={capacity.njmax} rows in one "
            f"step; set world.njmax={2 * capacity.njmax}"
        )
    fixed = {
        kinds.HFIELD: "a height field is too fine for the geoms that touch it: coarsen it",
        kinds.CONTACT_MATCH: "a contact sensor matched too many contacts: raise the model's <numeric> "
        "contact_sensor_maxmatch",
        kinds.TACTILE: "a tactile sensor touches too many geoms: fewer geoms",
        kinds.NVMAX: "more degrees of freedom were awake than allowed",
    }
    for kind, text in fixed.items():
        if count := int((flags & kind != 0).sum()):
            parts.append(f"{text} ({count} of {worlds} worlds)")
    return "; ".join(parts)


def bytes_per_world(device: GpuDevice, model: mujoco.MjModel, capacity: Capacity) -> float:
    """Memory that one world takes, from the arrays of one and of two worlds in the host's memory.

    A step's scratch is 2.5 times what the data keep (measured with the hand scene; the solver's matrices).
    """
    with device.wp.ScopedDevice("cpu"):
        one, two = (
            _array_bytes(device.wp, device.mjw.make_data(model, n, nconmax=capacity.nconmax, njmax=capacity.njmax))
            for n in (1, 2)
        )
    return (two - one) * (1.0 + _SCRATCH)


def memory_text(worlds: int, per_world: float, free: float, device_name: str) -> str:
    """One line for a GPU that has no room: the worlds asked for, what they take, and about how many fit.

    Args:
        worlds: asked for.
        per_world: bytes each.
        free: bytes free before they were made.
        device_name: the GPU.
    """
    fit = int(0.9 * free / per_world)
    return (
        f"{worlds} worlds do not fit in the memory of {device_name}: they take about "
        f"{worlds * per_world / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; about {_leading(fit)} fit: "
        "lower num_envs"
    )


def _starts(model: mujoco.MjModel, rng: np.random.Generator) -> Iterator[mujoco.MjData]:
    """Data at the default state, at keyframes, and at random joint positions."""
    for key in range(-1, model.nkey):
        data = mujoco.MjData(model)
        if key >= 0:
            mujoco.mj_resetDataKeyframe(model, data, key)
        yield data
    slides = np.isin(model.jnt_type, [mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE])
    adr = model.jnt_qposadr[slides]
    limited = model.jnt_limited[slides].astype(bool)
    low, high = model.jnt_range[slides].T
    for _ in range(_CONFIGURATIONS if len(adr) else 0):
        data = mujoco.MjData(model)
        around = data.qpos[adr] + rng.uniform(-0.5, 0.5, len(adr))
        data.qpos[adr] = np.where(limited, rng.uniform(np.minimum(low, high), high), around)
        yield data


def _close_pairs(model: mujoco.MjModel, data: mujoco.MjData, pairs: np.ndarray) -> int:
    """How many pairs of geoms have touching bounding spheres; a plane is everything below it."""
    first, second = pairs.T
    reach = model.geom_margin + model.geom_gap
    radius = model.geom_rbound
    apart = np.linalg.norm(data.geom_xpos[first] - data.geom_xpos[second], axis=1)
    for plane, other in ((first, second), (second, first)):
        above = np.einsum("ij,ij->i", data.geom_xpos[other] - data.geom_xpos[plane], data.geom_xmat[plane][:, 2::3])
        apart = np.where(radius[plane] == 0.0, above, apart)
    return int((apart <= radius[first] + radius[second] + reach[first] + reach[second]).sum())


def _rounded(value: float) -> int:
    """The next of 16, 24, 32, 48, 64, 96 ...: kernels are compiled for a size, so that few sizes are few kernels."""
    size = 16
    while size < value:
        size += size // 2 if size & (size - 1) == 0 else size // 3
    return size


def _leading(value: int) -> str:
    """A number to two leading digits."""
    digits = max(0, len(str(value)) - 2)
    return str(value // 10**digits * 10**digits)


def _array_bytes(wp: Any, part: Any) -> int:
    if isinstance(part, wp.array):
        return int(part.capacity) if part.size else 0
    if dataclasses.is_dataclass(part):
        return sum(_array_bytes(wp, getattr(part, field.name)) for field in dataclasses.fields(part))
    return 0
