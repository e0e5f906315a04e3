"""Fields of MuJoCo Warp as torch tensors, with MuJoCo's names and shapes.

Warp keeps vectors, quaternions and matrices as elements of arrays. Here every field has the shape that `mujoco.batch`
gives it on the CPU, so that channels and randomisers index both engines alike.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import mujoco
import numpy as np
import torch

from robolearn.errors import did_you_mean
from sim.gpu_device import GpuDevice
from sim.physics import PhysicsError

STATE = (
    "time",
    "qpos",
    "qvel",
    "act",
    "history",
    "qacc_warmstart",
    "ctrl",
    "qfrc_applied",
    "xfrc_applied",
    "eq_active",
    "mocap_pos",
    "mocap_quat",
    "userdata",
)
"""`mujoco.MjData` fields from which a simulation continues bit for bit."""

DERIVED = (
    "body_subtreemass",
    "body_invweight0",
    "dof_invweight0",
    "eq_data",
    "tendon_length0",
    "tendon_invweight0",
    "actuator_acc0",
    "cam_pos0",
    "cam_poscom0",
    "cam_mat0",
    "light_pos0",
    "light_poscom0",
    "light_dir0",
)
"""`mujoco.MjModel` fields that follow from masses, inertias and places."""

BOUNDS = ("geom_aabb", "geom_rbound", "geom_size")
"""`mujoco.MjModel` fields that follow from sizes."""

_FLAGS = {
    "tendon_stiffness": "has_tendon_stiffness",
    "tendon_stiffnesspoly": "has_tendon_stiffness",
    "tendon_damping": "has_tendon_damping",
    "tendon_dampingpoly": "has_tendon_damping",
    "actuator_gainprm": "has_efm_actuator",
    "actuator_biasprm": "has_efm_actuator",
    "opt.density": "has_fluid",
    "opt.viscosity": "has_fluid",
    "opt.wind": "has_fluid",
    "geom_adhesion": "flg_adhesion",
    "pair_adhesion": "flg_adhesion",
    "geom_surfacevel": "flg_surfacevel",
}
"""Field → the model's flag that lets a kernel skip it where it was zero when the model was made."""

_FOLDED = frozenset({"dof_damping", "dof_dampingpoly", "tendon_damping", "tendon_dampingpoly", "actuator_gear"})
_STRUCTURE = frozenset({"actuator_history", "actuator_historyadr", "sensor_history", "sensor_historyadr"})
_LAYOUT = frozenset({"qLD", "qLDiagInv", "qH", "qHDiagInv", "qLU", "solver_niter", "nisland", "nidof"})


def data_tensor(device: GpuDevice, data: Any, host: mujoco.MjData, name: str) -> torch.Tensor:
    """Tensor (n, ...) over a field of ``data``.

    Raises:
        PhysicsError: MuJoCo has no such field, or Warp keeps it in another form.
    """
    array = getattr(data, name, None)
    if not isinstance(array, device.wp.array) or not hasattr(host, name) or name in _LAYOUT:
        raise PhysicsError(f"cannot bind {name!r}: {_why_not_bound(device, host, name)}")
    shape = np.shape(getattr(host, name))
    if array.shape[:1] != (data.nworld,):
        raise PhysicsError(f"cannot bind {name!r}: MuJoCo Warp does not keep it for each world")
    return _as_torch(device, array, shape, name)


def batch_model_field(device: GpuDevice, warp_model: Any, model: mujoco.MjModel, name: str, n: int) -> torch.Tensor:
    """Give a field of ``warp_model`` one value for each of ``n`` worlds, in place.

    Returns:
        The live tensor (n, ...). Graphs captured before must not be launched again.

    Raises:
        PhysicsError: MuJoCo has no such field, or Warp shares it between worlds.
    """
    if reason := _why_shared(device, warp_model, model, name):
        raise PhysicsError(f"cannot expand {name!r}: {reason}")
    owner, key = _owner(warp_model, name)
    shape = np.shape(getattr(model.opt if owner is warp_model.opt else model, key))
    array = getattr(owner, key)
    shared = device.wp.to_torch(array) if array.size else None
    if shared is None:
        return torch.zeros((n, *shape), device=device.torch)
    values = shared.expand(n, *shared.shape[1:]).clone(memory_format=torch.contiguous_format)
    with device.scope():
        setattr(owner, key, device.wp.from_torch(values, dtype=array.dtype))
    if name in _FLAGS:
        setattr(warp_model, _FLAGS[name], True)
    return _shaped(values, (n, *shape), name)


def expandable(device: GpuDevice, warp_model: Any, model: mujoco.MjModel) -> list[str]:
    """Names that `batch_model_field` accepts for this model."""
    names = [*_batched(warp_model), *(f"opt.{name}" for name in _batched(warp_model.opt))]
    return sorted(name for name in names if not _why_shared(device, warp_model, model, name))


def _as_torch(device: GpuDevice, array: Any, shape: tuple[int, ...], name: str) -> torch.Tensor:
    if not array.size:
        return torch.zeros((array.shape[0], *shape), device=device.torch)
    return _shaped(device.wp.to_torch(array), (array.shape[0], *shape), name)


def _shaped(values: torch.Tensor, shape: tuple[int, ...], name: str) -> torch.Tensor:
    if values.numel() != int(np.prod(shape)):
        raise PhysicsError(f"{name!r} is {tuple(values.shape)} on the GPU, where MuJoCo has {shape}: world=cpu has it")
    return values.view(shape)


def _owner(warp_model: Any, name: str) -> tuple[Any, str]:
    option = name.removeprefix("opt.")
    return (warp_model, name) if option == name else (warp_model.opt, option)


def _batched(part: Any) -> list[str]:
    """Fields of Warp's model or options that may have one value for each world."""
    return [f.name for f in dataclasses.fields(part) if (getattr(f.type, "shape", None) or ("",))[0] == "*"]


def _why_shared(device: GpuDevice, warp_model: Any, model: mujoco.MjModel, name: str) -> str:
    """Why a model field cannot differ between worlds, or nothing where it can."""
    owner, key = _owner(warp_model, name)
    host = model.opt if owner is warp_model.opt else model
    if name == "opt.impratio":
        return "MuJoCo Warp keeps its inverse square root; world=cpu has it per world"
    if not hasattr(host, key):
        if hasattr(mujoco.MjData(model), name):
            return f"it is a field of the data: use bind({name!r})"
        names = [*_batched(warp_model), *(f"opt.{field}" for field in _batched(warp_model.opt))]
        return f"no such field of a model; {did_you_mean(name, names)}".rstrip("; ")
    if key not in _batched(owner) or name in _STRUCTURE:
        return "MuJoCo Warp shares it between worlds; world=cpu has it per world"
    if name in _FOLDED and (model.actuator_damping.any() or model.actuator_dampingpoly.any()):
        return "MuJoCo Warp has added the actuators' damping to it; world=cpu has it per world"
    return ""


def _why_not_bound(device: GpuDevice, host: mujoco.MjData, name: str) -> str:
    if hasattr(host, name):
        return "MuJoCo Warp does not keep it in this form; world=cpu has it"
    if hasattr(host.model, name):
        return f"it is a field of the model: use expand({name!r})"
    fields = device.mjw.Data.__dataclass_fields__
    return f"no such field of the data; {did_you_mean(name, (f for f in fields if hasattr(host, f)))}".rstrip("; ")
