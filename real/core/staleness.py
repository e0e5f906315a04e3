"""Whether a source of messages still says something new.

Deadlines run on the receiver's monotonic clock alone, so that a wall clock that jumps makes nothing stale or fresh.
Stamps and digests only tell a message that repeats its predecessor: a camera driver that hangs may send its last
picture for ever.
"""

from __future__ import annotations

import math
import zlib

import numpy as np

from real.errors import RealError


class Freshness:
    """Freshness of one source.

    Attributes:
        name: the source, as people call it.
        max_age_s: a source whose last message came longer ago is stale, s.
        frozen_after: so many messages in a row that repeat the stamp or the content of the one before make the source
            stale; None: never.
        count: messages seen.
        backwards: messages with a stamp before that of their predecessor.
        repeats: messages in a row, up to the last, that repeated their predecessor.

    Raises:
        RealError: an impossible age or number.
    """

    def __init__(self, name: str, max_age_s: float, frozen_after: int | None = None) -> None:
        if not max_age_s > 0:
            raise RealError(f"{name}: the greatest age is a number of seconds > 0, not {max_age_s!r}")
        if frozen_after is not None and frozen_after < 1:
            raise RealError(f"{name}: frozen_after is a number of messages >= 1 or None, not {frozen_after!r}")
        self.name = name
        self.max_age_s = max_age_s
        self.frozen_after = frozen_after
        self.count = 0
        self.backwards = 0
        self.repeats = 0
        self._received = -math.inf
        self._stamp_ns = 0
        self._digest: object = None
        self._same_stamp = 0
        self._same_content = 0

    def seen(self, monotonic: float, stamp_ns: int = 0, digest: object = None) -> None:
        """Note a message.

        Args:
            monotonic: when it was received, s of the monotonic clock.
            stamp_ns: its header's stamp; 0: it has none.
            digest: a value that is equal for equal content, such as `digest` gives; None: not looked at.
        """
        if self.count:
            self.backwards += bool(stamp_ns and self._stamp_ns and stamp_ns < self._stamp_ns)
            self._same_stamp = self._same_stamp + 1 if stamp_ns and stamp_ns == self._stamp_ns else 0
            self._same_content = self._same_content + 1 if digest is not None and digest == self._digest else 0
            self.repeats = max(self._same_stamp, self._same_content)
        self.count += 1
        self._received = max(self._received, monotonic)
        self._stamp_ns, self._digest = stamp_ns, digest

    def age(self, now: float) -> float:
        """Seconds since the last message came; infinite before the first."""
        return max(now - self._received, 0.0)  # in this order: NaN stays NaN, and is not fresh

    def fresh(self, now: float) -> bool:
        """Whether messages come and bring something new."""
        return self.age(now) <= self.max_age_s and not self._frozen

    def why(self, now: float) -> str:
        """Why it is not fresh, in words; empty where it is."""
        if not self.count:
            return f"nothing of {self.name} yet"
        age = self.age(now)
        if not age <= self.max_age_s:
            return f"{self.name} is {age:.2f} s old, {self.max_age_s:g} s allowed"
        if self._frozen:
            what = "stamp" if self._same_stamp >= self._same_content else "content"
            return f"{self.name} is frozen: the same {what} in {self.repeats + 1} messages in a row"
        return ""

    @property
    def _frozen(self) -> bool:
        return self.frozen_after is not None and self.repeats >= self.frozen_after


def digest(content: bytes | bytearray | memoryview | np.ndarray) -> int:
    """A checksum of a message's content, for `Freshness.seen`; equal content gives an equal one."""
    return zlib.crc32(content.tobytes() if isinstance(content, np.ndarray) else content)
