"""Places for the values that fill a channel: one for each topic it comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from real.core.images import decode, decompress, fit
from real.core.kinematics import ToolKinematics
from real.core.readers import JointReader, read_pose, read_values
from real.core.sources import ChannelSource, SourceError
from real.core.staleness import Freshness
from robolearn.contract import Channel

Read = Callable[[Any], np.ndarray]


class Slot:
    """The last good value of one topic for one channel.

    Attributes:
        topic: empty for a constant.
        source: of its channel.
        read: makes a value of a message; raises Refused or ImageError.
        value: the last good one; None: none yet.
        stamp_ns: its message's stamp; 0: none.
        freshness: of the topic.
    """

    def __init__(self, topic: str, source: ChannelSource, read: Read, finish: Read | None = None) -> None:
        self.topic = topic
        self.source = source
        self.read = read
        self.value: np.ndarray | None = None
        self.stamp_ns = 0
        self.freshness = Freshness(topic or "constant", source.age_s, source.frozen_after)
        self._finish = finish

    def get(self) -> np.ndarray:
        """The value as the channel has it: what is costly is done here, not with every message."""
        assert self.value is not None, "asked for before anything was read"
        return self.value if self._finish is None else self._finish(self.value)


def make_slots(channel: Channel, source: ChannelSource, kinematics: ToolKinematics | None) -> tuple[Slot, ...]:
    """The slots that fill a channel; more than one are stacked.

    Raises:
        SourceError: the source cannot fill a channel of that shape, dtype or elements.
    """
    make = {
        "joint_states": _joints,
        "poses": _poses,
        "values": _values,
        "image": _image,
        "tool_pose": _tool,
        "constant": _constant,
    }[source.kind]
    return make(channel, source, kinematics)


def _joints(channel: Channel, source: ChannelSource, kinematics: ToolKinematics | None) -> tuple[Slot, ...]:
    names = source.joints or channel.elements
    if not names:
        raise SourceError("it names no elements; name them in the source as 'joints'")
    if channel.shape != (len(names),):
        raise SourceError(f"shape {channel.shape} cannot hold {len(names)} joints")
    reader = JointReader(names, source.field)
    if kinematics is not None and set(channel.elements) <= set(kinematics.joints) and channel.elements:
        order = [kinematics.joints.index(name) for name in channel.elements]
        reader = JointReader(
            names, source.field, kinematics.lower[order], kinematics.upper[order], kinematics.hinge[order]
        )
    return (Slot(source.topics[0], source, reader.read),)


def _tool(channel: Channel, source: ChannelSource, kinematics: ToolKinematics | None) -> tuple[Slot, ...]:
    if kinematics is None:
        raise SourceError("tool_pose needs the robot's kinematics")
    if channel.shape not in ((7,), (3,)):
        raise SourceError(f"a tool pose has shape (7,), or (3,) for its position alone, not {channel.shape}")
    names = source.joints or kinematics.joints
    if len(names) != len(kinematics.joints):
        raise SourceError(f"{len(names)} joints named, the kinematics has {len(kinematics.joints)}")
    reader = JointReader(names, "position", kinematics.lower, kinematics.upper, kinematics.hinge)
    finish = kinematics.pose if channel.shape == (7,) else kinematics.position
    return (Slot(source.topics[0], source, reader.read, finish),)


def _poses(channel: Channel, source: ChannelSource, _kinematics: ToolKinematics | None) -> tuple[Slot, ...]:
    width = 7 if source.part == "pose" else 2
    shapes = [(len(source.topics), width)] + [(width,)] * (len(source.topics) == 1)
    if channel.shape not in shapes:
        raise SourceError(f"{len(source.topics)} topics of part {source.part!r} fill {shapes[0]}, not {channel.shape}")

    def read(message: Any) -> np.ndarray:
        return read_pose(message, source.frame)[:width]

    return tuple(Slot(topic, source, read) for topic in source.topics)


def _values(channel: Channel, source: ChannelSource, _kinematics: ToolKinematics | None) -> tuple[Slot, ...]:
    return (Slot(source.topics[0], source, lambda message: read_values(message, channel.shape)),)


def _image(channel: Channel, source: ChannelSource, _kinematics: ToolKinematics | None) -> tuple[Slot, ...]:
    if len(channel.shape) != 3 or channel.shape[2] != 3 or channel.dtype != "uint8":
        raise SourceError(f"a camera fills (H, W, 3) uint8, not {channel.shape} {channel.dtype}")
    read = decompress if source.message_type.endswith("CompressedImage") else decode
    height, width = channel.shape[:2]
    return (Slot(source.topics[0], source, lambda message: fit(read(message), height, width, source.fit)),)


def _constant(channel: Channel, source: ChannelSource, _kinematics: ToolKinematics | None) -> tuple[Slot, ...]:
    size = int(np.prod(channel.shape))
    if len(source.value) not in (1, size):
        raise SourceError(f"{len(source.value)} values for {size} elements")
    value = np.broadcast_to(np.array(source.value), (size,)).reshape(channel.shape)
    slot = Slot("", source, lambda _message: value)
    slot.value = value
    return (slot,)
