"""A small world of the tests of randomisers: an object over a table, a driven arm, a camera, a light."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import torch

from sim.mujoco_cpu import MujocoCpu
from sim.objects import get_object
from sim.physics import Physics
from sim.randomize import Target, available, loosen, make_randomizers
from sim.randomizers.base import Randomizer
from sim.selection import Selection
from sim.world import Shard, Source, World

N = 6
ALL = Selection.all(N)
TARGETS = {
    "object": Target(bodies=("object",), free=True, whole=True),
    "arm": Target(bodies=("arm", "hand"), joints=("shoulder", "elbow")),
}
NAMES = sorted(available(TARGETS))
TIMES = {name: kind.times for name, (kind, _) in available(TARGETS).items()}
FIELDS = [name for name in NAMES if available(TARGETS)[name][0].changes]
DERIVED = [name for name in FIELDS if available(TARGETS)[name][0].derive]


def spec(name: str = "mug", tilt: float = 0.0, scale: float = 1.0) -> mujoco.MjSpec:
    """The scene; the table is tilted about y by ``tilt`` degrees."""
    made = mujoco.MjSpec()
    made.option.timestep = 0.004
    half = np.radians(tilt) / 2
    quat = [np.cos(half), 0, np.sin(half), 0]
    made.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[5, 5, 0.1], quat=quat, friction=[0.1, 0, 0])
    made.worldbody.add_light(pos=[0, 0, 2], dir=[0.3, 0, -1])
    made.worldbody.add_camera(name="watch", pos=[0, -1, 0.5], quat=[0.8, 0.6, 0, 0])
    get_object(name).scaled(scale).add_to(made, "object")
    sphere = {"type": mujoco.mjtGeom.mjGEOM_SPHERE, "size": [0.05, 0, 0], "pos": [0.2, 0, 0]}
    arm = made.worldbody.add_body(name="arm", pos=[0, 2, 1])
    arm.add_geom(mass=1, **sphere)
    arm.add_joint(name="shoulder", axis=[0, 1, 0], damping=0.3, armature=0.02)
    hand = arm.add_body(name="hand", pos=[0.4, 0, 0])
    hand.add_geom(mass=0.5, **sphere)
    hand.add_joint(name="elbow", axis=[0, 1, 0], damping=0.1, armature=0.01, frictionloss=0.05)
    for joint in ("shoulder", "elbow"):
        actuator = made.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(kp=20.0, kv=1.0)
    return made


def model(*args: Any, free_com: bool = False, **kwargs: Any) -> mujoco.MjModel:
    """The scene compiled; with ``free_com`` so that the object's centre of mass may move."""
    made = spec(*args, **kwargs)
    if free_com:
        loosen(made, make("object_com"))
    return made.compile()


def world(*names: str, engine: Callable[..., Physics] = MujocoCpu, **kwargs: Any) -> World:
    """N worlds, equally many of each of the objects ``names``; by default of a mug."""
    names = names or ("mug",)
    count = N // len(names)
    extra = {"nthread": 1} if engine is MujocoCpu else {"device": "cpu"}
    shards = [
        Shard(engine(model(name, **kwargs), count, **extra), k * count, (k + 1) * count, name)
        for k, name in enumerate(names)
    ]
    return World(shards, {"position": Source("xpos", "body", ("object",))})


def make(*names: str, **settings: Any) -> dict[str, Randomizer]:
    """Randomisers with their typical ranges, and with those of ``settings``."""
    return make_randomizers({**{name: {} for name in names}, **settings}, TARGETS, {"joint_pos": 2, "pose": 6})


def one(name: str, **setting: Any) -> Randomizer:
    """One randomiser, with ``setting`` such as ``range=[0.5, 2]``."""
    return make(**{name: setting})[name]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masked(*chosen: int) -> Selection:
    """A dense selection of some worlds."""
    mask = torch.zeros(N, dtype=torch.bool)
    mask[list(chosen)] = True
    return Selection.of(mask, dense=True)


def own_fields(w: World) -> list[dict[str, torch.Tensor]]:
    """Copies of all model fields that differ between worlds, shard by shard."""
    return [shard.physics.state_dict()["expanded"] for shard in w.shards]
