"""What the safety node hears, held against what it may be, one small class a source. No torch, no policies."""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from real.core.chunks import Chunk
from real.core.limits import FloatArray, JointLimits
from real.core.readers import JointReader, Refused, stamp_ns
from real.core.staleness import Freshness
from real.nodes.pictures import picture
from real.stack_sections import CameraSection, SafetySection
from real.transport.handle import Received

DEADMAN, CLOSE, OPEN, ESTOP = range(4)
"""Buttons of ``teleop/deadman``."""
_NAME = re.compile(r"([0-9a-f]{8})/(\d{1,15})")
_FROZEN_JOINTS = 100
"""Joint states in a row with one stamp: a driver that hangs, whatever its rate."""
_STRIDE = 97
"""Every how many bytes of a picture are looked at."""
RESTING = 0.005
"""rad or m: joints that move less are at rest, and joints no further beyond a limit are at it."""
FASTEST = 100.0
"""m/s or rad/s: a twist beyond is none."""


class JointFeed:
    """Measured joints, in the order of the stack.

    Args:
        names: what the driver calls them.
        limits: of the same joints; what is far beyond, such as degrees, is no measurement.
        hinge: (J,) which of them turn rather than slide.
        max_age_s: older messages are stale.

    Attributes:
        position: (J,) rad or m, the last good ones; NaN before the first.
        refused: messages refused; refusal: why the last of them was, in words.
    """

    def __init__(self, names: Sequence[str], limits: JointLimits, hinge: NDArray[np.bool_], max_age_s: float) -> None:
        self.position: FloatArray = np.full(len(names), np.nan)
        self.freshness = Freshness("joint states", max_age_s, frozen_after=_FROZEN_JOINTS)
        self.refused, self.refusal = 0, ""
        self._limits = limits
        self._reader = JointReader(names, "position", limits.lower, limits.upper, hinge)
        self._stamp_ns, self._received = 0, -math.inf
        self._rests_at, self._rests_since = self.position, math.inf

    def take(self, message: Any, received: Received) -> None:
        """A JointState: all of our joints in it, all numbers finite and in place, or none of it counts."""
        try:
            position = self._reader.read(message)
        except Refused as error:
            self.refused, self.refusal = self.refused + 1, str(error)
            return
        self.position = position
        self._stamp_ns, self._received = stamp_ns(message), received.monotonic
        self.freshness.seen(received.monotonic, self._stamp_ns)
        if not (np.abs(position - self._rests_at) <= RESTING).all():
            self._rests_at, self._rests_since = position, received.monotonic

    def resting_s(self, now: float) -> float:
        """How long the joints have stayed where they are, s; negative while nobody knows."""
        return now - self._rests_since

    def within(self) -> FloatArray | None:
        """The position (J,), put on limits that it is hardly beyond; None where it is unknown or further beyond."""
        within: FloatArray = np.minimum(np.maximum(self.position, self._limits.lower), self._limits.upper)
        return within if (np.abs(within - self.position) <= RESTING).all() else None

    def age_of(self, stamp: int, now: float) -> float | None:
        """Age, s, of what was observed at a driver's ``stamp``, ns; None where joint states have no stamps.

        It is held against the newest joint states: their stamps are of the driver's clock, too, and their arrival is
        of ours, so that it does not matter what the wall clock of this machine says.
        """
        if not stamp or not self._stamp_ns:
            return None
        return now - self._received + 1e-9 * (self._stamp_ns - stamp)


class ResetFeed:
    """Where a RESET motion leads.

    Attributes:
        pose: (J,) rad or m, in the order of ``limits``.
        refused: messages refused.
    """

    def __init__(self, home: FloatArray, limits: JointLimits) -> None:
        self.pose, self.refused = home, 0
        self._limits = limits

    def take(self, message: Any, received: Received) -> None:
        """A JointState: all joints, by our names, finite and within the limits."""
        limits, names = self._limits, list(message.name)
        if sorted(names) != sorted(limits.names) or len(message.position) != len(names):
            self.refused += 1
            return
        pose = np.array([float(message.position[names.index(joint)]) for joint in limits.names])
        if not ((pose >= limits.lower) & (pose <= limits.upper)).all():  # false for NaN
            self.refused += 1
            return
        self.pose = pose


class CameraFeed:
    """Whether cameras that the policy needs deliver new pictures; works on raw messages, whose pixels it samples.

    Attributes:
        malformed: messages that are no pictures.
    """

    def __init__(self, cameras: Mapping[str, CameraSection], frozen_after: int) -> None:
        self.freshness = {
            name: Freshness(f"camera {name}", camera.max_age_s, frozen_after) for name, camera in cameras.items()
        }
        self.malformed = 0

    def take(self, name: str, cdr: bytes, compressed: bool, received: Received) -> None:
        """The CDR of an Image or CompressedImage."""
        found = picture(cdr, compressed)
        if found is None:
            self.malformed += 1
            return
        stamp, data = found
        # Sensor noise changes every pixel, so that some of them tell a frozen picture; compressed, all may differ.
        checksum = zlib.crc32(data if compressed else np.frombuffer(data, np.uint8)[::_STRIDE].tobytes())
        self.freshness[name].seen(received.monotonic, stamp, checksum)

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
        """A TwistStamped; one that is not finite, or faster than anything, is refused as a whole."""
        linear, angular = message.twist.linear, message.twist.angular
        twist = np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
        if not (np.abs(twist) <= FASTEST).all():  # false for NaN
            self.bad += 1
            return
        self.twist = twist
        self._moved.seen(received.monotonic)

    def take_deadman(self, message: Any, received: Received) -> None:
        """A Joy with at least one button, each of them 0 or 1."""
        buttons = [int(button) for button in message.buttons[: ESTOP + 1]]
        if not buttons or not set(buttons) <= {0, 1}:
            self.bad += 1
            return
        pressed = [bool(button) for button in buttons] + [False] * (ESTOP + 1 - len(buttons))
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

    def chunk(self, message: Any, received: Received, age_of: Callable[[int], float | None]) -> Chunk | None:
        """The chunk of a JointTrajectory; None, and counted, where it is none for these joints.

        Args:
            message, received: as they came.
            age_of: tells the age, s, of an observation by its stamp, ns.
        """
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
        stamp = stamp_ns(message)
        return Chunk(named[1], int(named[2]), stamp, received.monotonic, times, positions, age_of(stamp))
