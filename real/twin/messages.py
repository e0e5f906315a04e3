"""The twin's measurements as ROS messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from real.msgs import MessageStore
from real.twin.arm import Joints

_OK, _WARN = 0, 1


class Messages:
    """Makes messages of a store's types. Stamps are ns since 1970; poses are told in the frame ``world``."""

    def __init__(self, store: MessageStore) -> None:
        self._store = store

    def joint_state(self, stamp_ns: int, names: Sequence[str], joints: Joints) -> Any:
        """A sensor_msgs/JointState."""
        return self._store.new(
            "sensor_msgs/msg/JointState",
            header=self._header(stamp_ns),
            name=list(names),
            position=joints.position,
            velocity=joints.velocity,
            effort=joints.effort,
        )

    def pose(self, stamp_ns: int, pose: np.ndarray) -> Any:
        """A geometry_msgs/PoseStamped of (7,) m + wxyz; ROS has the scalar of a quaternion last."""
        new = self._store.new
        x, y, z, qw, qx, qy, qz = (float(value) for value in pose)
        return new(
            "geometry_msgs/msg/PoseStamped",
            header=self._header(stamp_ns, "world"),
            pose=new(
                "geometry_msgs/msg/Pose",
                position=new("geometry_msgs/msg/Point", x=x, y=y, z=z),
                orientation=new("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
            ),
        )

    def text(self, text: str) -> Any:
        """A std_msgs/String."""
        return self._store.new("std_msgs/msg/String", data=text)

    def diagnostics(self, stamp_ns: int, name: str, problems: Sequence[str], values: Mapping[str, Any]) -> Any:
        """A diagnostic_msgs/DiagnosticArray of one status: a warning where there are problems."""
        new = self._store.new
        status = new(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=_WARN if problems else _OK,
            name=name,
            message="; ".join(problems) or "ok",
            hardware_id="twin",
            values=[new("diagnostic_msgs/msg/KeyValue", key=key, value=str(value)) for key, value in values.items()],
        )
        return new("diagnostic_msgs/msg/DiagnosticArray", header=self._header(stamp_ns), status=[status])

    def _header(self, stamp_ns: int, frame: str = "") -> Any:
        return self._store.new("std_msgs/msg/Header", stamp=self._store.time(stamp_ns), frame_id=frame)
