"""The scene of walking: a legged robot on a flat floor, and the motors of a robot as numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import mujoco
import numpy as np
import torch

from sim.engines import Engine
from sim.robots import Robot
from sim.tasks.scenery import add_sky
from sim.world import Shard, Source, World

TIMESTEP = 1.0 / 200.0
SOLVER_ITERATIONS, LINE_SEARCH_ITERATIONS = 10, 20
"""Bounds, so that a hard instant costs little; standing takes 2 to 3 iterations."""


def scene_spec(robot: Robot) -> mujoco.MjSpec:
    """The robot on a floor without end."""
    spec = robot.spec()
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_DISCRETE
    spec.option.iterations, spec.option.ls_iterations = SOLVER_ITERATIONS, LINE_SEARCH_ITERATIONS
    spec.add_texture(
        name="tiles",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=[0.55, 0.6, 0.65],
        rgb2=[0.48, 0.53, 0.58],
        width=128,
        height=128,
    )
    tiles = spec.add_material(name="tiles", texrepeat=[1, 1], texuniform=True)
    tiles.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "tiles"
    add_sky(spec)
    spec.worldbody.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05], material="tiles", friction=[1.0, 0.005, 1e-4]
    )
    spec.worldbody.add_light(type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, dir=[-0.3, 0.3, -1.0], castshadow=False)
    return spec


def make_world(
    robot: Robot, num_worlds: int, engine: Engine, adjust: Callable[[mujoco.MjSpec], None] | None = None
) -> World:
    """Worlds of one robot each, with the channels of locomotion.

    The scene is compiled after ``adjust`` has changed its specification.
    """
    spec = scene_spec(robot)
    if adjust is not None:
        adjust(spec)
    physics = engine.physics(spec.compile(), num_worlds)
    base = (robot.base_joint,)
    sources = {
        "joint_pos": Source("qpos", "joint", robot.joint_names),
        "joint_vel": Source("qvel", "joint", robot.joint_names),
        "imu_orientation": Source("qpos", "joint", base, part=(3, 7)),
        "imu_ang_vel": Source("qvel", "joint", base, part=(3, 6)),
        "base_pose": Source("qpos", "joint", base),
        "base_vel": Source("qvel", "joint", base),
        "foot_contact": Source("sensordata", "sensor", robot.contact_sensors),
    }
    return World([Shard(physics, 0, num_worlds, robot.name)], sources)


def stiffened(robot: Robot, factor: float) -> Robot:
    """The same robot with the stiffness of its motors times ``factor``, at the same damping ratio."""

    def build() -> mujoco.MjSpec:
        spec = robot.build()
        for motor in spec.actuators:
            motor.gainprm[0] *= factor
            motor.biasprm[1] *= factor
            motor.biasprm[2] *= math.sqrt(factor)
        return spec

    return robot if factor == 1.0 else replace(robot, build=build)


@dataclass(frozen=True)
class Motors:
    """A robot's position motors, each (J,): stiffness Nm/rad, damping Nms/rad, largest torque Nm."""

    stiffness: torch.Tensor
    damping: torch.Tensor
    effort: torch.Tensor

    @classmethod
    def of(cls, robot: Robot, device: torch.device) -> Motors:
        model = robot.spec().compile()

        def tensor(values: np.ndarray) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        return cls(tensor(model.actuator_gainprm[:, 0]), tensor(-model.actuator_biasprm[:, 2]), tensor(robot.effort))

    def torque(self, target: torch.Tensor, position: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """(N, J) Nm, from joint targets, positions (rad) and velocities (rad/s)."""
        wanted = self.stiffness * (target - position) - self.damping * velocity
        return torch.clamp(wanted, -self.effort, self.effort)


def standing_state(robot: Robot) -> torch.Tensor:
    """(nq,) positions of the robot's keyframe."""
    return torch.tensor(robot.spec().compile().key(robot.keyframe).qpos, dtype=torch.float32)
