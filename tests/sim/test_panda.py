"""The arm: published numbers, a pose that holds, a gripper that holds a cube, and both engines."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from sim.inverse_kinematics import ArmKinematics
from sim.mujoco_cpu import MujocoCpu
from sim.robots import RobotModelError, UnknownRobot, get_robot, list_arms

ROBOT = get_robot("panda")
FINGERS = ("finger_joint1", "finger_joint2")


def with_cube() -> mujoco.MjModel:
    """A cube of 4 cm and 0.1 kg on a table top, in front of the arm."""
    spec = ROBOT.spec()
    spec.worldbody.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.05])
    body = spec.worldbody.add_body(name="cube", pos=[0.42, 0, 0.02])
    body.add_freejoint(name="cube")
    body.add_geom(name="cube", type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.02] * 3, mass=0.1)
    for key in list(spec.keys):
        spec.delete(key)
    return spec.compile()


def at_home() -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = ROBOT.spec().compile()
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("home").id)
    mujoco.mj_forward(model, data)
    return model, data


def test_joints_limits_efforts_and_speeds_are_the_published_ones() -> None:
    assert ROBOT.joint_names == (*(f"joint{i}" for i in range(1, 8)), "finger_joint1")
    assert ROBOT.gripper_joints == ("finger_joint1",) and ROBOT.base == "fixed" and list_arms() == ["panda"]
    np.testing.assert_array_equal(ROBOT.lower, [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973, 0.0])
    np.testing.assert_array_equal(ROBOT.upper, [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973, 0.04])
    np.testing.assert_array_equal(ROBOT.effort, [87, 87, 87, 87, 12, 12, 12, 70])
    np.testing.assert_array_equal(ROBOT.speed, [2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61, 0.2])
    model = ROBOT.spec().compile()
    assert (model.nq, model.nu) == (9, 8)
    np.testing.assert_allclose(model.actuator_ctrlrange, np.stack([ROBOT.lower, ROBOT.upper], 1), atol=1e-12)


def test_it_is_no_hand_and_has_one_base() -> None:
    assert not (ROBOT.palm_site or ROBOT.finger_joints or ROBOT.wrist_joints or ROBOT.base_joint)
    with pytest.raises(RobotModelError, match="panda is no hand"):
        ROBOT.wrist_pose_to_joints(np.zeros(7))
    with pytest.raises(UnknownRobot, match="unknown base 'floating'"):
        get_robot("panda", base="floating")
    with pytest.raises(UnknownRobot, match="'panda' is an arm and takes no side"):
        get_robot("panda", "left")


def test_at_home_the_tool_points_down_in_front_of_the_base_and_nothing_touches() -> None:
    _, data = at_home()
    np.testing.assert_allclose(data.site("tool").xpos, [0.42, 0.0, 0.28], atol=1e-6)
    np.testing.assert_allclose(data.site("tool").xmat.reshape(3, 3), np.diag([1, -1, -1]), atol=1e-6)
    assert data.ncon == 0
    assert np.minimum(ROBOT.home - ROBOT.lower, ROBOT.upper - ROBOT.home)[:7].min() > 0.5, "rad from the limits"
    assert data.body("link4").xpos[2] > data.body("link6").xpos[2] > data.site("tool").xpos[2], "elbow up"
    closed, opened = (data.body("leftfinger").xpos - data.body("rightfinger").xpos)[1], -0.04
    assert closed == pytest.approx(opened), "4 cm apart across the tool's y"


def test_home_holds_still_under_its_motors() -> None:
    model, data = at_home()
    start = data.site("tool").xpos.copy()
    mujoco.mj_step(model, data, 400)
    assert data.time == pytest.approx(2.0)
    assert np.linalg.norm(data.site("tool").xpos - start) < 0.002
    data.qvel[:7] = 0.5
    mujoco.mj_step(model, data, 400)
    assert np.linalg.norm(data.site("tool").xpos - start) < 0.002, "and comes back"


@pytest.mark.parametrize("joint", range(8))
def test_each_joint_follows_a_step_of_its_target_without_overshoot(joint: int) -> None:
    model, data = at_home()
    step = 0.1 if joint < 7 else 0.02
    data.ctrl[joint] += step
    travelled = []
    for _ in range(100):
        mujoco.mj_step(model, data)
        travelled.append(data.qpos[joint] - ROBOT.home[joint])
    assert max(travelled) < 1.02 * step and travelled[-1] == pytest.approx(step, rel=0.01)
    assert travelled[30] > 0.8 * step, "within 0.15 s"


def test_it_survives_wild_commands() -> None:
    model = with_cube()
    data = mujoco.MjData(model)
    data.qpos[:9] = [*ROBOT.home, ROBOT.home[-1]]
    rng = np.random.default_rng(0)
    for _ in range(100):
        data.ctrl[:] = rng.uniform(ROBOT.lower, ROBOT.upper)
        mujoco.mj_step(model, data, 10)
        assert np.abs(data.qvel).max() < 100
        assert abs(data.joint(FINGERS[0]).qpos[0] - data.joint(FINGERS[1]).qpos[0]) < 0.01
    assert not data.warning[mujoco.mjtWarning.mjWARN_BADQACC].number


def test_the_gripper_holds_a_cube_that_it_lifts() -> None:
    model, arm = with_cube(), ArmKinematics(ROBOT)
    data = mujoco.MjData(model)
    joints = arm.rest[None]

    def reach(height: float) -> None:
        nonlocal joints
        joints = arm.solve(joints, torch.tensor([[0.42, 0.0, height]]), 20)
        data.ctrl[:7] = joints[0].numpy()

    reach(0.02)
    data.qpos[:7], data.qpos[7:9], data.ctrl[7] = data.ctrl[:7], 0.04, 0.04
    mujoco.mj_step(model, data, 40)
    np.testing.assert_allclose(data.body("cube").xpos, [0.42, 0, 0.02], atol=5e-4)
    data.ctrl[7] = 0.0
    mujoco.mj_step(model, data, 100)
    for height in np.linspace(0.02, 0.12, 21):
        reach(float(height))
        mujoco.mj_step(model, data, 10)
    mujoco.mj_step(model, data, 60)
    lifted = data.body("cube").xpos[2]
    assert lifted == pytest.approx(0.12, abs=0.001)
    mujoco.mj_step(model, data, 1000)
    assert data.body("cube").xpos[2] == pytest.approx(lifted, abs=0.001), "over 5 s"
    assert data.body("cube").xmat[[0, 4, 8]].min() > 0.999, "it has not turned"
    np.testing.assert_allclose([data.joint(name).qpos[0] for name in FINGERS], 0.02, atol=0.001)
    data.ctrl[7] = 0.04
    mujoco.mj_step(model, data, 100)
    assert data.body("cube").xpos[2] < 0.03, "and lets it go"


@pytest.mark.skipif(importlib.util.find_spec("mujoco_warp") is None, reason="MuJoCo Warp is optional")
def test_the_gpu_engine_moves_it_as_the_cpu_engine_does() -> None:
    from sim.mujoco_gpu import MujocoGpu

    model = with_cube()
    engines = MujocoCpu(model, 2, 1), MujocoGpu(model, 2, device="cpu")
    start = torch.tensor([*ROBOT.home, ROBOT.home[-1], 0.42, 0.0, 0.0199, 1.0, 0.0, 0.0, 0.0]).float()
    command = torch.tensor(ROBOT.home + [0.2, 0.2, -0.2, 0.1, 0.2, -0.2, 0.3, 0.01]).float()
    for engine in engines:
        engine.bind("qpos").copy_(start.expand(2, -1))
        engine.bind("ctrl").copy_(command.expand(2, -1))
        engine.step(40)
    cpu, gpu = (engine.bind("qpos").numpy() for engine in engines)
    assert np.abs(cpu[:, :8] - command.numpy()).max() < 0.02, "it has moved"
    np.testing.assert_allclose(gpu, cpu, atol=1e-4)


def urdf() -> Path | None:
    try:
        found = importlib.metadata.distribution("example-robot-data")
    except importlib.metadata.PackageNotFoundError:
        return None
    folder = "cmeel.prefix/share/example-robot-data/robots/panda_description/urdf"
    path = Path(str(found.locate_file(f"{folder}/panda.urdf")))
    return path if path.is_file() else None


def inertia(model: mujoco.MjModel, link: str) -> np.ndarray:
    """(3, 3) kg m² about the centre of mass, along the link's axes."""
    axes = np.zeros(9)
    mujoco.mju_quat2Mat(axes, model.body(link).iquat)
    return axes.reshape(3, 3) @ np.diag(model.body(link).inertia) @ axes.reshape(3, 3).T


