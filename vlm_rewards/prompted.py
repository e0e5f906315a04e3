"""What critics share that put a question in words, whether the model that answers is local or behind an endpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlm_rewards.critic import Capability, Critic, Judged
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.prompts import Prompt, Prompter, Scale, Wording
from vlm_rewards.reference import Reference
from vlm_rewards.score_tokens import FIRST_SECOND, YES_NO, Labels


@dataclass
class Asking:
    """Settings of how a model is asked, shared by `vlm_rewards.vlm` and `vlm_rewards.openai_chat`."""

    views: Sequence[str] | str | None = None
    """Cameras to show, in this order; all that come where not given."""
    scale: str = "numbers"
    """How progress is expressed: numbers, percent, or letters."""
    granularity: int = 20
    """Steps from nothing done to all done."""
    reference: Any = None
    """A recording to show first; see `vlm_rewards.reference`."""
    wording: str | Path | dict[str, str] | None = None
    """A JSON file, or a mapping, with texts in place of those of `vlm_rewards.prompts.Wording`."""
    least_mass: float = 0.5
    """An answer is invalid where the labels have less than this share of the probability."""
    max_new_tokens: int = 16
    """Tokens that a model may write where its text is read."""


class PromptedCritic(Critic):
    """Asks a vision-language model in words: DELTA, DONE, VALUE and PREFER.

    Progress between moments is asked for as VLAC (arXiv 2509.15937) and Robo-Dopamine (arXiv 2512.23703) do: as the
    share of what was left, or the share of what had been done that is lost. Every score is an expectation over the
    probabilities of the possible answers, where the model tells them; their sum is the confidence.
    """

    capabilities = frozenset({Capability.DELTA, Capability.DONE, Capability.VALUE, Capability.PREFER})

    def __init__(self, asking: Asking) -> None:
        if not 0.0 <= asking.least_mass <= 1.0:
            raise CriticError(f"least_mass is a share of probability in [0, 1], got {asking.least_mass:g}")
        if asking.max_new_tokens < 1:
            raise CriticError(f"max_new_tokens is at least 1, got {asking.max_new_tokens}")
        views = [asking.views] if isinstance(asking.views, str) else asking.views
        reference = Reference.read(asking.reference, views)
        seen = views if views is not None else reference.cameras if reference is not None else ()
        self.cameras = tuple(seen)
        self._scale = Scale.of(asking.scale, asking.granularity)
        self._prompter = Prompter(Wording.read(asking.wording), self._scale, reference)
        self._least_mass = asking.least_mass

    def put(self, prompts: Sequence[Prompt], labels: Labels) -> Judged:
        """Ask the model.

        Returns:
            The worth of each reply, (N,); the labels' share of probability as confidence; why there is no reply.
        """
        raise NotImplementedError

    def _delta(self, before: Frames, after: Frames, instructions: list[str]) -> Judged:
        return self._judged(self._prompter.delta(before, after, instructions), self._scale.delta)

    def _done(self, now: Frames, instructions: list[str]) -> Judged:
        return self._judged(self._prompter.done(now, instructions), YES_NO)

    def _value(self, now: Frames, start: Frames, instructions: list[str]) -> Judged:
        return self._judged(self._prompter.value(now, start, instructions), self._scale.value)

    def _prefer(self, first: Frames, second: Frames, instructions: list[str]) -> Judged:
        """Asked in both orders: a model that likes one position more than the other ends at one half."""
        asked = self._prompter.prefer(first, second, instructions) + self._prompter.prefer(second, first, instructions)
        both = self._judged(asked, FIRST_SECOND)
        n = len(instructions)
        trust = torch.ones(2 * n) if both.confidence is None else both.confidence
        reasons = both.reasons or [""] * (2 * n)
        return Judged(
            (both.values[:n] + 1.0 - both.values[n:]) / 2.0,
            torch.minimum(trust[:n], trust[n:]),
            [one or other for one, other in zip(reasons[:n], reasons[n:], strict=True)],
        )

    def _judged(self, prompts: Sequence[Prompt], labels: Labels) -> Judged:
        """Ask, and refuse the replies that hardly speak of the labels."""
        told = self.put(prompts, labels)
        mass = torch.ones(len(prompts)) if told.confidence is None else told.confidence
        reasons = list(told.reasons) if told.reasons is not None else [""] * len(prompts)
        for row, share in enumerate(mass.tolist()):
            if share < self._least_mass:
                reasons[row] = reasons[row] or (
                    f"the model says something else: {share:.1%} of its probability is on {labels.span}, "
                    f"below least_mass={self._least_mass:g}"
                )
        return Judged(told.values, mass, reasons)

    def _fingerprint(self, *more: Any) -> str:
        """Of all that decides an answer besides the frames and the instruction; ``more`` are things of the model."""
        digest = hashlib.sha256(repr((*more, self._least_mass, self.cameras)).encode())
        blank = Frames.now(torch.zeros(1, max(1, len(self.cameras)), 1, 1, 3, dtype=torch.uint8), self.cameras or ("",))
        pairs = (self._prompter.delta, self._prompter.value, self._prompter.prefer)
        for prompt in [*(ask(blank, blank, [""])[0] for ask in pairs), self._prompter.done(blank, [""])[0]]:
            for part in prompt:
                digest.update(part.encode() if isinstance(part, str) else part.numpy().tobytes())
        return digest.hexdigest()[:16]
