"""The GPU engine on Warp's CPU device: the CPU engine's numbers within float32, and worlds of their own.

Tolerances against double precision: 2e-6 for positions after one step, 2e-4 of the largest for accelerations.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from sim.gpu_capacity import CapacityError
from sim.mujoco_cpu import MujocoCpu
from sim.mujoco_gpu import MujocoGpu
from sim.robots import get_robot
from sim.selection import Selection
from sim.tasks.tracking_scene import OBJECT, compile_scene

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mujoco_warp") is None, reason="MuJoCo Warp is optional: pip install 'robolearn[gpu]'"
)

ARM = """
<mujoco>
  <compiler angle="radian"/>
  <option timestep="0.004" integrator="implicitfast"/>
  <worldbody>
    <light pos="0 0 2"/>
    <geom name="wall" type="box" pos=".5 0 .3" size=".05 .2 .3"/>
    <camera name="watch" pos="0 -1 .5" mode="targetbody" target="fore"/>
    <site name="hook" pos="0 0 1"/>
    <body name="goal" mocap="true" pos=".2 .1 .4"><site name="goal"/></body>
    <body name="upper" pos="0 0 .6">
      <joint name="shoulder" axis="0 1 0" damping=".02" range="-1.5 .45" limited="true"/>
      <geom name="upper" type="capsule" fromto="0 0 0 .2 0 0" size=".02"/>
      <body name="fore" pos=".2 0 0">
        <joint name="elbow" axis="0 1 0" damping=".01" armature=".001" frictionloss=".01" stiffness=".1"/>
        <geom name="fore" type="capsule" fromto="0 0 0 .15 0 0" size=".015"/>
        <site name="tip" pos=".15 0 0"/>
      </body>
    </body>
  </worldbody>
  <tendon>
    <fixed name="both" stiffness=".2" damping=".01">
      <joint joint="shoulder" coef="1"/><joint joint="elbow" coef="-1"/>
    </fixed>
    <spatial name="rope" range="0 .7" limited="true"><site site="hook"/><site site="tip"/></spatial>
  </tendon>
  <actuator>
    <position name="shoulder" joint="shoulder" kp="4" kv=".2" nsample="3" delay=".004"/>
    <motor name="pull" tendon="both" gear=".5"/>
    <general name="slow" joint="elbow" dyntype="filter" dynprm=".05" gainprm="1" biastype="affine" biasprm="0 -1 -.05"/>
  </actuator>
  <sensor>
    <framepos name="tip" objtype="site" objname="tip"/>
    <gyro name="gyro" site="tip"/>
    <tendonpos name="rope" tendon="rope"/>
    <accelerometer name="acc" site="tip"/>
    <jointlimitpos name="limit" joint="shoulder"/>
    <jointpos name="late" joint="elbow" nsample="4" delay=".008"/>
  </sensor>
</mujoco>
"""
BOX = """
<mujoco>
  <option timestep="0.005"/>
  <worldbody>
    <geom name="floor" type="plane" size="2 2 .1"/>
    <body name="box" pos="0 0 .0498">
      <freejoint/>
      <geom name="box" type="box" size=".05 .04 .05" mass=".3" friction=".8 .005 .0001"/>
    </body>
  </worldbody>
</mujoco>
"""
N = 4


@functools.cache
def model_of(name: str) -> mujoco.MjModel:
    """An arm with tendons, actuator dynamics and sensors; a box on a plane; the scene of hand-object tracking."""
    if name == "hand":
        return compile_scene(get_robot("allegro", side="right", base="floating"), "cube")
    return mujoco.MjModel.from_xml_string({"arm": ARM, "box": BOX}[name])


def start(model: mujoco.MjModel) -> np.ndarray:
    """A state to start from, (nq,): the arm bent, the box and the hand's object lying on the ground."""
    qpos = model.qpos0.copy()
    if model.nu == 3:
        qpos[:] = 0.4, -0.9
    if model.nu == 22:
        adr = model.joint(OBJECT).qposadr[0]
        qpos[adr : adr + 3] = 0.3, 0.0, 0.0349
        qpos[2] += 0.2
    return qpos


