"""What the safety node hears, held against what it may be, one small class a source. No torch, no policies."""

from __future__ import annotations

import re
import struct
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from real.core.chunks import Chunk
from real.core.limits import FloatArray
from real.core.staleness import Freshness
from real.stack_sections import CameraSection, SafetySection
from real.transport.handle import Received

DEADMAN, CLOSE, OPEN, ESTOP = range(4)
"""Buttons of ``teleop/deadman``."""
_NAME = re.compile(r"([0-9a-f]{8})/(\d{1,15})")
_FROZEN_JOINTS = 100
"""Joint states in a row with one stamp: a driver that hangs, whatever its rate."""
_STRIDE = 97
"""Every how many bytes of a picture are looked at to tell a frozen camera; sensor noise changes all of them."""
_HEADER = 64
"""Bytes at the front of an Image that hold its header, which may change while the picture does not."""


class JointFeed:
    """Measured joints, in the order of ``joints``.

    Attributes:
        position: (J,) rad or m, the last good ones; NaN before the first.
        refused: reason → messages refused.
    """

    def __init__(self, joints: Sequence[str], max_age_s: float) -> None:
        self.position: FloatArray = np.full(len(joints), np.nan)
        self.freshness = Freshness("joint states", max_age_s, frozen_after=_FROZEN_JOINTS)
        self.refused: Counter[str] = Counter()
        self._joints = tuple(joints)
        self._order: tuple[tuple[str, ...], list[int]] = ((), [])

    def take(self, message: Any, received: Received) -> None:
        """A JointState: all of our joints in it, all of them finite, or none of it counts."""
        names = tuple(message.name)
        if names != self._order[0] or not self._order[1]:
            missing = [joint for joint in self._joints if joint not in names]
            if missing:
                self.refused[f"without joint {', '.join(missing)}"] += 1
                return
            self._order = names, [names.index(joint) for joint in self._joints]
        if len(message.position) != len(names):
            self.refused[f"{len(message.position)} positions for {len(names)} names"] += 1
            return
        position = np.asarray(message.position, dtype=np.float64)[self._order[1]]
        if not np.isfinite(position).all():
            self.refused["a position that is not a finite number"] += 1
            return
        self.position = position
        stamp = message.header.stamp
        self.freshness.seen(received.monotonic, stamp.sec * 1_000_000_000 + stamp.nanosec)


class CameraFeed:
    """Whether cameras that the policy needs deliver new pictures; works on raw messages, whose pixels it samples."""

    def __init__(self, cameras: Mapping[str, CameraSection], frozen_after: int) -> None:
        self.freshness = {
            name: Freshness(f"camera {name}", camera.max_age_s, frozen_after) for name, camera in cameras.items()
        }

    def take(self, name: str, cdr: bytes, received: Received) -> None:
        """The CDR of an Image or CompressedImage."""
        if len(cdr) < _HEADER:
            return
        seconds, nanoseconds = struct.unpack_from("<iI" if cdr[1] & 1 else ">iI", cdr, 4)
        pixels = np.frombuffer(cdr, np.uint8)[_HEADER::_STRIDE].tobytes()
        self.freshness[name].seen(received.monotonic, seconds * 1_000_000_000 + nanoseconds, zlib.crc32(pixels))

    def fresh(self, now: float) -> bool:
        """Whether all of them do."""
        return all(freshness.fresh(now) for freshness in self.freshness.values())

    def why(self, now: float) -> str:
        """Which do not, in words."""
        return "; ".join(why for freshness in self.freshness.values() if (why := freshness.why(now)))


class TeleopFeed:
    """A person's twist, gripper buttons and deadman.

    Attributes:
        twist: (6,) m/s and rad/s in the world.
        held: the deadman's last word.
        gripper: -1 closes, 1 opens, 0 leaves it.
        bad: messages refused since the last `take_bad`.
    """

    def __init__(self, max_age_s: float) -> None:
        self.twist: FloatArray = np.zeros(6)
        self.held, self.gripper, self.estop, self.bad = False, 0, False, 0
        self._deadman = Freshness("the deadman", max_age_s)
        self._moved = Freshness("the twist", max_age_s)

    def take_twist(self, message: Any, received: Received) -> None:
        """A TwistStamped; one that is not finite is refused as a whole."""
        linear, angular = message.twist.linear, message.twist.angular
        twist = np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
        if not np.isfinite(twist).all():
            self.bad += 1
            return
        self.twist = twist
        self._moved.seen(received.monotonic)

    def take_deadman(self, message: Any, received: Received) -> None:
        """A Joy with at least one button."""
        buttons = [int(button) for button in message.buttons]
        if not buttons:
            self.bad += 1
            return
        pressed = [bool(button) for button in buttons[: ESTOP + 1]] + [False] * (ESTOP + 1 - len(buttons))
        self.held, self.estop = pressed[DEADMAN], self.estop or pressed[ESTOP]
        self.gripper = int(pressed[OPEN]) - int(pressed[CLOSE])
        self._deadman.seen(received.monotonic)

    def fresh(self, now: float) -> bool:
        """Whether both are new enough."""
        return self._deadman.fresh(now) and self._moved.fresh(now)

    def why(self, now: float) -> str:
        """Which is not, in words."""
        return self._deadman.why(now) or self._moved.why(now)

    def take_bad(self) -> int:
        """Messages refused since the last call."""
        bad, self.bad = self.bad, 0
        return bad

    def take_estop(self) -> bool:
        """Whether the e-stop button was pressed since the last call."""
        pressed, self.estop = self.estop, False
        return pressed


class PolicyFeed:
    """Chunks and heartbeats of the policy.

    Attributes:
        session: of the last heartbeat; "" before the first.
        refused: reason → chunks that were none.
    """

    def __init__(self, joints: Sequence[str], settings: SafetySection) -> None:
        self.session = ""
        self.freshness = Freshness("the policy's heartbeat", settings.heartbeat_age_s)
        self.refused: Counter[str] = Counter()
        self._joints = tuple(joints)

    def take_heartbeat(self, message: Any, received: Received) -> None:
        """A String that holds the session."""
        if re.fullmatch(r"[0-9a-f]{8}", message.data):
            self.session = message.data
            self.freshness.seen(received.monotonic)
        else:
            self.refused["a heartbeat without a session"] += 1

    def chunk(self, message: Any, received: Received, now_ns: int) -> Chunk | None:
        """The chunk of a JointTrajectory; None, and counted, where it is none for these joints."""
        named = _NAME.fullmatch(message.header.frame_id)
        names = tuple(message.joint_names)
        points = message.points
        if named is None or sorted(names) != sorted(self._joints) or not points:
            self.refused["without session, for other joints, or empty"] += 1
            return None
        if any(len(point.positions) != len(names) for point in points):
            self.refused["points of another size"] += 1
            return None
        order = [names.index(joint) for joint in self._joints]
        positions = np.array([np.asarray(point.positions, dtype=np.float64)[order] for point in points])
        times = np.array([point.time_from_start.sec + 1e-9 * point.time_from_start.nanosec for point in points])
        stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        return Chunk(named[1], int(named[2]), stamp, received.monotonic, times, positions, 1e-9 * (now_ns - stamp))
