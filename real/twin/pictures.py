"""Pictures on the wire: drawn by the twin's own node, or by a process that is a camera driver of its own."""

from __future__ import annotations

from typing import Any, Protocol

import mujoco
import numpy as np

from real.msgs import MessageStore
from real.transport.handle import SENSOR, NodeHandle
from real.twin.cameras import Intrinsics, Painter
from real.twin.delay import DelayLine
from real.twin.settings import TwinSettings


class PictureSink(Protocol):
    """What shows the twin to the world."""

    def scene(self, model: mujoco.MjModel) -> None:
        """From now on states are those of this model."""

    def show(self, qpos: np.ndarray, stamp_ns: int, now: float) -> None:
        """A state (nq,) of the moment ``stamp_ns``, which is ``now`` s of the monotonic clock, is to be shown."""

    def tick(self, now: float) -> None:
        """Send one picture that is due."""

    def report(self) -> dict[str, Any]:
        """Numbers for diagnostics."""

    def close(self) -> None:
        """Free what has to be freed."""


class Pictures:
    """Draws in the calling thread, and publishes ``camera/<name>/image_raw`` and ``camera_info`` after the latency."""

    def __init__(self, handle: NodeHandle, settings: TwinSettings, messages: MessageStore) -> None:
        self._settings, self._messages = settings, messages
        self._painter: Painter | None = None
        self._sent = 0
        self._waiting: DelayLine[tuple[int, str, np.ndarray, Intrinsics]] = DelayLine()
        self._images, self._infos = (
            {
                name: handle.publisher(f"camera/{name}/{topic}", f"sensor_msgs/msg/{kind}", SENSOR)
                for name in settings.cameras
            }
            for topic, kind in (("image_raw", "Image"), ("camera_info", "CameraInfo"))
        )

    def scene(self, model: mujoco.MjModel) -> None:
        self.close()
        self._painter = Painter(model, self._settings)

    def show(self, qpos: np.ndarray, stamp_ns: int, now: float) -> None:
        if self._painter is None:
            return
        for name, picture in self._painter.paint(qpos).items():
            taken = (stamp_ns, name, picture, self._painter.intrinsics[name])
            self._waiting.push(now + self._settings.camera_latency_s, taken)

    def tick(self, now: float) -> None:
        # one at a time: two pictures at once are more than the socket of a busy listener holds
        for stamp_ns, name, picture, intrinsics in self._waiting.pop(now, most=1):
            self._publish(name, picture, intrinsics, stamp_ns)

    def report(self) -> dict[str, Any]:
        return {"pictures": self._sent}

    def close(self) -> None:
        if self._painter is not None:
            self._painter.close()
            self._painter = None

    def _publish(self, name: str, picture: np.ndarray, intrinsics: Intrinsics, stamp_ns: int) -> None:
        new = self._messages.new
        header = new("std_msgs/msg/Header", stamp=self._messages.time(stamp_ns), frame_id=f"{name}_optical_frame")
        height, width = picture.shape[:2]
        image = new(
            "sensor_msgs/msg/Image",
            header=header,
            height=height,
            width=width,
            encoding="rgb8",
            step=3 * width,
            data=picture.reshape(-1),
        )
        self._images[name].publish(image)
        self._infos[name].publish(new("sensor_msgs/msg/CameraInfo", header=header, **intrinsics.fields()))
        self._sent += 1
