"""Files of reference motions: reading, checking, repairing, and the verb `robolearn reference`."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robolearn import reference as verb
from robolearn.errors import RobolearnError
from sim.references.check import check, problems
from sim.references.format import (
    HUMAN,
    KEYPOINT_NAMES,
    Reference,
    ReferenceError,
    load,
    load_folder,
    palm_pose,
)
from sim.references.kinematics import robot_keypoints
from sim.references.repair import RepairError, repair, split_gaps
from sim.robots import get_robot

ROBOT = get_robot("allegro")


def clip(frames: int = 121, rate: float = 60.0, name: str = "lift", split: str = "train") -> Reference:
    """A hand and a cube that rise by 20 cm and turn by 40°, without noise."""
    t = np.arange(frames) / rate
    rise = 0.5 - 0.5 * np.cos(np.pi * np.clip(t / t[-1], 0, 1))
    turn = Rotation.from_rotvec(np.outer(np.radians(40) * rise, [0.2, 0.1, 1.0])).as_quat(scalar_first=True)
    home = np.array([ROBOT.home[ROBOT.joint_names.index(joint)] for joint in ROBOT.finger_joints])
    height = np.stack([0 * t, 0 * t, 0.2 * rise], axis=1)
    return Reference(
        name=name,
        robot="allegro",
        side="right",
        rate_hz=rate,
        object="cube",
        wrist_pose=np.concatenate([[0, 0, 0.2] + height, turn], axis=1),
        object_pose=np.concatenate([[0.05, 0, 0.03] + height, turn], axis=1),
        joint_names=ROBOT.finger_joints,
        joint_pos=home + 0.15 * rise[:, None],
        table_height=0.0,
        split=split,
        source="made for a test",
    )


def human_clip(scale: float = 0.62, **changes: float) -> Reference:
    motion = clip(**changes)  # type: ignore[arg-type]
    points = robot_keypoints(motion, ROBOT)
    points[:, 17:] = 2 * points[:, 13:17] - points[:, 9:13]
    points = points[:, :1] + scale * (points - points[:, :1])
    wrist = palm_pose(points, "right")
    return replace(motion, robot=HUMAN, joint_names=(), joint_pos=None, keypoints=points, wrist_pose=wrist)


def spoiled(field: str, index: object, value: object) -> Reference:
    """The good clip with some numbers of one array replaced."""
    good = clip()
    array = getattr(good, field).copy()
    array[index] = value
    return replace(good, **{field: array})


# files


@pytest.mark.parametrize("original", [clip(), human_clip(), replace(clip(), valid=np.arange(121) != 3)])
def test_a_clip_survives_its_file(original: Reference, tmp_path: Path) -> None:
    read = load(original.save(tmp_path / "deep" / "clip.npz"))
    for field in Reference.__dataclass_fields__:
        before, after = getattr(original, field), getattr(read, field)
        assert np.array_equal(before, after) if isinstance(before, np.ndarray) else before == after, field
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "clip.npz"]


def test_keypoints_without_a_wrist_pose_get_the_palm_frame(tmp_path: Path) -> None:
    human = human_clip()
    path = human.save(tmp_path / "a.npz")
    with np.load(path) as archive:
        entries = {key: archive[key] for key in archive.files if key != "wrist_pose"}
    np.savez(path, **entries)
    read = load(path)
    assert np.allclose(read.wrist_pose, human.wrist_pose)
    # an Allegro palm has x to the fingers, y to the thumb's side, z out of the back: so has the human's
    error = Rotation.from_quat(read.wrist_pose[:, 3:], scalar_first=True).inv() * Rotation.from_quat(
        clip().wrist_pose[:, 3:], scalar_first=True
    )
    assert error.magnitude().max() < 0.15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wrist_pose": np.zeros((5, 6))}, r"field 'wrist_pose' has shape \(5, 6\).*expected \(T, 7\)"),
        ({"object_pose": np.zeros((4, 7))}, r"field 'object_pose' has shape \(4, 7\).*expected \(121, 7\)"),
        ({"joint_pos": np.zeros((121, 3))}, r"field 'joint_pos' has shape \(121, 3\).*expected \(121, 16\)"),
        ({"keypoints": np.zeros((121, 20, 3))}, r"field 'keypoints'.*expected \(121, 21, 3\)"),
        ({"valid": np.ones(121)}, r"field 'valid'.*expected \(121,\) of bool"),
        ({"wrist_pose": np.full((121, 7), "x")}, r"field 'wrist_pose'.*of numbers"),
        ({"wrist_pose": np.zeros((0, 7))}, "no frames"),
        ({"joint_pos": None}, "neither 'joint_pos'"),
        ({"joint_pos": np.zeros((121, 0)), "joint_names": ()}, "field 'joint_names' is empty"),
        ({"side": "rigth"}, "unknown side 'rigth'; did you mean 'right'"),
        ({"rate_hz": 0.0}, "'rate_hz' must be positive"),
        ({"rate_hz": float("nan")}, "'rate_hz' must be one finite number"),
        ({"name": 3}, "field 'name' must be text"),
    ],
)
def test_shapes_and_types_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ReferenceError, match=message):
        replace(clip(), **change)  # type: ignore[arg-type]


def test_bad_files_are_refused_by_name(tmp_path: Path) -> None:
    path = clip().save(tmp_path / "good.npz")
    data = path.read_bytes()
    bad = {
        "truncated": (data[: len(data) // 2], "truncated or corrupt"),
        "flipped": (data[:600] + bytes(64) + data[664:], "truncated or corrupt"),
        "empty": (b"", "not an .npz archive"),
        "text": (b"frame,x,y\n1,2,3\n", "not an .npz archive"),
    }
    for name, (content, message) in bad.items():
        file = tmp_path / f"{name}.npz"
        file.write_bytes(content)
        with pytest.raises(ReferenceError, match=f"{name}.npz: .*({message})"):
            load(file)
    with pytest.raises(ReferenceError, match=r"nowhere.npz: no such file"):
        load(tmp_path / "nowhere.npz")

    with np.load(path) as archive:
        entries = {key: archive[key] for key in archive.files}
    for change, message in (
        ({"object_pos": entries["object_pose"]}, "unknown field 'object_pos'; did you mean 'object_pose'"),
        ({"format_version": 9}, "version 9 is not supported"),
        ({"joint_names": np.array(["a", None], dtype=object)}, "pickled objects, which are never loaded"),
        ({"name": np.array(3)}, "field 'name' has shape"),
        ({"joint_names": np.arange(16)}, "field 'joint_names' has shape"),
    ):
        np.savez(tmp_path / "changed.npz", **(entries | change))
        with pytest.raises(ReferenceError, match=message):
            load(tmp_path / "changed.npz")
    del entries["object_pose"]
    np.savez(tmp_path / "changed.npz", **entries)
    with pytest.raises(ReferenceError, match="required field 'object_pose' is missing"):
        load(tmp_path / "changed.npz")


def test_saving_over_a_folder_fails_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "clip.npz").mkdir()
    with pytest.raises(ReferenceError, match="cannot write reference"):
        clip().save(tmp_path / "clip.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.npz"]


def test_load_folder_filters_and_checks(tmp_path: Path) -> None:
    clip(name="a").save(tmp_path / "a.npz")
    clip(name="b", split="heldout").save(tmp_path / "b.npz")
    assert [c.name for c in load_folder(tmp_path)] == ["a", "b"]
    assert [c.name for c in load_folder(tmp_path, split="heldout")] == ["b"]
    with pytest.raises(ReferenceError, match="unknown split 'heldou'; did you mean 'heldout'"):
        load_folder(tmp_path, split="heldou")
    spoiled("object_pose", 50, np.nan).save(tmp_path / "c.npz")
    with pytest.raises(ReferenceError, match=r"c.npz: .*object_pose.*frame 50"):
        load_folder(tmp_path)
    with pytest.raises(ReferenceError, match="no folder"):
        load_folder(tmp_path / "nowhere")


# check


def test_good_clips_pass() -> None:
    turned = ROBOT.finger_joints[::-1]
    for good in (clip(), human_clip(), replace(clip(), joint_names=turned, joint_pos=clip().joints(turned))):
        check(good)
        assert problems(good) == []


def xyzw(pose: np.ndarray) -> np.ndarray:
    return pose[:, [0, 1, 2, 4, 5, 6, 3]]


MILLIMETRES = [1000.0] * 3 + [1.0] * 4


def moved_hand(factor: float, offset: float) -> Reference:
    human = human_clip()
    assert human.keypoints is not None
    return replace(human, keypoints=factor * human.keypoints + offset)


def turned_about_z(degrees: float) -> np.ndarray:
    pose = clip().object_pose.copy()
    pose[:, 3:] = Rotation.from_euler("z", degrees, degrees=True).as_quat(scalar_first=True)
    return pose


@pytest.mark.parametrize(
    ("bad", "field", "frame", "message"),
    [
        (spoiled("object_pose", (30, 3), 1.2), "object_pose", 30, "quaternion norm"),
        (replace(clip(), object_pose=xyzw(clip().object_pose)), "object_pose", 0, "wxyz"),
        (replace(clip(), object_pose=xyzw(turned_about_z(50))), "object_pose", 0, "only when read as xyzw"),
        (spoiled("joint_pos", (40, 5), 1.9), "joint_pos", 40, "joint 'middle_mcp' is 1.900 rad; limits"),
        (spoiled("object_pose", (slice(60, None), 0), 0.5), "object_pose", 60, "jumps by 0.450 m"),
        (spoiled("wrist_pose", slice(20, 26), np.nan), "wrist_pose", 20, r"6 of 121 .* at most 6 \(0.10 s\)"),
        (replace(clip(), valid=np.arange(121) < 100), "valid", 100, "21 of 121 frames are missing"),
        (replace(clip(), wrist_pose=clip().wrist_pose * MILLIMETRES), "wrist_pose", 0, "millimetres"),
        (spoiled("joint_pos", (slice(None), 5), 40.0), "joint_pos", 0, "degrees"),
        (spoiled("object_pose", (slice(None), 2), -0.4), "object_pose", 0, "below the table top.*is z up"),
        (replace(clip(), rate_hz=200.0), "rate_hz", None, "200 Hz; expected 30 to 120 Hz"),
        (clip(frames=8), "wrist_pose", None, "8 frames last 0.117 s"),
        (replace(clip(), object="cub"), "object", None, "unknown object 'cub'; did you mean 'cube'"),
        (replace(clip(), robot="alegro"), "robot", None, "unknown robot 'alegro'; did you mean 'allegro'"),
        (
            replace(clip(), joint_names=("index_abb",) + ROBOT.finger_joints[1:]),
            "joint_names",
            None,
            "no joint 'index_abb'; did you mean 'index_abd'",
        ),
        (
            replace(clip(), joint_names=ROBOT.finger_joints[1:2] + ROBOT.finger_joints[1:]),
            "joint_names",
            None,
            "missing: index_abd; twice: index_mcp",
        ),
        (moved_hand(1000.0, 0.0), "keypoints", 0, "millimetres"),
        (human_clip(scale=6.2), "keypoints", None, "another unit, or another keypoint order"),
        (moved_hand(1.0, 1.0), "wrist_pose", 0, "world frame"),
    ],
)  # fmt: skip
def test_problems_name_field_frame_and_value(bad: Reference, field: str, frame: int | None, message: str) -> None:
    found = [p for p in problems(bad) if p.field == field and re.search(message, p.message)]
    assert found, [str(p) for p in problems(bad)]
    assert found[0].frame == frame
    if frame is not None:
        assert found[0].time == pytest.approx(frame / bad.rate_hz)
    with pytest.raises(ReferenceError):
        check(bad)


# repair


def test_a_clean_clip_is_hardly_touched() -> None:
    repaired, report = repair(clip())
    assert np.abs(repaired.wrist_pose - clip().wrist_pose).max() < 2e-4
    assert not (report.filled or report.outliers or report.trimmed or report.resampled or report.clipped)
    assert str(repair(clip(), smooth_s=0)[1]) == ""


@pytest.mark.parametrize("rate", [30.0, 100.0, 120.0])
def test_noise_gaps_and_outliers_at_any_rate(rate: float) -> None:
    truth = clip(frames=int(2 * rate) + 1, rate=rate)
    generator = np.random.default_rng(0)
    noisy = {}
    for field, sigma in (("wrist_pose", 0.005), ("object_pose", 0.003), ("joint_pos", 0.03)):
        noisy[field] = getattr(truth, field) + generator.normal(0, sigma, getattr(truth, field).shape)
    noisy["wrist_pose"][10:13] = np.nan
    noisy["object_pose"][40, :3] += 0.3  # one frame elsewhere
    noisy["wrist_pose"][20:, 3:] *= -1  # the same rotation
    noisy["joint_pos"][[25, -1], 3] = 3.0
    valid = np.ones(truth.num_frames, dtype=bool)
    valid[:2] = False
    recording = replace(truth, valid=valid, **noisy)
    repaired, report = repair(recording, rate_hz=60.0)
    assert report.trimmed == 3
    assert report.filled["wrist_pose"] == 3
    assert report.outliers == {"object_pose": 1, "joint_pos": 2}
    assert report.resampled == ((rate, 60.0) if rate != 60 else None)
    assert repaired.repaired == str(report) and "\n" not in str(report)
    assert "trimmed 3" in str(report) and "joint_pos 2 frames" in str(report)
    assert repaired.rate_hz == 60.0 and problems(repaired) == []

    shift = 2 / rate
    times = np.arange(repaired.num_frames) / 60.0 + shift
    at = np.arange(truth.num_frames) / rate
    wanted = np.stack([np.interp(times, at, truth.object_pose[:, i]) for i in range(3)], axis=1)
    assert np.linalg.norm(repaired.object_pose[:, :3] - wanted, axis=1).mean() < 0.004
    assert np.allclose(np.linalg.norm(repaired.wrist_pose[:, 3:], axis=1), 1)
    wanted = np.stack([np.interp(times, at, column) for column in truth.joints(ROBOT.finger_joints).T], axis=1)
    assert np.abs(repaired.joints(ROBOT.finger_joints) - wanted).mean() < 0.015  # from 0.024


def test_long_gaps_are_an_error_or_a_split() -> None:
    gap = spoiled("object_pose", slice(40, 70), np.nan)
    with pytest.raises(RepairError, match=r"'object_pose' has no data for 0.50 s from frame 40; .*0.25 s"):
        repair(gap)
    pieces = split_gaps(gap)
    assert [(p.name, p.num_frames) for p in pieces] == [("lift_00", 40), ("lift_01", 51)]
    assert "cut at gaps" in pieces[0].repaired
    assert all(problems(repair(p)[0]) == [] for p in pieces)
    filled, report = repair(gap, max_gap_s=0.6)
    assert report.longest_gap == pytest.approx(0.5) and problems(filled) == []
    with pytest.raises(RepairError, match="no piece between gaps lasts 3 s"):
        split_gaps(gap, min_length_s=3)


def test_small_violations_are_clipped_and_large_ones_refused() -> None:
    over = replace(clip(), joint_pos=clip().joint_pos + np.eye(16)[1] * 1.1)
    repaired, report = repair(over)
    assert report.clipped > 0 and report.clipped_by < 0.3 and "clipped" in str(report)
    assert problems(repaired) == []
    with pytest.raises(RepairError, match="joint 'index_mcp' is .* limits"):
        repair(replace(clip(), joint_pos=clip().joint_pos + np.eye(16)[1] * 2))


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(RepairError, match="rate 10 Hz; expected 30 to 120 Hz"):
        repair(clip(), rate_hz=10)
    with pytest.raises(RepairError, match="fewer than 2 frames"):
        repair(spoiled("wrist_pose", slice(None), np.nan))


def test_a_lost_keypoint_does_not_cost_its_frame() -> None:
    human = human_clip()
    assert human.keypoints is not None
    points = human.keypoints.copy()
    tip = KEYPOINT_NAMES.index("index_tip")
    points[30, tip] += 0.2
    points[50:54, tip] = np.nan
    repaired, report = repair(replace(human, keypoints=points), smooth_s=0)
    assert report.outliers == {"keypoints": 1} and report.filled == {"keypoints": 5}
    assert repaired.keypoints is not None
    assert np.abs(repaired.keypoints - human.keypoints).max() < 5e-4


# the verb


def robolearn_reference(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return verb.main(parser.parse_args([str(argument) for argument in arguments]))


def last_json(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_check_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip().save(tmp_path / "good.npz")
    assert robolearn_reference("check", tmp_path) == 0
    spoiled("joint_pos", (40, 5), 1.9).save(tmp_path / "limit.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04")
    assert robolearn_reference("check", tmp_path, "--json") == 1
    report = last_json(capsys)
    assert (report["ok"], report["checked"], report["bad"]) == (False, 3, 2)
    limit = next(row for row in report["clips"] if row["file"].endswith("limit.npz"))
    assert limit["problems"][0]["field"] == "joint_pos" and limit["problems"][0]["frame"] == 40
    assert robolearn_reference("check", tmp_path / "limit.npz") == 1
    assert "at frame 40 (0.667 s)" in capsys.readouterr().out
    with pytest.raises(RobolearnError, match="no file or folder"):
        robolearn_reference("check", tmp_path / "nowhere")


def test_make_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("make", tmp_path / "set", "--clips", 2, "--objects", "cube", "--splits", "train,heldout")
    assert robolearn_reference(*arguments, "--json") == 0
    report = last_json(capsys)
    index = json.loads((tmp_path / "set" / "index.json").read_text())
    assert len(index["clips"]) == 4 and index["clips"] == report["clips"]
    assert {clip.split for clip in load_folder(tmp_path / "set")} == {"train", "heldout"}
    with pytest.raises(RobolearnError, match="--force"):
        robolearn_reference(*arguments)
    assert (
        robolearn_reference("make", tmp_path / "set", "--clips", 1, "--objects", "cube", "--splits", "train", "--force")
        == 0
    )
    assert len(load_folder(tmp_path / "set")) == 1


def test_retarget_and_view_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = human_clip(frames=41, rate=30.0)
    points = recording.keypoints
    assert points is not None
    points = points + np.random.default_rng(0).normal(0, 0.002, points.shape)
    points[10:13] = np.nan
    replace(recording, keypoints=points).save(tmp_path / "human.npz")
    assert robolearn_reference("retarget", tmp_path / "human.npz", tmp_path / "robot.npz", "--json") == 0
    report = last_json(capsys)["written"][0]
    assert report["repairs"]["filled"] == {"keypoints": 3} and report["residual"]["mean_mm"] < 5
    moved = load(tmp_path / "robot.npz")
    assert (moved.robot, moved.rate_hz, moved.num_frames) == ("allegro", 60.0, 81)
    assert "filled gaps" in moved.repaired
    with pytest.raises(RobolearnError, match="robot.npz exists; --force"):
        robolearn_reference("retarget", tmp_path / "human.npz", tmp_path / "robot.npz")

    repair(clip(frames=21))[0].save(tmp_path / "short.npz")
    assert robolearn_reference("view", tmp_path / "short.npz", "--json") == 0
    report = last_json(capsys)
    assert Path(report["video"]).stat().st_size > 1000 and Path(report["picture"]).read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ReferenceError, match="missing frames"):
        robolearn_reference("view", tmp_path / "human.npz")
