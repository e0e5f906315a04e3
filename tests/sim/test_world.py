"""Worlds of several shards: one layout of channels over different models, read and driven world by world."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from sim.mujoco_cpu import MujocoCpu
from sim.physics import PhysicsError
from sim.selection import Selection
from sim.world import Shard, Source, World


def model(thing: str, *, extra: str = "", timestep: float = 0.01) -> mujoco.MjModel:
    """Three hinges and a free object; ``extra`` joints come first, so that addresses differ between models."""
    return mujoco.MjModel.from_xml_string(f"""
<mujoco>
  <option timestep="{timestep}"/>
  <worldbody>
    <geom type="plane" size="1 1 .1"/>
    {extra}
    <body name="arm" pos="0 0 .4">
      <joint name="one" axis="0 1 0" damping=".1"/><geom type="capsule" fromto="0 0 0 .1 0 0" size=".01"/>
      <body pos=".1 0 0">
        <joint name="two" axis="0 0 1" damping=".1"/><geom type="capsule" fromto="0 0 0 .1 0 0" size=".01"/>
        <body name="last" pos=".1 0 0">
          <joint name="three" axis="0 1 0" damping=".1"/><geom type="capsule" fromto="0 0 0 .1 0 0" size=".01"/>
          <site name="tip" pos=".1 0 0"/><site name="side" pos="0 .1 0"/>
        </body>
      </body>
    </body>
    <body name="object" pos=".5 0 .2"><freejoint name="object"/>{thing}</body>
  </worldbody>
  <actuator><motor joint="one"/><motor joint="two"/><motor joint="three"/></actuator>
  <sensor>
    <jointpos joint="one"/><framepos name="where" objtype="site" objname="tip"/>
    <framequat name="turn" objtype="site" objname="tip"/>
  </sensor>
