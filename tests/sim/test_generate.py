"""Generated clips: real grasps, clean geometry, splits, determinism, refusals."""

from __future__ import annotations

import time
from collections.abc import Sequence

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sim.objects import ObjectError, ObjectSpec, get_object, list_objects
from sim.references.check import check
from sim.references.format import Reference
from sim.references.generate import GenerateError, Noise, generate
from sim.references.shapes import signed_distance
from sim.robots import get_robot


class Scene:
    """A hand, an object and a table, posed by the frames of a clip."""

    def __init__(self, robot_side: str, shape: ObjectSpec) -> None:
        self.robot = get_robot("allegro", robot_side)
        spec = self.robot.spec()
        shape.add_to(spec)
        spec.worldbody.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1])
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)

    def deepest(self, clip: Reference, every: int = 6) -> float:
        """Deepest penetration over the clip, m."""
        deepest = 0.0
        for qpos in frames(clip)[::every]:
            self.data.qpos[:] = qpos
            mujoco.mj_forward(self.model, self.data)
            deepest = max([deepest, *(-c.dist for c in self.data.contact)])
        return deepest

    def tips(self, qpos: np.ndarray) -> np.ndarray:
        self.data.qpos[:] = qpos
        mujoco.mj_kinematics(self.model, self.data)
        return np.stack([self.data.site(s).xpos for s in self.robot.fingertip_sites])

    def replay(self, clip: Reference, flex: float) -> np.ndarray:
        """Distance (T,) in m of the object from the clip while the hand replays it, flexed by `flex` rad."""
        close = np.array([n.endswith(("_mcp", "_pip", "_dip", "_ip")) for n in self.robot.joint_names]) * flex
        path = frames(clip)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = path[0]
        error = [0.0]
        for qpos in path[1:]:
            self.data.ctrl[:] = np.clip(qpos[: len(close)] + close, self.robot.lower, self.robot.upper)
            mujoco.mj_step(self.model, self.data, 2)
            error.append(float(np.linalg.norm(self.data.qpos[-7:-4] - qpos[-7:-4])))
        return np.array(error)


def frames(clip: Reference) -> np.ndarray:
    """(T, nq) qpos of hand and object."""
    wrist = get_robot(clip.robot, clip.side).wrist_pose_to_joints(clip.wrist_pose)
    assert clip.joint_pos is not None
    return np.concatenate([wrist, clip.joint_pos, clip.object_pose], axis=1)


def turned(clip: Reference) -> float:
    """Angle in degrees between the object's first and last orientation."""
    first, last = Rotation.from_quat(clip.object_pose[[0, -1], 3:], scalar_first=True)
    return float(np.degrees((last * first.inv()).magnitude()))


def same(a: Sequence[Reference], b: Sequence[Reference]) -> bool:
    return all(
        np.array_equal(getattr(x, field), getattr(y, field))
        for x, y in zip(a, b, strict=True)
        for field in ("wrist_pose", "joint_pos", "object_pose")
    )


@pytest.fixture(scope="module")
def lifts() -> list[Reference]:
    return generate(clips=len(list_objects("train")), seed=4)


def test_clips_are_valid_lift_and_turn_the_object(lifts: list[Reference]) -> None:
    assert [c.object for c in lifts] == list_objects("train")
    assert len({c.name for c in lifts}) == len(lifts)
    for clip in lifts:
        check(clip)
        assert clip.num_frames == 151 and clip.duration == pytest.approx(2.5)
        assert clip.split == "train" and clip.table_height == 0.0
        height = clip.object_pose[:, 2] - get_object(clip.object).rest_height
        assert abs(height[0]) < 1e-9 and 0.149 < height[-1] < 0.221
        assert 19.9 < turned(clip) < 57.1
        speed = np.linalg.norm(np.diff(clip.object_pose[:, :3], axis=0), axis=1) * clip.rate_hz
        assert speed.max() < 0.6


@pytest.mark.parametrize("clip_of", range(len(list_objects("train"))))
def test_tips_touch_opposite_sides_and_nothing_penetrates(lifts: list[Reference], clip_of: int) -> None:
    clip = lifts[clip_of]
    shape = get_object(clip.object)
    scene = Scene("right", shape)
    assert scene.deepest(clip) < 0.003
    for qpos in frames(clip)[[60, -1]]:
        turn = Rotation.from_quat(qpos[-4:], scalar_first=True)
        distance, normal = signed_distance(shape, turn.inv().apply(scene.tips(qpos) - qpos[-7:-4]))
        np.testing.assert_allclose(distance, 0.012, atol=2e-3)
        assert np.all(normal[:3] @ normal[3] < -0.3), "the thumb opposes every finger"
        assert normal[:3].mean(axis=0) @ normal[3] < -0.7
    open_tips = scene.tips(frames(clip)[0])
    assert np.linalg.norm(open_tips - clip.object_pose[0, :3], axis=1).min() > 0.05


def test_grasps_are_realisable_but_replay_does_not_hold(lifts: list[Reference]) -> None:
    scenes = [(Scene("right", get_object(c.object)), c) for c in lifts if get_object(c.object).kind != "sphere"]
    assert np.mean([s.replay(c, 0.0)[-1] > 0.05 for s, c in scenes]) > 0.7, "without squeezing it is left behind"
    assert np.mean([s.replay(c, 0.08).max() < 0.03 for s, c in scenes]) > 0.7, "a light squeeze carries it"


