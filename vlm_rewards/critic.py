"""The one interface of every judge of progress, in simulation, over recordings and on a robot.

A critic is asked about B moments at once: `Frames` and an instruction for each. What it can be asked depends on its
capabilities; asking for another one raises. Every answer says whether it may be used, how sure the critic is, how long
it took, which revision of the model gave it, and how old the pictures were that it saw.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from robolearn.errors import unknown
from vlm_rewards.answer import Answer
from vlm_rewards.errors import CriticError, MissingCapability
from vlm_rewards.frames import Frames


class Capability(enum.Enum):
    """Kinds of judgement.

    SCORE: how well a moment fits the instruction; any scale.
    DELTA: progress from one moment to a later one, in [-1, 1]: the share of what was left, or the share of what had
        been reached that is lost.
    PREFER: probability that the second of two moments shows more progress.
    DONE: probability that the instruction is carried out.
    VALUE: progress in [0, 1] since the start of the episode.
    PLAN: keypoints and waypoints towards the goal.
    """

    SCORE = "score"
    DELTA = "delta"
    PREFER = "prefer"
    DONE = "done"
    VALUE = "value"
    PLAN = "plan"

    @classmethod
    def named(cls, name: str) -> Capability:
        """The capability called ``name``.

        Raises:
            CriticError: there is none.
        """
        try:
            return cls(name)
        except ValueError:
            raise CriticError(unknown("judgement", name, [c.value for c in cls])) from None


RANGES = {
    Capability.DELTA: (-1.0, 1.0),
    Capability.PREFER: (0.0, 1.0),
    Capability.DONE: (0.0, 1.0),
    Capability.VALUE: (0.0, 1.0),
}
"""Bounds of the answers; one that lies outside by more than rounding is invalid."""
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Window:
    """What a judgement depends on.

    Attributes:
        frames: how many pictures of each moment, at most, the newest last.
        stride_s: seconds between them.
        causal: only pictures up to the judged moment are needed. A critic that is not causal looks at a whole
            recording and cannot be asked while a robot moves.
    """

    frames: int = 1
    stride_s: float = 0.0
    causal: bool = True


@dataclass(frozen=True)
class Plan:
    """Waypoints of a keypoint towards the goal, for B moments; invalid rows hold NaN.

    Attributes:
        keypoint: (B, 2) pixel of the affordance keypoint (x to the right, y down) in ``camera``.
        waypoints: (B, K, 2) pixels, in order.
        camera: the view that the pixels belong to.
        answer: values are K for valid rows; validity, confidence and stamps.
    """

    keypoint: torch.Tensor
    waypoints: torch.Tensor
    camera: str
    answer: Answer


@dataclass(frozen=True)
class Judged:
    """What a critic's own method returns, before it becomes an `Answer`.

    Attributes:
        values: (B,).
        confidence: (B,) in [0, 1], or None for full confidence.
        reasons: (B,) why a row is invalid, empty where valid; None if all are valid.
    """

    values: torch.Tensor
    confidence: torch.Tensor | None = None
    reasons: Sequence[str] | None = None


class Critic:
    """A judge of progress. Subclasses set the attributes and override the methods with an underscore.

    Attributes:
        name: what it is called.
        revision: changes whenever its answers may; part of every cache key.
        capabilities: what it can be asked.
        cameras: the views it needs, in its order; empty: it takes whatever views come.
        picture: height and width that it was made for, pixels; None: any.
        window: what its judgements depend on; longer windows are cut to the newest pictures.
        timed: its answers depend on the stamps, too, not on pictures and instruction alone.
    """

    name: str = "critic"
    revision: str = ""
    capabilities: frozenset[Capability] = frozenset()
    cameras: tuple[str, ...] = ()
    picture: tuple[int, int] | None = None
    window: Window = Window()
    timed: bool = False

    def score(self, now: Frames, instructions: Sequence[str]) -> Answer:
        """How well each moment fits its instruction, (B,), on the critic's own scale."""
        return self._ask(Capability.SCORE, instructions, now)

    def delta(self, before: Frames, after: Frames, instructions: Sequence[str]) -> Answer:
        """Progress from ``before`` to ``after``, (B,) in [-1, 1]."""
        return self._ask(Capability.DELTA, instructions, before, after)

    def prefer(self, first: Frames, second: Frames, instructions: Sequence[str]) -> Answer:
        """Probability that ``second`` shows more progress than ``first``, (B,)."""
        return self._ask(Capability.PREFER, instructions, first, second)

    def done(self, now: Frames, instructions: Sequence[str]) -> Answer:
        """Probability that each instruction is carried out, (B,)."""
        return self._ask(Capability.DONE, instructions, now)

    def value(self, now: Frames, start: Frames, instructions: Sequence[str]) -> Answer:
        """Progress since the ``start`` of each episode, (B,) in [0, 1]."""
        return self._ask(Capability.VALUE, instructions, now, start)

    def plan(self, now: Frames, instructions: Sequence[str]) -> Plan:
        """Waypoints towards the goal."""
        seen = self._checked(Capability.PLAN, instructions, now)
        return self._plan(seen[0], list(instructions))

    def value_and_done(self, now: Frames, start: Frames, instructions: Sequence[str]) -> tuple[Answer, Answer]:
        """Both judgements of the same moments; a critic that shares work between them overrides this."""
        return self.value(now, start, instructions), self.done(now, instructions)

    def require(self, *capabilities: Capability) -> None:
        """Raise unless the critic has all of ``capabilities``.

        Raises:
            MissingCapability: naming what it can do.
        """
        for capability in capabilities:
            if capability not in self.capabilities:
                can = ", ".join(sorted(c.value for c in self.capabilities)) or "nothing"
                raise MissingCapability(f"critic {self.name!r} cannot {capability.value}; it can: {can}")

    def require_online(self) -> None:
        """Raise unless the critic can judge while an episode goes on.

        Raises:
            CriticError: it looks at what comes after the judged moment.
        """
        if not self.window.causal:
            raise CriticError(
                f"critic {self.name!r} looks at whole recordings, the judged moment's future included: "
                "it cannot reward a policy or watch a robot; use it on recordings (robolearn critic score)"
            )

    def _score(self, now: Frames, instructions: list[str]) -> Judged:
        raise NotImplementedError

    def _delta(self, before: Frames, after: Frames, instructions: list[str]) -> Judged:
        raise NotImplementedError

    def _prefer(self, first: Frames, second: Frames, instructions: list[str]) -> Judged:
        raise NotImplementedError

    def _done(self, now: Frames, instructions: list[str]) -> Judged:
        raise NotImplementedError

    def _value(self, now: Frames, start: Frames, instructions: list[str]) -> Judged:
        raise NotImplementedError

    def _plan(self, now: Frames, instructions: list[str]) -> Plan:
        raise NotImplementedError

    def _ask(self, capability: Capability, instructions: Sequence[str], *seen: Frames) -> Answer:
        """Check the question, put it, and make an answer of what comes back, on the device of the pictures."""
        seen = self._checked(capability, instructions, *seen)
        stamps = torch.stack([frames.stamps for frames in seen]).amax(0)
        if not len(stamps):
            return Answer.of(stamps, stamps, self.revision)
        started = time.perf_counter()
        judged: Judged = getattr(self, f"_{capability.value}")(*seen, list(instructions))
        if tuple(judged.values.shape) != (len(stamps),):
            raise CriticError(
                f"critic {self.name!r} gave {tuple(judged.values.shape)} values for {len(stamps)} moments"
            )
        values, outside = _within(judged.values.detach().to(stamps.device, torch.float32), capability)
        answer = Answer.of(values, stamps, self.revision, 0.0, judged.confidence, judged.reasons)
        if capability in RANGES:
            low, high = RANGES[capability]
            answer = answer.invalid(outside, f"the critic's {capability.value} is outside {low:g} to {high:g}")
        # Taken last: a GPU has answered only when the host has looked at the values.
        return replace(answer, latency_s=time.perf_counter() - started)

    def _checked(self, capability: Capability, instructions: Sequence[str], *seen: Frames) -> tuple[Frames, ...]:
        """The frames in the critic's own order of cameras.

        Raises:
            CriticError: what was given does not fit together, or the critic.
        """
        self.require(capability)
        if isinstance(instructions, str):
            raise CriticError(f"instructions are one text for each moment, got the single text {instructions!r}")
        for frames in seen:
            if len(frames) != len(instructions):
                raise CriticError(f"{len(frames)} moments came with {len(instructions)} instructions")
            if self.picture is not None and frames.size != self.picture:
                raise CriticError(
                    f"critic {self.name!r} judges pictures of {self.picture[0]}x{self.picture[1]} pixels, "
                    f"got {frames.size[0]}x{frames.size[1]}; vlm_rewards.pictures.resized fits them"
                )
        if any(not instruction.strip() for instruction in instructions):
            raise CriticError("an instruction is empty; a critic needs to know what the robot was asked to do")
        for frames in seen:
            if any(name not in frames.cameras for name in self.cameras):
                raise CriticError(
                    f"critic {self.name!r} was made for cameras {', '.join(self.cameras)}; "
                    f"these frames come from {', '.join(frames.cameras)}"
                )
            if not self.cameras and set(frames.cameras) != set(seen[0].cameras):
                raise CriticError(
                    f"critic {self.name!r} cannot compare frames of cameras {', '.join(seen[0].cameras)} "
                    f"with frames of {', '.join(frames.cameras)}"
                )
        views = self.cameras or seen[0].cameras
        return tuple(frames.of(views).latest(self.window.frames) for frames in seen)


def _within(values: torch.Tensor, capability: Capability) -> tuple[torch.Tensor, torch.Tensor]:
    """The values (B,) with rounding errors cut off, and which of them are outside (B,) bool."""
    low, high = RANGES.get(capability, (-torch.inf, torch.inf))
    outside = (values < low - _ROUNDING) | (values > high + _ROUNDING)
    return values.clamp(low, high), outside
