"""What a critic says of B moments, and what a caller makes of the answers that cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from robolearn.errors import unknown
from vlm_rewards.choices import FALLBACKS
from vlm_rewards.errors import CriticError


@dataclass(frozen=True)
class Answer:
    """A critic's answer about B moments.

    Attributes:
        values: (B,) float32; NaN where ``valid`` is False.
        valid: (B,) bool: the value may be used.
        confidence: (B,) float32 in [0, 1]: the critic's own trust in a valid value; 0 where invalid.
        stamps: (B,) float64, s: when the newest picture that it saw was taken.
        latency_s: seconds that the whole batch took.
        revision: of the model that answered.
        reasons: (B,) texts; empty where valid.
    """

    values: torch.Tensor
    valid: torch.Tensor
    confidence: torch.Tensor
    stamps: torch.Tensor
    latency_s: float
    revision: str
    reasons: tuple[str, ...]

    @classmethod
    def of(
        cls,
        values: torch.Tensor,
        stamps: torch.Tensor,
        revision: str,
        latency_s: float = 0.0,
        confidence: torch.Tensor | None = None,
        reasons: Sequence[str] | None = None,
    ) -> Answer:
        """An answer whose invalid rows are those with a reason, and those whose value is not finite.

        Args:
            values, stamps: (B,).
            confidence: (B,), 1 where not given; a row whose confidence is not finite is invalid, too.
            reasons: (B,) why a row is invalid, empty where it is valid.

        Raises:
            CriticError: these do not all have B rows.
        """
        values = values.detach().float()
        trust = torch.ones_like(values) if confidence is None else confidence.detach().to(values)
        given = list(reasons) if reasons is not None else [""] * values.shape[0]
        if not (values.shape == trust.shape == stamps.shape == (len(given),)):
            raise CriticError(
                f"an answer needs as many values, confidences, stamps and reasons, "
                f"got {tuple(values.shape)}, {tuple(trust.shape)}, {tuple(stamps.shape)} and {len(given)}"
            )
        for numbers, which in ((values, "answer"), (trust, "confidence")):
            for i in torch.nonzero(~torch.isfinite(numbers)).flatten().tolist():
                given[i] = given[i] or f"the critic's {which} is not a finite number"
        valid = torch.tensor([not reason for reason in given], dtype=torch.bool, device=values.device)
        return cls(
            values.masked_fill(~valid, torch.nan),
            valid,
            trust.clamp(0.0, 1.0).masked_fill(~valid, 0.0),
            stamps.to(values.device, torch.float64),
            latency_s,
            revision,
            tuple(given),
        )

    def __len__(self) -> int:
        """B."""
        return len(self.values)

    def rows(self, index: torch.Tensor) -> Answer:
        """The answers about the moments ``index`` (K,) int64."""
        kept = tuple(self.reasons[i] for i in index.tolist())
        index = index.to(self.values.device)
        return replace(
            self,
            values=self.values[index],
            valid=self.valid[index],
            confidence=self.confidence[index],
            stamps=self.stamps[index],
            reasons=kept,
        )

    def invalid(self, where: torch.Tensor, reason: str) -> Answer:
        """The same, with the rows ``where`` (B,) bool made invalid for a reason."""
        where = where & self.valid
        if not bool(where.any()):
            return self
        chosen = set(torch.nonzero(where).flatten().tolist())
        return replace(
            self,
            values=self.values.masked_fill(where, torch.nan),
            valid=self.valid & ~where,
            confidence=self.confidence.masked_fill(where, 0.0),
            reasons=tuple(reason if i in chosen else old for i, old in enumerate(self.reasons)),
        )

    def fresh(self, now: torch.Tensor | float, max_age_s: float) -> Answer:
        """The same, with rows invalid whose pictures are older than ``max_age_s`` at the time ``now``, s.

        A picture that is younger than now by as much, or whose time is not known, comes of clocks that do not agree:
        its age says nothing, and the row is invalid, too.
        """
        age = now - self.stamps
        stale = self.invalid(age > max_age_s, f"stale: what it saw is more than {max_age_s:g} s old")
        return stale.invalid(~(age >= -max_age_s), "stale: the clock of what it saw is not this clock")

    def sure(self, least: float) -> Answer:
        """The same, with rows invalid whose confidence is below ``least``: the critic abstains there."""
        return self.invalid(self.confidence < least, f"abstained: confidence below {least:g}")

    def resolve(
        self, fallback: str, held: torch.Tensor | None = None, distilled: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Values (B,) to use, and which of them may be used (B,) bool.

        Args:
            fallback: one of `FALLBACKS`. With ``drop`` an invalid row stays unusable; with ``hold`` it becomes that of
                ``held``, with ``distilled`` that of ``distilled``; where those are not finite it stays unusable.
            held, distilled: (B,).

        Raises:
            CriticError: an unknown fallback, or one whose values were not given, or are not (B,).
        """
        if fallback not in FALLBACKS:
            raise CriticError(unknown("fallback", fallback, FALLBACKS))
        if fallback == "drop":
            return self.values, self.valid
        other = held if fallback == "hold" else distilled
        if other is None:
            raise CriticError(f"fallback {fallback!r} needs the values to fall back on")
        if other.shape != self.values.shape:
            raise CriticError(f"fallback {fallback!r} needs {len(self)} values, got shape {tuple(other.shape)}")
        values = torch.where(self.valid, self.values, other.to(self.values))
        return values, torch.isfinite(values)
