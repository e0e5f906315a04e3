"""Recordings on their way into a tracking task: splits, rates, tables, human hands."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest

from sim.references.format import HUMAN, Reference
from sim.references.generate import generate
from sim.references.kinematics import robot_keypoints
from sim.robots import get_robot
from sim.tasks.tracking_motions import HOLD_OUT, ClipConfig, ClipError, clips_for, prepare

ROBOT = get_robot("allegro")


@pytest.fixture(scope="module")
def clips() -> list[Reference]:
    return generate(["cube"], clips=6, duration=1.5)


def folder_of(path: Path, clips: list[Reference], **changes: object) -> str:
    for clip in clips:
        dataclasses.replace(clip, **changes).save(path / f"{clip.name}.npz")
    return str(path)


def test_clips_without_a_split_are_shared_out(tmp_path, clips):
    config = ClipConfig(folder=folder_of(tmp_path, clips, split=""))
    train, heldout = (clips_for(config, ROBOT, split, 60.0) for split in ("train", "heldout"))
    assert len(heldout) == len(clips) // HOLD_OUT == 1
    assert {c.name for c in train} | {c.name for c in heldout} == {c.name for c in clips}
    assert not {c.name for c in train} & {c.name for c in heldout}
    with pytest.raises(ClipError, match="no clips of split 'heldout_objects'"):
        clips_for(config, ROBOT, "heldout_objects", 60.0)


def test_another_rate_is_resampled_and_said(clips, caplog):
    slow = generate(["cube"], clips=1, duration=1.5, rate_hz=30.0)[0]
    with caplog.at_level(logging.INFO):
        ready = prepare(slow, ROBOT, 60.0)
    assert ready.rate_hz == 60.0 and ready.num_frames == 2 * slow.num_frames - 1
    np.testing.assert_allclose(ready.object_pose[::2, :3], slow.object_pose[:, :3], atol=2e-3)
    assert "30 → 60 Hz" in caplog.text and slow.name in caplog.text


def test_a_clip_that_fits_is_left_alone(clips):
    assert prepare(clips[0], ROBOT, 60.0) is not None
    np.testing.assert_array_equal(prepare(clips[0], ROBOT, 60.0).joint_pos, clips[0].joint_pos)


def test_a_raised_table_comes_down_to_zero(clips):
    up = np.array([0, 0, 0.7, 0, 0, 0, 0])
    raised = dataclasses.replace(
        clips[0], table_height=0.7, wrist_pose=clips[0].wrist_pose + up, object_pose=clips[0].object_pose + up
    )
    ready = prepare(raised, ROBOT, 60.0)
    np.testing.assert_allclose(ready.object_pose, clips[0].object_pose, atol=1e-9)
    np.testing.assert_allclose(ready.wrist_pose, clips[0].wrist_pose, atol=1e-9)


def test_a_human_hand_is_retargeted(clips):
    clip = clips[0]
    keypoints = robot_keypoints(clip, ROBOT)
    keypoints[:, 17:] = keypoints[:, 13:17] + 0.02  # the robot has no little finger; a person does
    human = dataclasses.replace(clip, robot=HUMAN, joint_names=(), joint_pos=None, keypoints=keypoints)
    ready = prepare(human, ROBOT, 60.0)
    assert ready.robot == "allegro" and ready.joint_pos is not None
    assert np.abs(ready.joint_pos - clip.joint_pos).mean() < 0.15
    assert np.all(ready.joint_pos >= ROBOT.lower[6:] - 1e-9) and np.all(ready.joint_pos <= ROBOT.upper[6:] + 1e-9)


def test_held_out_objects_are_never_the_chosen_training_objects():
    config = ClipConfig(objects=["cube"], heldout_clips=2)
    assert {c.object for c in clips_for(config, ROBOT, "heldout", 60.0)} == {"cube"}
    assert "cube" not in {c.object for c in clips_for(config, ROBOT, "heldout_objects", 60.0)}


@pytest.mark.parametrize(
    ("config", "split", "message"),
    [
        (ClipConfig(), "trian", "unknown split 'trian'; did you mean 'train'"),
        (ClipConfig(clips=0), "train", "number of train clips must be at least 1, got 0"),
        (ClipConfig(heldout_clips=0), "heldout", "number of heldout clips must be at least 1"),
        (ClipConfig(noise=-1.0), "train", "noise must be at least 0"),
    ],
)
def test_bad_choices(config, split, message):
    with pytest.raises(ClipError, match=message):
        clips_for(config, ROBOT, split, 60.0)
