"""Action chunks of a policy: which are taken, and where they want the joints now."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from real.core.errors import CommandError, LimitError
from real.core.limits import FloatArray, JointLimits

BAD = ("wrong size", "not finite", "times", "jump")
"""Reasons that tell of a broken policy rather than of a slow or restarted one."""
REASONS = ("other session", "older", *BAD, "stale")
"""Why a chunk is refused, in the order in which it is held against them."""
LONGEST_S = 10.0
"""s: times beyond are refused, so that no policy that is gone is followed for long."""
CLOSEST_S = 1e-6
"""s: points closer than this are refused."""
LARGEST = 1e6
"""rad or m: a position beyond is a jump, whatever the settings."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """What a policy wants of J joints for the next moments.

    Attributes:
        session: of the policy; drawn anew at its start.
        sequence: counts a session's chunks from 0.
        stamp_ns: of the observation; it is kept for the record and decides nothing.
        received: when it came, s of the receiver's monotonic clock.
        times: (K,) s since the observation, increasing, up to `LONGEST_S`.
        positions: (K, J) rad or m.
        age_s: age of the observation when the chunk came, by stamps, where the clocks of sender and receiver agree.
            It moves the chunk's start back by at most the buffer's ``max_age_s``: a clock that jumps does no more.
    """

    session: str
    sequence: int
    stamp_ns: int
    received: float
    times: ArrayLike
    positions: ArrayLike
    age_s: float | None = None


class ChunkBuffer:
    """Holds the newest chunk of the armed session, and follows it from the point last sampled.

    A chunk counts from its observation as far as ``age_s`` tells it, else from its receipt. A new chunk replaces the
    old one at once: from where that had got to, at its velocity, to the first point that is still to come. Between
    two points the path is a monotone cubic (Fritsch and Butland, SIAM J. Sci. Stat. Comput. 5, 1984): smooth, and
    never beyond them.

    Attributes:
        session: the one armed; None where none is.
        counters: reason → chunks refused for it.
        accepted: chunks taken.
        consecutive_bad: refused for one of `BAD` since the last chunk taken.
    """

    def __init__(
        self,
        joints: int,
        limits: JointLimits | None = None,
        *,
        max_age_s: float,
        max_jump: ArrayLike | None = None,
        max_points: int = 1000,
        hold_s: float = 0.2,
    ) -> None:
        """
        Args:
            joints: J.
            limits: positions beyond these by more than ``max_jump`` are refused; nearer ones are left to the limiter.
            max_age_s: a chunk that waited longer since its receipt is stale.
            max_jump: (J,) or one number; largest step between two points, and from the last sample to the first
                point to come; None allows any up to `LARGEST`.
            max_points: largest K.
            hold_s: how long the last point is held before there is nothing to do.

        Raises:
            LimitError: an argument that cannot be.
        """
        if joints < 1 or max_points < 1 or (limits is not None and len(limits.names) != joints):
            raise LimitError(f"a chunk buffer for {joints} joints and {max_points} points does not fit its limits")
        for name, value in (("max_age_s", max_age_s), ("hold_s", hold_s)):
            if not math.isfinite(value) or value < 0:
                raise LimitError(f"{name} is a number of seconds >= 0, not {value!r}")
        jump = np.asarray(np.inf if max_jump is None else max_jump, dtype=np.float64)
        if jump.shape not in ((), (joints,)) or not (jump > 0).all():
            raise LimitError(f"max_jump is one number above 0 or {joints} of them, not {max_jump!r}")
        self.joints, self.max_points, self.max_age_s, self.hold_s = joints, max_points, max_age_s, hold_s
        self.session: str | None = None
        self.counters: Counter[str] = Counter()
        self.accepted = 0
        self.consecutive_bad = 0
        self._jump, self._limits = jump, limits
        self._any_session = False
        self._last_sequence: dict[str, int] = {}
        self._from: FloatArray | None = None
        self._times: FloatArray | None = None
        self._points = self._slopes = np.empty((0, joints))

    def arm(self, session: str | None = None, position: ArrayLike | None = None) -> None:
        """Take chunks of ``session`` only, from now on; the chunk at hand is dropped.

        Args:
            session: None takes the session of the next good chunk.
            position: (J,) where the joints are commanded now, to start from there.

        Raises:
            CommandError: ``position`` is not (J,) finite numbers up to `LARGEST`; nothing has changed.
        """
        start = None if position is None else _numbers(position)
        if position is not None and (
            start is None or start.shape != (self.joints,) or not (np.abs(start) <= LARGEST).all()
        ):
            raise CommandError(f"a chunk buffer starts from {self.joints} finite positions, not {position!r}")
        self.flush()
        self.session, self._any_session, self._from = session, session is None, start
        self.consecutive_bad = 0

    def disarm(self) -> None:
        """Take no chunk until `arm`; the one at hand is dropped."""
        self.flush()
        self.session, self._any_session = None, False

    def flush(self) -> None:
        """Drop the chunk at hand and the point to start from. The session stays armed, and chunks older still."""
        self._times = self._from = None

    def push(self, chunk: Chunk, now: float) -> str:
        """Take a chunk, or say why not.

        Args:
            chunk: as it came; an invalid one is refused as a whole, and the one at hand goes on.
            now: s, monotonic.

        Returns:
            "" where it is taken, else one of `REASONS`.
        """
        reason = self._take(chunk, now)
        if reason:
            self.counters[reason] += 1
            self.consecutive_bad += reason in BAD
        else:
            self.accepted += 1
            self.consecutive_bad = 0
        return reason

    def sample(self, now: float) -> FloatArray | None:
        """Where the policy wants the joints: (J,), or None where there is nothing to follow (any more).

        Raises:
            CommandError: ``now`` is not finite.
        """
        if not math.isfinite(now):
            raise CommandError(f"time {now} is not a finite number of seconds")
        if self._times is None:
            return None
        if now > self._times[-1] + self.hold_s:
            self._times, self._from = None, self._points[-1]
            return None
        return self._at(self._times, now)[0]

    def velocity(self, now: float) -> FloatArray:
        """How fast `sample` moves at ``now``: (J,) rad/s or m/s; zero where it stands still or there is nothing."""
        if self._times is None:
            return np.zeros(self.joints)
        return self._at(self._times, now)[1]

    def _take(self, chunk: Chunk, now: float) -> str:
        if chunk.session != self.session and not self._any_session:
            return "other session"
        if chunk.sequence <= self._last_sequence.get(chunk.session, -1):
            return "older"
        times, points = _numbers(chunk.times), _numbers(chunk.positions)
        if times is None or points is None or times.ndim != 1 or not 1 <= len(times) <= self.max_points:
            return "wrong size"
        if points.shape != (len(times), self.joints):
            return "wrong size"
        if not (np.isfinite(times).all() and np.isfinite(points).all()):
            return "not finite"
        if times[0] < 0 or times[-1] > LONGEST_S or (np.diff(times) < CLOSEST_S).any():
            return "times"
        times = times + (chunk.received - self._age(chunk))
        waited = now - chunk.received
        if not 0 <= waited <= self.max_age_s or not now <= times[-1] + self.hold_s:
            return "stale"
        start, slope = self._now(now)
        coming = min(int(np.searchsorted(times, now, side="right")), len(times) - 1)
        if self._jumps(points, start, coming):
            return "jump"
        self.session, self._any_session = chunk.session, False
        self._last_sequence[chunk.session] = chunk.sequence
        if start is not None and times[coming] > now:
            times = np.concatenate([[now], times[coming:]])
            points = np.concatenate([start[None], points[coming:]])
        self._times, self._points, self._slopes = times, points, _slopes(times, points, slope)
        return ""

    def _now(self, now: float) -> tuple[FloatArray | None, FloatArray | None]:
        """Position and velocity that a new chunk starts from; None where not known."""
        if self.sample(now) is None or self._times is None:
            return self._from, None if self._from is None else np.zeros(self.joints)
        return self._at(self._times, now)

    def _jumps(self, points: FloatArray, start: FloatArray | None, coming: int) -> bool:
        if (np.abs(points) > LARGEST).any() or (np.abs(np.diff(points, axis=0)) > self._jump).any():
            return True
        if start is not None and (np.abs(points[coming] - start) > self._jump).any():
            return True
        if self._limits is None:
            return False
        return bool(
            (points > self._limits.upper + self._jump).any() or (points < self._limits.lower - self._jump).any()
        )

    def _age(self, chunk: Chunk) -> float:
        if chunk.age_s is None or not math.isfinite(chunk.age_s):
            return 0.0
        return min(max(chunk.age_s, 0.0), self.max_age_s)

    def _at(self, times: FloatArray, now: float) -> tuple[FloatArray, FloatArray]:
        after = int(np.searchsorted(times, now, side="right"))
        if after == 0 or after == len(times):
            return self._points[min(after, len(times) - 1)].copy(), np.zeros(self.joints)
        duration = times[after] - times[after - 1]
        x = (now - times[after - 1]) / duration
        low, high = self._points[after - 1], self._points[after]
        leave, arrive = self._slopes[after - 1] * duration, self._slopes[after] * duration
        bend = (1 - x) * leave - x * arrive
        between = low + x * x * (3 - 2 * x) * (high - low) + x * (1 - x) * bend
        slope = 6 * x * (1 - x) * (high - low) + (1 - 2 * x) * bend - x * (1 - x) * (leave + arrive)
        # Rounding may leave the hull of the two points by a bit.
        inside = np.minimum(np.maximum(between, np.minimum(low, high)), np.maximum(low, high))
        return inside, slope / duration


def _slopes(times: FloatArray, points: FloatArray, first: FloatArray | None) -> FloatArray:
    """Velocities (K, J) at the points that keep a cubic between them monotone; ``first`` (J,) as far as it may be."""
    slopes = np.zeros_like(points)
    if len(times) == 1:
        return slopes
    secants = np.diff(points, axis=0) / np.diff(times)[:, None]
    before, after = secants[:-1], secants[1:]
    harmonic = 2 * before * after / np.where(before + after == 0, 1.0, before + after)
    slopes[1:-1] = np.where(before * after > 0, harmonic, 0.0)
    slopes[-1] = secants[-1]
    steepest = 3 * secants[0]
    slopes[0] = secants[0] if first is None else np.clip(first, np.minimum(0, steepest), np.maximum(0, steepest))
    return slopes


def _numbers(value: ArrayLike) -> FloatArray | None:
    try:
        array = np.array(value)
    except ValueError:
        return None
    return array.astype(np.float64) if array.dtype.kind == "f" else None
