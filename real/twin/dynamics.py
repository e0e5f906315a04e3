"""How the twin's physics differs from training's: drawn for each scene, and told in numbers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from real.twin.settings import TwinSettings
from sim.tasks.arm_scene import PADS
from sim.tasks.arm_things import FIRST, SECOND

_INTEGRATORS = {
    "implicitfast": mujoco.mjtIntegrator.mjINT_IMPLICITFAST,
    "implicit": mujoco.mjtIntegrator.mjINT_IMPLICIT,
    "euler": mujoco.mjtIntegrator.mjINT_EULER,
}


@dataclass(frozen=True)
class Varied:
    """A model with other physics than training's, and what is other in it (`physics_report` of the twin)."""

    model: mujoco.MjModel
    report: dict[str, Any]


def vary(trained: mujoco.MjModel, settings: TwinSettings, scene_seed: int) -> Varied:
    """A copy of training's compiled model with the dynamics of one scene.

    Factors are independent for each joint and each object. One pair of seeds gives one model.
    """
    rng = np.random.default_rng([settings.seed, scene_seed])
    model = copy.copy(trained)
    # the twin looks for itself whether its numbers are finite; a silent reset would move the arm
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
    model.opt.timestep = settings.timestep_s
    if settings.integrator != "training":
        model.opt.integrator = _INTEGRATORS[settings.integrator]
    motors, dofs = _motors(model, rng, settings), _dofs(model)
    friction = _draw(rng, settings.joint_friction, model.nu)
    model.dof_frictionloss[dofs] += friction * model.actuator_forcerange[:, 1]
    armature = _draw(rng, settings.armature, model.nu)
    model.dof_armature[dofs] *= armature
    gravity = rng.uniform(-1.0, 1.0, model.nbody) * settings.gravity_error
    links = (model.body_gravcomp > 0) & (model.body_dofnum > 0) & ~_pads(model)
    model.body_gravcomp[links] *= 1.0 + gravity[links]
    mass, sliding = _draw(rng, settings.object_mass, 2), _draw(rng, settings.object_friction, 2)
    for body, heavier, rougher in zip((FIRST, SECOND), mass, sliding, strict=True):
        number = model.body(body).id
        model.body_mass[number] *= heavier
        model.body_inertia[number] *= heavier
        model.geom_friction[model.geom_bodyid == number, 0] *= rougher
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return Varied(
        model,
        {
            "gap": settings.gap,
            "timestep_s": [float(trained.opt.timestep), float(model.opt.timestep)],
            "integrator": [_integrator(trained), _integrator(model)],
            **motors,
            "joint_friction_N_or_Nm": _rounded(friction * model.actuator_forcerange[:, 1]),
            "armature_factor": _rounded(armature),
            "gravity_compensation_error": _rounded(gravity[links]),
            "object_mass_factor": _rounded(mass),
            "object_mass_kg": _rounded([model.body(name).mass[0] for name in (FIRST, SECOND)]),
            "object_friction_factor": _rounded(sliding),
            "command_latency_s": [
                settings.command_latency_s,
                round(settings.command_latency_s + settings.command_jitter_s, 9),
            ],
            "joint_noise": [settings.joint_pos_noise, settings.joint_vel_noise],
            "object_noise": [settings.object_pos_noise, settings.object_rot_noise],
            "image_noise": settings.image_noise,
            "latency_s": {
                "joints": settings.joint_latency_s,
                "objects": settings.object_latency_s,
                "cameras": settings.camera_latency_s,
            },
        },
    )


def _motors(model: mujoco.MjModel, rng: np.random.Generator, settings: TwinSettings) -> dict[str, Any]:
    """Change the motors' gains and the damping of the joints that they drive."""
    stiffness = _draw(rng, settings.stiffness, model.nu)
    damping = _draw(rng, settings.damping, model.nu)
    model.actuator_gainprm[:, 0] *= stiffness
    model.actuator_biasprm[:, 1] *= stiffness
    model.actuator_biasprm[:, 2] *= damping
    model.dof_damping[_dofs(model)] *= damping
    return {"stiffness_factor": _rounded(stiffness), "damping_factor": _rounded(damping)}


def _draw(rng: np.random.Generator, between: Sequence[float], count: int) -> np.ndarray:
    """(count,) evenly between two numbers."""
    low, high = between
    return rng.uniform(low, high, count)


def _dofs(model: mujoco.MjModel) -> np.ndarray:
    return np.asarray(model.jnt_dofadr[model.actuator_trnid[:, 0]])


def _pads(model: mujoco.MjModel) -> np.ndarray:
    """(nbody,) bool: the pads, which are weightless marks on the table."""
    mask = np.zeros(model.nbody, dtype=bool)
    mask[[model.body(name).id for name in PADS]] = True
    return mask


def _integrator(model: mujoco.MjModel) -> str:
    return mujoco.mjtIntegrator(model.opt.integrator).name.removeprefix("mjINT_").lower()


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 5) for value in values]
