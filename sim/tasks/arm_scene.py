"""The scene of the arm tasks: an arm behind a table, two objects, a white pad to aim at and a dark one to avoid."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import mujoco
import numpy as np
import torch

from sim.camera import look_at
from sim.channels import Channels
from sim.engines import Engine
from sim.physics import PhysicsError
from sim.robots import Robot
from sim.tasks.arm_things import FIRST, SECOND, SHAPES
from sim.tasks.scenery import add_sky
from sim.world import Shard, Source, World

TIMESTEP = 1.0 / 200.0
PADS = ("goal", "decoy")
FINGERS = ("finger_joint1", "finger_joint2")
"""The joint that the gripper's motor drives, and the one that follows it."""
SLIDING = 0.5
"""Friction of objects on the table, so that they slide when they are pushed and do not tip; the fingertips' wins."""
PAD_HALF = 0.045
"""m, half the side of a pad."""
PAD_COLORS = ((0.96, 0.96, 0.96, 1.0), (0.16, 0.16, 0.18, 1.0))
TABLE = (0.42, 0.38, 0.33, 1.0)


class Look(NamedTuple):
    """Where a camera is and what it looks at, m, and its vertical field of view, degrees."""

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy: float


FRONTS = {
    "high": Look((0.98, 0.0, 0.60), (0.455, 0.0, 0.045), 36.0),
    "low": Look((1.13, 0.0, 0.41), (0.455, 0.0, 0.02), 32.0),
}
"""Views of the camera ``front``, in the world. From below, the hand hides less of what a low tool pushes."""
WRIST = Look((0.105, 0.0, -0.075), (0.045, 0.0, 0.04), 75.0)
"""View of the camera ``wrist``, in the frame of the robot's tool (z ahead)."""


def scene_spec(robot: Robot, shapes: tuple[str, str], front: str = "high") -> mujoco.MjSpec:
    """MJCF of one scene, seen from one of `FRONTS`; the table top is at z = 0."""
    spec = robot.spec()
    spec.modelname = f"{robot.name}_{'_'.join(shapes)}"
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_DISCRETE
    add_sky(spec)
    spec.worldbody.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1.0, 1.0, 0.05], rgba=TABLE, friction=[1.0, 0.01, 0.001]
    )
    spec.worldbody.add_light(type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, dir=[-0.3, 0.2, -1.0], castshadow=False)
    for name, color in zip(PADS, PAD_COLORS, strict=True):
        _add_pad(spec, name, color)
    for body, shape in zip((FIRST, SECOND), shapes, strict=True):
        thing = SHAPES[shape].add_to(spec, body_name=body)
        for geom in thing.geoms:  # stiffer than usual: what is held in the gripper shall not creep out of it
            geom.solref, geom.solimp = [0.01, 1.0], [0.95, 0.99, 0.001, 0.5, 2.0]
            geom.friction = [SLIDING, 0.02, 0.01 if shape == "ball" else 0.001]
    _add_cameras(spec, robot, FRONTS[front])
    for key in list(spec.keys):
        spec.delete(key)  # a robot's keyframe does not know the objects
    return spec


def _add_pad(spec: mujoco.MjSpec, name: str, color: Sequence[float]) -> None:
    """A square that touches nothing; two slides place it, so that its place is part of the state."""
    body = spec.worldbody.add_body(name=name, pos=[0.0, 0.0, 0.0005], gravcomp=1.0)
    for axis, direction in (("x", [1, 0, 0]), ("y", [0, 1, 0])):
        body.add_joint(
            name=f"{name}_{axis}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=direction, damping=[1.0, 0, 0], armature=1.0
        )
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[PAD_HALF, PAD_HALF, 0.0005],
        rgba=color,
        mass=0.1,
        contype=0,
        conaffinity=0,
    )


def _add_cameras(spec: mujoco.MjSpec, robot: Robot, front: Look) -> None:
    """A fixed camera ``front`` across the table, and ``wrist``, which moves with the gripper."""
    turned = look_at(front.position, front.target)
    spec.worldbody.add_camera(name="front", pos=front.position, quat=turned, fovy=front.fovy)
    tool = spec.site(robot.tool_site)
    turned, placed = np.empty(4), np.empty(3)
    mujoco.mju_mulQuat(turned, tool.quat, look_at(WRIST.position, WRIST.target, up=(1.0, 0.0, 0.0)))
    mujoco.mju_rotVecQuat(placed, np.array(WRIST.position), tool.quat)
    tool.parent.add_camera(name="wrist", pos=tool.pos + placed, quat=turned, fovy=WRIST.fovy)


