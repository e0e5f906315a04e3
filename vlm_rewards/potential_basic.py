"""Potentials from a critic's value, success probability, score or preference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vlm_rewards.anchors import Reference, moments
from vlm_rewards.answer import Answer
from vlm_rewards.clips import ClipSet
from vlm_rewards.critic import Capability, Critic
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.worlds import Memory

_SURE = 0.999
"""A preference is believed up to this probability: more would be an infinite distance."""


class _Remembering:
    """What these potentials share: a critic with one capability, and a memory of each world."""

    capability: Capability

    def __init__(self, critic: Critic) -> None:
        critic.require(self.capability)
        self.critic = critic
        self._memory = Memory()

    @property
    def revision(self) -> str:
        """Of the critic."""
        return self.critic.revision

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and texts."""
        return self._memory.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self._memory.load_state_dict(state)


class FromValue(_Remembering):
    """Potential of a critic with VALUE: its progress since the start of the episode, whose frames are kept."""

    capability = Capability.VALUE

    def begin(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer:
        """Keep the start of each episode, and ask about it."""
        self._memory.write_frames("start", worlds, frames.latest(self.critic.window.frames))
        return self.read(worlds, frames, instructions)

    def read(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer:
        """Φ = progress."""
        return self.critic.value(frames, self._memory.read_frames("start", worlds), instructions)


class FromDone(_Remembering):
    """Potential of a critic with DONE: the probability of success. Flat until success is near."""

    capability = Capability.DONE

    def begin(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer:
        """Nothing needs to be kept."""
        return self.critic.done(frames, instructions)

    def read(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer:
        """Φ = probability that the instruction is carried out."""
        return self.critic.done(frames, instructions)


class FromScore(_Remembering):
    """Potential of a critic with SCORE: Φ = (s - s_start) / (s_goal - s_start), clipped to [0, 1].

    Args:
        critic: asked.
        goal: score of a carried-out instruction: one number, or one for each instruction, see `goal_scores`.

    A row is invalid whose goal is not known, or does not lie above the score at its start: the critic then cannot tell
    this goal from this start.
    """

    capability = Capability.SCORE

    def __init__(self, critic: Critic, goal: float | Mapping[str, float]) -> None:
        super().__init__(critic)
        self.goal = goal

    def begin(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer:
        """Score the start of each episode; where that fails, the whole episode is invalid."""
        scored = self.critic.score(frames, instructions)
        self._memory.write("start", worlds, scored.values)
        return self._scaled(scored, scored.values, instructions)

    def read(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer:
        """Φ by the score now."""
        start = self._memory.read("start", worlds)
        return self._scaled(self.critic.score(frames, instructions), start, instructions)

    def _scaled(self, scored: Answer, start: torch.Tensor, instructions: Sequence[str]) -> Answer:
        goals = [self.goal.get(i, torch.nan) if isinstance(self.goal, Mapping) else self.goal for i in instructions]
        goal = torch.tensor(goals, dtype=torch.float32, device=start.device)
        scored = scored.invalid(goal.isnan(), "no score of its goal is known")
        scored = scored.invalid(start.isnan(), "the start of its episode has no score")
        scored = scored.invalid(goal <= start, "the goal does not score above the start of its episode")
        return _with_values(scored, ((scored.values - start) / (goal - start)).clamp(0.0, 1.0))


class FromPrefer(_Remembering):
    """Potential of a critic with PREFER: where a moment stands between the start of its episode and a goal.

    By the Bradley-Terry model, P(second over first) = σ(u_second - u_first) for some utility u. With
    a = logit P(now over start) and b = logit P(goal over now), neither below 0, Φ = a / (a + b) is the share of the
    utility between start and goal that has been gained: 0 where now is no better than the start, 1 where it is no worse
    than the goal. A row for which both hold is contradictory and invalid.

    Limits: u is some rising function of progress, not progress. Beyond odds of 999 to 1 the logit is cut off, so that
    moments far from both start and goal all read near one half. Without a goal there is no scale, only
    Φ = 2 P(now over start) - 1, clipped to [0, 1], which is high as soon as now is surely better than the start.

    Args:
        critic: asked.
        reference: a success, whose goal is compared with; one task.
    """

    capability = Capability.PREFER

    def __init__(self, critic: Critic, reference: Reference | None = None) -> None:
        super().__init__(critic)
        self.reference = reference

    def begin(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer:
        """Keep the start of each episode, and ask about it."""
        self._memory.write_frames("start", worlds, frames.latest(self.critic.window.frames))
        return self.read(worlds, frames, instructions)

    def read(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer:
        """Φ by one or two preferences."""
        gained = self.critic.prefer(self._memory.read_frames("start", worlds), frames, instructions)
        if self.reference is None:
            return _with_values(gained, (2.0 * gained.values - 1.0).clamp(0.0, 1.0))
        goal = self.reference.goal.of(frames.cameras).rows(torch.zeros(len(frames), dtype=torch.int64))
        left = self.critic.prefer(frames, goal, instructions)
        a, b = (torch.logit(answer.values.clamp(1.0 - _SURE, _SURE)).clamp(min=0.0) for answer in (gained, left))
        reasons = [one or two for one, two in zip(gained.reasons, left.reasons, strict=True)]
        trust, took = torch.minimum(gained.confidence, left.confidence), gained.latency_s + left.latency_s
        # Where both are 0 the quotient is not a number; say why before it is taken for a broken critic.
        answer = Answer.of(gained.values + left.values, frames.stamps, self.revision, took, trust, reasons)
        answer = answer.invalid(a + b == 0, "contradictory: no better than the start, and no worse than the goal")
        return _with_values(answer, a / (a + b))


def goal_scores(critic: Critic, clips: ClipSet) -> dict[str, float]:
    """Median score of carried-out instructions in recorded successes, for `FromScore`.

    Raises:
        CriticError: no clip succeeds, or no score is valid.
    """
    scores: dict[str, list[float]] = {}
    for e in range(len(clips)):
        clip = clips[e]
        reached = torch.nonzero(clip.done).flatten()
        if len(reached):
            answer = critic.score(moments(clip, critic.window, reached), [clip.instruction] * len(reached))
            scores.setdefault(clip.instruction, []).extend(answer.values[answer.valid].tolist())
    found = {instruction: float(torch.tensor(values).median()) for instruction, values in scores.items() if values}
    if not found:
        raise CriticError(f"critic {critic.name!r} gave no valid score of a success in {len(clips)} clips")
    return found


def _with_values(answer: Answer, values: torch.Tensor) -> Answer:
    """The same answer with other values in its valid rows."""
    return Answer.of(
        values.masked_fill(~answer.valid, torch.nan),
        answer.stamps,
        answer.revision,
        answer.latency_s,
        answer.confidence,
        answer.reasons,
    )
