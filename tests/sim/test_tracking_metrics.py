"""How tracking is judged: perfect following, drops, each bound of each success level, and whole clips only."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sim.channels import Channels
from sim.motions import ReferenceGoal
from sim.rotations import quat_from_rotvec, quat_multiply
from sim.selection import Selection
from sim.tasks.tracking_metrics import TrackingMetrics
from sim.terms import tracking

WRIST = 6
ERRORS = ("T_err_cm", "R_err_deg", "max_T_err_cm", "E_wrist", "E_finger", "final_angle_deg")


@pytest.fixture
def goal(small) -> ReferenceGoal:
    """Three whole clips, one each."""
    return small(0, evaluation=True).task.goal


def undisturbed(t, joints, pose):
    return joints, pose


def follow(goal: ReferenceGoal, disturb=undisturbed, stop: int = 10**6) -> dict[str, torch.Tensor]:
    """Results of episodes that follow the reference but for ``disturb(frame, joints (N, J), object pose (N, 7))``."""
    n = len(goal.clip)
    metrics = TrackingMetrics(goal, n, WRIST)
    ids = torch.arange(n)
    goal.reset(Selection(ids), torch.Generator().manual_seed(0))
    for t in range(1, 10**6):
        goal.advance()
        raw = goal.read()
        joints, pose = disturb(t, raw["reference_joint_pos"][:, 0].clone(), raw["reference_object_pose"][:, 0].clone())
        metrics.update(Channels({**raw, "joint_pos": joints, "object_pose": pose}, tracking.DERIVED))
        if goal.timed_out().all() or t == stop:
            return metrics.finish(Selection(ids))
    raise AssertionError


def moved(distance: float):
    return lambda t, joints, pose: (joints, pose + torch.tensor([0, 0, -distance, 0, 0, 0, 0]))


def turned(degrees: float):
    turn = quat_from_rotvec(torch.tensor([0.0, 0.0, math.radians(degrees)]))
    return lambda t, joints, pose: (joints, torch.cat([pose[:, :3], quat_multiply(turn[None], pose[:, 3:])], 1))


def fingers_off(angle: float):
    return lambda t, joints, pose: (joints + angle * (torch.arange(joints.shape[1]) >= WRIST), pose)


def test_perfect_following_is_success_without_error(goal):
    result = follow(goal)
    for name in ERRORS:
        # float32 quaternions of norm 1 - 1e-7 show as an angle of 0.03 degrees
        np.testing.assert_allclose(result[name].numpy(), 0.0, atol=0.1 if "deg" in name else 1e-6, err_msg=name)
    for name in ("tight", "strict", "loose", "completed"):
        assert result[name].tolist() == [1.0, 1.0, 1.0], name


@pytest.mark.parametrize(
    "disturb, tight, strict, loose",
    [
        (moved(0.029), 1, 1, 1),
        (moved(0.031), 0, 1, 1),
        (moved(0.099), 0, 1, 1),
        (moved(0.101), 0, 0, 0),
        (turned(14.5), 1, 1, 1),
        (turned(15.5), 0, 1, 1),
        (turned(19.5), 0, 1, 1),
        (turned(20.5), 0, 0, 1),
        (turned(39.5), 0, 0, 1),
        (turned(40.5), 0, 0, 0),
        (fingers_off(1.59), 1, 1, 1),
        (fingers_off(1.61), 0, 0, 1),
        (fingers_off(-2.39), 0, 0, 1),
        (fingers_off(-2.41), 0, 0, 0),
    ],
)
def test_the_bounds_of_each_level(goal, disturb, tight, strict, loose):
    result = follow(goal, disturb)
    for name, wanted in (("tight", tight), ("strict", strict), ("loose", loose)):
        assert result[name].tolist() == [wanted] * 3, name


def test_a_drop_is_no_tight_success_however_short(goal):
    def drop(t, joints, pose):
        return joints, pose - torch.tensor([0, 0, 0.061 * (t == 20), 0, 0, 0, 0])

    result = follow(goal, drop)
    assert result["tight"].tolist() == [0, 0, 0] and result["strict"].tolist() == [1, 1, 1]
    np.testing.assert_allclose(result["max_T_err_cm"].numpy(), 6.1, atol=1e-3)


def test_an_object_that_falls_and_stays_is_a_failure(goal):
    result = follow(goal, lambda t, joints, pose: (joints, pose - torch.tensor([0, 0, 0.3 * (t > 10), 0, 0, 0, 0])))
    for name in ("tight", "strict", "loose"):
        assert result[name].tolist() == [0, 0, 0]
    assert result["completed"].tolist() == [1, 1, 1]


def test_errors_are_means_over_the_control_steps(goal):
    rng = np.random.default_rng(0)
    seen = []

    def disturb(t, joints, pose):
        offset, shift = rng.normal(0, 0.2, joints.shape), rng.normal(0, 0.02, (len(pose), 3))
        seen.append((offset, shift))
        moved_pose = pose.clone()
        moved_pose[:, :3] += torch.from_numpy(shift).float()
        return joints + torch.from_numpy(offset).float(), moved_pose

    result = follow(goal, disturb)
    offsets, shifts = (np.stack(x) for x in zip(*seen, strict=True))
    distances = np.linalg.norm(shifts, axis=2)
    e_wrist = 0.5 * np.linalg.norm(offsets[:, :, :3], axis=2) + 0.5 * np.linalg.norm(offsets[:, :, 3:6], axis=2)
    np.testing.assert_allclose(result["T_err_cm"].numpy(), 100 * distances.mean(0), rtol=1e-4)
    np.testing.assert_allclose(result["max_T_err_cm"].numpy(), 100 * distances.max(0), rtol=1e-4)
    np.testing.assert_allclose(result["E_wrist"].numpy(), e_wrist.mean(0), rtol=1e-4)
    np.testing.assert_allclose(result["E_finger"].numpy(), np.abs(offsets[:, :, 6:]).mean(axis=(0, 2)), rtol=1e-4)


def test_an_episode_that_ends_early_has_failed(goal):
    result = follow(goal, stop=30)
    for name in ("tight", "strict", "loose", "completed"):
        assert result[name].tolist() == [0, 0, 0]
    assert result["T_err_cm"].abs().max() < 1e-4


def test_an_episode_begun_within_a_clip_does_not_count(goal):
    goal.start_fraction = 0.5
    result = follow(goal)
    begun = goal.first_frame > 0
    assert begun.any() and not begun.all()
    for name in ("tight", "strict", "loose"):
        assert torch.equal(result[name].isnan(), begun), name
        assert (result[name][~begun] == 1).all()


def test_finishing_some_worlds_starts_them_afresh_and_leaves_the_others(goal):
    metrics = TrackingMetrics(goal, 3, WRIST)
    ids = torch.arange(3)
    goal.reset(Selection(ids), torch.Generator().manual_seed(0))

    def update(offset: float) -> None:
        goal.advance()
        raw = goal.read()
        pose = raw["reference_object_pose"][:, 0] + torch.tensor([offset, 0, 0, 0, 0, 0, 0])
        joints = raw["reference_joint_pos"][:, 0]
        metrics.update(Channels({**raw, "joint_pos": joints, "object_pose": pose}, tracking.DERIVED))

    update(0.04)
    first = metrics.finish(Selection(torch.tensor([1])))
    update(0.02)
    second = metrics.finish(Selection(ids))
    np.testing.assert_allclose(first["T_err_cm"].numpy(), [4], rtol=1e-4)
    np.testing.assert_allclose(second["T_err_cm"].numpy(), [3, 2, 3], rtol=1e-4)
    np.testing.assert_allclose(second["max_T_err_cm"].numpy(), [4, 2, 4], rtol=1e-4)
    assert first["T_err_cm"].item() == pytest.approx(4, rel=1e-4)  # not overwritten by what follows


def test_accumulators_continue(goal):
    ids = torch.arange(3)
    a, b = TrackingMetrics(goal, 3, WRIST), TrackingMetrics(goal, 3, WRIST)
    goal.reset(Selection(ids), torch.Generator().manual_seed(0))
    for t in range(20):
        goal.advance()
        raw = goal.read()
        pose = raw["reference_object_pose"][:, 0] + 0.001 * t
        c = Channels({**raw, "joint_pos": raw["reference_joint_pos"][:, 0], "object_pose": pose}, tracking.DERIVED)
        a.update(c)
        if t == 10:
            b.load_state_dict(a.state_dict())
        elif t > 10:
            b.update(c)
    first, second = a.finish(Selection(ids)), b.finish(Selection(ids))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not a.finish(Selection(ids))["T_err_cm"].any()
