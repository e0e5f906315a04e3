"""Which Φ is used at each visit of a state: one and the same on both sides, whatever answers fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch

from vlm_rewards.ordered import latest, shift


@dataclass
class Memory:
    """What the rows before say about those to come, of N worlds.

    Attributes:
        phi: (N,) Φ used at the last visit.
        usable: (N,) bool, it may be used.
        fresh: (N,) bool, an episode starts next: there is no visit before.
        open: (N,) bool, the gate of dense terms.
    """

    phi: torch.Tensor
    usable: torch.Tensor
    fresh: torch.Tensor
    open: torch.Tensor

    @classmethod
    def empty(cls, num_worlds: int, dtype: torch.dtype, device: torch.device) -> Memory:
        """Before the first episodes."""
        no = torch.zeros(num_worlds, dtype=torch.bool, device=device)
        return cls(torch.zeros(num_worlds, dtype=dtype, device=device), no, ~no, no.clone())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Copies of all of it."""
        return {f.name: getattr(self, f.name).clone() for f in fields(self)}

    @classmethod
    def restored(cls, state: Mapping[str, torch.Tensor]) -> Memory:
        """From `state_dict`."""
        return cls(**{f.name: state[f.name].clone() for f in fields(cls)})


@dataclass
class Judgement:
    """Φ of states, and which may be used; ``other`` is what to use for those that may not.

    Attributes:
        phi: (T, N).
        valid: (T, N) bool.
        other: (T, N) a distilled model's, or None.
    """

    phi: torch.Tensor
    valid: torch.Tensor
    other: torch.Tensor | None = None

    def replaced(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Φ with ``other`` where invalid, and which of these may be used."""
        if self.other is None:
            return self.phi, self.valid
        phi = torch.where(self.valid, self.phi, self.other.to(self.phi))
        return phi, torch.isfinite(phi)


@dataclass
class Visits:
    """Φ as used: values where ``usable``, anything elsewhere.

    Attributes:
        phi, next_phi: (T, N), at s and at s'.
        usable, next_usable: (T, N) bool.
        revised: (T, N) bool, Φ(s) came with another value than was used for that visit one step before.
        unseen: (T, N) bool, an episode starts here without a valid answer, and 0 is held.
    """

    phi: torch.Tensor
    next_phi: torch.Tensor
    usable: torch.Tensor
    next_usable: torch.Tensor
    revised: torch.Tensor
    unseen: torch.Tensor


def alone(now: Judgement, after: Judgement) -> Visits:
    """Every row on its own, as in a replay without order."""
    phi, usable = now.replaced()
    next_phi, next_usable = after.replaced()
    no = torch.zeros_like(usable)
    return Visits(phi, next_phi, usable, next_usable, no, no)


def follow(now: Judgement, after: Judgement, ended: torch.Tensor, memory: Memory, hold: bool) -> Visits:
    """T steps of N worlds in order; ``memory`` moves on.

    Φ(s) is what was used for Φ(s') one step before, so that shaping telescopes whatever the answers are; what comes as
    Φ(s) is used where an episode starts. With ``hold``, an invalid Φ(s') is that of the last valid visit of the
    episode, and before the first valid answer 0, the progress that an episode starts with.
    """
    starts = shift(ended, memory.fresh)
    phi, usable = now.replaced()
    next_phi, next_usable = after.replaced()
    unseen = torch.zeros_like(starts)
    known = torch.ones_like(next_usable)
    if hold:
        unseen = starts & ~usable
        phi, usable = phi.masked_fill(~usable, 0.0), usable | unseen
        known = next_usable
    # Visits in order: the one before these rows, then s and s' of each. Unknown ones take the latest known.
    values = torch.cat((memory.phi.to(phi).unsqueeze(0), torch.stack((phi, next_phi), 1).flatten(0, 1)))
    allowed = torch.cat((memory.usable.unsqueeze(0), torch.stack((usable, next_usable), 1).flatten(0, 1)))
    settled = torch.stack((starts, known), 1).flatten(0, 1)
    source = latest(torch.cat((torch.ones_like(settled[:1]), settled)))
    values, allowed = values.gather(0, source)[1:], allowed.gather(0, source)[1:]
    used, next_used = values[0::2], values[1::2]
    may, next_may = allowed[0::2], allowed[1::2]
    revised = ~starts & now.valid & may & (now.phi != used)
    memory.phi, memory.usable, memory.fresh = next_used[-1].clone(), next_may[-1].clone(), ended[-1].clone()
    return Visits(used, next_used, may, next_may, revised, unseen)
