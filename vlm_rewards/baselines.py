"""Critics without training, and without sight: what every other has to beat."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from robolearn.errors import unknown
from vlm_rewards.answer import Answer
from vlm_rewards.clips import ClipSet
from vlm_rewards.critic import Capability, Critic, Judged
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.pictures import resized


def load(name: str, **settings: Any) -> Critic:
    """The baseline ``elapsed_time`` or ``random_init``, with settings of its own.

    Raises:
        CriticError: an unknown name or setting.
    """
    kinds: dict[str, tuple[type[Critic], tuple[str, ...]]] = {
        "elapsed_time": (ElapsedTime, ("horizon_s",)),
        "random_init": (RandomInit, ("seed",)),
    }
    if name not in kinds:
        raise CriticError(unknown("baseline", name, kinds))
    kind, known = kinds[name]
    for setting in settings:
        if setting not in known:
            raise CriticError(f"baseline {name!r}: {unknown('setting', setting, known)}")
    return kind(**settings)


class ElapsedTime(Critic):
    """Progress is the time since the start, over a horizon; success is when that has passed. It sees nothing.

    Its rank correlation with time is 1 by construction, on failures as on successes.

    Args:
        horizon_s: time of a whole episode, s.

    Raises:
        CriticError: a horizon that is not above 0.
    """

    name = "elapsed_time"
    capabilities = frozenset({Capability.VALUE, Capability.DONE})
    timed = True

    def __init__(self, horizon_s: float = 10.0) -> None:
        if not 0 < horizon_s < math.inf:
            raise CriticError(f"elapsed_time needs a horizon_s above 0, got {horizon_s}")
        self.horizon_s = float(horizon_s)
        self.revision = f"horizon_s={self.horizon_s!r}"

    def value_and_done(self, now: Frames, start: Frames, instructions: Sequence[str]) -> tuple[Answer, Answer]:
        """Both, by the time since ``start``, whenever the clock began."""
        value = self.value(now, start, instructions)
        done = (value.values >= 1.0).float().masked_fill(~value.valid, torch.nan)
        return value, Answer.of(done, value.stamps, self.revision, value.latency_s, None, value.reasons)

    def _value(self, now: Frames, start: Frames, instructions: list[str]) -> Judged:
        share = (now.stamps - start.stamps) / self.horizon_s
        early = ["the moment is before its start" if s < 0 else "" for s in share.tolist()]
        return Judged(share.clamp(0.0, 1.0), reasons=early)

    def _done(self, now: Frames, instructions: list[str]) -> Judged:
        """Alone, by a clock that counts from the start of the episode, as that of clips does."""
        share = now.stamps / self.horizon_s
        absolute = [
            "" if 0 <= s < 100 else "its clock does not count from the start of an episode" for s in share.tolist()
        ]
        return Judged((share >= 1.0).float(), reasons=absolute)


class RandomInit(Critic):
    """A small network of pictures and instruction that nobody trained; the same for the same seed.

    One number u for each moment: SCORE is u, DONE σ(u), DELTA tanh(u' - u), PREFER σ(u' - u), VALUE σ(u - u_start).

    Args:
        seed: of its weights.
    """

    name = "random_init"
    capabilities = frozenset(Capability) - {Capability.PLAN}
    _SIDE = 32
    _WORDS = 256

    def __init__(self, seed: int = 0) -> None:
        self.revision = f"seed={seed}"
        generator = torch.Generator().manual_seed(int(seed))
        with torch.random.fork_rng(devices=[]):  # layers draw from the global generator when they are made
            self._see = nn.Sequential(
                nn.Conv2d(3, 16, 5, 2),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, 2),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(3),
                nn.Flatten(),
                nn.Linear(288, 64),
            )
            self._read = nn.Linear(self._WORDS, 64, bias=False)
            self._judge = nn.Linear(64, 1, bias=False)
        for module in (*self._see, self._read, self._judge):
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                fan_in = module.weight[0].numel()
                module.weight.data.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)
                if module.bias is not None:
                    module.bias.data.zero_()

    def _score(self, now: Frames, instructions: list[str]) -> Judged:
        return Judged(self._utility(now, instructions))

    def _done(self, now: Frames, instructions: list[str]) -> Judged:
        return Judged(self._utility(now, instructions).sigmoid())

    def _delta(self, before: Frames, after: Frames, instructions: list[str]) -> Judged:
        return Judged((self._utility(after, instructions) - self._utility(before, instructions)).tanh())

    def _prefer(self, first: Frames, second: Frames, instructions: list[str]) -> Judged:
        return Judged((self._utility(second, instructions) - self._utility(first, instructions)).sigmoid())

    def _value(self, now: Frames, start: Frames, instructions: list[str]) -> Judged:
        return self._prefer(start, now, instructions)

    @torch.no_grad()
    def _utility(self, now: Frames, instructions: list[str]) -> torch.Tensor:
        """u (B,): features of the newest pictures, mean over cameras, gated by those of the words."""
        pictures = resized(Frames(now.rgb[:, -1:], now.cameras, now.stamps), self._SIDE, self._SIDE).newest
        flat = pictures.flatten(0, 1).permute(0, 3, 1, 2).cpu().float() / 127.5 - 1.0
        seen = self._see(flat).unflatten(0, pictures.shape[:2]).mean(1)
        words = torch.zeros(len(instructions), self._WORDS)
        for row, instruction in zip(words, instructions, strict=True):
            for word in re.findall(r"\w+", instruction.lower()):
                row[zlib.crc32(word.encode()) % self._WORDS] += 1.0
        gated = seen * (1.0 + self._read(words * 8.0).tanh())
        made: torch.Tensor = self._judge(gated).squeeze(-1)
        return made


class Proprioception:
    """Progress and success by the robot's own joints: a ridge regression on their squares and products, too.

    It sees no picture and reads no instruction: what a critic knows beyond it, it has seen. Not a `Critic`, for there
    are no joints in frames.

    Args:
        weights: (p, 2) for progress and success.
        mean, scale: (d,) of the facts that it was fitted to.
        fact: which facts of clips it reads.
    """

    def __init__(self, weights: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor, fact: str) -> None:
        self.weights = weights
        self.mean = mean
        self.scale = scale
        self.fact = fact

    @classmethod
    def fit(cls, clips: ClipSet, fact: str = "proprioception", ridge: float = 1e-3) -> Proprioception:
        """Fit to all frames whose progress is known.

        Args:
            clips: with the fact (F, d), progress and done.
            fact: which one.
            ridge: weight of the squared coefficients, relative to the number of frames.

        Raises:
            CriticError: the clips lack the fact, or no frame can be used.
        """
        facts = _fact(clips, fact)
        usable = torch.isfinite(facts).all(-1) & torch.isfinite(clips.progress)
        if not bool(usable.any()):
            raise CriticError(f"no frame of these clips has both {fact} and progress")
        facts = facts[usable].double()
        mean, scale = facts.mean(0), facts.std(0, correction=0)
        scale = torch.where(scale > 1e-9, scale, torch.ones_like(scale))
        features = _features((facts - mean) / scale)
        wanted = torch.stack([clips.progress[usable].double(), clips.done[usable].double()], -1)
        penalty = ridge * len(features) * torch.eye(features.shape[1], dtype=torch.float64)
        penalty[0, 0] = 0.0
        weights = torch.linalg.lstsq(features.T @ features + penalty, features.T @ wanted).solution
        return cls(weights, mean, scale, fact)

    def value_and_done(self, clips: ClipSet) -> tuple[torch.Tensor, torch.Tensor]:
        """Progress (F,) and probability of success (F,), both in [0, 1]; NaN where the fact is not finite."""
        facts = _fact(clips, self.fact).double()
        if facts.shape[1] != len(self.mean):
            raise CriticError(f"fitted to {len(self.mean)} numbers of {self.fact}, these clips have {facts.shape[1]}")
        made = (_features((facts - self.mean) / self.scale) @ self.weights).clamp(0.0, 1.0).float()
        return made[:, 0], made[:, 1]


def _fact(clips: ClipSet, name: str) -> torch.Tensor:
    if name not in clips.facts:
        raise CriticError(unknown("fact", name, clips.facts))
    return clips.facts[name]


def _features(facts: torch.Tensor) -> torch.Tensor:
    """(F, d) → (F, 1 + d + d (d + 1) / 2): 1, the numbers, their squares and products."""
    i, j = torch.triu_indices(facts.shape[1], facts.shape[1])
    return torch.cat([torch.ones_like(facts[:, :1]), facts, facts[:, i] * facts[:, j]], -1)
