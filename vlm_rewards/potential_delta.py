"""Potentials from a critic that compares two moments: VLAC's value, and Robo-Dopamine's anchored and fused progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vlm_rewards.anchors import Reference
from vlm_rewards.answer import Answer
from vlm_rewards.critic import Capability, Critic
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.fusion import Fused, Fusion, Rule, after_hop, fuse_recording, fuse_views
from vlm_rewards.worlds import Memory


class FromDelta:
    """Potential of a critic with DELTA.

    Each reading asks, in one batch, for the hops that the rule takes: from the start of the episode, from the moments
    of the reference, and from the last moment that could be judged. A reference shows one task: worlds with another
    need a potential of their own. With a rule that takes the latter Φ depends on
    what was seen before, so that one who relabels rewards has to keep the Φ used; with ``anchored`` it does not.

    Args:
        critic: asked.
        reference: a success; its goal is the backward anchor, more of its moments are more anchors.
        rule: how hops become progress; ``weighted`` where there is a reference, else ``anchored`` (to the start alone).
        views: groups of cameras that are judged apart and fused; one group of all cameras where not given.

    Raises:
        MissingCapability: the critic cannot compare moments.
        CriticError: a rule whose backward anchor needs a reference, without one.
    """

    def __init__(
        self,
        critic: Critic,
        reference: Reference | None = None,
        rule: Rule | None = None,
        views: Sequence[Sequence[str]] = (),
    ) -> None:
        critic.require(Capability.DELTA)
        self.critic = critic
        self.reference = reference
        self.rule = rule or Rule("anchored" if reference is None else "weighted")
        if self.rule.anchors and self.rule.incremental and reference is None:
            raise CriticError(f"fusion of form {self.rule.form!r} needs a reference: a recorded success shows the goal")
        self.views = tuple(tuple(view) for view in views)
        self._fusion = Fusion(self.rule)
        self._memory = Memory()

    @property
    def revision(self) -> str:
        """Of the critic."""
        return self.critic.revision

    def begin(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer:
        """Episodes of ``worlds`` start with ``frames``; Φ is 0 by definition where the rule takes incremental hops."""
        frames = frames.latest(self.critic.window.frames)
        self._memory.write_frames("start", worlds, frames)
        self._fusion.begin(worlds.to(frames.rgb.device), max(1, len(self.views)))
        if not self.rule.incremental:
            return self.read(worlds, frames, instructions)
        for v, view in enumerate(self._groups(frames)):
            self._memory.write_frames(f"last/{v}", worlds, frames.of(view))
        return Answer.of(torch.zeros_like(frames.stamps), frames.stamps, self.revision)

    def read(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer:
        """Φ (K,) of ``worlds`` now; a view whose answers are invalid keeps its state, and Φ rests on the others."""
        frames = frames.latest(self.critic.window.frames)
        groups = self._groups(frames)
        start = self._memory.read_frames("start", worlds)
        asked = []
        for v, view in enumerate(groups):
            last = self._memory.read_frames(f"last/{v}", worlds) if self.rule.incremental else None
            asked.append(self._hops(start.of(view), last, frames.of(view), instructions))
        hops = _Hops.stack(asked)
        fused = self._fusion.update(worlds, hops.incremental, hops.anchors, hops.confidence)
        if self.rule.incremental:
            for v, view in enumerate(groups):
                seen = ~fused.views[:, v].isnan()
                self._memory.write_frames(f"last/{v}", worlds[seen.to(worlds.device)], frames.rows(seen).of(view))
        return hops.answer(fused, frames.stamps, self.revision)

    def recording(self, frames: Frames, instruction: str) -> tuple[Answer, torch.Tensor]:
        """Φ over a whole recording of T moments, in order, its first the start; keeps no state.

        Returns:
            The answer (T,), and Φ of each view (T, V).
        """
        frames = frames.latest(self.critic.window.frames)
        instructions = [instruction] * len(frames)
        first = frames.rows(torch.zeros(len(frames), dtype=torch.int64))
        before = frames.rows((torch.arange(len(frames)) - 1).clamp(min=0)) if self.rule.incremental else None
        asked = [
            self._hops(first.of(view), before.of(view) if before else None, frames.of(view), instructions)
            for view in self._groups(frames)
        ]
        hops = _Hops.stack(asked)
        views, weights = fuse_recording(hops.incremental, hops.anchors, self.rule)
        value, trust = fuse_views(views, weights * hops.confidence)
        return hops.answer(Fused(value, trust, views), frames.stamps, self.revision), views

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and texts."""
        return {"fusion": self._fusion.state_dict(), "memory": self._memory.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self._fusion.load_state_dict(state["fusion"])
        self._memory.load_state_dict(state["memory"])

    def _groups(self, frames: Frames) -> tuple[tuple[str, ...], ...]:
        """Cameras that are judged together."""
        return self.views or (frames.cameras,)

    def _hops(self, start: Frames, last: Frames | None, now: Frames, instructions: Sequence[str]) -> _Hops:
        """All hops to ``now`` (K moments) that the rule takes, asked for at once."""
        before, progress = ([start], [0.0]) if self.rule.anchors else ([], [])
        if self.reference is not None and self.rule.anchors:
            shown = self.reference.frames.of(now.cameras)
            for a, reached in enumerate(self.reference.progress.tolist()):
                before.append(shown.rows(torch.full((len(now),), a)))
                progress.append(reached)
        if last is not None:
            before.append(last)
        width = min(frames.rgb.shape[1] for frames in (*before, now))
        asked = Frames.cat([frames.latest(width) for frames in before])
        answer = self.critic.delta(
            asked, Frames.cat([now.latest(width)] * len(before)), list(instructions) * len(before)
        )
        values = answer.values.unflatten(0, (len(before), len(now))).T
        anchors = after_hop(torch.tensor(progress).to(values), values[:, : len(progress)])
        incremental = values[:, -1] if last is not None else torch.full_like(values[:, 0], torch.nan)
        return _Hops(incremental, anchors, *_worst(answer, len(before)), answer.latency_s)


@dataclass(frozen=True)
class _Hops:
    """Hops of K moments, by one view or several.

    Attributes:
        incremental: (K,) or (K, V).
        anchors: (K, A) or (K, V, A) anchored estimates.
        confidence: (K,) or (K, V) of the least sure valid answer.
        reasons: (K,) why an answer was invalid, empty where none was.
        latency_s: of all questions together.
    """

    incremental: torch.Tensor
    anchors: torch.Tensor
    confidence: torch.Tensor
    reasons: list[str]
    latency_s: float

    @classmethod
    def stack(cls, views: Sequence[_Hops]) -> _Hops:
        """Of V views."""
        return cls(
            torch.stack([hops.incremental for hops in views], 1),
            torch.stack([hops.anchors for hops in views], 1),
            torch.stack([hops.confidence for hops in views], 1),
            [next(filter(None, reasons), "") for reasons in zip(*(hops.reasons for hops in views), strict=True)],
            sum(hops.latency_s for hops in views),
        )

    def answer(self, fused: Fused, stamps: torch.Tensor, revision: str) -> Answer:
        """What was made of them; a row is invalid where no view could be judged."""
        bad = fused.value.isnan().tolist()
        reasons = [
            reason or "no view could be judged" if no else "" for no, reason in zip(bad, self.reasons, strict=True)
        ]
        return Answer.of(fused.value, stamps, revision, self.latency_s, fused.confidence, reasons)


def _worst(answer: Answer, questions: int) -> tuple[torch.Tensor, list[str]]:
    """Least confidence (K,) among the valid of ``questions`` answers about each moment, and a reason why one is not."""
    trust = answer.confidence.masked_fill(~answer.valid, 1.0).unflatten(0, (questions, -1)).amin(0)
    count = len(trust)
    reasons = [next(filter(None, answer.reasons[k::count]), "") for k in range(count)]
    return trust, reasons
