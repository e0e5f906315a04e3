"""Physics in step with a clock."""

from __future__ import annotations


class Clockwork:
    """How many physics steps are due, and which moments they are of.

    Args:
        timestep: s of one step.
        most_s: s of physics that one call may make up for; what is beyond is lost.
        now: s of the clock when it begins.

    Attributes:
        debt_s: s of physics that were lost so far: 0 where the machine keeps up.
        late: calls that were behind by more than ``most_s``.
    """

    def __init__(self, timestep: float, most_s: float, now: float) -> None:
        self.timestep = timestep
        self._most = max(most_s, timestep)
        self._done = now
        self.debt_s = 0.0
        self.late = 0

    @property
    def time(self) -> float:
        """s of the clock up to which physics has been done."""
        return self._done

    def due(self, now: float) -> list[float]:
        """Moments, s of the clock, of the steps that are to be done at ``now``, in order."""
        behind = now - self._done
        if behind > self._most:
            lost = behind - self._most
            self._done += lost
            self.debt_s += lost
            self.late += 1
        count = int((now - self._done) / self.timestep + 1e-6)
        moments = [self._done + (i + 1) * self.timestep for i in range(count)]
        if moments:
            self._done = moments[-1]
        return moments
