"""What a critic says over a whole recording: progress by all views together and by each alone, and what is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from robolearn.errors import unknown
from vlm_rewards.answer import Answer
from vlm_rewards.critic import Capability, Critic
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.fusion import Rule, fuse_views
from vlm_rewards.potential import FromDelta, Reference, as_potential
from vlm_rewards.videos import Recording

VIEWS = ("together", "apart")
"""How several views become one: the critic sees them all at once, or each alone, and the mean by confidence counts."""

_PREFERRED = (Capability.VALUE, Capability.DELTA, Capability.SCORE, Capability.PREFER, Capability.DONE)
_TOGETHER, _DONE = "", "done"


@dataclass(frozen=True)
class How:
    """How a recording is judged.

    Attributes:
        capability: what progress is made from; None: see `chosen`.
        views: one of `VIEWS`.
        alone: judge each view alone, too, where the critic takes whatever views come.
        rule: how hops are fused; None: the default of `vlm_rewards.potential.FromDelta`.
        reference: a recorded success of the same task, for DELTA, SCORE and PREFER.
        goal: for SCORE: the score of a carried-out instruction, in place of that of the reference.
        batch: moments asked about at once, where one does not depend on the one before.

    Raises:
        CriticError: one that cannot be.
    """

    capability: Capability | None = None
    views: str = "together"
    alone: bool = True
    rule: Rule | None = None
    reference: Reference | None = None
    goal: float | None = None
    batch: int = 16

    def __post_init__(self) -> None:
        if self.views not in VIEWS:
            raise CriticError(unknown("judging of view", self.views, VIEWS))
        if self.batch < 1:
            raise CriticError(f"batch is at least 1, got {self.batch}")


@dataclass(frozen=True)
class Judgement:
    """What a critic says of T moments.

    Attributes:
        capability: what ``progress`` was made from.
        scaled: progress lies in [0, 1]; otherwise it is the score above that of the start, which has no scale.
        progress: (T,) by the views together.
        views: camera → (T,) by that view alone; empty where there is one view, or the critic needs them all.
        done: (T,) probability that the instruction is carried out; None where the critic does not say.
        latency_ms: (T,) that progress took; moments asked about together share alike.
    """

    capability: Capability
    scaled: bool
    progress: Answer
    views: dict[str, Answer] = field(default_factory=dict)
    done: Answer | None = None
    latency_ms: torch.Tensor = field(default_factory=lambda: torch.zeros(0))


def chosen(critic: Critic, reference: Reference | None = None) -> Capability:
    """What progress is best made from: VALUE (after DELTA, if there is a reference), DELTA, SCORE, PREFER, or else DONE.

    Raises:
        MissingCapability: the critic has none of them.
    """
    order = _PREFERRED if reference is None else (Capability.DELTA, *_PREFERRED)
    able = [capability for capability in order if capability in critic.capabilities]
    if not able:
        critic.require(Capability.VALUE)
    return able[0]


def passes(critic: Critic, cameras: Sequence[str], how: How) -> dict[str, tuple[Capability, tuple[str, ...]]]:
    """What is asked about every moment: name → capability and cameras. The name of all views together is empty."""
    capability = how.capability or chosen(critic, how.reference)
    critic.require(capability)
    seen = critic.cameras or tuple(cameras)
    single = {}
    if not critic.cameras and len(seen) > 1 and (how.alone or how.views == "apart"):
        single = {camera: (capability, (camera,)) for camera in seen}
    made = dict(single) if single and how.views == "apart" else {_TOGETHER: (capability, seen), **single}
    if capability is not Capability.DONE and Capability.DONE in critic.capabilities:
        made[_DONE] = (Capability.DONE, seen)
    return made


def judge(
    critic: Critic,
    recording: Recording,
    instruction: str,
    how: How | None = None,
    tick: Callable[[int], None] = lambda moments: None,
) -> Judgement:
    """Ask a critic about every moment of a recording, in order.

    Args:
        critic: asked.
        recording: T moments; it has the critic's cameras.
        instruction: what the robot was asked to do.
        how: see `How`.
        tick: told how many more moments have been judged; T for each of the `passes`.

    Raises:
        CriticError: the critic cannot judge this recording.
    """
    how = how or How()
    asked = passes(critic, recording.cameras, how)
    answers: dict[str, list[Answer]] = {}
    for name, (capability, cameras) in asked.items():
        answers[name] = []
        potential = _potential(critic, capability, cameras, instruction, how)
        # Where hops from the moment before count, a moment has to wait for it.
        in_order = isinstance(potential, FromDelta) and potential.rule.incremental
        for answer in _read(potential, critic, recording, cameras, instruction, 1 if in_order else how.batch):
            answers[name].append(answer)
            tick(len(answer))
    whole = {name: joined(parts) for name, parts in answers.items()}
    done = whole.pop(_DONE, None)
    together = whole.pop(_TOGETHER, None)
    took = sum(_latency_ms(answers[name]) for name in ([_TOGETHER] if together is not None else whole))
    return Judgement(
        next(iter(asked.values()))[0],
        how.goal is not None or how.reference is not None or Capability.SCORE not in {c for c, _ in asked.values()},
        _mean(list(whole.values())) if together is None else together,
        whole,
        done,
        torch.as_tensor(took),
    )


def joined(answers: Sequence[Answer]) -> Answer:
    """Answers about moments that follow one another, as one."""
    return Answer.of(
        torch.cat([answer.values for answer in answers]),
        torch.cat([answer.stamps for answer in answers]),
        answers[0].revision,
        sum(answer.latency_s for answer in answers),
        torch.cat([answer.confidence for answer in answers]),
        [reason for answer in answers for reason in answer.reasons],
    )


def _latency_ms(answers: Sequence[Answer]) -> torch.Tensor:
    """(T,)."""
    return torch.cat([torch.full((len(answer),), 1e3 * answer.latency_s / len(answer)) for answer in answers])


def _mean(views: Sequence[Answer]) -> Answer:
    """The mean of views by confidence; invalid only where all are."""
    values = torch.stack([view.values for view in views], 1)
    value, confidence = fuse_views(values, torch.stack([view.confidence for view in views], 1))
    reasons = ["" if ok else view for ok, view in zip((~value.isnan()).tolist(), views[0].reasons, strict=True)]
    took = sum(view.latency_s for view in views)
    return Answer.of(value, views[0].stamps, views[0].revision, took, confidence, reasons)


def _read(
    potential: _Reader, critic: Critic, recording: Recording, cameras: tuple[str, ...], instruction: str, batch: int
) -> Iterator[Answer]:
    """Progress of batch after batch: one episode, in one world."""

    def frames(index: torch.Tensor) -> Frames:
        return recording.moments(index, critic.window).of(cameras)

    world = torch.zeros(1, dtype=torch.int64)
    yield potential.begin(world, frames(world), [instruction])
    for index in torch.arange(1, len(recording)).split(batch):
        yield potential.read(torch.zeros_like(index), frames(index), [instruction] * len(index))


def _potential(
    critic: Critic, capability: Capability, cameras: tuple[str, ...], instruction: str, how: How
) -> _Reader:
    goal = None
    if capability is Capability.SCORE:
        goal = how.goal
        if goal is None and how.reference is not None:
            goal = float(critic.score(how.reference.goal.of(cameras), [instruction]).values)
        if goal is None:
            return _AboveStart(critic)
    return as_potential(critic, capability, goal=goal, reference=how.reference, rule=how.rule)


class _Reader(Protocol):
    """What is asked of a potential here."""

    def begin(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer: ...

    def read(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer: ...


class _AboveStart:
    """A score less that of the start: a potential but for its scale, which nobody knows."""

    def __init__(self, critic: Critic) -> None:
        self._critic, self._start = critic, torch.nan

    def begin(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer:
        scored = self._critic.score(frames, instructions)
        self._start = float(scored.values[0])
        return self._above(scored)

    def read(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer:
        return self._above(self._critic.score(frames, instructions))

    def _above(self, scored: Answer) -> Answer:
        return Answer.of(
            scored.values - self._start,
            scored.stamps,
            scored.revision,
            scored.latency_s,
            scored.confidence,
            [reason or ("the start has no score" if math.isnan(self._start) else "") for reason in scored.reasons],
        )
