"""The GPU engine on Warp's CPU device: the CPU engine's numbers within float32, and worlds of their own.

Tolerances against double precision: 2e-6 for positions after one step, 2e-4 of the largest for accelerations.
"""

from __future__ import annotations

import copy
import importlib.util

import mujoco
import numpy as np
import pytest
import torch

from sim.mujoco_cpu import MujocoCpu
from sim.selection import Selection
from tests.sim.gpu_scenes import N, host, inputs, largest_error, model_of, prepare, prepared

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mujoco_warp") is None, reason="MuJoCo Warp is optional: pip install 'robolearn[gpu]'"
)

READ = "xpos xmat xquat xipos site_xpos geom_xpos cam_xpos ten_length actuator_length M sensordata".split()


@pytest.mark.parametrize("name", ["arm", "box", "hand"])
def test_one_step_is_that_of_plain_mujoco(name: str) -> None:
    physics = prepared(name)
    live = {field: physics.bind(field) for field in (*READ, "qacc", "qvel", "act", "time", "qfrc_actuator")}
    model = copy.copy(model_of(name))
    datas = [host(model, physics, i) for i in range(N)]
    physics.step(1)
    for i, data in enumerate(datas):
        mujoco.mj_step(model, data)
        assert largest_error(live["qacc"][i], data.qacc) < 2e-4
        velocities = data.sensordata.copy()
        mujoco.mj_fwdPosition(model, data)  # up to date with the state, not one step behind as mj_step leaves them
        mujoco.mj_sensorPos(model, data)
        for field in (*READ, "act", "time", "qfrc_actuator"):
            expected = np.asarray(getattr(data, field))
            assert live[field][i].shape == expected.shape
            assert largest_error(live[field][i], expected) < (1e-4 if field == "sensordata" else 2e-6), field
        assert largest_error(physics.bind("qpos")[i], data.qpos) < 2e-6
        assert largest_error(live["qvel"][i], data.qvel) < 2e-5
        assert name != "arm" or not np.array_equal(velocities, data.sensordata)


@pytest.mark.parametrize("name, tolerance", [("arm", 1e-5), ("box", 1e-5), ("hand", 1e-4)])
def test_sixty_steps_stay_near_the_cpu_engine(name: str, tolerance: float) -> None:
    gpu, cpu = prepared(name), MujocoCpu(model_of(name), N, 1)
    prepare(cpu)
    for engine in (gpu, cpu):
        engine.bind("sensordata")
        for _ in range(15):
            engine.step(4)
    for field in ("qpos", "sensordata", "history"):
        assert largest_error(gpu.bind(field), cpu.bind(field).numpy()) < tolerance, field


def test_fields_have_the_cpu_engines_shapes() -> None:
    gpu, cpu = prepared("arm"), MujocoCpu(model_of("arm"), N, 1)
    for name in (
        *READ,
        "time",
        "act",
        "xfrc_applied",
        "mocap_pos",
        "mocap_quat",
        "eq_active",
        "qacc_warmstart",
        "nefc",
    ):
        assert gpu.bind(name).shape == cpu.bind(name).shape, name
        assert gpu.bind(name) is gpu.bind(name)
    for name in ("geom_aabb", "body_mass", "cam_mat0", "opt.gravity", "opt.timestep", "actuator_gainprm", "jnt_range"):
        assert gpu.expand(name).shape == cpu.expand(name).shape, name
        assert largest_error(gpu.expand(name), cpu.expand(name).numpy()) < 1e-6, name


def scaled(model: mujoco.MjModel, name: str, i: int) -> np.ndarray:
    """Values of a model field in world ``i``: every world has others, and of no entry the same factor."""
    option = name.removeprefix("opt.")
    value = np.asarray(getattr(model.opt, option) if option != name else getattr(model, name))
    return value * np.random.default_rng([i, len(name)]).uniform(0.7, 1.3, value.shape)


FIELDS = {
    "arm": (
        "body_mass body_inertia body_ipos dof_damping dof_armature dof_frictionloss jnt_stiffness jnt_pos "
        "actuator_gainprm actuator_biasprm actuator_gear tendon_stiffness tendon_damping opt.gravity "
        "opt.timestep qpos_spring site_pos jnt_range"
    ).split(),
    "box": ["body_mass", "body_inertia", "geom_friction", "geom_size", "geom_solref", "opt.gravity"],
    "hand": ["body_mass", "body_inertia", "dof_armature", "dof_damping", "actuator_gainprm", "opt.gravity"],
}


