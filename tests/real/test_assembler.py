"""The assembler: real messages in, a contract's channels out, or words about what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from real.core.assembler import Assembled, Assembler, Missing
from real.core.kinematics import ToolKinematics
from real.core.sources import ChannelSource, SourceError
from real.msgs import store
from robolearn.contract import Channel, Contract
from sim.robots import get_robot

STORE = store("jazzy")
PANDA = get_robot("panda")
KINEMATICS = ToolKinematics(PANDA.mjcf(), PANDA.joint_names)
JOINTS = PANDA.joint_names
CHANNELS = {
    "joint_pos": Channel("joint_pos", (8,), "rad or m", elements=JOINTS),
    "joint_vel": Channel("joint_vel", (8,), "rad/s or m/s", elements=JOINTS),
    "object_poses": Channel("object_poses", (2, 7), "m+wxyz", "world"),
    "pad_pos": Channel("pad_pos", (2, 2), "m", "world"),
    "named": Channel("named", (2,)),
    "tool": Channel("tool", (7,), "m+wxyz", "world"),
    "rgb": Channel("rgb", (48, 48, 3), dtype="uint8"),
    "mode": Channel("mode", (2,), dtype="int32"),
}
SOURCES = {
    "joint_pos": ChannelSource("joint_states", ("joint_states",)),
    "joint_vel": ChannelSource("joint_states", ("joint_states",), field="velocity"),
    "object_poses": ChannelSource("poses", ("objects/a/pose", "objects/b/pose"), frame="world"),
    "pad_pos": ChannelSource("poses", ("objects/goal/pose", "objects/decoy/pose"), part="xy"),
    "named": ChannelSource("values", ("episode/goal/named",), latched=True),
    "tool": ChannelSource("tool_pose", ("joint_states",)),
    "rgb": ChannelSource("image", ("camera/front/image_raw",), frozen_after=3),
    "mode": ChannelSource("constant", value=(1, 0)),
}
HOME, SPEEDS = PANDA.home, np.linspace(-0.1, 0.1, 8)


def assembler(*names: str, **changes: ChannelSource) -> Assembler:
    contract = Contract("panda", "", tuple(CHANNELS[name] for name in names), (Channel("target", (8,)),))
    return Assembler(contract, {**SOURCES, **changes}, KINEMATICS)


def wire(type_name: str, **fields: Any) -> Any:
    """A message as it comes off the wire."""
    return STORE.deserialize(STORE.serialize(STORE.new(type_name, **fields)), type_name)


def header(stamp_ns: int, frame: str = "") -> Any:
    return STORE.new("std_msgs/msg/Header", stamp=STORE.time(stamp_ns), frame_id=frame)


def joints(
    position: Sequence[float] | np.ndarray = HOME, names: Sequence[str] = JOINTS, stamp: int = 1_000, **fields: Any
) -> Any:
    fields.setdefault("velocity", SPEEDS[: len(names)])
    position = np.asarray(position, np.float64)
    return wire("sensor_msgs/msg/JointState", header=header(stamp), name=list(names), position=position, **fields)


def pose(xyz: Sequence[float], xyzw: Sequence[float] = (0, 0, 0, 1), frame: str = "world", stamp: int = 2_000) -> Any:
    new = STORE.new
    where = new("geometry_msgs/msg/Point", **dict(zip("xyz", map(float, xyz), strict=True)))
    turned = new("geometry_msgs/msg/Quaternion", **dict(zip("xyzw", map(float, xyzw), strict=True)))
    value = new("geometry_msgs/msg/Pose", position=where, orientation=turned)
    return wire("geometry_msgs/msg/PoseStamped", header=header(stamp, frame), pose=value)


def values(*numbers: float) -> Any:
    return wire("std_msgs/msg/Float64MultiArray", data=np.array(numbers, np.float64))


def image(picture: np.ndarray, encoding: str = "rgb8", stamp: int = 3_000, **fields: Any) -> Any:
    height, width = picture.shape[:2]
    fields = {"height": height, "width": width, "step": picture.nbytes // height, "encoding": encoding, **fields}
    return wire("sensor_msgs/msg/Image", header=header(stamp), data=picture.reshape(-1), **fields)


def picture(seed: int = 0, height: int = 96, width: int = 128) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def only(assembled: Assembled | Missing, name: str) -> np.ndarray:
    assert isinstance(assembled, Assembled), str(assembled)
    return assembled.channels[name]


def test_all_kinds_together() -> None:
    parts = assembler(*CHANNELS)
    assert parts.topics["joint_states"] == "sensor_msgs/msg/JointState"
    assert len(parts.topics) == 7
    frame = picture()
    for topic, message, received in (
        ("joint_states", joints(stamp=5_000), 10.0),
        ("objects/a/pose", pose((0.5, 0.1, 0.02), (0, 0, 0.6, 0.8), stamp=4_000), 9.9),
        ("objects/b/pose", pose((0.4, -0.1, 0.03), stamp=4_500), 9.8),
        ("objects/goal/pose", pose((0.3, 0.2, 0.0)), 9.95),
        ("objects/decoy/pose", pose((0.35, -0.2, 0.0)), 9.95),
        ("episode/goal/named", values(0, 1), 1.0),
        ("camera/front/image_raw", image(frame, stamp=6_000), 9.97),
    ):
        assert parts.feed(topic, message, received) == ""
    result = parts.assemble(10.05)
    assert isinstance(result, Assembled)
    assert list(result.channels) == list(CHANNELS)
    parts.contract.check_inputs(result.channels)
    np.testing.assert_array_equal(result.channels["joint_pos"], HOME.astype(np.float32))
    np.testing.assert_array_equal(result.channels["joint_vel"], SPEEDS.astype(np.float32))
    np.testing.assert_allclose(result.channels["object_poses"][0], [0.5, 0.1, 0.02, 0.8, 0, 0, 0.6], atol=1e-7)
    np.testing.assert_allclose(result.channels["pad_pos"], [[0.3, 0.2], [0.35, -0.2]], atol=1e-7)
    np.testing.assert_allclose(result.channels["tool"], KINEMATICS.pose(HOME), atol=1e-6)
    np.testing.assert_array_equal(result.channels["named"], [0, 1])
    np.testing.assert_array_equal(result.channels["mode"], [1, 0])
    assert result.channels["mode"].dtype == np.int32
    middle = cv2.resize(frame[:, 16:112], (48, 48), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(result.channels["rgb"], middle)
    assert result.stamp_ns == 2_000, "the oldest of what changes all the time"
    assert result.ages["object_poses"] == pytest.approx(0.25) and result.ages["mode"] == 0.0
    assert parts.preflight(10.05) == []


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.permutations(range(10)), st.integers(0, 2**32 - 1))
def test_any_order_of_joints_gives_the_same_channels(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [*JOINTS, "finger_joint2", "lift"]
    position = np.append(rng.uniform(PANDA.lower, PANDA.upper), [0.01, 100.0])
    velocity = rng.normal(size=10)
    parts = assembler("joint_pos", "joint_vel", "tool")
    for now, permuted in ((1.0, range(10)), (2.0, order)):
        index = list(permuted)
        message = joints(position[index], [names[i] for i in index], velocity=velocity[index])
        assert parts.feed("joint_states", message, now) == ""
        np.testing.assert_array_equal(only(parts.assemble(now), "joint_pos"), position[:8].astype(np.float32))
        np.testing.assert_array_equal(only(parts.assemble(now), "joint_vel"), velocity[:8].astype(np.float32))
        np.testing.assert_allclose(
            only(parts.assemble(now), "tool"), KINEMATICS.pose(position[:8]).astype(np.float32), atol=0
        )


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (joints(HOME[:7], JOINTS[:7]), "joints missing: finger_joint1"),
        (joints(HOME, [f"panda_{n}" for n in JOINTS]), "given: panda_joint1, panda_joint2"),
        (joints(HOME[:7], JOINTS), "7 values of position for 8 joint names"),
        (joints(HOME, JOINTS, velocity=np.zeros(0)), "0 values of velocity for 8"),
        (joints(np.where(np.arange(8) == 2, np.nan, HOME)), "'joint3' is nan"),
        (joints(np.full(8, np.inf)), "'joint1' is inf"),
        (joints([*HOME, np.nan], [*JOINTS, "other"]), "'other' is nan"),
        (joints([*HOME, 0.0], [*JOINTS, "joint1"]), "'joint1' is named twice"),
        (joints(np.rad2deg(HOME)), "looks like degrees"),
        (joints(HOME + 50.0), "'joint1' at 50 is far outside its limits"),
        (joints(np.append(HOME[:7], 0.08)), "'finger_joint1' at 0.08 is far outside its limits [0, 0.04]"),
        (joints(np.zeros(0), []), "joints missing: joint1, joint2"),
    ],
)
def test_a_wrong_joint_state_is_refused_as_a_whole(message: Any, why: str) -> None:
    parts = assembler("joint_pos", "joint_vel")
    parts.feed("joint_states", joints(), 1.0)
    refusal = parts.feed("joint_states", message, 1.05)
    assert why in refusal and ("degrees" in refusal) == ("degrees" in why)
    assert parts.refused == {"joint_states": 1} and parts.refusal["joint_states"] == refusal
    np.testing.assert_array_equal(only(parts.assemble(1.06), "joint_pos"), HOME.astype(np.float32))
    late = parts.assemble(1.11)
    assert isinstance(late, Missing) and not late and "0.11 s old, 0.1 s allowed" in str(late)
    assert any("messages refused, the last because" in line for line in parts.preflight(1.06))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_joints_within_their_limits_are_never_taken_for_degrees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inside = rng.uniform(PANDA.lower, PANDA.upper)
    inside = np.where(rng.random(8) < 0.3, np.where(rng.random(8) < 0.5, PANDA.lower, PANDA.upper), inside)
    assert assembler("joint_pos").feed("joint_states", joints(inside + rng.normal(0, 0.002, 8)), 0.0) == ""


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (pose((0, 0, 0), frame="camera"), "frame 'camera' given, 'world' expected"),
        (pose((0, 0, np.nan)), "z is not finite"),
        (pose((0, 0, 0), (0, 0, np.nan, 1)), "qz is not finite"),
        (pose((0, 0, 0), (0, 0, 0, 0)), "length is 0, not 1"),
        (pose((0, 0, 0), (0, 0, 0, 1.002)), "length is 1.002, not 1"),
        (pose((1e300, 0, 0)), ""),
    ],
)
def test_wrong_poses(message: Any, why: str) -> None:
    parts = assembler("object_poses")
    parts.feed("objects/b/pose", pose((0, 0, 0)), 1.0)
    refusal = parts.feed("objects/a/pose", message, 1.0)
    assert why in refusal and bool(why) == bool(refusal)
    assert isinstance(parts.assemble(1.0), Missing), "not even a number too large for float32 gets through"


def test_a_pose_nearly_of_unit_length_is_normalised() -> None:
    parts = assembler("object_poses")
    parts.feed("objects/a/pose", pose((0, 0, 0), (0, 0, 0, 1.0009), frame="/world"), 1.0)
    parts.feed("objects/b/pose", pose((0, 0, 0), (1, 0, 0, 0)), 1.0)
    value = only(parts.assemble(1.0), "object_poses")
    assert value[0, 3] == 1.0
    np.testing.assert_array_equal(value[1, 3:], [0, 1, 0, 0])


def test_latched_values_stay_and_integers_must_be_whole() -> None:
    parts = assembler("named", "mode", mode=ChannelSource("values", ("episode/goal/mode",), latched=True))
    assert "expected" in parts.feed("episode/goal/named", values(1, 2, 3), 0.0)
    assert "not a finite number" in parts.feed("episode/goal/named", values(1, np.nan), 0.0)
    parts.feed("episode/goal/named", values(0, 1), 0.0)
    parts.feed("episode/goal/mode", values(3, -4), 0.0)
    late = parts.assemble(1e6)
    assert only(late, "mode").tolist() == [3, -4]
    assert isinstance(late, Assembled) and late.stamp_ns == 0
    for bad in (0.5, 1e12):
        parts.feed("episode/goal/mode", values(bad, 0), 1.0)
        assert "a value given is no int32" in str(parts.assemble(1.0))


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_encodings_and_padding(encoding: str) -> None:
    rgb = picture(height=48, width=48)
    padding = np.full((48, 5), 99, np.uint8)
    sent = {
        "rgb8": rgb,
        "bgr8": rgb[..., ::-1],
        "rgba8": np.dstack([rgb, rgb[..., 0]]),
        "bgra8": np.dstack([rgb[..., ::-1], rgb[..., 0]]),
        "mono8": rgb[..., :1],
    }[encoding]
    rows = np.hstack([sent.reshape(48, -1), padding])
    parts = assembler("rgb")
    assert parts.feed("camera/front/image_raw", image(rows, encoding, width=48, step=rows.shape[1]), 1.0) == ""
    expected = np.repeat(rgb[..., :1], 3, axis=2) if encoding == "mono8" else rgb
    np.testing.assert_array_equal(only(parts.assemble(1.0), "rgb"), expected)


def compressed(data: bytes, kind: str = "jpeg") -> Any:
    content = np.frombuffer(data, np.uint8)
    return wire("sensor_msgs/msg/CompressedImage", header=header(1), format=kind, data=content)


def test_compressed_pictures() -> None:
    source = ChannelSource("image", ("camera/front/image_raw/compressed",))
    parts = assembler("rgb", rgb=source)
    assert parts.topics == {source.topics[0]: "sensor_msgs/msg/CompressedImage"}
    rgb = cv2.GaussianBlur(picture(height=480, width=640), (0, 0), 20)
    for kind, tolerance in ((".png", 0), (".jpg", 6)):
        data = cv2.imencode(kind, rgb[..., ::-1])[1].tobytes()
        assert parts.feed(source.topics[0], compressed(data), 1.0) == ""
        expected = cv2.resize(rgb[:, 80:560], (48, 48), interpolation=cv2.INTER_AREA).astype(int)
        assert np.abs(only(parts.assemble(1.0), "rgb") - expected).max() <= tolerance


def test_damaged_and_monstrous_pictures() -> None:
    topic = "camera/front/image_raw/compressed"
    parts = assembler("rgb", rgb=ChannelSource("image", (topic,)))
    png = bytearray(cv2.imencode(".png", picture())[1].tobytes())
    png[16:24] = (100_000).to_bytes(4, "big") * 2
    jpeg = bytearray(cv2.imencode(".jpg", picture())[1].tobytes())
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    for data in (bytes(png), bytes(jpeg)):
        assert "is refused; at most" in parts.feed(topic, compressed(data), 1.0)
    for data in (bytes(jpeg[:at]), b"", b"GIF89a", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"):
        assert parts.feed(topic, compressed(data), 1.0) != ""
    rng = np.random.default_rng(0)
    good = cv2.imencode(".jpg", picture())[1].tobytes()
    for _ in range(300):
        broken = np.frombuffer(good, np.uint8)[: rng.integers(1, len(good))].copy()
        broken[rng.integers(0, len(broken), 5)] = rng.integers(0, 256, 5)
        parts.feed(topic, compressed(broken.tobytes()), 1.0)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (image(picture(), "yuv422"), "encoding 'yuv422' is none of rgb8, bgr8"),
        (image(picture(), height=95), "are no 128x95 picture"),
        (image(picture(), step=1), "with step 1"),
        (image(picture(), width=2**31, height=0), "picture of rgb8"),
        (image(picture(height=40, width=128)), "128x40 is too small for a channel of 48x48"),
    ],
)
def test_wrong_pictures(message: Any, why: str) -> None:
    assert why in assembler("rgb").feed("camera/front/image_raw", message, 1.0)


def test_a_frozen_camera_is_missing_until_it_moves() -> None:
    parts = assembler("rgb")
    for i in range(4):
        parts.feed("camera/front/image_raw", image(picture(7), stamp=1 + i), i / 30)
    assert "frozen: the same content in 4 messages" in str(parts.assemble(0.1))
    parts.feed("camera/front/image_raw", image(picture(8), stamp=9), 0.12)
    assert parts.assemble(0.12)


def test_stretching_keeps_the_whole_picture() -> None:
    parts = assembler("rgb", rgb=replace(SOURCES["rgb"], fit="stretch"))
    parts.feed("camera/front/image_raw", image(picture()), 1.0)
    expected = cv2.resize(picture(), (48, 48), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(only(parts.assemble(1.0), "rgb"), expected)


def test_drivers_names_and_position_alone() -> None:
    driver = tuple(f"panda_{name}" for name in JOINTS)
    named = {name: replace(SOURCES[name], joints=driver) for name in ("joint_pos", "tool")}
    parts = assembler("joint_pos", "tool", **named)
    assert parts.feed("joint_states", joints(HOME, driver), 1.0) == ""
    np.testing.assert_array_equal(only(parts.assemble(1.0), "joint_pos"), HOME.astype(np.float32))
    assert "looks like degrees" in parts.feed("joint_states", joints(np.rad2deg(HOME), driver), 1.0)


def test_preflight_says_what_is_missing() -> None:
    parts = assembler("joint_pos", "object_poses")
    parts.feed("objects/a/pose", pose((0, 0, 0)), 0.0)
    assert parts.preflight(1.0) == [
        "channel 'joint_pos': nothing of joint_states yet",
        "channel 'object_poses': objects/a/pose is 1.00 s old, 0.5 s allowed; nothing of objects/b/pose yet",
    ]


def test_the_arrays_are_the_callers() -> None:
    parts = assembler("named", "mode")
    parts.feed("episode/goal/named", values(0, 1), 0.0)
    for name in ("named", "mode"):
        only(parts.assemble(0.0), name)[:] = 77
        assert 77 not in only(parts.assemble(0.0), name)


@pytest.mark.parametrize(
    ("channel", "source", "why"),
    [
        ("object_poses", ChannelSource("poses", ("a",)), "fill (1, 7), not (2, 7)"),
        ("pad_pos", ChannelSource("poses", ("a", "b")), "fill (2, 7), not (2, 2)"),
        ("rgb", ChannelSource("values", ("joint_states",)), "cannot be both"),
        ("rgb", ChannelSource("constant", value=(1, 2)), "2 values for 6912 elements"),
        ("named", ChannelSource("image", ("camera",)), "a camera fills (H, W, 3) uint8"),
        ("named", ChannelSource("joint_states", ("joint_states",)), "it names no elements"),
        ("named", ChannelSource("tool_pose", ("joint_states",)), "a tool pose has shape (7,)"),
    ],
)
def test_sources_that_do_not_fit_their_channel(channel: str, source: ChannelSource, why: str) -> None:
    with pytest.raises(SourceError) as error:
        assembler("joint_pos", channel, **{channel: source})
    assert why in str(error.value)


def test_a_channel_without_a_source_and_a_topic_of_none() -> None:
    contract = Contract("", "", (Channel("joint_poss", (8,)),), (Channel("target", (8,)),))
    with pytest.raises(SourceError, match="no source: .*did you mean 'joint_pos'"):
        Assembler(contract, SOURCES)
    with pytest.raises(SourceError, match="did you mean 'joint_states'"):
        assembler("joint_pos").feed("joint_state", joints(), 0.0)
    with pytest.raises(SourceError, match="needs the robot's kinematics"):
        Assembler(replace(contract, inputs=(CHANNELS["tool"],)), SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_sources_as_yaml(name: str) -> None:
    text = yaml.safe_dump(SOURCES[name].to_dict())
    assert ChannelSource.from_dict(yaml.safe_load(text)) == SOURCES[name]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"kind": "joint_state", "topic": "a"}, "unknown kind 'joint_state'; did you mean 'joint_states'"),
        ({"kind": "image", "topik": "a"}, "unknown key 'topik' in a source; did you mean 'topic'"),
        ({"topic": "a"}, "needs the key 'kind'"),
        ({"kind": "image"}, "needs the key 'topic'"),
        ({"kind": "image", "topics": ["a", "b"]}, "has one topic, not 2"),
        ({"kind": "poses", "topics": ["a", "a"]}, "named twice"),
        ({"kind": "poses", "topics": "a"}, "topics is a list of names"),
        ({"kind": "image", "topic": "a", "topics": ["b"]}, "either 'topic' or 'topics'"),
        ({"kind": "constant", "value": [float("nan")]}, "finite numbers"),
        ({"kind": "constant"}, "needs the key 'value'"),
        ({"kind": "image", "topic": "a", "max_age_s": -1}, "max_age_s is a number of seconds > 0"),
        ({"kind": "image", "topic": "a", "frozen_after": 0}, "frozen_after is a number of messages"),
        ({"kind": "joint_states", "topic": "a", "field": "torque"}, "unknown field 'torque'"),
        ("joint_states", "a source is a mapping"),
    ],
)
def test_wrong_yaml(data: Any, why: str) -> None:
    with pytest.raises(SourceError) as error:
        ChannelSource.from_dict(data)
    assert why in str(error.value)
