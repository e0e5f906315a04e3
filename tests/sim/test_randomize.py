"""Randomisers: bounds, no drift, composition, and their physical effect."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from sim.mujoco_cpu import MujocoCpu
from sim.objects import get_object
from sim.randomize import (
    RANDOMIZERS,
    RandomizeError,
    ScaleFields,
    actuator_gains,
    object_friction,
    object_mass,
    object_size,
)
from sim.selection import Selection
from sim.world import Shard, Source, World

N = 6
ALL = Selection.all(N)


def model(name: str = "mug", tilt: float = 0.0) -> mujoco.MjModel:
    """An object above a table that is tilted about y, and a driven joint."""
    spec = mujoco.MjSpec()
    spec.option.timestep = 0.004
    half = np.radians(tilt) / 2
    quat = [np.cos(half), 0, np.sin(half), 0]
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[5, 5, 0.1], quat=quat, friction=[0.1, 0, 0])
    get_object(name).add_to(spec, "object")
    arm = spec.worldbody.add_body(name="arm", pos=[0, 2, 1])
    arm.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.05, 0, 0], mass=1, pos=[0.2, 0, 0])
    arm.add_joint(name="joint", axis=[0, 1, 0])
    actuator = spec.add_actuator(name="joint", target="joint", trntype=mujoco.mjtTrn.mjTRN_JOINT)
    actuator.set_to_position(kp=20.0, kv=1.0)
    return spec.compile()


def world(*names: str, tilt: float = 0.0) -> World:
    names = names or ("mug",)
    shards, start = [], 0
    for name in names:
        count = N // len(names)
        shards.append(Shard(MujocoCpu(model(name, tilt), count, 1), start, start + count, name))
        start += count
    return World(shards, {"position": Source("xpos", "body", ("object",))})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def object_rows(m: mujoco.MjModel, field: str) -> np.ndarray:
    body = m.body("object").id
    return np.flatnonzero(m.geom_bodyid == body) if field.startswith("geom_") else np.array([body])


def settle(w: World, seconds: float = 1.5) -> torch.Tensor:
    """Object positions (N, 3) after a while."""
    w.step(round(seconds / w.timestep))
    assert not w.unusable().any()
    return w.read()["position"].clone()


@pytest.mark.parametrize("name", sorted(RANDOMIZERS))
def test_factors_stay_within_bounds_and_differ_between_worlds(name):
    w, draw, g = world(), RANDOMIZERS[name]((0.7, 1.4)), generator()
    seen = []
    for _ in range(40):
        draw.apply(w, ALL, g)
        seen.append(draw.factor.clone())
    drawn = torch.stack(seen)
    assert (drawn >= 0.7).all() and (drawn <= 1.4).all()
    assert drawn.min() < 0.75 and drawn.max() > 1.35
    assert len(drawn.unique()) == drawn.numel()


@pytest.mark.parametrize("name", sorted(RANDOMIZERS))
def test_fifty_draws_do_not_accumulate(name):
    w, draw, g = world("mug", "ball"), RANDOMIZERS[name]((0.5, 2.0)), generator()
    for k in range(50):
        draw.apply(w, ALL if k % 2 == 0 else Selection(torch.tensor([1, 4])), g)
    for shard in w.shards:
        m = shard.physics.model
        for field, power in draw.powers.items():
            rows = draw.elements(m, field)
            live = shard.physics.expand(field).numpy()
            base = getattr(m, field)
            factor = draw.factor[shard.rows].numpy() ** power
            for i in range(shard.physics.nworld):
                wanted = base.copy()
                at = (rows,) if draw.column is None else (rows, draw.column)
                wanted[at] *= factor[i]
                np.testing.assert_allclose(live[i], wanted, rtol=1e-12)


def test_only_the_drawn_worlds_change():
    w, draw = world("mug", "ball"), object_mass((0.5, 2.0))
    draw.apply(w, ALL, generator())
    before = [shard.physics.expand("body_mass").clone() for shard in w.shards]
    draw.apply(w, Selection(torch.tensor([2, 5])), generator(1))
    for shard, old in zip(w.shards, before, strict=True):
        changed = (shard.physics.expand("body_mass") != old).any(1)
        assert (torch.nonzero(changed).squeeze(1) + shard.start).tolist() == [{"mug": 2, "ball": 5}[shard.label]]


def test_one_seed_draws_the_same_factors():
    a, b = object_size((0.9, 1.1)), object_size((0.9, 1.1))
    a.apply(world(), ALL, generator(3)), b.apply(world(), ALL, generator(3))
    assert torch.equal(a.factor, b.factor)


def test_mass_and_size_compose_and_derived_constants_follow():
    w, mass, size, g = world(), object_mass((0.5, 2.0)), object_size((0.8, 1.2)), generator()
    for _ in range(5):
        mass.apply(w, ALL, g)
        size.apply(w, ALL, g)
    physics = w.shards[0].physics
    m = physics.model
    body = m.body("object").id
    m_factor, s = mass.factor.numpy(), size.factor.numpy()
    np.testing.assert_allclose(physics.expand("body_mass")[:, body], m.body_mass[body] * m_factor * s**3)
    inertia = m.body_inertia[body] * (m_factor * s**5)[:, None]
    np.testing.assert_allclose(physics.expand("body_inertia")[:, body].numpy(), inertia)
    inverse = physics.expand("body_invweight0")[:, body, 0].numpy()
    np.testing.assert_allclose(inverse, m.body_invweight0[body, 0] / (m_factor * s**3), rtol=1e-6)
    subtree = physics.expand("body_subtreemass")[:, body].numpy()
    np.testing.assert_allclose(subtree, m.body_mass[body] * m_factor * s**3)


def test_size_scales_every_length_of_a_compound_object():
    """Against the same object compiled at the other size."""
    w, draw = world("mug"), object_size((0.8, 1.25))
    draw.apply(w, ALL, generator())
    physics = w.shards[0].physics
    m = physics.model
    for i in range(N):
        spec = mujoco.MjSpec()
        get_object("mug").scaled(float(draw.factor[i])).add_to(spec, "object")
        scaled = spec.compile()
        body = scaled.body("object").id
        for field in draw.powers:
            live = physics.expand(field)[i].numpy()[object_rows(m, field)]
            np.testing.assert_allclose(live, getattr(scaled, field)[object_rows(scaled, field)], rtol=1e-9, atol=1e-12)
        assert body == 1


@pytest.mark.parametrize("name", ["ball", "cube", "mug", "can"])
def test_a_scaled_object_rests_at_its_scaled_height(name):
    w, draw = world(name), object_size((0.7, 1.4))
    draw.apply(w, ALL, generator())
    rest = get_object(name).rest_height * draw.factor.numpy()
    qpos = w.shards[0].physics.bind("qpos")
    qpos[:, w.shards[0].physics.model.joint("object").qposadr[0] + 2] = torch.from_numpy(rest + 0.01)
    np.testing.assert_allclose(settle(w)[:, 2].numpy(), rest, atol=5e-4)


def on_a_stand(scale: float) -> mujoco.MjModel:
    """A mug above two boxes of one body: compound against compound goes through the bounding volumes of both."""
    spec = mujoco.MjSpec()
    spec.option.timestep = 0.004
    get_object("mug").scaled(scale).add_to(spec, "object")
    stand = spec.worldbody.add_body(name="stand")
    for y in (-0.021, 0.021):
        stand.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.2, 0.02, 0.05], pos=[0, y, -0.05])
    return spec.compile()


def test_a_scaled_object_falls_as_one_compiled_at_that_size():
    """On its handle, so that collision has to know the new reach of the compound."""
    physics = MujocoCpu(on_a_stand(1.0), N, 1)
    w = World([Shard(physics, 0, N, "mug")], {})
    draw = object_size((0.7, 1.4))
    draw.apply(w, ALL, generator())
    half = np.sqrt(0.5)
    start = np.array([0, 0, 0.12, half, 0, half, 0])
    physics.bind("qpos").copy_(torch.from_numpy(start).expand(N, 7))
    w.step(100)
    for i in range(N):
        scaled = on_a_stand(float(draw.factor[i]))
        data = mujoco.MjData(scaled)
        data.qpos[:] = start
        mujoco.mj_step(scaled, data, 100)
        np.testing.assert_allclose(physics.bind("qpos")[i].numpy(), data.qpos, atol=1e-6)


def test_friction_decides_whether_an_object_slides():
    """On a slope of 20 degrees an object stays where its friction exceeds tan 20° = 0.36."""
    w = world("cube", tilt=20.0)
    draw = ScaleFields((0.2, 0.6), {"geom_friction": 1}, object_rows, column=0)
    draw.apply(w, ALL, generator(2))
    friction = draw.factor.numpy()
    assert friction.min() < 0.3 < 0.42 < friction.max()
    physics = w.shards[0].physics
    adr = physics.model.joint("object").qposadr[0]
    half = np.radians(20) / 2
    physics.bind("qpos")[:, adr + 3 : adr + 7] = torch.tensor([np.cos(half), 0, np.sin(half), 0])
    physics.bind("qpos")[:, adr + 2] = get_object("cube").rest_height / np.cos(np.radians(20)) + 1e-3
    start = settle(w, 0.3)
    travelled = (settle(w, 0.7) - start).norm(dim=1).numpy()
    assert (travelled[friction < 0.3] > 0.2).all()
    assert (travelled[friction > 0.42] < 0.05).all()  # soft contacts creep


def test_friction_of_an_object_is_that_of_its_contacts_and_nothing_else_changes():
    w, draw = world("mug"), object_friction((0.3, 0.9))
    draw.apply(w, ALL, generator())
    physics = w.shards[0].physics
    m = physics.model
    live = physics.expand("geom_friction").numpy()
    rows = object_rows(m, "geom_friction")
    np.testing.assert_allclose(live[:, rows, 0], draw.factor.numpy()[:, None] * m.geom_friction[rows, 0])
    np.testing.assert_array_equal(live[:, rows, 1:], np.broadcast_to(m.geom_friction[rows, 1:], (N, len(rows), 2)))
    others = np.setdiff1d(np.arange(m.ngeom), rows)
    np.testing.assert_array_equal(live[:, others], np.broadcast_to(m.geom_friction[others], (N, len(others), 3)))


def test_mass_changes_what_a_force_does():
    w, draw = world("cube"), object_mass((0.5, 2.0))
    draw.apply(w, ALL, generator())
    physics = w.shards[0].physics
    m = physics.model
    body = m.body("object").id
    physics.bind("qpos")[:, 2] = 1.0
    physics.bind("xfrc_applied")[:, body, 0] = 0.1
    w.step(25)
    speed = physics.bind("qvel")[:, m.joint("object").dofadr[0]].numpy()
    np.testing.assert_allclose(speed, 0.1 * 0.1 / (m.body_mass[body] * draw.factor.numpy()), rtol=1e-6)


def test_gains_change_how_far_gravity_bends_a_joint():
    w, draw = world(), actuator_gains((0.5, 2.0))
    draw.apply(w, ALL, generator())
    w.command(torch.zeros(N, 1))
    settle(w, 8.0)
    physics = w.shards[0].physics
    angle = physics.bind("qpos")[:, physics.model.joint("joint").qposadr[0]].numpy()
    stiffness = 20.0 * draw.factor.numpy()
    np.testing.assert_allclose(stiffness * angle, 9.81 * 0.2 * np.cos(angle), rtol=1e-3)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0), (1.2, 0.8), (np.nan, 1.0), (0.5, np.nan), (0.5, np.inf)])
@pytest.mark.parametrize("name", sorted(RANDOMIZERS))
def test_impossible_ranges(name, bounds):
    with pytest.raises(RandomizeError, match="0 < low <= high"):
        RANDOMIZERS[name](bounds)


def test_a_range_of_one_factor_is_that_factor():
    w, draw = world(), object_mass((1.5, 1.5))
    draw.apply(w, ALL, generator())
    assert draw.factor.tolist() == [1.5] * N


def test_the_factors_are_what_the_critic_sees(small):
    env = small(4, randomize={"object_mass": [0.5, 2.0], "object_friction": [0.7, 0.7]})
    factors = env.channels["randomization"]
    assert factors.shape == (4, 2) and (factors[:, 1] == torch.tensor(0.7)).all()
    for shard in env.world.shards:
        m = shard.physics.model
        body = m.body("object").id
        ratio = shard.physics.expand("body_mass")[:, body] / m.body_mass[body]
        assert torch.allclose(ratio.float(), factors[shard.rows, 0])
    assert torch.equal(env.reset()["critic"][:, -2:], factors)