@pytest.mark.skipif(urdf() is None, reason="example-robot-data is not installed ([assets])")
def test_it_agrees_with_the_published_urdf() -> None:
    path = urdf()
    assert path is not None
    text = re.sub(r"<(visual|collision)>.*?</\1>", "", path.read_text(), flags=re.DOTALL)
    compiler = '<mujoco><compiler fusestatic="false"/></mujoco>'
    theirs = mujoco.MjModel.from_xml_string(text.replace("</robot>", compiler + "</robot>"))
    there = mujoco.MjData(theirs)
    spec = ROBOT.spec()
    for body in spec.bodies:
        body.gravcomp = 0.0
    ours = spec.compile()
    here = mujoco.MjData(ours)
    joints = [*ROBOT.joint_names, "finger_joint2"]
    published = [theirs.joint(f"panda_{name}") for name in joints]
    np.testing.assert_array_equal([j.range for j in published], [ours.joint(name).range for name in joints])
    effort = [theirs.jnt_actfrcrange[j.id, 1] for j in published]
    np.testing.assert_array_equal(effort[:7], ROBOT.effort[:7])
    assert effort[7] > ROBOT.effort[7]
    links = [ours.body(b).name for b in range(1, ours.nbody)]
    assert len(links) == 11
    rng = np.random.default_rng(4)
    for _ in range(20):
        pose = rng.uniform([j.range[0] for j in published], [j.range[1] for j in published])
        for data, model, prefix in ((there, theirs, "panda_"), (here, ours, "")):
            data.qpos[[model.joint(prefix + name).qposadr[0] for name in joints]] = pose
            mujoco.mj_forward(model, data)
        for link in links:
            mine, published_link = here.body(link), there.body(f"panda_{link}")
            np.testing.assert_allclose(mine.xpos, published_link.xpos, atol=1e-4, err_msg=link)
            np.testing.assert_allclose(mine.xmat, published_link.xmat, atol=1e-5, err_msg=link)
            np.testing.assert_allclose(mine.xipos, published_link.xipos, atol=1e-4, err_msg=link)
        tool = there.body("panda_hand_tcp")
        np.testing.assert_allclose(here.site("tool").xpos, tool.xpos, atol=1e-4)
        np.testing.assert_allclose(here.site("tool").xmat, tool.xmat, atol=1e-5)
        np.testing.assert_allclose(here.qfrc_bias, there.qfrc_bias, atol=1e-4)
    for link in links:
        assert ours.body(link).mass == pytest.approx(theirs.body(f"panda_{link}").mass, rel=1e-6), link
        np.testing.assert_allclose(inertia(ours, link), inertia(theirs, f"panda_{link}"), atol=1e-7, err_msg=link)
