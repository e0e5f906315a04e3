"""From which topic each channel of a policy comes: the ``channels`` section of a stack file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from real.errors import RealError
from robolearn.errors import did_you_mean, unknown

KINDS = {
    "joint_states": 0.1,
    "poses": 0.5,
    "values": math.inf,
    "image": 0.5,
    "tool_pose": 0.1,
    "constant": math.inf,
}
"""Kind of source → greatest age of its messages unless the source says otherwise, s."""
FIELDS = ("position", "velocity", "effort")
"""Of a JointState."""
PARTS = ("pose", "xy")
"""Of a pose."""
FITS = ("crop", "stretch")
"""How a picture of another aspect ratio becomes one of the channel's."""
_FIXED = ("constant",)


class SourceError(RealError):
    """A source of a channel whose settings contradict each other or are unknown."""


@dataclass(frozen=True)
class ChannelSource:
    """Where one channel comes from.

    Attributes:
        kind: of `KINDS`: ``joint_states`` (one field, in the order of the channel's elements), ``poses`` (PoseStamped
            topics, stacked), ``values`` (a Float64MultiArray), ``image`` (a camera), ``tool_pose`` (kinematics of joint
            states), ``constant``.
        topics: as nodes write them, without the namespace; one, but for ``poses``.
        field: of a JointState: position, velocity or effort.
        joints: the driver's names for the channel's elements (of ``tool_pose``: for the kinematics' joints), in their
            order; empty: it uses the same names.
        part: of poses: ``pose`` (x y z qw qx qy qz) or ``xy``.
        frame: the ``frame_id`` that poses must have; empty: any.
        fit: of pictures: ``crop`` cuts the longer side's ends off, as a narrower camera would, ``stretch`` distorts.
        compressed: the camera sends CompressedImage; None: if the topic ends with ``/compressed``.
        latched: the value is said once and holds until it is said anew.
        value: of a constant, in the order of the channel's elements.
        max_age_s: messages older than that are stale, s; None: the kind's of `KINDS`.
        frozen_after: so many messages in a row with the stamp or picture of their predecessor are stale; None: any
            number is well.

    Raises:
        SourceError: settings that contradict each other.
    """

    kind: str
    topics: tuple[str, ...] = ()
    field: str = "position"
    joints: tuple[str, ...] = ()
    part: str = "pose"
    frame: str = ""
    fit: str = "crop"
    compressed: bool | None = None
    latched: bool = False
    value: tuple[float, ...] = ()
    max_age_s: float | None = None
    frozen_after: int | None = None

    def __post_init__(self) -> None:
        for name in ("topics", "joints"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        for name, choices in (("kind", KINDS), ("field", FIELDS), ("part", PARTS), ("fit", FITS)):
            if getattr(self, name) not in choices:
                raise SourceError(unknown(name, str(getattr(self, name)), choices))
        object.__setattr__(self, "value", _numbers(self.value))
        self._check_topics()
        if self.max_age_s is not None and not (_is_number(self.max_age_s) and self.max_age_s > 0):
            raise SourceError(f"max_age_s is a number of seconds > 0, not {self.max_age_s!r}")
        if self.frozen_after is not None and (not isinstance(self.frozen_after, int) or self.frozen_after < 1):
            raise SourceError(f"frozen_after is a number of messages >= 1, not {self.frozen_after!r}")

    @property
    def age_s(self) -> float:
        """Greatest age of a message, s."""
        if self.latched:
            return math.inf
        return KINDS[self.kind] if self.max_age_s is None else self.max_age_s

    @property
    def timed(self) -> bool:
        """Whether it changes all the time, so that its stamps date the observation."""
        return not self.latched and self.kind not in ("values", "constant")

    @property
    def message_type(self) -> str:
        """ROS type of its topics; empty for a constant."""
        if self.kind == "image":
            compressed = self.topics[0].endswith("/compressed") if self.compressed is None else self.compressed
            return "sensor_msgs/msg/CompressedImage" if compressed else "sensor_msgs/msg/Image"
        return {
            "poses": "geometry_msgs/msg/PoseStamped",
            "values": "std_msgs/msg/Float64MultiArray",
            "constant": "",
        }.get(self.kind, "sensor_msgs/msg/JointState")

    def to_dict(self) -> dict[str, Any]:
        """Plain types for YAML, without what holds its default; a single topic as ``topic``."""
        data = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        data = {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}
        if len(self.topics) == 1:
            data["topic"] = data.pop("topics")[0]
        return data

    @classmethod
    def from_dict(cls, data: Any) -> ChannelSource:
        """The inverse of `to_dict`. Raises SourceError for an unknown or missing key."""
        if not isinstance(data, Mapping):
            raise SourceError(f"a source is a mapping with the key 'kind', not {data!r}")
        keys = [f.name for f in fields(cls)] + ["topic"]
        for key in data:
            if key not in keys:
                hint = did_you_mean(str(key), keys)
                raise SourceError(f"unknown key {key!r} in a source; {hint}keys: {', '.join(keys)}")
        if "kind" not in data:
            raise SourceError(f"a source needs the key 'kind'; kinds: {', '.join(KINDS)}")
        if "topic" in data and "topics" in data:
            raise SourceError("a source has either 'topic' or 'topics'")
        values = dict(data)
        if "topic" in values:
            values["topics"] = (values.pop("topic"),)
        return cls(**values)

    def _check_topics(self) -> None:
        if self.kind in _FIXED:
            if self.topics:
                raise SourceError("a constant has no topic")
            if not self.value:
                raise SourceError("a constant needs the key 'value'")
            return
        if self.value:
            raise SourceError(f"only a constant has a value, not kind {self.kind!r}")
        if not self.topics:
            raise SourceError(f"kind {self.kind!r} needs the key 'topic'" + " or 'topics'" * (self.kind == "poses"))
        if len(self.topics) > 1 and self.kind != "poses":
            raise SourceError(f"kind {self.kind!r} has one topic, not {len(self.topics)}")
        if len(set(self.topics)) < len(self.topics):
            raise SourceError(f"a topic is named twice: {', '.join(self.topics)}")


def _names(key: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, str) and v for v in values):
        raise SourceError(f"{key} is a list of names, not {values!r}")
    return tuple(values)


def _numbers(values: Any) -> tuple[float, ...]:
    listed = values if isinstance(values, (list, tuple)) else (values,)
    if not all(_is_number(v) and math.isfinite(v) for v in listed):
        raise SourceError(f"value is a list of finite numbers, not {values!r}")
    return tuple(float(v) for v in listed)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
