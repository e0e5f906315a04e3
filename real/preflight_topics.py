"""Listens to one topic and says what is wrong with what comes."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from real.findings import FAIL, OK, WARN, Finding
from real.msgs import MessageStore
from real.stack import Stack
from real.stack_robot import StackRobot
from real.stack_sections import CameraSection
from real.transport.handle import SENSOR, NodeHandle, Received

SKEW_S = 0.2
"""Stamps further than this from this machine's clock are worth a look: joins by stamp go wrong."""
_SLOW = 0.7
"""Share of the promised rate below which a source is slow."""
_OVER = 2.0
_FROZEN = 5


class Probe:
    """Counts messages of a topic; subclasses look into them.

    Attributes:
        topic: as the stack writes it.
    """

    type = ""

    def __init__(self, handle: NodeHandle, messages: MessageStore, topic: str, name: str = "") -> None:
        self.topic = topic
        self.name = name or topic
        self._handle = handle
        self._messages = messages
        self._skew: list[float] = []
        self._count = 0
        handle.subscribe(topic, self.type, self._seen, SENSOR)

    def findings(self, seconds: float) -> list[Finding]:
        """What was found in ``seconds`` of listening."""
        if not self._count:
            return [self._silence()]
        return self._clock() + self.look(self._count / seconds)

    def read(self, message: Any) -> None:
        """Look into a message."""

    def look(self, rate_hz: float) -> list[Finding]:
        """What the messages were like."""
        return [Finding(self.name, OK, f"{rate_hz:.0f} Hz")]

    def _seen(self, message: Any, _received: Received) -> None:
        self._count += 1
        self._skew.append((self._handle.clock.now() - self._messages.ns(message.header.stamp)) / 1e9)
        self.read(message)

    def _silence(self) -> Finding:
        full = self._handle.resolve(self.topic)
        given = self._handle.publishers(self.topic)
        if bad := self._handle.malformed.get(full, 0):
            return Finding(self.name, FAIL, f"{bad} messages of {full} are no {self.type}", "look at its publisher")
        others = sorted({endpoint.type for endpoint in given} - {self.type})
        if others:
            return Finding(self.name, FAIL, f"{full} carries {', '.join(others)}", f"publish {self.type}")
        if given:
            return Finding(self.name, FAIL, f"{full} has a publisher, but nothing comes", "look at the driver")
        return Finding(
            self.name, FAIL, f"nobody publishes {full}", "start the driver, or change the topic in the stack"
        )

    def _clock(self) -> list[Finding]:
        skew = float(np.median(self._skew))
        if abs(skew) <= SKEW_S:
            return []
        way = "behind" if skew > 0 else "ahead"
        detail = f"its stamps are {abs(skew):.3g} s {way} of this machine's clock"
        return [Finding(f"{self.name} clock", FAIL, detail, "synchronise the clocks (chrony), or stamp in the driver")]


class JointProbe(Probe):
    """joint_states: names, numbers, units, rate."""

    type = "sensor_msgs/msg/JointState"

    def __init__(self, handle: NodeHandle, messages: MessageStore, topic: str, stack: Stack, robot: StackRobot) -> None:
        super().__init__(handle, messages, topic)
        self._wanted = [stack.driver_name(joint) for joint in robot.joints]
        self._limits = robot.limits
        self._margin = stack.limits.margin
        self._least_hz = 2.0 / stack.safety.joint_age_s
        self._names: list[str] = []
        self._sizes_wrong = 0
        self._unfinished = 0
        self._newest: dict[str, float] = {}

    def read(self, message: Any) -> None:
        """Keep names and the newest positions. A driver may send the gripper's joints in a message of their own."""
        for name in message.name:
            if name not in self._names:
                self._names.append(str(name))
        if len(message.position) != len(message.name):
            self._sizes_wrong += 1
            return
        if not np.isfinite(message.position).all():
            self._unfinished += 1
            return
        self._newest.update(zip(map(str, message.name), map(float, message.position), strict=True))

    def look(self, rate_hz: float) -> list[Finding]:
        """Rate, names, sizes, numbers, units, limits, publishers."""
        found = [self._rate(rate_hz), *self._name_findings(), *self._numbers()]
        count = len(self._handle.publishers(self.topic))
        if count > 1:
            detail = f"{self._handle.resolve(self.topic)} has {count} publishers"
            found.append(
                Finding(f"{self.name} publishers", WARN, detail, "one driver (or joint state broadcaster) is usual")
            )
        return found

    def _rate(self, rate_hz: float) -> Finding:
        if rate_hz < self._least_hz:
            detail = f"{rate_hz:.1f} Hz; safety.joint_age_s needs at least {self._least_hz:.0f} Hz"
            return Finding(self.name, FAIL, detail, "let the driver publish faster")
        return Finding(self.name, OK, f"{rate_hz:.0f} Hz")

    def _name_findings(self) -> list[Finding]:
        name = f"{self.name} names"
        missing = [joint for joint in self._wanted if joint not in self._names]
        extra = [joint for joint in self._names if joint not in self._wanted]
        if missing:
            detail = f"missing {', '.join(missing)}" + (f"; it has {', '.join(extra)}" if extra else "")
            return [Finding(name, FAIL, detail, "say under robot.driver_names what the driver calls them")]
        if extra:
            return [Finding(name, OK, f"all there, and {', '.join(extra)}, which are left alone")]
        same = self._names == self._wanted
        return [Finding(name, OK, "all there" if same else f"all there, in another order: {', '.join(self._names)}")]

    def _numbers(self) -> list[Finding]:
        name = f"{self.name} positions"
        if self._sizes_wrong:
            return [
                Finding(
                    name, FAIL, f"{self._sizes_wrong} messages without a position for every name", "mend the driver"
                )
            ]
        if self._unfinished:
            return [Finding(name, FAIL, f"{self._unfinished} messages with NaN or infinity", "mend the driver")]
        if any(joint not in self._newest for joint in self._wanted):
            return []
        given = np.array([self._newest[joint] for joint in self._wanted])
        lower, upper = self._limits.lower - self._margin, self._limits.upper + self._margin
        reach = np.maximum(np.abs(lower), np.abs(upper))
        tolerance = 0.01 + 0.05 * (upper - lower)
        outside = (given < lower - tolerance) | (given > upper + tolerance)
        if not outside.any():
            return [Finding(name, OK, "within the limits")]
        i = int(np.argmax(np.where(outside, np.abs(given) / reach, 0)))
        joint = f"{self._wanted[i]} is at {given[i]:.4g}, limits {lower[i]:.4g} to {upper[i]:.4g}"
        radians = np.deg2rad(given)
        turned = np.where(outside, radians, np.clip(given, lower, upper))
        if abs(given[i]) > _OVER * reach[i] and ((turned >= lower - tolerance) & (turned <= upper + tolerance)).all():
            return [Finding(name, FAIL, f"{joint}: these look like degrees", "let the driver publish radians")]
        return [Finding(name, FAIL, joint, "move the robot inside its limits by hand, or mend the model or the driver")]


