"""Between two episodes on an arm: hold, go home, lay out the table, go to the start. Only the safety node moves it."""

from __future__ import annotations

import json
import select
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from real.arm_link import ArmLink
from real.core.limits import FloatArray
from real.core.modes import LATCHED, Mode
from real.errors import RealError
from real.stack import Stack

THERE = 2e-3
"""rad or m between a pose and what is commanded."""
_SETTLE_S = 0.3
"""After a motion or a new scene: sensors and objects come to rest."""
_AGAIN_S = 1.0
"""What was asked for and has not begun by then is asked for again."""


class ArmWorldError(RealError):
    """An arm that cannot be a world as asked, or a reset that does not come to its end."""


@dataclass(frozen=True)
class Layout:
    """What lies on the table is ready.

    Attributes:
        named: which object the instruction names, 0 or 1 in the order of the channel ``object_poses``.
        instruction: what is to be done, in words; "": the stack's or the task's.
    """

    named: int
    instruction: str = ""


Operator = Callable[[str], Layout | None]
"""Asked again and again, with what a person shall do in words, until it gives the layout or, for words that ask for
nothing to be laid out, as long as that is to be seen."""


class Resetter:
    """Brings the arm and the table to the start of an episode.

    Args:
        link: to the safety node and, if there is one, the twin.
        stack: its sections ``episode`` and ``twin``.
        task: what a twin draws scenes of.
        home: (J,) rad or m; joints: their names.
        operator: a person; None: nobody has to be asked.
        motion_s: how long one motion may take; operator_s: a person.
    """

    def __init__(
        self,
        link: ArmLink,
        stack: Stack,
        task: str,
        home: FloatArray,
        joints: Sequence[str],
        operator: Operator | None = None,
        motion_s: float = 30.0,
        operator_s: float = 600.0,
    ) -> None:
        self._link, self._settings, self._task, self._home, self._joints = (
            link,
            stack.episode,
            task,
            home,
            tuple(joints),
        )
        self._twin, self._operator = stack.twin is not None, operator
        self._motion_s, self._operator_s = motion_s, operator_s

    def __call__(self, seed: int) -> Layout:
        """Do it; a twin draws the scene of ``seed``.

        Raises:
            ArmWorldError: what did not happen in time.
        """
        self._hold()
        self._drive(self._home, "home")
        layout = self._draw(seed) if self._twin else self._laid_out()
        self._drive(self._start(), "the start")
        return layout

    def _hold(self) -> None:
        """Until the arm is held, and nobody wants it to be: a fault, an e-stop and a takeover are a person's to end."""
        link, asked = self._link, [-np.inf]

        def free() -> bool:
            if link.mode in (Mode.POLICY, Mode.RESET) and link.now - asked[0] > _AGAIN_S:
                link.ask("hold")
                asked[0] = link.now
            return link.mode == Mode.HOLD and not link.held and not link.silent

        if link.spin(link.now + _SETTLE_S + 2 * _AGAIN_S, free):
            return
        if not link.spin(link.now + self._operator_s, lambda: free() or self._tell(self._obstacle())):
            raise ArmWorldError(f"no reset within {self._operator_s:g} s: {self._obstacle()}")

    def _obstacle(self) -> str:
        link = self._link
        if link.silent:
            return "the safety node is not heard"
        if link.mode in LATCHED:
            return f"the safety node is in {link.mode.name} ({link.why}); see to it and clear it"
        if link.held:
            return "somebody asked to hold; ask to arm or to reset when the arm may move"
        return f"the safety node is in {link.mode.name} ({link.why})"

    def _tell(self, words: str) -> bool:
        if self._operator is not None:
            self._operator(words)
        return False

    def _drive(self, pose: FloatArray, name: str) -> None:
        link, asked = self._link, [-np.inf]

        def arrived() -> bool:
            if link.mode != Mode.HOLD or link.held:
                return False
            there = bool((np.abs(link.limited - pose) < THERE).all())  # false for NaN
            if there and np.isfinite(asked[0]):
                return link.now - asked[0] > _SETTLE_S
            if link.now - asked[0] > _AGAIN_S:
                link.lead(pose)
                link.spin(link.now + 0.01)  # another topic: it shall be there before the request
                link.ask("reset")
                asked[0] = link.now
            return False

        if not link.spin(link.now + self._motion_s, arrived):
            raise ArmWorldError(f"the arm did not get to {name} within {self._motion_s:g} s: {self._obstacle()}")
        link.spin(link.now + _SETTLE_S)

    def _draw(self, seed: int) -> Layout:
        link = self._link
        link.request_scene(json.dumps({"seed": seed, "task": self._task}))
        if not link.spin(link.now + self._motion_s, lambda: link.scene.get("seed") == seed):
            error = link.scene.get("error") or "it does not answer"
            raise ArmWorldError(f"the twin drew no scene of {self._task} within {self._motion_s:g} s: {error}")
        link.spin(link.now + _SETTLE_S)
        named = link.scene.get("named_one_hot")
        if named not in ([1, 0], [0, 1]):
            raise ArmWorldError(f"the twin's scene names no object: {named!r}")
        return Layout(named.index(1), str(link.scene.get("instruction", "")))

    def _laid_out(self) -> Layout:
        if self._operator is None:
            named = list(self._settings.goal.get("named", ()))
            if named not in ([1, 0], [0, 1]):
                raise ArmWorldError(
                    f"nobody says which object is named: give an operator, or episode.goal {{named: [1, 0]}} in the "
                    f"stack, which has {named or 'none'}"
                )
            return Layout(named.index(1), self._settings.instruction)
        link, got = self._link, list[Layout]()
        words = f"lay out the table for {self._task}, then say which object is named"

        def answered() -> bool:
            layout = self._operator(words) if self._operator is not None else None
            got.extend([layout] if layout is not None else [])
            return bool(got)

        if not link.spin(link.now + self._operator_s, answered):
            raise ArmWorldError(f"no layout of the table within {self._operator_s:g} s: the operator did not answer")
        if got[0].named not in (0, 1):
            raise ArmWorldError(f"the operator named object {got[0].named!r}; objects: 0, 1")
        return got[0]

    def _start(self) -> FloatArray:
        start = self._link.scene.get("start") if self._twin else None
        if self._settings.start is not None:
            pose = np.array(self._settings.start, dtype=np.float64)
        elif isinstance(start, Mapping) and set(start) == set(self._joints):
            pose = np.array([float(start[joint]) for joint in self._joints])
        else:
            pose = self._home
        if pose.shape != self._home.shape:
            raise ArmWorldError(f"episode.start has {len(pose)} values for {len(self._home)} joints")
        return pose


class Terminal:
    """An `Operator` at this terminal: ``1`` or ``2``, and then the instruction if it shall be another one."""

    def __init__(self) -> None:
        self._said = ""

    def __call__(self, words: str) -> Layout | None:
        if words != self._said:
            print(f"[arm] {words} (1 or 2, then the instruction)", file=sys.stderr, flush=True)
            self._said = words
        if not select.select([sys.stdin], [], [], 0.0)[0]:
            return None
        line = sys.stdin.readline()
        if not line:
            raise ArmWorldError("the operator's terminal has ended")
        number, _, instruction = line.strip().partition(" ")
        self._said = ""
        return Layout(int(number) - 1, instruction.strip()) if number in ("1", "2") else None
