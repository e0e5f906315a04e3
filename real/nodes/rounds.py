"""One episode after the other, without a person: what the episode node asks for, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from real.core.episode import State
from real.core.modes import Mode
from real.stack_sections import EpisodeSection

if TYPE_CHECKING:
    from real.nodes.episode import EpisodeNode

Pose = Sequence[float] | Mapping[str, float] | None
"""Joints by order or by name; None is home."""

PATIENCE_S = 15.0
"""What has not happened by then is asked for again."""
_AGAIN_S = 1.0
"""A reset that has not begun by then is asked for again."""
_SETTLE_S = 0.3
"""After a motion or a new scene, before what follows: sensors and objects come to rest."""


class Rounds:
    """A small state machine: hold → home → scene (of a twin) → start → arm → run → hold ...

    A FAULT or an E-STOP is a person's to clear: it waits for that.

    Attributes:
        doing: the current phase, in words.
        finished: all episodes are done.
    """

    def __init__(self, node: EpisodeNode, settings: EpisodeSection, twin: bool) -> None:
        self._node, self._settings, self._twin = node, settings, twin
        self._count = 0
        self.finished = False
        self._enter("hold")

    @property
    def doing(self) -> str:
        """See above."""
        return f"{self._phase}, episode {self._count}"

    def tick(self) -> None:
        """Go on where what the phase waits for has happened."""
        if self.finished or self._node.mode in (Mode.INIT, Mode.FAULT, Mode.ESTOP, Mode.HUMAN):
            return
        waited = self._node.now - self._since
        following = getattr(self, f"_{self._phase}")(waited)
        if following:
            self._enter(following)
        elif waited > PATIENCE_S and self._phase != "run":
            self._enter("hold")

    def _enter(self, phase: str) -> None:
        self._phase, self._since, self._asked, self._asked_at = phase, self._node.now, False, 0.0

    def _hold(self, waited: float) -> str:
        if self._node.mode == Mode.HOLD:
            return "home" if waited > _SETTLE_S else ""
        self._ask("hold")
        return ""

    def _home(self, waited: float) -> str:
        return self._drive(None, "scene" if self._twin else "start")

    def _scene(self, waited: float) -> str:
        if not self._asked:
            self._node.draw(self._settings.first_seed + self._count)
            self._asked = True
        drawn = self._node.scene.get("seed") == self._settings.first_seed + self._count
        return "start" if drawn and waited > _SETTLE_S else ""

    def _start(self, waited: float) -> str:
        start = self._settings.start if self._settings.start is not None else self._node.scene.get("start")
        return self._drive(start, "arm")

    def _arm(self, waited: float) -> str:
        if waited < _SETTLE_S:
            return ""
        if self._node.mode == Mode.POLICY:
            self._node.begin()
            return "run"
        self._ask("arm")
        return ""

    def _run(self, waited: float) -> str:
        if self._node.machine.state is State.RUNNING:
            return ""  # an arm that is held meanwhile was stopped for a reason: only a person arms it again
        self._count += 1
        if self._settings.episodes and self._count >= self._settings.episodes:
            self._node.ask("hold")
            self.finished = True
        return "hold"

    def _drive(self, pose: Pose, following: str) -> str:
        """Have the arm driven to ``pose``; it is there when that is what the safety node commands."""
        node = self._node
        if node.mode == Mode.HOLD and self._asked and node.is_at(pose):
            return following if node.now - self._asked_at > _SETTLE_S else ""
        if node.mode == Mode.HOLD and (not self._asked or node.now - self._asked_at > _AGAIN_S):
            node.lead(pose)
            self._ask("reset", again=True)
        return ""

    def _ask(self, word: str, again: bool = False) -> None:
        """Ask once a phase; the answer is the mode."""
        if again or not self._asked:
            self._node.ask(word)
            self._asked, self._asked_at = True, self._node.now