class PoseProbe(Probe):
    """A PoseStamped topic."""

    type = "geometry_msgs/msg/PoseStamped"

    def __init__(self, handle: NodeHandle, messages: MessageStore, topic: str, max_age_s: float) -> None:
        super().__init__(handle, messages, topic)
        self._least_hz = 2.0 / max_age_s if math.isfinite(max_age_s) else 0.0
        self._bad = ""

    def read(self, message: Any) -> None:
        """Numbers and quaternion."""
        p, q = message.pose.position, message.pose.orientation
        values = np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])
        if not np.isfinite(values).all():
            self._bad = "NaN or infinity in a pose"
        elif abs(np.linalg.norm(values[3:]) - 1.0) > 0.01:
            self._bad = f"a quaternion of length {np.linalg.norm(values[3:]):.3g}"

    def look(self, rate_hz: float) -> list[Finding]:
        """Rate and numbers."""
        if self._bad:
            return [Finding(self.name, FAIL, self._bad, "mend the tracker")]
        if rate_hz < self._least_hz:
            detail = f"{rate_hz:.1f} Hz; its max_age_s needs at least {self._least_hz:.0f} Hz"
            return [
                Finding(self.name, FAIL, detail, "let the tracker publish faster, or raise max_age_s of the channel")
            ]
        return [Finding(self.name, OK, f"{rate_hz:.0f} Hz")]


class CameraProbe(Probe):
    """A camera: size, rate, frozen pictures.

    No two pictures of a real camera are equal, whose driver may stamp its last one anew for ever; those of a twin at
    rest are, so that ``drawn`` pictures are told apart by their stamps.
    """

    def __init__(
        self, handle: NodeHandle, messages: MessageStore, name: str, camera: CameraSection, drawn: bool = False
    ) -> None:
        self.compressed = camera.topic.endswith("/compressed")
        self.type = "sensor_msgs/msg/CompressedImage" if self.compressed else "sensor_msgs/msg/Image"
        self._camera = camera
        self._drawn = drawn
        self._digest = b""
        self._repeats = self._most = 0
        self._size: tuple[int, int] | None = None
        self._encoding = ""
        super().__init__(handle, messages, camera.topic, f"camera {name}")

    def read(self, message: Any) -> None:
        """Size, encoding, and whether the picture is that of before."""
        told = np.asarray([self._messages.ns(message.header.stamp)]) if self._drawn else message.data
        digest = hashlib.blake2b(np.ascontiguousarray(told).tobytes(), digest_size=8).digest()
        self._repeats = self._repeats + 1 if digest == self._digest else 0
        self._most = max(self._most, self._repeats)
        self._digest = digest
        if self.compressed:
            import cv2

            picture = cv2.imdecode(np.asarray(message.data, np.uint8), cv2.IMREAD_COLOR) if len(message.data) else None
            self._size = None if picture is None else (picture.shape[1], picture.shape[0])
            self._encoding = "rgb8"
        else:
            self._size, self._encoding = (int(message.width), int(message.height)), str(message.encoding)

    def look(self, rate_hz: float) -> list[Finding]:
        """Size, encoding, rate, frozen."""
        camera = self._camera
        wanted = (camera.width, camera.height)
        if self._size is None:
            return [Finding(self.name, FAIL, "its pictures cannot be decoded", "send jpeg or png")]
        if self._size != wanted:
            detail = f"{self._size[0]}x{self._size[1]} pixels, the stack says {wanted[0]}x{wanted[1]}"
            return [Finding(self.name, FAIL, detail, "change the camera's mode, or width and height in the stack")]
        if self._encoding not in ("rgb8", "bgr8"):
            return [Finding(self.name, FAIL, f"encoding {self._encoding}", "let the driver send rgb8 or bgr8")]
        if self._most >= _FROZEN:
            return [Finding(self.name, FAIL, f"frozen: {self._most + 1} equal pictures in a row", "restart its driver")]
        if rate_hz < _SLOW * camera.rate_hz:
            detail = f"{rate_hz:.1f} Hz of {camera.rate_hz:g}"
            state = FAIL if rate_hz * camera.max_age_s < 2 else WARN
            return [Finding(self.name, state, detail, "look at its cable, exposure and the network; or change rate_hz")]
        return [Finding(self.name, OK, f"{wanted[0]}x{wanted[1]} at {rate_hz:.0f} Hz")]
