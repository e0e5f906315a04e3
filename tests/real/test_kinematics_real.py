"""Kinematics of the tool against MuJoCo's own, finite differences, and closed loops."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real.core.kinematics import SINGULAR, KinematicsError, ToolKinematics
from sim.robots import get_robot

PANDA = get_robot("panda")
KINEMATICS = ToolKinematics(PANDA.mjcf(), PANDA.joint_names)
SPEED = PANDA.speed
TWO_SITES = """<mujoco><worldbody><body><joint name="a"/><geom size=".1"/><site name="{}"/><site name="{}"/>
</body></worldbody></mujoco>"""


def random_q(rng: np.random.Generator, inside: float = 0.0) -> np.ndarray:
    span = (PANDA.upper - PANDA.lower) * (0.5 - inside)
    return (PANDA.upper + PANDA.lower) / 2 + rng.uniform(-1, 1, len(span)) * span


def test_the_robot_is_read_off_the_model() -> None:
    assert KINEMATICS.tool_site == "tool"
    np.testing.assert_array_equal(KINEMATICS.lower, PANDA.lower)
    np.testing.assert_array_equal(KINEMATICS.upper, PANDA.upper)
    np.testing.assert_array_equal(KINEMATICS.velocity, SPEED)
    assert KINEMATICS.hinge.tolist() == KINEMATICS.moves_tool.tolist() == [True] * 7 + [False]


def test_pose_is_mujocos_in_any_order_of_joints() -> None:
    rng = np.random.default_rng(0)
    model = mujoco.MjModel.from_xml_string(PANDA.mjcf())
    data = mujoco.MjData(model)
    order = rng.permutation(len(PANDA.joint_names))
    shuffled = ToolKinematics(PANDA.mjcf(), [PANDA.joint_names[i] for i in order], "tool")
    for _ in range(20):
        q = random_q(rng)
        for name, value in zip(PANDA.joint_names, q, strict=True):
            data.joint(name).qpos = value
        mujoco.mj_forward(model, data)
        pose = KINEMATICS.pose(q)
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, pose[3:])
        np.testing.assert_allclose(pose[:3], data.site("tool").xpos, atol=1e-12)
        np.testing.assert_allclose(rotation, data.site("tool").xmat, atol=1e-12)
        assert pose[3] >= 0
        np.testing.assert_array_equal(shuffled.pose(q[order]), pose)
        np.testing.assert_array_equal(KINEMATICS.position(q), pose[:3])


def test_jacobian_is_the_derivative_of_the_pose() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        q, h = random_q(rng), 1e-6
        jacobian = KINEMATICS.jacobian(q)
        for j in range(len(q)):
            step = np.eye(len(q))[j] * h
            ahead, behind = KINEMATICS.pose(q + step), KINEMATICS.pose(q - step)
            np.testing.assert_allclose(jacobian[:3, j], (ahead[:3] - behind[:3]) / (2 * h), atol=1e-7)
            np.testing.assert_allclose(jacobian[3:, j], rotation_between(behind[3:], ahead[3:]) / (2 * h), atol=1e-7)


def rotation_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """World-frame rotation vector from one quaternion to another."""
    inverse, relative, vector = np.empty(4), np.empty(4), np.empty(3)
    mujoco.mju_negQuat(inverse, start)
    mujoco.mju_mulQuat(relative, end, inverse)
    mujoco.mju_quat2Vel(vector, relative, 1.0)
    return vector


def test_a_twist_is_followed_exactly_away_from_singularities() -> None:
    twist = np.array([0.05, -0.03, 0.02, 0.1, -0.05, 0.1])
    velocity = KINEMATICS.twist_to_velocity(PANDA.home, twist)
    np.testing.assert_allclose(KINEMATICS.jacobian(PANDA.home) @ velocity, twist, atol=1e-12)
    assert velocity[7] == 0.0, "the gripper has no part in it"


def test_too_fast_a_twist_is_slowed_in_its_direction() -> None:
    twist = np.array([5.0, 2.0, -1.0, 0.0, 0.0, 3.0])
    velocity = KINEMATICS.twist_to_velocity(PANDA.home, twist)
    assert np.max(np.abs(velocity) / SPEED) == pytest.approx(1.0)
    got = KINEMATICS.jacobian(PANDA.home) @ velocity
    assert got @ twist / np.linalg.norm(got) / np.linalg.norm(twist) == pytest.approx(1.0, abs=1e-9)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 1e-9, 1e-4, 0.02, 0.4]),
    st.sampled_from([0.001, 0.1, 1.0, 100.0, 1e300]),
)
def test_speeds_and_limits_hold_everywhere(seed: int, inside: float, size: float) -> None:
    rng = np.random.default_rng(seed)
    q = random_q(rng, inside)
    at = rng.random(len(q)) < 0.2
    q[at] = np.where(rng.random(len(q)) < 0.5, PANDA.lower, PANDA.upper)[at]
    velocity = KINEMATICS.twist_to_velocity(q, size * rng.normal(size=6))
    assert np.isfinite(velocity).all()
    assert (np.abs(velocity) <= SPEED * (1 + 1e-12)).all()
    assert (velocity[q <= PANDA.lower] >= 0).all() and (velocity[q >= PANDA.upper] <= 0).all()


def test_joint_speed_is_bounded_at_a_singularity() -> None:
    """The stretched arm cannot move outwards: the plain inverse explodes, the damped one does not."""
    stretched = PANDA.home.copy()
    stretched[[1, 3, 5]] = [0.0, -0.001, 1.5]
    fold = np.linspace(0.0, 0.3, 31)
    plain, damped = [], []
    for angle in fold:
        q = stretched.copy()
        q[3] -= angle
        jacobian = KINEMATICS.jacobian(q)
        outwards = np.linalg.svd(jacobian)[0][:, -1] * 0.05  # the hardest direction
        plain.append(np.abs(np.linalg.pinv(jacobian) @ outwards).max())
        damped.append(np.abs(KINEMATICS.twist_to_velocity(q, outwards, Unlimited())).max())
    assert max(damped) <= 0.05 / SINGULAR + 1e-9
    assert max(plain) > 20 * max(damped)
    assert np.abs(np.diff(damped)).max() < 0.3, "no jump where the damping begins"


class Unlimited:
    """No joint limits at all."""

    lower = np.full(8, -np.inf)
    upper = np.full(8, np.inf)
    velocity = np.full(8, np.inf)


def test_a_straight_line_in_closed_loop() -> None:
    """0.15 m along y at 0.1 m/s: the tool stays within 0.1 mm of the line and keeps its orientation."""
    q, dt = PANDA.home.copy(), 0.005
    start = KINEMATICS.pose(q)
    for _ in range(300):
        q = q + dt * KINEMATICS.twist_to_velocity(q, [0.0, 0.1, 0.0, 0.0, 0.0, 0.0])
        pose = KINEMATICS.pose(q)
        assert np.abs(pose[[0, 2]] - start[[0, 2]]).max() < 1e-4
        assert np.abs(rotation_between(start[3:], pose[3:])).max() < 1e-3
    assert pose[1] - start[1] == pytest.approx(0.15, abs=1e-4)


def test_pushed_against_joint_limits_for_long() -> None:
    """Every direction, far beyond reach: joints slow down towards their limits and never pass them."""
    for axis in range(6):
        for sign in (-1.0, 1.0):
            q = PANDA.home.copy()
            for _ in range(400):
                q = q + 0.01 * KINEMATICS.twist_to_velocity(q, sign * 0.3 * np.eye(6)[axis])
                assert (q >= PANDA.lower).all() and (q <= PANDA.upper).all()


def test_the_tool_is_found_or_asked_for() -> None:
    assert ToolKinematics(TWO_SITES.format("imu", "attachment_site"), ["a"]).tool_site == "attachment_site"
    with pytest.raises(KinematicsError, match="which site is the tool.*sites: imu, marker"):
        ToolKinematics(TWO_SITES.format("imu", "marker"), ["a"])
    with pytest.raises(KinematicsError, match="unknown site 'tol'; did you mean 'tool'"):
        ToolKinematics(PANDA.mjcf(), PANDA.joint_names, "tol")


def test_impossible_models_and_joints() -> None:
    with pytest.raises(KinematicsError, match="cannot be compiled"):
        ToolKinematics("<mujoco", ["a"])
    with pytest.raises(KinematicsError, match="did you mean 'joint1'"):
        ToolKinematics(PANDA.mjcf(), ["joint_1"])
    with pytest.raises(KinematicsError, match="twice"):
        ToolKinematics(PANDA.mjcf(), ["joint1", "joint1"])
    with pytest.raises(KinematicsError, match="also moved by 'joint7'"):
        ToolKinematics(PANDA.mjcf(), PANDA.joint_names[:6])


@pytest.mark.parametrize("bad", [np.zeros(7), np.full(8, np.nan), np.array([0, 0, np.inf, 0, 0, 0, 0, 0])])
def test_bad_numbers_are_refused(bad: np.ndarray) -> None:
    for ask in (KINEMATICS.pose, KINEMATICS.position, KINEMATICS.jacobian):
        with pytest.raises(KinematicsError, match="joint positions"):
            ask(bad)
    with pytest.raises(KinematicsError, match="twist"):
        KINEMATICS.twist_to_velocity(PANDA.home, bad[:6] * np.nan)
