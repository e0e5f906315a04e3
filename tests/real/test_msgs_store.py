"""The store of messages: making them, what it refuses to serialise, times, cost."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from real.errors import MessageError
from real.msgs import MessageStore, store
from tests.real.message_samples import DISTROS, WIRE, Sampler

NEEDED = WIRE + ("std_msgs/msg/Header", "builtin_interfaces/msg/Time", "control_msgs/msg/GripperCommand")


@pytest.fixture(params=DISTROS)
def messages(request: pytest.FixtureRequest) -> MessageStore:
    return store(request.param)


def test_every_distribution_has_what_the_nodes_send(messages: MessageStore) -> None:
    assert set(NEEDED) <= set(messages.types)
    gid = messages.new("rmw_dds_common/msg/Gid")
    assert len(gid.data) == (24 if messages.distro == "humble" else 16)


def test_store_follows_ros_distro(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DISTRO", "humble")
    assert store().distro == "humble" and store() is store("humble")
    monkeypatch.setenv("ROS_DISTRO", "rolling")
    assert store().distro == "jazzy"
    with pytest.raises(MessageError, match="did you mean 'jazzy'.*humble, jazzy, kilted"):
        store("jazy")


def test_messages_of_one_distribution_serialise_in_another() -> None:
    message = Sampler(store("humble"), seed=3).message("control_msgs/msg/DynamicJointState")
    assert store("kilted").serialize(message) == store("humble").serialize(message)


def test_new_is_zero_and_its_parts_are_not_shared(messages: MessageStore) -> None:
    for type in messages.types:
        body = messages.serialize(messages.new(type))[4:]
        # Nothing but zeros and the length 1 of empty texts.
        assert set(body) <= {0, 1}, type
    first, second = (messages.new("sensor_msgs/msg/CameraInfo") for _ in range(2))
    first.k[0], first.header.frame_id = 1.0, "a"
    assert second.k[0] == 0.0 and second.header.frame_id == ""


def test_new_makes_arrays_of_lists() -> None:
    messages = store()
    message = messages.new("sensor_msgs/msg/Joy", axes=[1, 0.5], buttons=(1, 0))
    assert message.axes.dtype == np.float32 and message.buttons.dtype == np.int32
    assert messages.new("sensor_msgs/msg/CompressedImage", data=b"\xff\x00").data.tolist() == [255, 0]
    huge = messages.new("std_msgs/msg/UInt64MultiArray", data=[1, 2**64 - 1])
    assert huge.data.tolist() == [1, 2**64 - 1]
    widened = messages.new("sensor_msgs/msg/JointState", position=np.float32([0.5]))
    assert widened.position.dtype == np.float64


@pytest.mark.parametrize(
    ("type", "fields", "reason"),
    [
        ("sensor_msgs/msg/JointStat", {}, "unknown message type.*did you mean 'sensor_msgs/msg/JointState'"),
        ("std_srvs/srv/Trigger", {}, "did you mean 'std_srvs/srv/Trigger_Re"),
        ("sensor_msgs/msg/JointState", {"positions": []}, "unknown field 'positions'; did you mean 'position'"),
        ("sensor_msgs/msg/Joy", {"buttons": [0.5]}, "buttons: expected .*numbers that fit"),
        ("sensor_msgs/msg/Joy", {"buttons": [2**40]}, "buttons: expected .*numbers that fit"),
        ("sensor_msgs/msg/Joy", {"axes": [1e300]}, "axes: expected .*numbers that fit"),
        ("sensor_msgs/msg/Joy", {"axes": ["1"]}, "axes: expected .*numbers that fit"),
        ("sensor_msgs/msg/Joy", {"axes": [[1.0], [1.0, 2.0]]}, "axes: expected .*numbers that fit"),
        ("sensor_msgs/msg/Joy", {"axes": [10**400]}, "axes: expected .*numbers that fit"),
    ],
)
def test_new_refuses(type: str, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(MessageError, match=reason):
        store().new(type, **fields)


@pytest.mark.parametrize(
    ("type", "field", "value", "reason"),
    [
        ("sensor_msgs/msg/JointState", "position", [1.0], "position: expected numpy array of float64, got list"),
        ("sensor_msgs/msg/JointState", "position", np.float32([1]), "position: .*got float32 with 1"),
        ("sensor_msgs/msg/JointState", "position", np.int64([1]), "position: .*got int64 with 1"),
        ("sensor_msgs/msg/JointState", "position", np.array([1.0], ">f8"), "position: .*got >f8"),
        ("sensor_msgs/msg/JointState", "position", np.zeros((2, 2)), "position: .*got float64 with 2"),
        ("sensor_msgs/msg/JointState", "name", ["a", 3], "name.1: expected string, got int"),
        ("sensor_msgs/msg/JointState", "name", "joint1", "name: expected list, got str"),
        ("sensor_msgs/msg/JointState", "header", None, "header: expected std_msgs/msg/Header, got NoneType"),
        ("sensor_msgs/msg/CameraInfo", "k", np.zeros(8), "k: 8 elements; exactly 9 fit"),
        ("sensor_msgs/msg/Image", "height", -1, "height: value that does not fit uint32"),
        ("sensor_msgs/msg/Image", "height", 10**400, "height: value that does not fit uint32"),
        ("sensor_msgs/msg/Image", "height", 1.0, "height: expected uint32, got float"),
        ("std_msgs/msg/Bool", "data", 1, "data: expected bool, got int"),
        ("std_msgs/msg/Float32", "data", 1e300, "data: value that does not fit float32"),
        ("std_msgs/msg/Float64", "data", np.array([1.0]), "data: expected float64, got ndarray"),
        ("std_msgs/msg/String", "data", b"a", "data: expected string, got bytes"),
        ("std_msgs/msg/String", "data", "\ud800", "data: text that UTF-8 cannot encode"),
        ("rmw_dds_common/msg/NodeEntitiesInfo", "node_name", "n" * 257, "node_name: 257 bytes of text; at most 256"),
    ],
)
def test_serialize_names_the_wrong_field(type: str, field: str, value: Any, reason: str) -> None:
    messages = store()
    message = messages.new(type)
    setattr(message, field, value)
    with pytest.raises(MessageError, match=f"{type} cannot be serialised: {reason}"):
        messages.serialize(message)


def test_serialize_names_the_place_in_nested_fields() -> None:
    messages = store()
    point = messages.new("trajectory_msgs/msg/JointTrajectoryPoint")
    point.time_from_start.nanosec = "0"
    message = messages.new("trajectory_msgs/msg/JointTrajectory", points=[point])
    with pytest.raises(MessageError, match="points.0.time_from_start.nanosec: expected uint32, got str"):
        messages.serialize(message)
    del point.positions
    with pytest.raises(MessageError, match="points.0.positions: missing"):
        messages.serialize(message)
    with pytest.raises(MessageError, match="a dict is no message"):
        messages.serialize({"data": "a"})


def test_arrays_need_not_be_contiguous() -> None:
    messages = store()
    values = np.arange(6.0)
    strided = messages.new("sensor_msgs/msg/JointState", position=values[::2])
    assert messages.serialize(strided) == messages.serialize(
        messages.new("sensor_msgs/msg/JointState", position=[0.0, 2.0, 4.0])
    )


def test_times_and_durations() -> None:
    messages = store()
    for ns in (0, 1, 1_700_000_000_123_456_789, -1, 2**31 * 10**9 - 1):
        assert messages.ns(messages.time(ns)) == ns
    assert (messages.time(-1).sec, messages.time(-1).nanosec) == (-1, 999_999_999)
    assert messages.seconds(messages.duration(0.05)) == 0.05
    assert messages.seconds(messages.duration(-1.25)) == -1.25
    assert messages.duration(1 - 1e-12).sec == 1
    for seconds in (float("nan"), float("inf"), 1e10):
        with pytest.raises(MessageError):
            messages.duration(seconds)
    with pytest.raises(MessageError, match="do not fit a builtin_interfaces/msg/Time"):
        messages.time(2**31 * 10**9)


def test_cost() -> None:
    """CPU time of this thread, the best of several tries: no message costs a control loop its tick."""
    messages = store()
    pixels = np.random.default_rng(0).integers(0, 256, 640 * 480 * 3, np.uint8)
    image = messages.new("sensor_msgs/msg/Image", height=480, width=640, encoding="rgb8", step=1920, data=pixels)
    names = [f"joint{i}" for i in range(1, 9)]
    state = messages.new("sensor_msgs/msg/JointState", name=names, position=np.ones(8), velocity=np.ones(8))
    for message, limit_s in ((image, 2e-3), (state, 150e-6)):
        type, data = messages.type_of(message), messages.serialize(message)
        assert min(spent(lambda m=message: messages.serialize(m)) for _ in range(30)) < limit_s
        assert min(spent(lambda d=data, t=type: messages.deserialize(d, t)) for _ in range(30)) < limit_s


def spent(work: Any) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start
