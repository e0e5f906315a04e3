"""Randomisers of model fields: their effect against plain MuJoCo, no accumulation, and masks as well as ids."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from sim.mujoco_cpu import MujocoCpu
from sim.objects import get_object
from sim.randomize import RandomizeError, make_randomizers
from sim.selection import Selection
from sim.world import Shard, World
from tests.sim.randomize_scene import (
    ALL,
    DERIVED,
    FIELDS,
    NAMES,
    TARGETS,
    TIMES,
    N,
    generator,
    make,
    masked,
    model,
    one,
    own_fields,
    spec,
    world,
)


def rows_of(m: mujoco.MjModel, *bodies: str) -> tuple[np.ndarray, np.ndarray]:
    ids = np.array([m.body(name).id for name in bodies])
    return ids, np.flatnonzero(np.isin(m.geom_bodyid, ids))


def dofs_of(m: mujoco.MjModel) -> np.ndarray:
    return np.array([m.joint(name).dofadr[0] for name in ("shoulder", "elbow")])


def turned(vector: np.ndarray, rotvec: np.ndarray) -> np.ndarray:
    quat, out = np.empty(4), np.empty(3)
    angle = np.linalg.norm(rotvec)
    mujoco.mju_axisAngle2Quat(quat, rotvec / angle, angle)
    mujoco.mju_rotVecQuat(out, vector, quat)
    return out


def turned_quat(quat: np.ndarray, rotvec: np.ndarray) -> np.ndarray:
    turn, out = np.empty(4), np.empty(4)
    angle = np.linalg.norm(rotvec)
    mujoco.mju_axisAngle2Quat(turn, rotvec / angle, angle)
    mujoco.mju_mulQuat(out, turn, quat)
    return out


def edit(m: mujoco.MjModel, name: str, value: np.ndarray) -> None:
    """By hand, what a randomiser is to do to one world's model, in the way of a person with MuJoCo's manual."""
    target, _, kind = name.partition("_")
    bodies, geoms = rows_of(m, *{"object": ["object"], "arm": ["arm", "hand"]}.get(target, []))
    if kind == "mass":
        m.body_mass[bodies] *= value
        m.body_inertia[bodies] *= value
    elif kind == "inertia":
        m.body_inertia[bodies] *= value
    elif kind == "com":
        m.body_ipos[bodies] += value
    elif kind == "friction":
        m.geom_friction[geoms, 0] *= value
    elif kind == "color":
        m.geom_rgba[geoms, :3] = value
    elif kind == "damping":
        m.dof_damping[dofs_of(m)] *= value
    elif kind == "armature":
        m.dof_armature[dofs_of(m)] *= value
    elif kind == "frictionloss":
        m.dof_frictionloss[dofs_of(m)] += value
    elif kind in ("gains", "kp"):
        m.actuator_gainprm[:, 0] *= value
        m.actuator_biasprm[:, 1] *= value
        m.actuator_biasprm[:, 2] *= value if kind == "gains" else 1.0
    elif kind == "kd":
        m.actuator_biasprm[:, 2] *= value
    elif name == "gravity":
        m.opt.gravity *= value
    elif name == "gravity_tilt":
        m.opt.gravity = turned(m.opt.gravity, value)
    elif name == "camera_position":
        m.cam_pos += value
    elif name == "camera_rotation":
        m.cam_quat[0] = turned_quat(m.cam_quat[0], value)
    elif name == "camera_fovy":
        m.cam_fovy *= value
    elif name == "light_direction":
        m.light_dir[0] = turned(m.light_dir[0], value)
    elif name == "light_diffuse":
        m.light_diffuse *= value
    else:
        raise AssertionError(name)


STATE = ("qpos", "qvel", "qacc", "cam_xpos", "cam_xmat", "light_xdir")
SEEN = ("geom_rgba", "cam_fovy", "light_diffuse")
"""Fields that no state depends on."""
START = {"qpos": [0.03, 0.02, 0.06, 0.9, 0.1, -0.3, 0.3], "qvel": [0.2, 0, 0, 3, 2, 1], "ctrl": [0.4, -0.8]}
"""In motion above the table, with the arm on its way."""


def start(physics: MujocoCpu) -> None:
    for field, values in START.items():
        physics.bind(field)[:, : len(values)] = torch.tensor(values, dtype=torch.float64)


def rollout(m: mujoco.MjModel) -> dict[str, np.ndarray]:
    """60 steps of a plain MuJoCo model from the same start."""
    data = mujoco.MjData(m)
    mujoco.mj_setConst(m, data)
    for field, values in START.items():
        getattr(data, field)[: len(values)] = values
    mujoco.mj_step(m, data, 60)
    mujoco.mj_fwdPosition(m, data)
    return {field: getattr(data, field).copy() for field in STATE}


def settle(w: World, seconds: float) -> torch.Tensor:
    """Object positions (N, 3) after a while."""
    w.step(round(seconds / w.timestep))
    assert not w.unusable().any()
    return w.read()["position"].clone()


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "object_size"])
@pytest.mark.parametrize("thing", ["cube", "mug"])
def test_each_moves_its_worlds_as_a_model_edited_by_hand(name, thing):
    free = {"free_com": name == "object_com"}
    w, draw = world(thing, **free), one(name)
    draw.apply(w, ALL, generator())
    physics = w.shards[0].physics
    start(physics)
    bound = {field: physics.bind(field) for field in STATE}
    w.step(60)
    same = 0
    for i in range(N):
        edited = model(thing, **free)
        edit(edited, name, draw.drawn[i].numpy().squeeze())
        wanted, untouched = rollout(edited), rollout(model(thing, **free))
        for field in STATE:
            np.testing.assert_allclose(bound[field][i].numpy(), wanted[field], rtol=1e-6, atol=1e-9, err_msg=field)
        for field in SEEN:
            np.testing.assert_allclose(physics.expand(field)[i].numpy(), getattr(edited, field), rtol=1e-6)
        same += all(np.array_equal(wanted[field], untouched[field]) for field in STATE)
    unmoved = name.endswith(("_color", "_fovy", "_diffuse")) or name == "arm_friction"  # the arm touches nothing
    assert same == (N if unmoved else 0)


@pytest.mark.parametrize("name", FIELDS)
def test_fifty_draws_do_not_accumulate(name):
    """After any history a world is what a fresh one is that has the last numbers alone."""
    w, fresh, g = world("mug", "ball", free_com=True), world("mug", "ball", free_com=True), generator()
    draw, last = one(name), one(name)
    for k in range(50):
        draw.apply(w, ALL if k % 2 == 0 else Selection(torch.tensor([1, 4])), g)
    last.apply(fresh, ALL, generator(9))
    last.load_state_dict(draw.state_dict())
    for field in last.fields:
        fresh.refresh(field, ALL)
    if name in DERIVED:
        for shard in fresh.shards:
            shard.physics.set_const()
    for ours, wanted in zip(own_fields(w), own_fields(fresh), strict=True):
        assert ours.keys() == wanted.keys() >= set(draw.fields)
        for field, values in ours.items():
            assert torch.equal(values, wanted[field]), field


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("select", [Selection(torch.tensor([2, 5])), masked(2, 5)], ids=["ids", "mask"])
def test_only_the_drawn_worlds_change(name, select):
    w, draw = world("mug", "cube", free_com=True), one(name)
    draw.apply(w, ALL, generator())
    before, drawn = own_fields(w), draw.drawn.clone()
    draw.apply(w, select, generator(1))
    for old, new, chosen in zip(before, own_fields(w), (2, 2), strict=True):  # each is the third of its shard
        changed = torch.stack([(new[field] != old[field]).flatten(1).any(1) for field in old]).any(0)
        assert torch.nonzero(changed).squeeze(1).tolist() == [chosen]
        assert (new[draw.fields[0]] != old[draw.fields[0]]).any()
    assert torch.nonzero((draw.drawn != drawn).flatten(1).any(1)).squeeze(1).tolist() == [2, 5]


@pytest.mark.parametrize("name", FIELDS)
def test_a_mask_of_all_worlds_does_what_their_ids_do(name):
    worlds, draws = [world("mug", "ball", free_com=True) for _ in range(2)], [one(name), one(name)]
    for w, draw, select in zip(worlds, draws, (ALL, masked(*range(N))), strict=True):
        for seed in (1, 2):
            draw.apply(w, select, generator(seed))
    assert torch.equal(draws[0].drawn, draws[1].drawn) and torch.equal(draws[0].factor, draws[1].factor)
    for ids, mask in zip(*map(own_fields, worlds), strict=True):
        for field, values in ids.items():
            assert torch.equal(values, mask[field]), field


class HostWaits(TorchFunctionMode):
    """Fails on what makes a host wait for a GPU: a look at a number, or a result whose size depends on numbers."""

    WAITS = {"item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "nonzero", "masked_select"}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = func.__name__
        assert name not in self.WAITS, f"{name} waits for the device"
        if name in ("__getitem__", "__setitem__", "index_put_"):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            masks = [i for i in index if isinstance(i, torch.Tensor) and i.dtype == torch.bool]
            assert not masks, "a mask as an index waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "waiting",
    [
        *(lambda x: x.any().item(), lambda x: torch.arange(2)[x], torch.nonzero, lambda x: x.tolist()),
        *(lambda x: bool(x.any()), lambda x: x.numpy(), lambda x: int(x.sum()), lambda x: 1 if x[0] else 0),
    ],
)
def test_what_waits_for_the_device_is_noticed(waiting):
    with pytest.raises(AssertionError, match="waits"), HostWaits():
        waiting(torch.tensor([True, False]))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in DERIVED])
def test_nothing_waits_for_the_device_where_selections_are_masks(name):
    w = world("mug", "ball")
    w.dense = True
    draw = one(name, at="interval") if "interval" in TIMES[name] else one(name)
    draw.apply(w, ALL, generator())
    g, select = generator(1), masked(0, 4)
    before = draw.drawn.clone()
    with HostWaits():
        draw.apply(w, select, g)
        if draw.at == "interval":
            draw.advance(w, 10.0, g)
    assert not torch.equal(draw.drawn, before)


@pytest.mark.parametrize("at", ["reset", "interval"])
@pytest.mark.parametrize("name", DERIVED)
def test_constants_are_not_derived_again_and_again_on_a_gpu(name, at):
    w = world(free_com=True)
    one(name, at=at).apply(w, ALL, generator())
    w.dense = True
    with pytest.raises(RandomizeError, match=f"{name} cannot be drawn at every {at} on a GPU.* at: start"):
        one(name, at=at).prepare(w)
    one(name, at="start").apply(w, ALL, generator())


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_draws_the_same(name):
    draws = [one(name, at="interval") if "interval" in TIMES[name] else one(name) for _ in range(3)]
    for draw, seed in zip(draws, (3, 3, 4), strict=True):
        w, g = world(free_com=True), generator(seed)
        draw.apply(w, ALL, g)
        if draw.at == "interval":
            draw.advance(w, 10.0, g)
    a, b, other = (draw.drawn for draw in draws)
    assert torch.isfinite(a).all() and torch.equal(a, b) and not torch.equal(a, other)


def test_several_may_concern_one_field_in_any_order():
    """Of a value, first turns take effect, then factors, then what is added; the order of the names does not matter."""
    names = ("object_mass", "object_inertia", "object_size", "object_com", "gravity", "gravity_tilt")
    worlds = [world(free_com=True) for _ in range(2)]
    for w, order in zip(worlds, (names, names[::-1]), strict=True):
        draws = make(*order)
        for _ in range(3):
            for name in order:
                draws[name].apply(w, ALL, generator(NAMES.index(name)))
    a, b = own_fields(worlds[0])[0], own_fields(worlds[1])[0]
    for field in a:
        np.testing.assert_allclose(a[field].numpy(), b[field].numpy(), rtol=1e-12, err_msg=field)
    m = model(free_com=True)
    body = m.body("object").id
    factor = {name: draw.drawn.numpy()[:, 0] for name, draw in draws.items()}
    mass = m.body_mass[body] * factor["object_mass"] * factor["object_size"] ** 3
    np.testing.assert_allclose(a["body_mass"][:, [body]].numpy(), mass)
    subtree = worlds[0].shards[0].physics.expand("body_subtreemass")
    np.testing.assert_allclose(subtree[:, [body]].numpy(), mass)
    ipos = m.body_ipos[body] * factor["object_size"] + factor["object_com"]
    np.testing.assert_allclose(a["body_ipos"][:, body].numpy(), ipos, atol=1e-12)
    gravity = [
        turned(m.opt.gravity, tilt) * g for tilt, g in zip(factor["gravity_tilt"], factor["gravity"], strict=True)
    ]
    np.testing.assert_allclose(a["opt.gravity"].numpy(), gravity, atol=1e-12)


def test_operations_add_and_set():
    w = world()
    draws = make(
        arm_damping={"range": [0.1, 0.2], "operation": "add"},
        arm_armature={"range": [0.5, 0.6], "operation": "set"},
        arm_frictionloss={"range": [2.0, 3.0], "operation": "scale"},
    )
    for draw in draws.values():
        draw.apply(w, ALL, generator())
    m, fields = model(), own_fields(w)[0]
    dofs = dofs_of(m)
    damping, armature, loss = (draw.drawn[:, 0].numpy() for draw in draws.values())
    np.testing.assert_allclose(fields["dof_damping"].numpy()[:, dofs], m.dof_damping[dofs] + damping)
    np.testing.assert_allclose(fields["dof_armature"].numpy()[:, dofs], np.tile(armature, 2))
    np.testing.assert_allclose(fields["dof_frictionloss"].numpy()[:, dofs], m.dof_frictionloss[dofs] * loss)
    assert draws["arm_damping"].unit == "N m s/rad or N s/m" and draws["arm_frictionloss"].unit == "×"


def test_each_draws_numbers_for_every_element():
    w, draw = world(), one("arm_damping", each=True)
    draw.apply(w, ALL, generator())
    m = model()
    assert draw.factor.shape == (N, 2) and len(draw.drawn.unique()) == 2 * N
    ratio = own_fields(w)[0]["dof_damping"][:, dofs_of(m)].numpy() / m.dof_damping[dofs_of(m)]
    np.testing.assert_allclose(ratio, draw.factor.numpy())
    one("object_friction", each=True).apply(world("cube", "ball"), ALL, generator())
    with pytest.raises(RandomizeError, match="equally many rows"):
        one("object_friction", each=True).apply(world("mug", "ball"), ALL, generator())


def test_size_scales_every_length_of_a_compound_object():
    """Against the same object compiled at the other size."""
    w, draw = world("mug"), one("object_size", range=[0.8, 1.25])
    draw.apply(w, ALL, generator())
    m = model("mug")
    for i in range(N):
        scaled = model("mug", scale=float(draw.factor[i]))
        for field in draw.fields:
            rows = rows_of(m, "object")[field.startswith("geom_")]
            own = w.shards[0].physics.expand(field)[i].numpy()[rows]
            np.testing.assert_allclose(own, getattr(scaled, field)[rows], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["ball", "cube", "mug", "can"])
def test_a_scaled_object_rests_at_its_scaled_height(name):
    w, draw = world(name), one("object_size", range=[0.7, 1.4])
    draw.apply(w, ALL, generator())
    rest = get_object(name).rest_height * draw.factor[:, 0].numpy()
    w.shards[0].physics.bind("qpos")[:, 2] = torch.from_numpy(rest + 0.01)
    np.testing.assert_allclose(settle(w, 1.5)[:, 2].numpy(), rest, atol=5e-4)


def on_a_stand(scale: float) -> mujoco.MjModel:
    """A mug above two boxes of one body: compound against compound goes through the bounding volumes of both."""
    made = mujoco.MjSpec()
    made.option.timestep = 0.004
    get_object("mug").scaled(scale).add_to(made, "object")
    stand = made.worldbody.add_body(name="stand")
    for y in (-0.021, 0.021):
        stand.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.2, 0.02, 0.05], pos=[0, y, -0.05])
    return made.compile()


def test_a_scaled_object_falls_as_one_compiled_at_that_size():
    """On its handle, so that collision has to know the new reach of the compound."""
    physics = MujocoCpu(on_a_stand(1.0), N, 1)
    w, draw = World([Shard(physics, 0, N, "mug")], {}), one("object_size", range=[0.7, 1.4])
    draw.apply(w, ALL, generator())
    half = np.sqrt(0.5)
    above = np.array([0, 0, 0.12, half, 0, half, 0])
    physics.bind("qpos").copy_(torch.from_numpy(above).expand(N, 7))
    w.step(100)
    for i in range(N):
        scaled = on_a_stand(float(draw.factor[i]))
        data = mujoco.MjData(scaled)
        data.qpos[:] = above
        mujoco.mj_step(scaled, data, 100)
        np.testing.assert_allclose(physics.bind("qpos")[i].numpy(), data.qpos, atol=1e-6)


def test_friction_decides_whether_an_object_slides():
    """On a slope of 20 degrees an object stays where its friction exceeds tan 20° = 0.36."""
    w, draw = world("cube", tilt=20.0), one("object_friction", range=[0.2, 0.6], operation="set")
    draw.apply(w, ALL, generator(2))
    friction = draw.factor[:, 0].numpy()
    assert friction.min() < 0.3 < 0.42 < friction.max()
    qpos, half = w.shards[0].physics.bind("qpos"), np.radians(20) / 2
    qpos[:, 3:7] = torch.tensor([np.cos(half), 0, np.sin(half), 0])
    qpos[:, 2] = get_object("cube").rest_height / np.cos(np.radians(20)) + 1e-3
    before = settle(w, 0.3)
    travelled = (settle(w, 0.7) - before).norm(dim=1).numpy()
    assert (travelled[friction < 0.3] > 0.2).all()
    assert (travelled[friction > 0.42] < 0.05).all()  # soft contacts creep


def test_a_tilt_of_gravity_keeps_its_magnitude():
    w, draw = world(), one("gravity_tilt", range=[0.1, 0.3])
    draw.apply(w, ALL, generator())
    gravity = own_fields(w)[0]["opt.gravity"].numpy()
    np.testing.assert_allclose(np.linalg.norm(gravity, axis=1), 9.81)
    np.testing.assert_allclose(np.arccos(-gravity[:, 2] / 9.81), draw.factor.norm(dim=1).numpy())


def test_what_would_have_no_effect_is_refused():
    made = spec()
    made.joint("shoulder").damping = made.joint("elbow").damping = np.zeros(3)
    bare = World([Shard(MujocoCpu(made.compile(), 1, 1), 0, 1, "mug")], {})
    with pytest.raises(RandomizeError, match="arm_damping: dof_damping .* zero in the model of 'mug'.*operation: add"):
        one("arm_damping").prepare(bare)
    one("arm_damping", operation="add", range=[0.1, 0.2]).prepare(bare)
    with pytest.raises(RandomizeError, match="object_com: .*sim.randomize.loosen"):
        one("object_com").prepare(world("cube"))
    one("object_com").prepare(world("mug"))  # whose centre of mass is off the origin anyway
    tracking = spec()
    tracking.camera("watch").mode = mujoco.mjtCamLight.mjCAMLIGHT_TRACK
    with pytest.raises(RandomizeError, match="camera_position: .* mode 'fixed'"):
        one("camera_position").prepare(World([Shard(MujocoCpu(tracking.compile(), 1, 1), 0, 1, "mug")], {}))
    targets = {"object": TARGETS["object"].__class__(bodies=("thing",))}
    with pytest.raises(RandomizeError, match="object_mass: no bodies named thing in the model; bodies: world, object"):
        make_randomizers({"object_mass": [0.5, 1]}, targets)["object_mass"].prepare(world())


def test_the_factors_are_what_the_critic_sees(small):
    env = small(4, randomize={"object_mass": [0.5, 2.0], "object_friction": [0.7, 0.7], "object_color": [0, 1]})
    factors = env.channels["randomization"]
    assert factors.shape == (4, 2) and (factors[:, 1] == torch.tensor(0.7)).all()
    for shard in env.world.shards:
        m = shard.physics.model
        body = m.body("object").id
        ratio = shard.physics.expand("body_mass")[:, body] / m.body_mass[body]
        assert torch.allclose(ratio.float(), factors[shard.rows, 0])
    assert torch.equal(env.reset()["critic"][:, -2:], factors)
