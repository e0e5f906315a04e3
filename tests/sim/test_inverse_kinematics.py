"""Inverse kinematics of an arm against MuJoCo, finite differences, and its own forward kinematics."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from sim.inverse_kinematics import ArmError, ArmKinematics
from sim.robots import get_robot

ROBOT = get_robot("panda")
ARM = ArmKinematics(ROBOT)
DOWN = torch.diag(torch.tensor([1.0, -1.0, -1.0]))


def anywhere(count: int, seed: int = 0) -> torch.Tensor:
    """Arm joints (count, 7) within the limits."""
    share = torch.rand(count, 7, generator=torch.Generator().manual_seed(seed))
    return ARM.lower + (ARM.upper - ARM.lower) * share


def over_the_table(count: int, nearest: float = 0.29) -> torch.Tensor:
    """Points (count, 3) m of x 0.25 to 0.65, y ±0.3, z 0.02 to 0.4, at least ``nearest`` from the base's axis."""
    lower, upper = torch.tensor([0.25, -0.3, 0.02]), torch.tensor([0.65, 0.3, 0.4])
    points = lower + (upper - lower) * torch.rand(2 * count, 3, generator=torch.Generator().manual_seed(1))
    return points[points[:, :2].norm(dim=1) >= nearest][:count]


def test_pose_and_jacobian_are_mujocos() -> None:
    model = ROBOT.spec().compile()
    data = mujoco.MjData(model)
    joints = anywhere(20)
    position, rotation, jacobian = ARM.jacobian(joints)
    for n, values in enumerate(joints.numpy()):
        data.qpos[:7] = values
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        expected = np.zeros((6, model.nv))
        mujoco.mj_jacSite(model, data, expected[:3], expected[3:], model.site("tool").id)
        np.testing.assert_allclose(position[n], data.site("tool").xpos, atol=2e-6)
        np.testing.assert_allclose(rotation[n].ravel(), data.site("tool").xmat, atol=3e-6)
        np.testing.assert_allclose(jacobian[n], expected[:, :7], atol=5e-6)
    alone = ARM.pose(joints)
    assert torch.equal(alone[0], position) and torch.equal(alone[1], rotation)


def test_the_jacobian_is_the_slope_of_the_pose() -> None:
    joints, small = anywhere(10, seed=2), 1e-3
    _, rotation, jacobian = ARM.jacobian(joints)
    for k in range(7):
        step = small * torch.eye(7)[k]
        (after, turned), (before, was) = ARM.pose(joints + step), ARM.pose(joints - step)
        spin = (turned - was) / (2 * small) @ rotation.mT
        angular = torch.stack([spin[:, 2, 1], spin[:, 0, 2], spin[:, 1, 0]], dim=1)
        slope = torch.cat([(after - before) / (2 * small), angular], dim=1)
        torch.testing.assert_close(jacobian[:, :, k], slope, atol=5e-4, rtol=0)


def test_the_tool_gets_to_every_place_over_the_table_and_points_down() -> None:
    places = over_the_table(2000)
    assert len(places) == 2000
    joints = ARM.solve(ARM.rest.expand(2000, -1), places, iterations=10)
    position, rotation = ARM.pose(joints)
    assert (position - places).norm(dim=1).max() < 5e-4
    assert (rotation - DOWN).abs().max() < 2e-3
    assert (joints >= ARM.lower).all() and (joints <= ARM.upper).all()
    settled = ARM.solve(joints, places, iterations=20)
    assert (settled - joints).abs().max() < 0.02, "little is left to do"
    assert (ARM.solve(settled, places, iterations=20) - settled).abs().max() < 5e-4, "it stays where it is"


def test_a_long_way_round_the_base_is_no_obstacle() -> None:
    angle = torch.linspace(-1.3, 1.3, 27)
    places = torch.stack([0.7 * torch.cos(angle), 0.7 * torch.sin(angle), torch.full((27,), 0.05)], dim=1)
    position, _ = ARM.pose(ARM.solve(ARM.rest.expand(27, -1), places, iterations=15))
    assert (position - places).norm(dim=1).max() < 1e-3


def test_one_place_has_one_pose_wherever_the_search_begins() -> None:
    places = over_the_table(200, nearest=0.32)
    near = ARM.solve(ARM.rest.expand(200, -1), places, iterations=20)
    noise = 0.2 * torch.randn(200, 7, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(ARM.solve(ARM.rest + noise, places, iterations=40), near, atol=2e-3, rtol=0)


def test_what_is_out_of_reach_keeps_the_limits_and_gives_numbers() -> None:
    far = torch.tensor([[3.0, 0.0, 0.5], [0.0, 0.0, 0.0], [-0.5, 0.0, 0.3], [0.25, 0.0, 0.12]])
    joints = ARM.rest.expand(4, -1)
    for _ in range(50):
        joints = ARM.step(joints, far, DOWN)
        assert torch.isfinite(joints).all()
        assert (joints >= ARM.lower).all() and (joints <= ARM.upper).all()


def test_a_robot_without_a_tool_is_refused() -> None:
    with pytest.raises(ArmError, match="allegro is no arm"):
        ArmKinematics(get_robot("allegro"))