def inputs(model: mujoco.MjModel, steps: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Velocities (N, nv) and controls (steps, N, nu)."""
    rng = np.random.default_rng(0)
    controls = start(model)[: model.nu] if model.nu == 22 else 0.0
    drawn = rng.normal(0, 0.2, (N, model.nv)), controls + rng.normal(0, 0.1, (steps, N, model.nu))
    return torch.from_numpy(drawn[0]).float(), torch.from_numpy(drawn[1]).float()


def prepared(name: str, **settings: Any) -> MujocoGpu:
    """An engine whose worlds all have velocities and controls of their own."""
    physics = MujocoGpu(model_of(name), N, device="cpu", **settings)
    prepare(physics)
    return physics


def prepare(physics: MujocoGpu | MujocoCpu) -> None:
    model = physics.model
    velocities, controls = inputs(model)
    physics.bind("qpos").copy_(torch.from_numpy(start(model)).expand(N, -1))
    physics.bind("qvel").copy_(velocities)
    physics.bind("ctrl").copy_(controls[0])


def rollout(physics: MujocoGpu, steps: int) -> torch.Tensor:
    """States (steps, N, nq + nv) under controls of their own in every step."""
    out = []
    for control in inputs(physics.model, steps)[1]:
        physics.bind("ctrl").copy_(control)
        physics.step(2)
        out.append(torch.cat([physics.bind("qpos"), physics.bind("qvel")], 1))
    return torch.stack(out)


def host(model: mujoco.MjModel, physics: MujocoGpu, i: int) -> mujoco.MjData:
    """World ``i`` in plain MuJoCo."""
    data = mujoco.MjData(model)
    for name in ("qpos", "qvel", "act", "ctrl", "xfrc_applied", "qfrc_applied", "mocap_pos"):
        getattr(data, name)[:] = physics.bind(name)[i].numpy()
    return data


def largest_error(value: torch.Tensor, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest magnitude above 1."""
    difference = np.abs(value.numpy() - expected).max(initial=0.0)
    return float(difference / max(1.0, np.abs(expected).max(initial=0.0)))


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


@pytest.mark.parametrize("dense", [False, True])
def test_reset_leaves_other_worlds_alone_and_no_trace_in_its_own(dense: bool) -> None:
    physics, fresh = prepared("arm"), MujocoGpu(model_of("arm"), N, device="cpu")
    for engine in (physics, fresh):
        engine.bind("sensordata")
        engine.bind("qfrc_actuator")
    rollout(physics, 5)
    physics.bind("qvel")[1] = torch.nan
    physics.bind("xfrc_applied")[2] = 0.1
    physics.step(2)
    before = physics.state_dict()["state"]
    physics.reset(Selection.of(torch.tensor([False, True, True, False]), dense))
    after = physics.state_dict()["state"]
    for name, values in after.items():
        assert torch.equal(values[[0, 3]], before[name][[0, 3]]), name
    assert torch.isfinite(physics.bind("sensordata")).all() and torch.isfinite(physics.bind("qfrc_actuator")).all()
    np.testing.assert_array_equal(after["qpos"][1], model_of("arm").qpos0)
    np.testing.assert_allclose(after["mocap_pos"][2, 0], [0.2, 0.1, 0.4], atol=1e-6)
    assert not after["qacc_warmstart"][1].any() and not after["xfrc_applied"][2].any() and not after["act"][1].any()
    assert torch.equal(rollout(physics, 5)[:, 1:3], rollout(fresh, 5)[:, 1:3])


FAULTS = [
    ("qpos", torch.nan, "position"),
    ("qvel", torch.inf, "velocity"),
    ("ctrl", torch.nan, "control"),
    ("qvel", 600.0, "speed"),
]


@pytest.mark.parametrize("field, value, reason", FAULTS)
def test_a_fault_is_seen_stays_and_ends_with_a_reset(field: str, value: float, reason: str) -> None:
    physics, clean = prepared("arm"), prepared("arm")
    assert not physics.unusable().any()
    physics.bind(field)[2, 0] = value
    if field != "qvel":
        physics.step(1)
        clean.step(1)
    assert physics.unusable().tolist() == [False, False, True, False]
    assert reason in physics.reasons(np.array([2]))[0]
    physics.bind(field)[2, 0] = 0.0
    assert physics.unusable().tolist() == [False, False, True, False], "until it is reset"
    assert torch.equal(rollout(physics, 3)[:, [0, 1, 3]], rollout(clean, 3)[:, [0, 1, 3]])
    physics.reset(Selection(torch.tensor([2])))
    assert not physics.unusable().any()


def test_left_out_contacts_and_constraints_are_errors_even_after_a_reset() -> None:
    physics = MujocoGpu(model_of("box"), N, device="cpu", nconmax=2, njmax=200)
    physics.step(1)
    physics.reset()
    with pytest.raises(CapacityError, match=r"contacts.*nconmax=2 each; set world.nconmax=4"):
        physics.check()
    physics.check()  # once each
    physics = MujocoGpu(model_of("box"), N, device="cpu", njmax=8)
    physics.bind("qpos")[:2, 2] = 1.0  # two in the air
    physics.step(1)
    with pytest.raises(CapacityError, match=r"constraints.*2 of 4 worlds.*njmax=8 rows.*set world.njmax=16"):
        physics.check()
    roomy = prepared("box")
    roomy.step(5)
    roomy.check()


def test_a_saved_state_continues_bit_for_bit() -> None:
    def engine() -> MujocoGpu:
        physics = prepared("arm")
        physics.bind("sensordata")
        return physics

    a = engine()
    a.expand("body_mass").mul_(torch.linspace(0.5, 2.0, N).unsqueeze(1))
    a.expand("opt.gravity")[1] = 0.0
    a.set_const()
    rollout(a, 5)
    a.bind("xfrc_applied")[0, 2, 0] = 0.2
    a.bind("mocap_pos")[1, 0, 2] = 0.7
    state = a.state_dict()
    seen = a.bind("sensordata").clone()
    rest = rollout(a, 5)
    b = MujocoGpu(model_of("arm"), N, device="cpu")
    b.expand("dof_damping").fill_(9.0)  # a past of its own, which must go
    rollout(b, 2)
    b.load_state_dict(state)
    assert torch.equal(b.bind("sensordata"), seen)
    assert torch.equal(rollout(b, 5), rest)
    assert torch.equal(b.expand("body_invweight0"), a.expand("body_invweight0"))
    a.load_state_dict(state)
    assert torch.equal(rollout(a, 5), rest)


def test_equal_states_give_equal_results_and_a_first_run_leaves_no_trace() -> None:
    once, twice = prepared("hand"), prepared("hand")
    once.step(4)  # one graph of four steps
    for _ in range(4):  # one graph of one step, captured after a first run
        twice.step(1)
    assert torch.equal(once.bind("qpos"), twice.bind("qpos")) and torch.equal(once.bind("qvel"), twice.bind("qvel"))
    np.testing.assert_allclose(twice.bind("time"), 4 * twice.model.opt.timestep, rtol=1e-6)


def test_without_refresh_the_state_is_the_same_and_kinematics_wait() -> None:
    a, b = prepared("arm"), prepared("arm")
    tips = [engine.bind("site_xpos") for engine in (a, b)]
    a.step(2, refresh=True)
    b.step(2, refresh=False)
    assert torch.equal(a.bind("qpos"), b.bind("qpos")) and not torch.equal(*tips)
    b.forward()
    assert torch.equal(*tips)


def test_the_callers_model_is_left_alone() -> None:
    model = model_of("box")
    flags = model.opt.disableflags
    physics = MujocoGpu(model, 1, device="cpu")
    physics.model.opt.timestep = 1.0
    assert model.opt.disableflags == flags and model.opt.timestep == 0.005
