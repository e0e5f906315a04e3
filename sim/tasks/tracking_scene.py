"""The scene of hand-object tracking: a hand, one object, a table top at z = 0."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np

from sim.camera import look_at
from sim.engines import Engine
from sim.objects import get_object
from sim.physics import PhysicsError
from sim.robots import Robot
from sim.tasks.scenery import add_sky
from sim.world import Shard, Source, World

OBJECT = "object"
TIMESTEP = 1.0 / 120.0

FRONT, FRONT_TARGET, FRONT_FOVY = (0.45, -0.50, 0.38), (0.0, 0.0, 0.17), 42.0
"""Where the camera ``front`` is and looks, m in the world, and its vertical field of view, degrees."""
WRIST, WRIST_TARGET, WRIST_FOVY = (-0.12, 0.0, -0.07), (0.05, 0.0, -0.095), 70.0
"""Likewise for ``wrist``, in the palm frame (x along the fingers, z out of the back of the hand)."""


def scene_spec(robot: Robot, object_name: str) -> mujoco.MjSpec:
    """MJCF of one scene."""
    spec = robot.spec()
    spec.modelname = f"{robot.name}_{robot.side}_{object_name}"
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_DISCRETE
    spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[0.6, 0.6, 0.05],
        rgba=[0.55, 0.6, 0.65, 1.0],
        friction=[1.0, 0.01, 0.001],
    )
    add_sky(spec)
    get_object(object_name).add_to(spec, body_name=OBJECT)
    spec.worldbody.add_light(pos=[0.3, -0.4, 1.2], dir=[-0.2, 0.3, -1.0], castshadow=False)
    _add_cameras(spec, robot)
    for key in list(spec.keys):
        spec.delete(key)  # a robot's keyframe does not know the object
    return spec


def _add_cameras(spec: mujoco.MjSpec, robot: Robot) -> None:
    """A fixed camera ``front`` over the table's edge, and ``wrist``, which moves with the palm."""
    spec.worldbody.add_camera(name="front", pos=FRONT, quat=look_at(FRONT, FRONT_TARGET), fovy=FRONT_FOVY)
    palm = spec.site(robot.palm_site)
    turned, placed = np.empty(4), np.empty(3)
    mujoco.mju_mulQuat(turned, palm.quat, look_at(WRIST, WRIST_TARGET))
    mujoco.mju_rotVecQuat(placed, np.array(WRIST), palm.quat)
    palm.parent.add_camera(name="wrist", pos=palm.pos + placed, quat=turned, fovy=WRIST_FOVY)


def compile_scene(
    robot: Robot, object_name: str, adjust: Callable[[mujoco.MjSpec], None] | None = None
) -> mujoco.MjModel:
    """The compiled scene, after ``adjust`` has changed its specification.

    Raises:
        PhysicsError: the robot and the object do not compile together.
    """
    spec = scene_spec(robot, object_name)
    if adjust is not None:
        adjust(spec)
    try:
        return spec.compile()
    except ValueError as error:
        raise PhysicsError(f"robot {robot.name!r} with object {object_name!r} does not compile: {error}") from error


def make_world(
    robot: Robot,
    objects: list[tuple[str, int]],
    engine: Engine,
    adjust: Callable[[mujoco.MjSpec], None] | None = None,
) -> World:
    """Shards of worlds, one for each (object, number of worlds), with the channels of hand-object tracking.

    Scenes are compiled after ``adjust`` has changed their specifications.
    """
    shards: list[Shard] = []
    start = 0
    for name, count in objects:
        physics = engine.physics(compile_scene(robot, name, adjust), count)
        shards.append(Shard(physics, start, start + count, name))
        start += count
    sources = {
        "joint_pos": Source("qpos", "joint", robot.joint_names),
        "joint_vel": Source("qvel", "joint", robot.joint_names),
        "object_pose": Source("qpos", "joint", (OBJECT,)),
        "object_vel": Source("qvel", "joint", (OBJECT,)),
    }
    return World(shards, sources)