@pytest.mark.parametrize("name", ["arm", "box", "hand"])
def test_expanded_fields_act_as_in_a_model_of_each_world(name: str) -> None:
    physics = prepared(name)
    for _ in range(3):
        physics.step(1)  # a graph that knows only the shared fields must not be launched again
    physics.reset()
    prepare(physics)
    model, acceleration = model_of(name), physics.bind("qacc")
    for field in FIELDS[name]:
        physics.expand(field).copy_(torch.from_numpy(np.stack([scaled(model, field, i) for i in range(N)])))
    physics.set_const()
    physics.bind("xfrc_applied")[:, -1, :2] = 0.4
    plain = host(model, physics, 0)
    mujoco.mj_forward(model, plain)
    worlds = []
    for i in range(N):
        own = copy.copy(model)
        for field in FIELDS[name]:
            option = field.removeprefix("opt.")
            value = scaled(model, field, i)
            if option == field:
                getattr(own, field)[:] = value
            else:
                setattr(own.opt, option, value)
        data = host(own, physics, i)
        mujoco.mj_setConst(own, mujoco.MjData(own))
        worlds.append((own, data))
    physics.step(1)
    for i, (own, data) in enumerate(worlds):
        mujoco.mj_step(own, data)
        assert largest_error(acceleration[i], data.qacc) < 5e-4
        for derived in ("body_subtreemass", "body_invweight0", "dof_invweight0", "tendon_length0", "actuator_acc0"):
            assert largest_error(physics.expand(derived)[i], getattr(own, derived)) < 1e-4, derived
    assert largest_error(acceleration[0], plain.qacc) > 1e-2, "the factors matter"


def test_a_wall_may_stand_elsewhere_in_each_world() -> None:
    physics = prepared("arm")
    where, wall = physics.bind("geom_xpos"), model_of("arm").geom("wall").id
    physics.forward()
    physics.expand("geom_pos")[:, wall, 0] = torch.linspace(0.1, 0.4, N)
    physics.forward()
    np.testing.assert_allclose(where[:, wall, 0], np.linspace(0.1, 0.4, N), atol=1e-6)
    rows = physics.bind("nefc")
    physics.step(1)
    assert rows[0] > rows[-1], "the near wall is touched, the far one is not"


def test_constants_are_derived_in_selected_worlds_alone() -> None:
    physics = prepared("box")
    mass = physics.expand("body_mass")
    weight = physics.expand("body_invweight0")
    physics.set_const()
    before = weight.clone()
    mass *= 2.0
    for select in (Selection(torch.tensor([1])), Selection.of(torch.arange(N) == 2, dense=True)):
        physics.set_const(select)
    assert torch.equal(weight[[0, 3]], before[[0, 3]])
    np.testing.assert_allclose(weight[[1, 2], 1, 0], before[[1, 2], 1, 0] / 2, rtol=1e-5)


def test_bounds_follow_sizes_and_air_may_thicken() -> None:
    physics, model = prepared("box"), model_of("box")
    sizes = physics.expand("geom_size")[:, model.geom("box").id]
    sizes *= torch.linspace(0.5, 2.0, N).unsqueeze(1)
    physics.expand("opt.viscosity").copy_(torch.linspace(0.0, 3.0, N))  # none in the model: Warp would skip it
    physics.set_const()
    bounds = physics.expand("geom_rbound")[:, model.geom("box").id]
    np.testing.assert_allclose(bounds, sizes.norm(dim=1), rtol=1e-6)
    physics.bind("qpos")[:, 2] = 1.0
    acceleration = physics.bind("qacc")
    physics.step(1)
    slow = copy.copy(model)
    slow.opt.viscosity = 3.0
    slow.geom_size[:] = physics.expand("geom_size")[3].numpy()
    data = mujoco.MjData(slow)
    data.qpos[2], data.qvel[:] = 1.0, inputs(model)[0][3].numpy()
    mujoco.mj_step(slow, data)
    assert largest_error(acceleration[3], data.qacc) < 2e-4
    assert (acceleration[3] - acceleration[0]).abs().max() > 0.01


def test_a_sensor_that_senses_nothing_any_more_reads_zero() -> None:
    physics = prepared("arm")
    reading = physics.bind("sensordata")[:, model_of("arm").sensor("limit").adr[0]]
    for angle, sensed in ((0.6, True), (0.2, False)):
        physics.bind("qpos")[:, 0] = angle
        physics.forward()
        assert reading.ne(0).all() == sensed and reading.any() == sensed