def test_object_turns_within_the_hand() -> None:
    for clip in generate(["cube", "can"], clips=2, kind="rotate_in_hand"):
        check(clip)
        assert turned(clip) == pytest.approx(40.0, abs=0.1)
        np.testing.assert_array_equal(clip.wrist_pose, np.tile(clip.wrist_pose[0], (clip.num_frames, 1)))
        shape = get_object(clip.object)
        scene = Scene("right", shape)
        assert clip.object_pose[0, 2] > shape.rest_height + 0.14
        assert scene.deepest(clip) < 0.003
        for qpos in frames(clip)[::25]:
            turn = Rotation.from_quat(qpos[-4:], scalar_first=True)
            distance, _ = signed_distance(shape, turn.inv().apply(scene.tips(qpos) - qpos[-7:-4]))
            np.testing.assert_allclose(distance, 0.012, atol=2e-3)
        assert clip.joint_pos is not None
        assert np.abs(np.diff(clip.joint_pos, axis=0)).max() * clip.rate_hz < 3.0, "rad/s"


def test_pick_place_puts_the_object_down_and_lets_go() -> None:
    (clip,) = generate(["mug"], clips=1, kind="pick_place", seed=2)
    check(clip)
    shape = get_object("mug")
    height = clip.object_pose[:, 2] - shape.rest_height
    assert height.max() > 0.149 and abs(height[-1]) < 1e-9
    scene = Scene("right", shape)
    assert scene.deepest(clip) < 0.003
    assert np.linalg.norm(scene.tips(frames(clip)[-1]) - clip.object_pose[-1, :3], axis=1).min() > 0.05


def test_left_hand_grasps_too() -> None:
    (clip,) = generate(["jug"], clips=1, robot=get_robot("allegro", "left"))
    check(clip)
    assert clip.side == "left" and Scene("left", get_object("jug")).deepest(clip) < 0.003


def test_heldout_objects_have_grasps() -> None:
    for clip in generate(list_objects("heldout"), clips=len(list_objects("heldout")), split="heldout"):
        check(clip)
        assert clip.split == "heldout"
        assert Scene("right", get_object(clip.object)).deepest(clip, every=10) < 0.003


def test_one_seed_gives_one_set_and_splits_share_nothing() -> None:
    def make(**changes: object) -> list[Reference]:
        arguments = {"objects": ["cube", "jar"], "clips": 4, "seed": 7, "noise": {}, **changes}
        return generate(**arguments)  # type: ignore[arg-type]

    first = make()
    assert same(first, make())
    assert not same(first, make(seed=8))
    poses = {c.object_pose.tobytes() for c in first}
    assert len(poses) == 4 and not poses & {c.object_pose.tobytes() for c in make(split="heldout")}


def test_noise_disturbs_the_hand_by_the_given_size_and_not_the_object() -> None:
    clean, noisy = (generate(["cube", "can"], clips=24, noise=n) for n in (None, Noise()))
    fingers, moved, turns = [], [], []
    for a, b in zip(clean, noisy, strict=True):
        check(b)
        np.testing.assert_array_equal(a.object_pose, b.object_pose)
        assert a.joint_pos is not None and b.joint_pos is not None
        fingers.append(b.joint_pos - a.joint_pos)
        moved.append(b.wrist_pose[:, :3] - a.wrist_pose[:, :3])
        first, second = (Rotation.from_quat(c.wrist_pose[:, 3:], scalar_first=True) for c in (a, b))
        turns.append((first.inv() * second).as_rotvec())
    assert np.std(fingers) == pytest.approx(0.08, rel=0.15)
    assert np.std(moved) == pytest.approx(0.005, rel=0.25)
    assert np.std(turns) == pytest.approx(0.04, rel=0.25)
    assert np.abs(np.diff(fingers, axis=1)).max() < 0.08, "the errors are smooth"
    (shaken,) = generate(["cube"], clips=1, noise={"object_pos": 0.002})
    assert 0 < np.std(shaken.object_pose - clean[0].object_pose) < 0.004


@pytest.mark.parametrize("rate", [30.0, 120.0])
def test_rate_and_duration(rate: float) -> None:
    (clip,) = generate(["cube"], clips=1, rate_hz=rate, duration=2.0)
    assert clip.rate_hz == rate and clip.num_frames == round(2 * rate) + 1
    check(clip)


def test_generation_is_fast() -> None:
    start = time.process_time()
    generate(clips=48)
    assert time.process_time() - start < 8.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "grasp_lft"}, "did you mean 'grasp_lift'"),
        ({"split": "test"}, "unknown split 'test'"),
        ({"clips": 0}, "at least one clip"),
        ({"objects": []}, "at least one clip and one object"),
        ({"rate_hz": 10.0}, "between 30 and 120"),
        ({"rate_hz": float("nan")}, "between 30 and 120"),
        ({"duration": 0.1}, "between 1 and 60"),
        ({"seed": -1}, "seed must be"),
        ({"noise": {"finger": 0.1}}, "did you mean 'fingers'"),
        ({"noise": {"fingers": -0.1}}, "at least 0"),
        ({"noise": Noise(smooth_s=0.0)}, "smooth_s above 0"),
        ({"robot": get_robot("allegro", base="fixed")}, "base='floating'"),
    ],
)
def test_impossible_sets_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(GenerateError, match=message):
        generate(**arguments)  # type: ignore[arg-type]


def test_unknown_object_is_refused() -> None:
    with pytest.raises(ObjectError, match="did you mean 'cube'"):
        generate(["cubes"])
