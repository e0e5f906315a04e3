"""The machine's clocks, as nodes see them."""

from __future__ import annotations

import time


class SystemClock:
    """A `Clock`."""

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()

    def now(self) -> int:
        """Nanoseconds since 1970."""
        return time.time_ns()
