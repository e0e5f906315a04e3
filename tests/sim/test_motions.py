"""The motion library and the process that walks worlds through it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from robolearn.errors import RobolearnError
from sim.motions import MotionLibrary, ReferenceGoal
from sim.references.format import Reference
from sim.robots import get_robot
from sim.selection import Selection

ROBOT = get_robot("allegro")
RATE = 60.0
W = len(ROBOT.wrist_joints)


def clip(frames: int = 60, turn: float = 1.0, flip: bool = False, name: str = "clip", **changes) -> Reference:
    """Hand and cube rise and turn by ``turn`` rad; ``flip`` changes the sign of every other quaternion."""
    s = np.linspace(0, 1, frames)
    s = s * s * (3 - 2 * s)
    quat = Rotation.from_rotvec(np.outer(turn * s, [0.1, 0.2, 1.0])).as_quat(scalar_first=True)
    if flip:
        quat[1::2] *= -1
    home = np.array([ROBOT.home[ROBOT.joint_names.index(j)] for j in ROBOT.finger_joints])
    position = np.stack([0.05 * s, 0 * s, 0.1 + 0.2 * s], axis=1)
    values = {
        "name": name,
        "robot": "allegro",
        "side": "right",
        "rate_hz": RATE,
        "object": "cube",
        "wrist_pose": np.concatenate([position, quat], axis=1),
        "object_pose": np.concatenate([position - [0, 0, 0.07], quat], axis=1),
        "joint_names": ROBOT.finger_joints,
        "joint_pos": home + 0.2 * np.sin(3 * s)[:, None],
    }
    return Reference(**{**values, **changes})


def library(*clips: Reference) -> MotionLibrary:
    return MotionLibrary.from_references(clips or (clip(),), ROBOT, RATE)


def test_clips_are_padded_with_their_last_frame():
    motions = library(clip(40, name="short"), clip(60, name="long"))
    assert motions.num_clips == 2 and motions.names == ("short", "long") and motions.objects == ("cube",)
    assert motions.length.tolist() == [40, 60]
    assert motions.joint_pos.shape == (2, 60, 22) and motions.object_pose.shape == (2, 60, 7)
    assert torch.equal(motions.joint_pos[0, 39:], motions.joint_pos[0, 39].expand(21, 22))
    assert torch.equal(motions.object_pose[0, 39:], motions.object_pose[0, 39].expand(21, 7))
    assert not motions.joint_vel[0, 41:].any() and motions.object_vel[0, 41:].abs().max() < 1e-6
    alone = library(clip(40))
    assert torch.equal(alone.joint_pos[0], motions.joint_pos[0, :40])


def test_joints_are_in_the_robots_order():
    backwards = clip()
    shuffled = replace(
        backwards, joint_names=backwards.joint_names[::-1], joint_pos=np.ascontiguousarray(backwards.joint_pos[:, ::-1])
    )
    assert torch.equal(library(backwards).joint_pos, library(shuffled).joint_pos)
    placed = ROBOT.joints_to_wrist_pose(library().joint_pos[0, :, :W].double().numpy())
    np.testing.assert_allclose(placed[:, :3], backwards.wrist_pose[:, :3], atol=1e-6)
    back = Rotation.from_quat(placed[:, 3:], scalar_first=True)
    wanted = Rotation.from_quat(backwards.wrist_pose[:, 3:], scalar_first=True)
    assert (back * wanted.inv()).magnitude().max() < 1e-6


def test_two_full_turns_have_no_jumps():
    motions = library(clip(240, turn=4 * np.pi))
    steps = motions.joint_pos[0].diff(dim=0).abs()
    assert steps.max() < 0.2
    turned = motions.joint_pos[0, -1, W - 1] - motions.joint_pos[0, 0, W - 1]
    assert turned.item() == pytest.approx(4 * np.pi, rel=0.05)
    assert motions.joint_vel.abs().max() < 20 and motions.object_vel.abs().max() < 20
    quat = motions.object_pose[0, :, 3:]
    assert ((quat[1:] * quat[:-1]).sum(1) > 0.9).all()


def test_signs_of_quaternions_do_not_matter():
    plain, flipped = library(clip()), library(clip(flip=True))
    for name in ("joint_pos", "joint_vel", "object_pose", "object_vel"):
        assert torch.allclose(getattr(plain, name), getattr(flipped, name), atol=1e-5), name
    assert flipped.object_pose.dtype == torch.float32


def test_velocities_integrate_to_the_motion():
    motions = library(clip(120, turn=2.0))
    joints, rates = motions.joint_pos[0].double(), motions.joint_vel[0].double()
    travelled = ((rates[1:] + rates[:-1]) / 2 / RATE).cumsum(0)
    np.testing.assert_allclose(travelled.numpy(), (joints[1:] - joints[0]).numpy(), atol=2e-3)
    pose, twist = motions.object_pose[0].double().numpy(), motions.object_vel[0].double().numpy()
    linear = ((twist[1:, :3] + twist[:-1, :3]) / 2 / RATE).cumsum(0)
    np.testing.assert_allclose(linear, pose[1:, :3] - pose[0, :3], atol=2e-3)
    turn = Rotation.from_quat(pose[0, 3:], scalar_first=True)
    for t in range(len(pose) - 1):  # angular velocity in the object's own frame, as a free joint has it
        turn = turn * Rotation.from_rotvec(twist[t, 3:] / RATE)
    assert (turn * Rotation.from_quat(pose[-1, 3:], scalar_first=True).inv()).magnitude() < 1e-3


@pytest.mark.parametrize(
    "references, message",
    [
        ((), "no reference motions"),
        ((clip(side="left"),), "left 'allegro'.*retarget"),
        ((clip(robot="shadow"),), "'shadow'.*retarget"),
        ((clip(rate_hz=50.0),), "50 Hz.*60 Hz"),
        ((clip(joint_names=(), joint_pos=None, keypoints=np.zeros((60, 21, 3))),), "keypoints"),
        (
            (clip(joint_names=ROBOT.finger_joints[:-1], joint_pos=np.zeros((60, 15))),),
            ROBOT.finger_joints[-1],
        ),
        ((clip(frames=1),), "frame"),
        ((clip(), clip(joint_pos=np.full((60, 16), np.nan))), "not finite"),
        ((clip(object_pose=np.full((60, 7), np.inf)),), "not finite"),
        ((clip(valid=np.arange(60) != 7),), "frame 7 is missing"),
    ],
)
def test_clips_that_do_not_fit_are_named(references, message):
    with pytest.raises(RobolearnError, match=message) as error:
        MotionLibrary.from_references(references, ROBOT, RATE)
    assert "\n" not in str(error.value)
    if references:
        assert "clip" in str(error.value)


def goal(*clips: Reference, worlds: int = 4, **settings) -> ReferenceGoal:
    motions = library(*clips)
    codes, every = torch.zeros(motions.num_clips, 13), torch.arange(motions.num_clips)
    settings = {"lookahead": [1, 4], "start_fraction": 1.0, **settings}
    return ReferenceGoal(motions, [every] * worlds, shape_codes=codes, joint_order=ROBOT.joint_names, **settings)


def test_a_goal_shows_now_and_ahead_and_stays_on_the_last_frame():
    g = goal(clip(30), clip(40))
    ids = torch.arange(4)
    g.reset(Selection(ids), torch.Generator().manual_seed(1))
    assert set(g.clip.tolist()) == {0, 1}
    for t in range(45):
        seen = g.read()
        for i in ids:
            c = g.clip[i]
            frames = [min(t + k, int(g.motions.length[c]) - 1) for k in (0, 1, 4)]
            assert torch.equal(seen["reference_joint_pos"][i], g.motions.joint_pos[c, frames])
            assert torch.equal(seen["reference_object_pose"][i], g.motions.object_pose[c, frames])
        assert torch.equal(g.timed_out(), t >= g.motions.length[g.clip] - 1)
        for channel in g.channels:
            assert seen[channel.name].shape == (4, *channel.shape)
        some = torch.tensor([1, 3])
        assert all(torch.equal(value, seen[name][some]) for name, value in g.read(some).items())
        g.advance()


def test_episodes_start_where_they_were_told():
    g = goal(clip(100), worlds=2000, start_fraction=0.25, joint_noise=0.01, end_steps=10)
    state = g.reset(Selection(torch.arange(2000)), torch.Generator().manual_seed(0))
    first = g.first_frame == 0
    assert first.float().mean().item() == pytest.approx(0.25 + 0.75 / 90, abs=0.03)
    assert g.first_frame.max() == 89 and torch.equal(g.frame, g.first_frame)
    assert not state["qvel"][first].any() and state["qvel"][g.first_frame == 50].any()
    joints = g.motions.joint_pos[g.clip, g.frame]
    assert torch.equal(state["ctrl"], joints)
    noise = state["qpos"][:, :22] - joints
    assert noise.std().item() == pytest.approx(0.01, rel=0.03)
    assert torch.equal(state["qpos"][:, 22:], g.motions.object_pose[g.clip, g.frame])


def test_a_reset_of_some_worlds_leaves_the_others():
    g = goal(clip(100), worlds=6, start_fraction=0.0)
    generator = torch.Generator().manual_seed(0)
    g.reset(Selection(torch.arange(6)), generator)
    before = g.frame.clone()
    g.reset(Selection(torch.tensor([1, 4])), generator)
    others = [0, 2, 3, 5]
    assert torch.equal(g.frame[others], before[others]) and not torch.equal(g.frame, before)


def test_clips_shorter_than_the_tail_still_start_at_their_first_frame():
    g = goal(clip(5), worlds=20, start_fraction=0.0)
    g.reset(Selection(torch.arange(20)), torch.Generator().manual_seed(0))
    assert (g.frame == 0).all()


def test_clocks_continue():
    a, b = goal(clip(50), clip(60), start_fraction=0.3), goal(clip(50), clip(60))
    a.reset(Selection(torch.arange(4)), torch.Generator().manual_seed(0))
    a.advance()
    b.load_state_dict(a.state_dict())
    a.advance(), b.advance()
    for name, value in a.read().items():
        assert torch.equal(value, b.read()[name])
    assert torch.equal(a.first_frame, b.first_frame)
