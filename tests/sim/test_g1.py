"""The whole robot: published numbers, feet on the floor, what it collides with, and that stiff motors hold it up."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import mujoco
import numpy as np
import pytest

from sim.robots import RobotModelError, get_robot

ROBOT = get_robot("g1")
HUNG = get_robot("g1", base="fixed")


def on_floor() -> mujoco.MjSpec:
    spec = ROBOT.spec()
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05])
    return spec


def standing(spec: mujoco.MjSpec) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("stand").id)
    mujoco.mj_forward(model, data)
    return model, data


def test_joints_limits_efforts_and_speeds_are_the_published_ones() -> None:
    assert len(ROBOT.joint_names) == 29 and ROBOT.joint_names == HUNG.joint_names
    published = {  # rad, rad, Nm, rad/s
        "left_hip_pitch": (-2.531, 2.880, 88, 32),
        "left_hip_roll": (-0.524, 2.967, 139, 20),
        "right_hip_roll": (-2.967, 0.524, 139, 20),
        "right_hip_yaw": (-2.758, 2.758, 88, 32),
        "right_knee": (-0.087, 2.880, 139, 20),
        "left_ankle_pitch": (-0.873, 0.524, 35, 30),
        "left_ankle_roll": (-0.262, 0.262, 35, 30),
        "waist_yaw": (-2.618, 2.618, 88, 32),
        "waist_pitch": (-0.52, 0.52, 35, 30),
        "right_shoulder_roll": (-2.252, 1.588, 25, 37),
        "left_elbow": (-1.047, 2.094, 25, 37),
        "left_wrist_roll": (-1.972, 1.972, 25, 37),
        "right_wrist_yaw": (-1.614, 1.614, 5, 22),
    }
    for name, numbers in published.items():
        i = ROBOT.joint_names.index(f"{name}_joint")
        given = (ROBOT.lower[i], ROBOT.upper[i], ROBOT.effort[i], ROBOT.speed[i])
        assert given == pytest.approx(numbers, abs=1e-3), name
    assert ((ROBOT.lower < ROBOT.home) & (ROBOT.home < ROBOT.upper)).all()
    assert (get_robot("allegro").speed == np.inf).all()


def test_it_is_no_hand_and_the_free_base_is_not_commanded() -> None:
    model = ROBOT.spec().compile()
    assert (model.nq, model.nv, model.nu) == (36, 35, 29) and model.joint(ROBOT.base_joint).type == 0
    assert HUNG.spec().compile().nq == 29 and not HUNG.base_joint
    assert not (ROBOT.palm_site or ROBOT.finger_joints or ROBOT.wrist_joints or ROBOT.fingertip_sites)
    with pytest.raises(RobotModelError, match="g1 is no hand"):
        ROBOT.wrist_pose_to_joints(np.zeros(7))
    np.testing.assert_array_equal(model.key("stand").ctrl, ROBOT.home)
    np.testing.assert_array_equal(model.key("stand").qpos[7:], ROBOT.home)


def test_it_weighs_what_the_robot_weighs_and_its_sides_are_mirror_images() -> None:
    model, data = standing(ROBOT.spec())
    assert model.body_mass.sum() == pytest.approx(33.34, abs=0.01)
    for body in range(1, model.nbody):
        name = model.body(body).name
        if name.startswith("left_"):
            other = name.replace("left_", "right_", 1)
            assert model.body(other).mass == model.body(name).mass
            np.testing.assert_allclose(model.body(other).inertia, model.body(name).inertia, rtol=1e-3)
            np.testing.assert_allclose(data.body(other).xipos, data.body(name).xipos * [1, -1, 1], atol=2e-5)


def test_armature_and_gains_follow_from_the_published_rotors() -> None:
    def reflected(rotor: float, carrier: float, output: float, first: float, second: float) -> float:
        return rotor * (first * second) ** 2 + carrier * second**2 + output

    small = reflected(0.139e-4, 0.017e-4, 0.169e-4, 1 + 46 / 18, 1 + 56 / 16)
    motors = {
        "left_hip_pitch": reflected(0.489e-4, 0.098e-4, 0.533e-4, 4.5, 1 + 48 / 22),
        "right_knee": reflected(0.489e-4, 0.109e-4, 0.738e-4, 4.5, 5),
        "left_ankle_roll": 2 * small,
        "waist_roll": 2 * small,
        "right_elbow": small,
        "left_wrist_yaw": reflected(0.068e-4, 0, 0, 5, 5),
    }
    model = ROBOT.spec().compile()
    omega, damping = 2 * np.pi * 10, 2.0
    for name, inertia in motors.items():
        joint, motor = model.joint(f"{name}_joint"), model.actuator(f"{name}_joint")
        assert model.dof_armature[joint.dofadr[0]] == pytest.approx(inertia, rel=1e-4)
        assert motor.gainprm[0] == -motor.biasprm[1] == pytest.approx(inertia * omega**2, rel=1e-4)
        assert -motor.biasprm[2] == pytest.approx(2 * damping * inertia * omega, rel=1e-4)


def test_at_stand_the_soles_are_on_the_floor_and_nothing_else_touches() -> None:
    model, data = standing(on_floor())
    soles = [g for g in range(model.ngeom) if "_sole_" in model.geom(g).name]
    assert len(soles) == 8
    assert np.abs(data.geom_xpos[soles, 2] - model.geom_size[soles, 0]).max() < 2e-4
    assert {int(g) for g in data.contact.geom.ravel()} <= {*soles, model.geom("floor").id}
    feet = np.stack([data.site(s).xpos for s in ROBOT.foot_sites])
    assert np.abs(feet[:, 2]).max() < 2e-4 and feet[0, 1] > 0.08 > -0.08 > feet[1, 1]
    over = data.subtree_com[1] - feet.mean(0)
    assert abs(over[0]) < 0.03 and abs(over[1]) < 0.005, "the centre of mass is over the feet"
    assert data.body("torso_link").xpos[2] > data.body("pelvis").xpos[2] > data.body("left_knee_link").xpos[2]
    mujoco.mj_step(model, data, 20)
    assert [data.sensor(s).data[0] for s in ROBOT.contact_sensors] == [4, 4]
    data.qpos[2] += 0.1
    mujoco.mj_forward(model, data)
    assert [data.sensor(s).data[0] for s in ROBOT.contact_sensors] == [0, 0]


def test_stiff_motors_hold_it_up_and_the_real_ones_do_not() -> None:
    def stands(kp: float | None, kv: float = 0.0) -> float:
        spec = on_floor()
        for motor in spec.actuators:
            if kp is not None:
                motor.gainprm[0], motor.biasprm[1], motor.biasprm[2] = kp, -kp, -kv
        model, data = standing(spec)
        while data.time < 6.0 and data.body("pelvis").xpos[2] > 0.6:
            mujoco.mj_step(model, data)
        return data.time

    assert stands(500.0, 10.0) > 5.0
    assert 0.5 < stands(None) < 3.0


def test_it_survives_wild_commands() -> None:
    model, data = standing(on_floor())
    rng = np.random.default_rng(0)
    for _ in range(100):
        data.ctrl[:] = rng.uniform(ROBOT.lower, ROBOT.upper)
        mujoco.mj_step(model, data, 5)
        assert np.abs(data.qvel).max() < 100
    assert not data.warning[mujoco.mjtWarning.mjWARN_BADQACC].number
    assert data.body("torso_link").xpos[2] > 0.05, "it lies on the floor, not in it"


def test_legs_and_hands_do_not_pass_through_the_body() -> None:
    def touching(**joints: float) -> set[frozenset[str]]:
        model = HUNG.spec().compile()
        data = mujoco.MjData(model)
        data.qpos[:] = HUNG.home
        for name, angle in joints.items():
            data.joint(f"{name}_joint").qpos = angle
        mujoco.mj_forward(model, data)
        return {frozenset(model.geom(g).name for g in pair) for pair in data.contact.geom}

    assert touching() == set()
    legs = touching(left_hip_roll=-0.5, right_hip_roll=0.5)
    assert legs and all({n.split("_")[0] for n in pair} == {"left", "right"} for pair in legs)
    hands = touching(left_shoulder_pitch=0.0, left_shoulder_roll=-0.4, left_elbow=1.5)
    assert any("left_hand" in pair for pair in hands)


def test_the_imu_has_the_axes_of_the_free_joint_and_the_head_camera_looks_ahead_and_down() -> None:
    spec = ROBOT.spec()
    spec.add_sensor(
        name="gyro", type=mujoco.mjtSensor.mjSENS_GYRO, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=ROBOT.imu_site
    )
    model, data = standing(spec)
    data.qpos[3:7] = np.array([0.8, 0.3, -0.2, 0.4]) / np.linalg.norm([0.8, 0.3, -0.2, 0.4])
    data.qvel[3:6] = [0.3, -0.7, 1.1]
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.sensor("gyro").data, data.qvel[3:6], atol=1e-12)
    np.testing.assert_allclose(data.site(ROBOT.imu_site).xmat, data.body("pelvis").xmat, atol=1e-12)
    _, data = standing(ROBOT.spec())
    ahead = -data.camera("head").xmat.reshape(3, 3)[:, 2]
    assert ahead[0] > 0.6 and ahead[2] < -0.6 and abs(ahead[1]) < 1e-6
    assert data.camera("head").xpos[2] > 1.1


def urdf() -> Path | None:
    try:
        found = importlib.metadata.distribution("example-robot-data")
    except importlib.metadata.PackageNotFoundError:
        return None
    folder = "cmeel.prefix/share/example-robot-data/robots/g1_description/urdf"
    path = Path(str(found.locate_file(f"{folder}/g1_29dof_rev_1_0.urdf")))
    return path if path.is_file() else None


@pytest.mark.skipif(urdf() is None, reason="example-robot-data is not installed ([assets])")
def test_it_agrees_with_the_published_urdf() -> None:
    path = urdf()
    assert path is not None
    text = re.sub(r"<(visual|collision)>.*?</\1>", "", path.read_text(), flags=re.DOTALL)
    compiler = '<mujoco><compiler fusestatic="true"/></mujoco>'
    theirs = mujoco.MjModel.from_xml_string(text.replace("</robot>", compiler + "</robot>"))
    there = mujoco.MjData(theirs)
    ours = HUNG.spec().compile()
    here = mujoco.MjData(ours)
    joints = [theirs.joint(name) for name in ROBOT.joint_names]
    np.testing.assert_allclose([j.range for j in joints], np.stack([ROBOT.lower, ROBOT.upper], 1), atol=1e-6)
    shared = {theirs.body(b).name for b in range(theirs.nbody)} & {ours.body(b).name for b in range(ours.nbody)}
    links = sorted(shared - {"world"})
    assert len(links) == 29
    rng = np.random.default_rng(4)
    for _ in range(20):
        pose = rng.uniform(ROBOT.lower, ROBOT.upper)
        there.qpos[[j.qposadr[0] for j in joints]] = here.qpos[:] = pose
        mujoco.mj_forward(theirs, there)
        mujoco.mj_forward(ours, here)
        for link in links:
            np.testing.assert_allclose(here.body(link).xpos, there.body(link).xpos, atol=1e-4, err_msg=link)
            np.testing.assert_allclose(here.body(link).xmat, there.body(link).xmat, atol=1e-5, err_msg=link)
            np.testing.assert_allclose(here.body(link).xipos, there.body(link).xipos, atol=1e-4, err_msg=link)
        np.testing.assert_allclose(here.qfrc_bias, there.qfrc_bias, atol=1e-4)
    for link in links:
        assert ours.body(link).mass == pytest.approx(theirs.body(link).mass, rel=1e-6), link
        np.testing.assert_allclose(ours.body(link).inertia, theirs.body(link).inertia, rtol=1e-3, err_msg=link)
