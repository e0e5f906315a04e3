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
            raise CriticError(unknown("view fusion", self.views, VIEWS))
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
    """What progress is best made from: VALUE, DELTA (first, if there is a reference), SCORE, PREFER, or else DONE.

    Raises:
        MissingCapability: the critic has none of them.
    """
    order = _PREFERRED if reference is None else (Capability.DELTA, *_PREFERRED)
    able = [capability for capability in order if capability in critic.capabilities]
    if not able:
        critic.require(Capability.VALUE)
    return able[0]


@dataclass(frozen=True)
class Pass:
    """One question about every moment.

    Attributes:
        camera: the view that is judged alone; empty for all that are judged together.
        capability: what is asked.
        cameras: what the critic sees.
        also_done: what is done is asked at the same time; a critic may share work between them.
    """

    camera: str
    capability: Capability
    cameras: tuple[str, ...]
    also_done: bool = False


def passes(critic: Critic, cameras: Sequence[str], how: How) -> tuple[Pass, ...]:
    """What `judge` asks about every moment seen by ``cameras``.

    Raises:
        MissingCapability: the critic cannot judge as asked.
    """
    capability = how.capability or chosen(critic, how.reference)
    critic.require(capability)
    seen = critic.cameras or tuple(cameras)
    able = capability is not Capability.DONE and Capability.DONE in critic.capabilities
    at_once = able and capability is Capability.VALUE
    together = Pass("", capability, seen, at_once)
    alone: tuple[Pass, ...] = ()
    if not critic.cameras and len(seen) > 1 and (how.alone or how.views == "apart"):
        alone = tuple(Pass(camera, capability, (camera,)) for camera in seen)
    if alone and how.views == "apart":
        return (*alone, Pass("", Capability.DONE, seen)) if able else alone
    return (together, *alone, Pass("", Capability.DONE, seen)) if able and not at_once else (together, *alone)


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
    capability = asked[0].capability
    progress: dict[str, list[Answer]] = {}
    done: list[Answer] = []
    for one in asked:
        kept = done if one.capability is not capability else progress.setdefault(one.camera, [])
        for answer, also_done in _read(critic, recording, one, instruction, how):
            kept.append(answer)
            done += [also_done] if also_done is not None else []
            tick(len(answer))
    alone = {camera: joined(parts) for camera, parts in progress.items() if camera}
    together = progress.get("")
    return Judgement(
        capability,
        capability is not Capability.SCORE or how.goal is not None or how.reference is not None,
        joined(together) if together else _mean(list(alone.values())),
        alone,
        joined(done) if done else None,
        torch.stack([_latency_ms(parts) for parts in ([together] if together else progress.values())]).sum(0),
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
    critic: Critic, recording: Recording, asked: Pass, instruction: str, how: How
) -> Iterator[tuple[Answer, Answer | None]]:
    """Progress of batch after batch, and what is done where that is asked for."""

    def frames(index: torch.Tensor) -> Frames:
        return recording.moments(index, critic.window).of(asked.cameras)

    if asked.also_done:
        for index in torch.arange(len(recording)).split(how.batch):
            start = frames(torch.zeros_like(index))
            yield critic.value_and_done(frames(index), start, [instruction] * len(index))
        return
    reader = _reader(critic, asked, instruction, how)
    # Where the hop from the moment before counts, a moment has to wait for it.
    batch = 1 if isinstance(reader, FromDelta) and reader.rule.incremental else how.batch
    yield (
        reader.begin(torch.zeros(1, dtype=torch.int64), frames(torch.zeros(1, dtype=torch.int64)), [instruction]),
        None,
    )
    for index in torch.arange(1, len(recording)).split(batch):
        yield reader.read(torch.zeros_like(index), frames(index), [instruction] * len(index)), None


def _reader(critic: Critic, asked: Pass, instruction: str, how: How) -> _Reader:
    goal = None
    if asked.capability is Capability.SCORE:
        goal = how.goal
        if goal is None and how.reference is not None:
            goal = float(critic.score(how.reference.goal.of(asked.cameras), [instruction]).values)
        if goal is None:
            return _AboveStart(critic)
    return as_potential(critic, asked.capability, goal=goal, reference=how.reference, rule=how.rule)


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
