"""Messages that the tests of `real.msgs` share: of every type at random, and some whose bytes are known."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import get_types_from_msg

from real.msgs import MessageStore

DISTROS = ("humble", "jazzy", "kilted")
WIRE = (
    "sensor_msgs/msg/JointState",
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/CameraInfo",
    "sensor_msgs/msg/Joy",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/TwistStamped",
    "geometry_msgs/msg/WrenchStamped",
    "trajectory_msgs/msg/JointTrajectory",
    "std_msgs/msg/String",
    "std_msgs/msg/Bool",
    "std_msgs/msg/Float64MultiArray",
    "control_msgs/msg/DynamicJointState",
    "control_msgs/msg/JointJog",
    "diagnostic_msgs/msg/DiagnosticArray",
    "rcl_interfaces/msg/ParameterEvent",
    "rmw_dds_common/msg/ParticipantEntitiesInfo",
    "tf2_msgs/msg/TFMessage",
    "std_srvs/srv/SetBool_Request",
    "std_srvs/srv/Trigger_Request",
    "std_srvs/srv/Trigger_Response",
)
"""Types that cross the wire between the nodes, their tools, and drivers."""


class Sampler:
    """Random messages of any type of a store, made from its definition texts."""

    def __init__(self, messages: MessageStore, seed: int) -> None:
        self.messages, self.random = messages, np.random.default_rng(seed)

    def fields(self, type: str) -> list[tuple[str, Any]]:
        parsed = get_types_from_msg(self.messages.definition(type), type)
        return next(iter(parsed.values()))[1]

    def message(self, type: str) -> Any:
        fields = {name: self.value(kind) for name, kind in self.fields(type)}
        return self.messages.new(type, **fields)

    def value(self, kind: Any) -> Any:
        if kind[0] == Nodetype.BASE:
            return self.base(*kind[1])
        if kind[0] == Nodetype.NAME:
            return self.message(kind[1])
        item, length = kind[1]
        count = length if kind[0] == Nodetype.ARRAY else int(self.random.integers(0, min(length or 4, 4) + 1))
        return [self.value(item) for _ in range(count)]

    def base(self, name: str, bound: int) -> Any:
        if name == "string":
            return "".join(self.random.choice(list("ab/é"), self.random.integers(0, 9)))[: bound or None]
        if name == "bool":
            return bool(self.random.integers(2))
        if name.startswith("float"):
            return float(np.dtype(name).type(self.random.normal()))
        limits = np.iinfo({"byte": "int8", "char": "uint8"}.get(name, name))
        return int(self.random.integers(limits.min, limits.max, dtype=limits.dtype, endpoint=True))


def u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def f64(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def header_of(messages: MessageStore, frame: str) -> Any:
    stamp = messages.new("builtin_interfaces/msg/Time", sec=1, nanosec=2)
    return messages.new("std_msgs/msg/Header", stamp=stamp, frame_id=frame)


def golden(messages: MessageStore) -> list[tuple[Any, bytes]]:
    """Messages and the bodies they must become; the comments count bytes."""
    new = messages.new
    stamp = u32(1, 2)
    joints = new(
        "sensor_msgs/msg/JointState",
        header=header_of(messages, "base"),
        name=["a", "bc"],
        position=[1.0, -2.5],
        velocity=[0.5],
    )
    pose = new("geometry_msgs/msg/PoseStamped", header=header_of(messages, "world"))
    pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = 1.0, 2.0, 3.0
    pose.pose.orientation.w = 1.0
    point = new(
        "trajectory_msgs/msg/JointTrajectoryPoint",
        positions=[0.25],
        time_from_start=new("builtin_interfaces/msg/Duration", sec=3, nanosec=4),
    )
    trajectory = new(
        "trajectory_msgs/msg/JointTrajectory",
        header=header_of(messages, "0/7"),
        joint_names=["j"],
        points=[point, point],
    )
    value = new("control_msgs/msg/InterfaceValue", interface_names=["p_done"], values=[0.75])
    dynamic = new(
        "control_msgs/msg/DynamicJointState",
        header=header_of(messages, ""),
        joint_names=["critic"],
        interface_values=[value],
    )
    return [
        (new("std_msgs/msg/String", data="hello"), u32(6) + b"hello\0"),
        (new("std_msgs/msg/String", data="grün"), u32(6) + b"gr\xc3\xbcn\0"),
        (
            joints,
            stamp  # 8
            + (u32(5) + b"base\0" + b"\0\0\0")  # 20
            + (u32(2) + u32(2) + b"a\0" + b"\0\0" + u32(3) + b"bc\0" + b"\0")  # 40
            + (u32(2) + b"\0\0\0\0" + f64(1.0, -2.5))  # 64
            + (u32(1) + b"\0\0\0\0" + f64(0.5))  # 80
            + u32(0),
        ),
        (
            pose,
            stamp  # 8
            + (u32(6) + b"world\0" + b"\0\0\0\0\0\0")  # 24
            + f64(1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 1.0),
        ),
        (
            trajectory,
            stamp  # 8
            + (u32(4) + b"0/7\0")  # 16
            + (u32(1) + u32(2) + b"j\0" + b"\0\0")  # 28
            + u32(2)  # 32
            + (u32(1) + b"\0\0\0\0" + f64(0.25) + u32(0, 0, 0) + u32(3, 4))  # 68
            + (u32(1) + f64(0.25) + u32(0, 0, 0) + u32(3, 4)),  # the count ends at 72: no padding
        ),
        (
            dynamic,
            stamp  # 8
            + (u32(1) + b"\0" + b"\0\0\0")  # 16
            + (u32(1) + u32(7) + b"critic\0" + b"\0")  # 32
            + u32(1)  # 36
            + (u32(1) + u32(7) + b"p_done\0" + b"\0")  # 52
            + (u32(1) + f64(0.75)),  # the count ends at 56
        ),
        (new("std_srvs/srv/Trigger_Request"), b"\0"),
        (new("std_srvs/srv/Trigger_Response", success=True, message="ok"), b"\1" + b"\0\0\0" + u32(3) + b"ok\0"),
        (new("std_srvs/srv/SetBool_Request", data=True), b"\1"),
    ]