def layout(shapes: Sequence[str], num_worlds: int, distinct: bool = False) -> list[tuple[tuple[str, str], int]]:
    """Pairs of shapes and how many worlds have each, as even as they can be.

    Either object may be the named one, so that the order within a pair says nothing.
    """
    combine = itertools.combinations if distinct else itertools.combinations_with_replacement
    pairs = list(combine(shapes, 2))
    pairs.sort(key=lambda pair: pair[0] == pair[1])  # with few worlds, scenes of different shapes first
    pairs = pairs[:num_worlds]
    return [(pair, num_worlds // len(pairs) + (i < num_worlds % len(pairs))) for i, pair in enumerate(pairs)]


def make_world(
    robot: Robot,
    pairs: Sequence[tuple[tuple[str, str], int]],
    engine: Engine,
    front: str = "high",
    adjust: Callable[[mujoco.MjSpec], None] | None = None,
) -> World:
    """Shards of worlds, one for each pair of shapes, with the channels of the arm tasks.

    Scenes are seen from one of `FRONTS`, and compiled after ``adjust`` has changed their specifications.
    """
    shards: list[Shard] = []
    start = 0
    for shapes, count in pairs:
        spec = scene_spec(robot, shapes, front)
        if adjust is not None:
            adjust(spec)
        try:
            model = spec.compile()
        except ValueError as error:
            raise PhysicsError(f"robot {robot.name!r} with {' and '.join(shapes)} does not compile: {error}") from error
        shards.append(Shard(engine.physics(model, count), start, start + count, "+".join(shapes)))
        start += count
    return World(shards, sources(robot))


def sources(robot: Robot) -> dict[str, Source]:
    """Channels of the world: joints, both objects (7 and 6 numbers each), both pads (x and y each)."""
    things = (FIRST, SECOND)
    pads = tuple(f"{pad}_{axis}" for pad in PADS for axis in "xy")
    return {
        "joint_pos": Source("qpos", "joint", robot.joint_names),
        "joint_vel": Source("qvel", "joint", robot.joint_names),
        "object_poses": Source("qpos", "joint", things, (2, 7)),
        "object_vels": Source("qvel", "joint", things, (2, 6)),
        "pad_pos": Source("qpos", "joint", pads, (2, 2)),
    }


class Views(NamedTuple):
    """How the cameras ``front`` and ``wrist`` see, in that order; of every world, or one row for all of them.

    Attributes:
        position: (N, 2, 3) m, in the world and in the frame of the robot's tool.
        axes: (N, 2, 3, 3), whose columns are a camera's right, up and backward, in the same frames.
        fovy: (N, 2) rad, vertical fields of view of square pictures.
    """

    position: torch.Tensor
    axes: torch.Tensor
    fovy: torch.Tensor


def views(world: World, tool_site: str) -> Views:
    """How the cameras of every world see now, randomised as they are; see `Views`."""
    rows = []
    for shard in world.shards:
        model = copy.copy(shard.physics.model)
        for i in range(shard.start, shard.stop):
            world.write_model(i, model)
            rows.append(_views(model, tool_site))
    position, axes, fovy = (torch.from_numpy(np.stack(parts)).to(world.device) for parts in zip(*rows, strict=True))
    return Views(position, axes, fovy)


def pixels(c: Channels, points: torch.Tensor, seen: Views) -> torch.Tensor:
    """Where points (N, 3) m in the world are in the square pictures of ``front`` and ``wrist``, (N, 2, 2).

    x to the right and y down, each in [0, 1]; NaN for points outside the picture or behind the camera.
    """
    position, axes, fovy = (part.to(points) for part in seen)
    rotation, place = c["tool_rotation"], c["tool_pos"].unsqueeze(2)
    fixed = (points - position[:, 0]).unsqueeze(1) @ axes[:, 0]
    moving = (points - (place + rotation @ position[:, 1].unsqueeze(2)).squeeze(2)).unsqueeze(1)
    local = torch.cat([fixed, moving @ (rotation @ axes[:, 1])], dim=1)
    depth = -local[..., 2:]
    flat = local[..., :2] / depth / (2.0 * torch.tan(0.5 * fovy)).unsqueeze(2)
    shown = 0.5 + flat * flat.new_tensor([1.0, -1.0])
    inside = ((shown >= 0.0) & (shown <= 1.0)).all(2, keepdim=True) & (depth > 0.01)
    return torch.where(inside, shown, torch.nan)


def _views(model: mujoco.MjModel, tool_site: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One row of `Views`."""
    position, axes = np.empty((2, 3)), np.empty((2, 9))
    inverse, turned = np.empty(4), np.empty(4)
    front, wrist, tool = model.camera("front"), model.camera("wrist"), model.site(tool_site)
    position[0] = front.pos
    mujoco.mju_quat2Mat(axes[0], front.quat)
    mujoco.mju_negQuat(inverse, tool.quat)
    mujoco.mju_rotVecQuat(position[1], wrist.pos - tool.pos, inverse)
    mujoco.mju_mulQuat(turned, inverse, wrist.quat)
    mujoco.mju_quat2Mat(axes[1], turned)
    return position, axes.reshape(2, 3, 3), np.radians([front.fovy[0], wrist.fovy[0]])
