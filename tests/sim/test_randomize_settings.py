"""Randomisers by name: what settings may say, what is drawn then, and what is refused."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch
from scipy import stats

from sim.physics import PhysicsError
from sim.randomize import RandomizeError, Target, available, make_randomizers
from sim.randomizers.catalog import KINDS
from sim.randomizers.draw import DISTRIBUTIONS, FORMS, Draw
from sim.tasks import list_tasks, targets
from tests.sim.randomize_scene import ALL, FIELDS, NAMES, TARGETS, TIMES, N, generator, make, model, one, world

SCIPY = {
    "uniform": lambda low, high: stats.uniform(low, high - low),
    "log_uniform": stats.loguniform,
    "gaussian": lambda low, high: stats.truncnorm(-2, 2, (low + high) / 2, (high - low) / 4),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_draws_have_the_stated_distribution_and_form(distribution, form):
    draw = Draw(0.5, 2.0, distribution, form)
    drawn = draw.sample(4000, 2, generator())
    assert drawn.shape == (4000, 2, FORMS[form]) and drawn.dtype == torch.float64
    sizes = draw.sizes(drawn).flatten().numpy()
    assert sizes.min() >= 0.5 - 1e-12 and sizes.max() <= 2.0 + 1e-12
    exact = SCIPY[distribution](0.5, 2.0)
    assert stats.kstest(sizes, exact.cdf).pvalue > 0.01
    x = np.linspace(0.51, 1.99, 20)
    np.testing.assert_allclose(draw.density(x), exact.pdf(x), rtol=1e-9)


def test_directions_are_even():
    for form, dims in (("sphere", 3), ("horizontal", 2)):
        vectors = Draw(1.0, 1.0, form=form).sample(20000, 1, generator())[:, 0].numpy()
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0)
        np.testing.assert_allclose(vectors[:, :dims].mean(0), 0.0, atol=0.02)
        np.testing.assert_allclose(np.cov(vectors[:, :dims].T), np.eye(dims) / dims, atol=0.02)
        assert not vectors[:, dims:].any()


def test_a_range_of_one_number_is_that_number():
    for distribution in DISTRIBUTIONS:
        draw = one("object_mass", range=[1.5, 1.5], distribution=distribution)
        draw.apply(world(), ALL, generator())
        np.testing.assert_allclose(draw.factor.numpy(), np.full((N, 1), 1.5))


def test_a_list_a_mapping_and_nothing():
    listed = make_randomizers({"object_mass": [0.5, 2], "gravity": None}, TARGETS)
    assert list(listed) == ["object_mass"] and (listed["object_mass"].draw.low, listed["object_mass"].draw.high) == (
        0.5,
        2,
    )
    mapped = one("object_mass", range=(0.5, 2), at="reset", distribution="log_uniform")
    assert mapped.at == "reset" and mapped.draw.distribution == "log_uniform"
    assert listed["object_mass"].at == "start"
    assert one("object_push").timing.interval_s == (2.0, 5.0)
    assert one("object_push", interval_s=[1, 2], horizontal=True).draw.form == "horizontal"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"object_mas": [0.5, 1]}, "unknown randomizer 'object_mas'; did you mean 'object_mass'"),
        ({"hand_mass": [0.5, 1]}, "unknown randomizer 'hand_mass'"),
        (
            {"object_mass": {"rnage": [0.5, 1]}},
            "'randomize.object_mass.rnage'; did you mean 'randomize.object_mass.range'",
        ),
        ({"object_size": {"each": True}}, "unknown setting 'randomize.object_size.each'"),
        ({"object_mass": {"operation": "add"}}, "unknown setting 'randomize.object_mass.operation'"),
        ({"object_color": {"interval": 3}}, "did you mean 'randomize.object_color.interval_s'"),
        ({"latency": {"distribution": "gaussian"}}, "unknown setting 'randomize.latency.distribution'"),
        ({"object_mass": {"distribution": "normal"}}, "unknown distribution 'normal'"),
        ({"object_mass": {"at": "restart"}}, "unknown time 'restart'; did you mean 'start'"),
        ({"object_push": {"at": "reset"}}, "unknown time 'reset'; times: interval"),
        ({"latency": {"at": "interval"}}, "unknown time 'interval'"),
        (
            {"object_mass": {"at": "reset", "interval_s": [1, 2]}},
            "interval_s needs at: interval, it is drawn at: reset",
        ),
        ({"object_mass": {"at": "interval", "interval_s": [0, 2]}}, "interval_s must satisfy 0 < low <= high"),
        ({"object_mass": {"at": "interval", "interval_s": 2}}, r"interval_s must be two numbers, \[low, high\], got 2"),
        ({"arm_damping": {"operation": "times"}}, "unknown operation 'times'"),
        ({"arm_damping": {"operation": "add"}}, "to add, a range must be given, in N m s/rad"),
        ({"arm_damping": {"operation": "set", "range": [-1, 1]}}, "0 <= low <= high < inf"),
        ({"object_mass": [0.5]}, r"randomize.object_mass must be two numbers, \[low, high\], got \[0.5\]"),
        ({"object_mass": [0.5, True]}, "must be two numbers"),
        ({"object_mass": [0.5, "1"]}, "must be two numbers"),
        ({"object_mass": "0.5"}, "must be two numbers"),
        ({"object_mass": 1.0}, "must be two numbers"),
        ({"object_mass": {"range": None}}, "must be two numbers"),
        ({"object_com": [0.1, -0.1]}, "a range of numbers must satisfy low <= high < inf"),
        ({"object_com": [-np.inf, 0.1]}, "low <= high < inf"),
        ({"object_com": {"range": [-1, 1], "distribution": "log_uniform"}}, "0 < low <= high"),
        ({"object_push": [-1, 1]}, "0 <= low <= high"),
        ({"gravity_tilt": [-0.1, 0.1]}, "0 <= low <= high"),
        ({"latency": [0, 1.5]}, r"two whole numbers of control steps, got \[0, 1.5\]"),
        ({"latency": [-1, 1]}, "0 <= low <= high"),
        ({"object_push": {"duration_s": 0}}, "duration_s must be a number of seconds greater than 0, got 0"),
        ({"object_push": {"horizontal": "yes"}}, "horizontal must be true or false, got 'yes'"),
        ({"arm_mass": {"each": 1}}, "each must be true or false, got 1"),
        ({"sensor_bias": [-1, 1]}, "this task declares no sensor noise"),
    ],
)
def test_mistakes_are_one_clear_line(settings, message):
    with pytest.raises(RandomizeError, match=message) as error:
        make_randomizers(settings, TARGETS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0), (1.2, 0.8), (np.nan, 1.0), (0.5, np.nan), (0.5, np.inf)])
@pytest.mark.parametrize("name", [name for name in FIELDS if available(TARGETS)[name][0].operations[0] == "scale"])
def test_impossible_factors(name, bounds):
    with pytest.raises(
        RandomizeError, match=f"randomize.{name}: a range of factors must satisfy 0 < low <= high < inf"
    ):
        make_randomizers({name: bounds}, TARGETS)


def test_targets_decide_which_names_there_are():
    assert {"object_mass", "object_size", "object_push", "arm_damping", "actuator_kp", "gravity"} <= set(NAMES)
    assert not {"arm_size", "arm_push", "arm_kick", "object_damping"} & set(NAMES)
    soles = available({"foot": Target(geoms=("*_sole_*",)), "base": Target(bodies=("torso",))})
    assert {"foot_friction", "foot_color", "base_mass", "base_push"} <= set(soles)
    assert not {"foot_mass", "foot_push", "base_kick", "base_size"} & set(soles)


def test_patterns_choose_elements_and_exceptions():
    m = model()
    target = Target(bodies=("*",), joints=("*",), but=("world", "object"))
    assert [m.body(i).name for i in target.rows(m, "body_mass")] == ["arm", "hand"]
    assert [m.joint(m.dof_jntid[i]).name for i in target.rows(m, "dof_damping")] == ["shoulder", "elbow"]
    assert set(m.geom_bodyid[target.rows(m, "geom_friction")]) == {m.body("arm").id, m.body("hand").id}
    assert len(Target(lights=("*",)).rows(m, "light_dir")) == 1  # which has no name


@pytest.mark.parametrize("name", NAMES)
def test_typical_ranges_work_and_say_what_they_are(name):
    kind = available(TARGETS)[name][0]
    draw = one(name)
    draw.prepare(world(free_com=True))
    assert draw.name == name and draw.fields == kind.fields and draw.at == TIMES[name][0]
    assert draw.unit == kind.unit_of(kind.operations[0] if kind.operations else "") != ""
    assert (draw.factor.shape[1] > 0) == kind.privileged
    assert kind.varies and (kind.fields or kind.data or kind.needs == "")


def expandable(field: str) -> bool:
    """Whether MuJoCo Warp can give a model field one value for each world, by the declaration of its model."""
    from mujoco_warp import Model, Option

    part, name = (Option, field.removeprefix("opt.")) if field.startswith("opt.") else (Model, field)
    declared = {f: t for f, t in part.__annotations__.items()}
    return name in declared and getattr(declared[name], "shape", ("",))[0] == "*"


@pytest.mark.parametrize("field", sorted({field for kind in KINDS for field in kind.fields}))
def test_both_engines_can_vary_every_declared_field(field):
    physics = world().shards[0].physics
    assert physics.expand(field).shape[0] == N
    pytest.importorskip("mujoco_warp", reason="the GPU engine needs the extra [gpu]")
    assert expandable(field) and not expandable("ngeom")


@pytest.mark.parametrize("field", sorted({field for kind in KINDS for field in kind.data}))
def test_data_that_is_written_is_state(field):
    physics = world().shards[0].physics
    assert physics.bind(field).shape[0] == N
    with pytest.raises(PhysicsError):
        physics.expand(field)


def test_every_task_says_what_can_be_randomised():
    for task in list_tasks():
        names = available(targets(task))
        assert "gravity" in names and len(names) > 10


def test_a_world_can_be_written_into_a_plain_model():
    w = world("cube", "mug", free_com=True)
    draws = make("object_mass", "object_color", "gravity")
    for draw in draws.values():
        draw.apply(w, ALL, generator())
    for i in (0, 4):
        m = model("cube" if i < 3 else "mug", free_com=True)
        mass = m.body_mass[1]
        w.write_model(i, m)
        assert m.body_mass[1] == pytest.approx(mass * draws["object_mass"].factor[i, 0].item())
        np.testing.assert_allclose(m.opt.gravity[2], -9.81 * draws["gravity"].factor[i, 0].item())
        geoms = m.geom_rgba[m.geom_bodyid == 1]
        np.testing.assert_allclose(geoms[:, :3], np.tile(draws["object_color"].drawn[i, 0], (len(geoms), 1)), rtol=1e-6)
        assert isinstance(m, mujoco.MjModel)