</mujoco>""")


BOX = model('<geom type="box" size=".03 .04 .05"/>')
BALL = model(
    '<geom type="sphere" size=".05"/><geom type="sphere" size=".02" pos=".06 0 0"/>',
    extra='<body pos="0 1 1"><freejoint name="decoy"/><geom size=".01"/></body>',
)
JOINTS = ("three", "one")  # neither contiguous nor in the model's order
SOURCES = {
    "joint_pos": Source("qpos", "joint", JOINTS),
    "joint_vel": Source("qvel", "joint", JOINTS),
    "all_joints": Source("qpos", "joint", ("one", "two", "three")),
    "object_pose": Source("qpos", "joint", ("object",)),
    "object_vel": Source("qvel", "joint", ("object",)),
    "arm_pos": Source("xpos", "body", ("last",)),
    "sites": Source("site_xpos", "site", ("side", "tip")),
    "tip_pose": Source("sensordata", "sensor", ("where", "turn")),
    "shaped": Source("sensordata", "sensor", ("where", "where"), (2, 3)),
}
N = 5


def make(models=((BOX, 2), (BALL, 3)), sources=SOURCES) -> World:
    shards, start = [], 0
    for i, (m, count) in enumerate(models):
        shards.append(Shard(MujocoCpu(m, count, 1), start, start + count, str(i)))
        start += count
    return World(shards, sources)


def expected(m: mujoco.MjModel, data: mujoco.MjData) -> dict[str, np.ndarray]:
    mujoco.mj_fwdPosition(m, data)
    mujoco.mj_sensorPos(m, data)
    joint = lambda name, field: getattr(data.joint(name), field)  # noqa: E731
    where, turn = data.sensor("where").data, data.sensor("turn").data
    return {
        "joint_pos": np.concatenate([joint(j, "qpos") for j in JOINTS]),
        "joint_vel": np.concatenate([joint(j, "qvel") for j in JOINTS]),
        "all_joints": np.concatenate([joint(j, "qpos") for j in ("one", "two", "three")]),
        "object_pose": joint("object", "qpos"),
        "object_vel": joint("object", "qvel"),
        "arm_pos": data.body("last").xpos,
        "sites": np.stack([data.site("side").xpos, data.site("tip").xpos]),
        "tip_pose": np.concatenate([where, turn]),
        "shaped": np.stack([where, where]),
    }


def test_channels_of_two_shards_equal_those_of_plain_mjdata():
    world = make()
    ctrl = np.random.default_rng(0).uniform(-0.2, 0.2, (15, N, 3)).astype(np.float32)
    for row in ctrl:
        world.command(torch.from_numpy(row))
        world.step(2)
    channels = world.read()
    for i in range(N):
        m = BOX if i < 2 else BALL
        data = mujoco.MjData(m)
        for row in ctrl:
            data.ctrl[:] = row[i]
            mujoco.mj_step(m, data, 2)
        for name, value in expected(m, data).items():
            assert channels[name].dtype == torch.float32
            assert channels[name].shape == (N, *value.shape), name
            np.testing.assert_array_equal(channels[name][i].numpy(), value.astype(np.float32), err_msg=name)


def test_reading_follows_the_simulation():
    world = make()
    first = {name: value.clone() for name, value in world.read().items()}
    world.command(torch.full((N, 3), 0.1))
    world.step(5)
    assert all(not torch.equal(first[name], value) for name, value in world.read().items())


def test_split_gives_local_ids_and_their_place():
    world = make()
    ids = torch.tensor([0, 2, 4])
    found = [(s.label, local.ids.tolist(), ids[rows].tolist()) for s, local, rows in world.split(Selection(ids))]
    assert found == [("0", [0], [0]), ("1", [0, 2], [2, 4])]
    assert [s.label for s, _, _ in world.split(Selection(torch.tensor([3])))] == ["1"]
    assert list(world.split(Selection(torch.tensor([], dtype=torch.long)))) == []


def test_reset_touches_only_the_named_worlds_and_writes_their_state():
    world = make(((BOX, 2), (BOX, 3)))
    world.command(torch.full((N, 3), 0.1))
    world.step(10)
    before = {name: value.clone() for name, value in world.read().items()}
    ids = torch.tensor([1, 3])
    qpos = torch.from_numpy(BOX.qpos0).float().repeat(2, 1)
    qpos[:, 0] = torch.tensor([0.3, 0.7])
    state = {"qpos": qpos, "qvel": torch.zeros(2, BOX.nv), "ctrl": torch.full((2, 3), 0.5)}
    world.reset(Selection(ids)), world.write(Selection(ids), state), world.forward(Selection(ids))
    after = world.read()
    assert after["all_joints"][ids, 0].tolist() == pytest.approx([0.3, 0.7])
    data = mujoco.MjData(BOX)
    data.qpos[0] = np.float32(0.7)
    np.testing.assert_array_equal(after["tip_pose"][3].numpy(), expected(BOX, data)["tip_pose"].astype(np.float32))
    for name, value in after.items():
        assert torch.equal(value[[0, 2, 4]], before[name][[0, 2, 4]]), name
    ctrl = torch.cat([shard.physics.bind("ctrl") for shard in world.shards])
    assert ctrl[:, 0].tolist() == pytest.approx([0.1, 0.5, 0.1, 0.5, 0.1])


def test_health_has_global_ids():
    world = make()
    world.shards[0].physics.bind("qpos")[1, 0] = torch.nan
    world.shards[1].physics.bind("qpos")[2, 0] = torch.nan
    world.step(1)
    found = Selection.of(world.unusable(), dense=False)
    assert found.ids.tolist() == [1, 4] and len(world.reasons(found)) == 2
    world.reset(Selection(torch.tensor([1, 4])))
    assert not world.unusable().any()


def test_state_of_all_shards_continues():
    a, b = make(), make()
    a.command(torch.full((N, 3), 0.1))
    a.step(5)
    b.load_state_dict(a.state_dict())
    a.step(5), b.step(5)
    for name, value in a.read().items():
        assert torch.equal(value, b.read()[name])
    with pytest.raises(PhysicsError, match="2 shards, this one has 1"):
        make(((BOX, 5),)).load_state_dict(a.state_dict())
    with pytest.raises(PhysicsError, match="shape"):
        make(((BOX, 3), (BALL, 2))).load_state_dict(a.state_dict())


def test_a_name_that_the_model_lacks():
    with pytest.raises(PhysicsError, match="no joint 'tree'"):
        make(sources={"q": Source("qpos", "joint", ("one", "tree"))})
    with pytest.raises(PhysicsError, match="no sensor 'touch'"):
        make(sources={"q": Source("sensordata", "sensor", ("touch",))})
    with pytest.raises(PhysicsError, match="bind"):
        make(sources={"q": Source("qposs", "body", ("last",))})


def test_shards_that_do_not_fit_together():
    with pytest.raises(PhysicsError, match="at least one shard"):
        World([], SOURCES)
    start = (
        "<mujoco><option timestep='.01'/><worldbody><body><joint name='object'/><geom size='.1'/></body></worldbody>"
    )
    hinge = mujoco.MjModel.from_xml_string(
        start + "<actuator>" + 3 * "<motor joint='object'/>" + "</actuator></mujoco>"
    )
    with pytest.raises(PhysicsError, match="disagree on the size"):
        make(((BOX, 1), (hinge, 1)), {"object_pose": SOURCES["object_pose"]})
    with pytest.raises(PhysicsError, match="time step"):
        make(((BOX, 1), (model('<geom size=".1"/>', timestep=0.02), 1)))
    one = mujoco.MjModel.from_xml_string(f"{start}</mujoco>")
    with pytest.raises(PhysicsError, match="number of actuators"):
        make(((BOX, 1), (one, 1)), {})


def test_shards_must_cover_the_worlds_in_order():
    physics = MujocoCpu(BOX, 2, 1)
    for start, stop in ((1, 3), (0, 3), (0, 1)):
        with pytest.raises(PhysicsError, match="covers worlds"):
            World([Shard(physics, start, stop, "box")], SOURCES)
    with pytest.raises(PhysicsError, match="covers worlds"):
        World([Shard(physics, 0, 2, "a"), Shard(MujocoCpu(BOX, 2, 1), 3, 5, "b")], SOURCES)
