"""The reward stage: task terms, a critic's potential and its done, turned into rewards in one place.

On-policy rollouts, replay relabelling and offline data go through the same `RewardStage`, so that one configuration
means the same reward everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

from robolearn.errors import unknown
from vlm_rewards.credit import min_form
from vlm_rewards.errors import CriticError
from vlm_rewards.mixing import ensemble, mix
from vlm_rewards.reward_config import RewardConfig
from vlm_rewards.shaping import check_gamma, check_horizon, clip, gate, par, shaped
from vlm_rewards.transitions import Transitions, relabel, relabel_episodes
from vlm_rewards.visits import Judgement, Memory, Visits, alone, follow

__all__ = ["RewardConfig", "RewardResult", "RewardStage", "Transitions", "relabel", "relabel_episodes"]


@dataclass(frozen=True)
class RewardResult:
    """Rewards of transitions, of their leading shape.

    Attributes:
        reward: the sum of the parts.
        parts: name → its share of the reward: the shaping by its name, ``success``, ``task/<term>`` (or ``task``, where
            terms are mixed in another way than by a sum).
        valid: bool, no part is missing: neither a Φ nor a done was invalid without a substitute.
        potential, next_potential: Φ used at s and s', before bounds; NaN where none was. Store these to shape the same
            transitions again.
        counts: how many rows there were, and how often something happened, as scalar tensors: ``rows``; ``invalid``
            answers about s', of them ``not_finite`` and ``abstained``; ``replaced``, answers about s' that were held or
            distilled; ``unseen``, episodes that began without a valid answer, where 0 is held; ``absent``,
            transitions without their shaping; ``success_invalid``; ``revised``, visits whose Φ(s) came with another
            value than was used one step before (the earlier one counts).
    """

    reward: torch.Tensor
    parts: dict[str, torch.Tensor]
    valid: torch.Tensor
    potential: torch.Tensor | None
    next_potential: torch.Tensor | None
    counts: dict[str, torch.Tensor]

    def summary(self) -> dict[str, float]:
        """Means of the parts, and shares of the counts in the rows; the host waits for the device."""
        figures = {f"reward/{name}": part.mean().double() for name, part in self.parts.items()}
        figures |= {f"critic/{n}": c / self.counts["rows"].double() for n, c in self.counts.items() if n != "rows"}
        return dict(zip(figures, torch.stack(tuple(figures.values())).tolist(), strict=True))


class RewardStage:
    """Turns `Transitions` into rewards.

    With ``num_worlds`` the rows are steps of these worlds, in order, (N,) or (T, N), and one call goes on where the
    last one stopped: step by step gives what a whole rollout gives. Without, nothing is remembered: each column of
    (T, N) begins with an episode, and (B,) are rows without order, as a replay gives them.

    Answers that fail, and what that means for the optimal policy:

    * ``hold``: Φ(s') is the last valid one of the episode. It is used on both sides of the visit, so shaping telescopes
      exactly; Φ depends on history then, which is allowed. What is learned late is paid late. A value function
      that sees the present alone takes it for noise.
    * ``distilled``: the same with a distilled model's Φ; where that is not finite the row is dropped.
    * ``drop``: no shaping for the two transitions that share the invalid Φ. Then it does not telescope: γᵗ⁻¹(Φ(s_{t-1})
      - γ²Φ(s_{t+1})) is missing, which depends on what the policy did. One that goes forward where the critic sees,
      and back where it does not, is paid for every round. Only for answers that fail by chance.

    In order, Φ(s) is what was used for the same visit one step before; ``Transitions.potential`` counts where an
    episode starts.

    Args:
        config: what is rewarded.
        gamma: the learner's γ.
        num_worlds: N, if rows come in order; see above.

    Raises:
        CriticError: a γ that is not the learner's, or a ``horizon_gamma`` below it; and, when called, transitions that
            lack what the settings need.
    """

    def __init__(self, config: RewardConfig, gamma: float, num_worlds: int | None = None) -> None:
        self.config, self.num_worlds = config, num_worlds
        self.gamma = check_gamma(config.gamma, gamma)
        if config.shaping == "heuristic":
            check_horizon(config.horizon_gamma, gamma)
        self._memory: Memory | None = None

    def __call__(self, transitions: Transitions) -> RewardResult:
        """Rewards; nothing is read back from a GPU, unless rows come without order and are to be held."""
        flat = transitions.terminated.dim() == 1
        self._check_order(transitions, flat)
        steps = _as_steps(transitions) if flat else transitions
        memory = self._memory if self._memory is not None else _empty(steps)
        parts: dict[str, torch.Tensor] = {}
        missing = torch.zeros_like(steps.terminated)
        counts = {"rows": torch.ones_like(steps.terminated).sum()}
        is_open = self._gate(steps, memory)
        visits = None
        if self.config.uses_critic:
            visits = self._visits(steps, memory, counts, flat and self.num_worlds is None)
            part, absent = self._shaping(steps, visits, is_open)
            parts[self.config.shaping] = part
            counts["absent"] = absent.sum()
            missing = missing | absent
        if self.config.success != "none":
            parts["success"], unsure = self._success(steps)
            counts["success_invalid"] = unsure.sum()
            missing = missing | unsure
        parts |= self._terms(steps, is_open)
        if self.num_worlds is not None:
            memory.fresh = steps.ended[-1].clone()
            self._memory = memory
        return _result(transitions.shape, parts, ~missing, visits, counts)

    def reset(self) -> None:
        """Forget the rows before; the next ones start episodes."""
        self._memory = None

    def state_dict(self) -> dict[str, Any]:
        """What a bit-exact continuation needs."""
        return {"memory": None if self._memory is None else self._memory.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        memory = state["memory"]
        self._memory = None if memory is None else Memory.restored(memory)

    def _check_order(self, transitions: Transitions, flat: bool) -> None:
        c, shape = self.config, tuple(transitions.shape)
        if self.num_worlds is not None and shape[-1] != self.num_worlds:
            raise CriticError(f"this reward stage follows {self.num_worlds} worlds, got transitions of shape {shape}")
        if flat and c.credit == "min":
            raise CriticError(f"reward credit=min needs whole episodes, (steps, worlds); got shape {shape}")
        if flat and self.num_worlds is None and c.gate is not None and c.gate_release is not None:
            raise CriticError(f"reward gate_release needs steps in order; got rows without order, shape {shape}")

    def _visits(self, steps: Transitions, memory: Memory, counts: dict[str, torch.Tensor], unordered: bool) -> Visits:
        """Φ to use at s and s', and what happened on the way."""
        c = self.config
        if steps.potential is None or steps.next_potential is None:
            raise CriticError(f"reward shaping={c.shaping} needs a critic's potentials, these transitions have none")
        if c.fallback == "distilled" and steps.distilled is None:
            raise CriticError("reward fallback=distilled needs a distilled model's potentials, there are none")
        distilled = (steps.distilled, steps.next_distilled) if c.fallback == "distilled" else (None, None)
        phi, valid, _, _ = self._judged(steps, steps.potential, steps.valid)
        next_phi, next_valid, odd, abstained = self._judged(steps, steps.next_potential, steps.next_valid)
        now, after = Judgement(phi, valid, distilled[0]), Judgement(next_phi, next_valid, distilled[1])
        visits = alone(now, after) if unordered else follow(now, after, steps.ended, memory, c.fallback == "hold")
        if unordered and c.fallback == "hold" and not bool(self._present(steps, visits).all()):
            raise CriticError(
                "an invalid potential cannot be held in rows without order: store the potentials that were used "
                "(RewardResult.potential, next_potential), or give whole episodes, (steps, worlds)"
            )
        counts |= {"invalid": (~next_valid).sum(), "not_finite": odd.sum(), "abstained": abstained.sum()}
        counts |= {"replaced": (~next_valid & visits.next_usable).sum()}
        counts |= {"unseen": visits.unseen.sum(), "revised": visits.revised.sum()}
        return visits

    def _judged(
        self, steps: Transitions, phi: torch.Tensor, valid: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Φ (T, N) of one critic or of an ensemble; where it may be used, was not finite, was abstained from."""
        c, finite = self.config, torch.isfinite(phi)
        members = phi.dim() > steps.terminated.dim()
        if members != (c.ensemble != "none"):
            given = "an ensemble's" if members else "one critic's"
            raise CriticError(f"reward ensemble={c.ensemble} does not go with {given} potentials {tuple(phi.shape)}")
        odd = torch.zeros_like(finite) if valid is None else valid & ~finite
        usable = finite if valid is None else valid & finite
        if not members:
            return phi, usable, odd, torch.zeros_like(odd)
        value, sure = ensemble(phi, usable, c.ensemble, c.ensemble_k, c.abstain_std)
        return value, sure, odd.any(0), usable.any(0) & ~sure

    def _shaping(
        self, steps: Transitions, visits: Visits, is_open: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The weighted shaping, 0 where it is absent; and where that is."""
        c, present = self.config, self._present(steps, visits)
        phi, next_phi = self._bounded(visits.phi), self._bounded(visits.next_phi)
        part = shaped(c.shaping, phi, next_phi, steps.terminated, self.gamma, c.horizon_gamma)
        if c.credit == "min":
            part = min_form(part, steps.ended, c.min_temperature, present)
        if is_open is not None and c.shaping == "value":
            part = part.masked_fill(~is_open, 0.0)
        return c.weight * part.masked_fill(~present, 0.0), ~present

    def _present(self, steps: Transitions, visits: Visits) -> torch.Tensor:
        """Where Φ is known as far as the shaping needs it."""
        if self.config.shaping == "value":
            return visits.next_usable
        if self.config.shaping in ("potential", "heuristic"):
            return visits.usable & (visits.next_usable | steps.terminated)
        return visits.usable & visits.next_usable

    def _bounded(self, phi: torch.Tensor) -> torch.Tensor:
        if self.config.bound == "clip":
            return clip(phi, self.config.clip)
        return par(phi, self.config.references) if self.config.bound == "par" else phi

    def _success(self, steps: Transitions) -> tuple[torch.Tensor, torch.Tensor]:
        """The bonus, 0 where nobody knows; and where that is."""
        if steps.success is None:
            whose = "the critic's done" if self.config.success == "critic" else "the task's own success"
            raise CriticError(f"reward success={self.config.success} needs success, {whose}; the transitions have none")
        unsure = torch.zeros_like(steps.success) if steps.success_valid is None else ~steps.success_valid
        return self.config.bonus * (steps.success & ~unsure).to(_dtype(steps)), unsure

    def _gate(self, steps: Transitions, memory: Memory) -> torch.Tensor | None:
        """Where dense terms count; None without a gate."""
        c = self.config
        if c.gate is None:
            return None
        if c.gate == "success" and steps.success is not None:
            condition = steps.success.to(_dtype(steps))
            if steps.success_valid is not None:
                condition = condition.masked_fill(~steps.success_valid, torch.nan)
        elif c.gate in steps.terms:
            condition = steps.terms[c.gate]
        else:
            raise CriticError(unknown("reward gate", c.gate, ["success", *steps.terms]))
        was_open = memory.open & ~memory.fresh
        is_open = gate(condition, c.gate_threshold, c.gate_release, steps.ended, was_open)
        memory.open = is_open[-1].clone()
        return is_open

    def _terms(self, steps: Transitions, is_open: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """The task's terms that count, by name."""
        c, parts = self.config, {}
        for name, weight in c.terms.items():
            if name not in steps.terms:
                raise CriticError(unknown("reward term", name, steps.terms))
            part = weight * steps.terms[name]
            # A product, so that NaN stays NaN behind a closed gate too.
            parts[f"task/{name}"] = part if is_open is None or name == c.gate else part * is_open
        if c.mixing == "sum" or not parts:
            return parts
        stacked = torch.stack([steps.terms[name] for name in c.terms])
        return {"task": mix(c.mixing, stacked, list(c.terms.values()))}


def _dtype(steps: Transitions) -> torch.dtype:
    """Of rewards: that of the potentials or terms."""
    given = [steps.potential, *steps.terms.values()]
    return next((value.dtype for value in given if value is not None), torch.get_default_dtype())


def _empty(steps: Transitions) -> Memory:
    return Memory.empty(steps.shape[-1], _dtype(steps), steps.terminated.device)


def _as_steps(transitions: Transitions) -> Transitions:
    """(N,) as one step, (1, N)."""
    rows = {f.name: getattr(transitions, f.name) for f in fields(transitions) if f.name != "terms"}
    made: dict[str, Any] = {name: None if value is None else value.unsqueeze(-2) for name, value in rows.items()}
    return Transitions(**made, terms={name: term.unsqueeze(-2) for name, term in transitions.terms.items()})


def _result(
    shape: torch.Size,
    parts: dict[str, torch.Tensor],
    valid: torch.Tensor,
    visits: Visits | None,
    counts: dict[str, torch.Tensor],
) -> RewardResult:
    """The parts and their sum in the shape that was given."""
    parts = {name: part.reshape(shape) for name, part in parts.items()}
    used = None if visits is None else visits.phi.masked_fill(~visits.usable, torch.nan).reshape(shape)
    following = None if visits is None else visits.next_phi.masked_fill(~visits.next_usable, torch.nan).reshape(shape)
    reward = torch.stack(tuple(parts.values())).sum(0)
    return RewardResult(reward, parts, valid.reshape(shape), used, following, counts)
