"""Things that are on their way for a while."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class DelayLine(Generic[T]):
    """A queue whose entries come out when their time has come, in the order in which they went in."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, T]] = deque()

    def push(self, due: float, item: T) -> None:
        """Put in what comes out at ``due`` s, or as soon after as what went in before it is out."""
        if self._waiting:
            due = max(due, self._waiting[-1][0])
        self._waiting.append((due, item))

    def pop(self, now: float, most: int | None = None) -> list[T]:
        """Take out what is due at ``now`` s, at most so many."""
        return [item for _, item in self.due(now, most)]

    def due(self, now: float, most: int | None = None) -> list[tuple[float, T]]:
        """As `pop`, each with the moment when it was due."""
        out: list[tuple[float, T]] = []
        while self._waiting and self._waiting[0][0] <= now + 1e-9 and len(out) != most:
            out.append(self._waiting.popleft())
        return out

    def clear(self) -> None:
        """Forget what is on its way."""
        self._waiting.clear()
