"""From judgements of progress to rewards: potential shaping, and the bounds and gates of process rewards.

Shaping that cannot change what is optimal
------------------------------------------
F = γ Φ(s') - Φ(s) with Φ = 0 beyond a true termination (Ng et al. 1999, theorem 1; Grześ 2017 for episodes).
Over an episode it telescopes: Σ γᵗ Fₜ = γᵀ Φ(s_T) - Φ(s₀), and the first term is 0 after a termination. So success and
failure alike give back what the way to them was paid, discounted: only -Φ(s₀) stays, which no policy can change. The
reward of a last step is therefore -Φ(s) plus its bonus, often negative, and the bonus need not exceed Φ(s) for that:
staying at a high Φ costs (1 - γ) Φ in every step, which adds up to the same. A time-out is no termination: Φ(s') stays,
and the learner's own γ V(final observation), learned from shaped rewards, stands for V - Φ there; the two cancel.

Shaping that leads all the way
------------------------------
What cannot change the optimum cannot lead for long either: a value function that has learned -Φ takes the shaping out
of every advantage, and if success was never found until then, nothing is left. Heuristic-guided learning (HuRL, Cheng
et al. 2021, arXiv 2106.02757) keeps leading: the learner discounts with λγ, and each step is paid (1 - λ) γ Φ(s'), as
if Φ(s') were what is to be had beyond the shorter horizon. With the potential of the shorter discount beside it the
two sum to γ Φ(s') - Φ(s), γ being that of the longer horizon. What is optimal moves towards states of a high Φ: not at
all where Φ is the value of the task, and by at most Φ for staying for good, so that a bonus above Φ(s) prefers success.

The same Φ must be used on both sides of a visit, as Φ(s') of one transition and as Φ(s) of the next. Then Φ may depend
on the time and on what was seen before (Devlin & Kudenko 2012), so that an answer may be held.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from robolearn.errors import unknown
from vlm_rewards.choices import MOST_REFERENCES, SHAPINGS
from vlm_rewards.errors import CriticError
from vlm_rewards.ordered import latest, shift


def potential_shaping(
    phi: torch.Tensor, next_phi: torch.Tensor, terminated: torch.Tensor, gamma: float
) -> torch.Tensor:
    """γ Φ(s') (1 - terminated) - Φ(s); Ng et al. 1999, theorem 1.

    Args:
        phi, next_phi: Φ(s) and Φ(s'), any shape. At an end s' is the last state of the episode, before the reset;
            what ``next_phi`` holds at a termination does not matter, NaN included.
        terminated: bool, ended by the task. Where the clock alone ended an episode it is False, and Φ(s') counts.
        gamma: the learner's γ.
    """
    return gamma * next_phi.masked_fill(terminated, 0.0) - phi


def heuristic_shaping(
    phi: torch.Tensor, next_phi: torch.Tensor, terminated: torch.Tensor, horizon_gamma: float
) -> torch.Tensor:
    """γ Φ(s') (1 - terminated) - Φ(s) with the γ of a longer horizon than the learner's λγ; see the module's text.

    Equals potential shaping with λγ, plus (1 - λ) γ Φ(s') (Cheng et al. 2021, section 3: the reshaped problem).

    Args:
        phi, next_phi, terminated: as in `potential_shaping`.
        horizon_gamma: γ, at least the learner's; with the learner's own this is potential shaping.
    """
    return potential_shaping(phi, next_phi, terminated, horizon_gamma)


def shaped(
    shaping: str,
    phi: torch.Tensor,
    next_phi: torch.Tensor,
    terminated: torch.Tensor,
    gamma: float,
    horizon_gamma: float = 1.0,
) -> torch.Tensor:
    """The reward of a transition under one of `SHAPINGS`; arguments as in `potential_shaping`, `heuristic_shaping`.

    ``potential``: γ Φ(s') (1 - terminated) - Φ(s). ``heuristic``: the same with ``horizon_gamma``. ``difference``:
    Φ(s') - Φ(s). ``value``: Φ(s'). ``none``: 0.

    Raises:
        CriticError: another name.
    """
    if shaping == "potential":
        return potential_shaping(phi, next_phi, terminated, gamma)
    if shaping == "heuristic":
        return heuristic_shaping(phi, next_phi, terminated, horizon_gamma)
    if shaping == "difference":
        return next_phi - phi
    if shaping == "value":
        return next_phi.clone()
    if shaping == "none":
        return torch.zeros_like(phi)
    raise CriticError(unknown("shaping", shaping, SHAPINGS))


def check_gamma(stage_gamma: float | None, learner_gamma: float) -> float:
    """The γ of potential shaping, which is the learner's; None takes it.

    Raises:
        CriticError: they differ: shaping with another γ changes what is optimal.
    """
    if stage_gamma is not None and not math.isclose(stage_gamma, learner_gamma, rel_tol=0.0, abs_tol=1e-9):
        raise CriticError(
            f"the reward stage shapes with gamma {stage_gamma:g}, the learner discounts with {learner_gamma:g}: "
            "what is optimal would change; leave the stage's gamma null, and it takes the learner's"
        )
    return learner_gamma


def check_horizon(horizon_gamma: float, learner_gamma: float) -> None:
    """Heuristic shaping looks at least as far as the learner.

    Raises:
        CriticError: it does not: a high Φ would be paid for leaving it.
    """
    if horizon_gamma < learner_gamma:
        raise CriticError(
            f"reward horizon_gamma must be at least the learner's gamma, {learner_gamma:g}; got {horizon_gamma:g}: "
            "give a larger one, up to 1, or let the learner discount more (algo.gamma)"
        )


def par(reward: torch.Tensor, references: torch.Tensor | Sequence[float]) -> torch.Tensor:
    """Preference as reward: mean over m of σ(r - r_ref,m); Fu et al. 2025 (arXiv 2502.18770).

    The probability, by Bradley and Terry, that it is preferred to a reference: in (0, 1), 0.5 at a single reference.

    Args:
        reward: any shape.
        references: (M,), or (M, ...) with one set for each reward; M from 1 to `MOST_REFERENCES`.

    Raises:
        CriticError: no references, or too many.
    """
    against = torch.as_tensor(references, dtype=reward.dtype, device=reward.device)
    if against.dim() == 0 or not 1 <= len(against) <= MOST_REFERENCES:
        given = "a single number" if against.dim() == 0 else f"{len(against)}"
        raise CriticError(f"PAR takes a list of 1 to {MOST_REFERENCES} reference rewards, got {given}")
    against = against.view(len(against), *(against.shape[1:] or [1] * reward.dim()))
    return torch.sigmoid(reward.unsqueeze(0) - against).mean(0)


def clip(process: torch.Tensor, bound: float) -> torch.Tensor:
    """min(r - η, 0): no step earns more than 0, so more steps never earn more; Clip of Gao et al. 2024.

    On Designing Effective RL Reward at Training Time for LLM Reasoning, arXiv 2410.15115.

    Args:
        process: process rewards, any shape.
        bound: η; what exceeds it counts as good.
    """
    return (process - bound).clamp(max=0.0)


def delta(process: torch.Tensor, ended: torch.Tensor | None = None) -> torch.Tensor:
    """Each process reward less the one before it, 0 before the first of an episode; sums to the last one.

    After Delta of Gao et al. 2024 (see `clip`), which subtracts the following reward: that one is not known yet
    when a robot moves. Both telescope, and repeating a step gains nothing.

    Args:
        process: (T,) or (T, N), in order.
        ended: the same shape, bool: the step was the last of its episode; None: one episode each.
    """
    before = shift(process, torch.zeros_like(process[0]))
    return process - (before if ended is None else before.masked_fill(shift(ended, False), 0.0))


def gate(
    condition: torch.Tensor,
    threshold: float,
    release: float | None = None,
    ended: torch.Tensor | None = None,
    was_open: torch.Tensor | bool = False,
) -> torch.Tensor:
    """Where dense terms count: once a stage or success term passes a threshold; G-RA (arXiv 2508.10548).

    Args:
        condition: (T, ...) the term that decides, in order. NaN keeps the gate as it is.
        threshold: the gate opens where the term is at least this.
        release: the gate stays open until the term falls below this, or the episode ends (-inf: until it ends);
            None: it closes as soon as the threshold is missed, and needs no order.
        ended: (T, ...) bool, the step was the last of its episode.
        was_open: (...) before the first step, if that goes on with an episode.

    Returns:
        (T, ...) bool.

    Raises:
        CriticError: a release above the threshold.
    """
    opens = condition >= threshold
    if release is None:
        return opens
    if release > threshold:
        raise CriticError(f"a gate that opens at {threshold:g} cannot be released above that, got {release:g}")
    before = torch.zeros_like(opens[:1]) | was_open
    starts = torch.zeros_like(opens) if ended is None else shift(ended, False)
    # A row is settled where its own term decides, or its episode has just begun; others follow the settled one before.
    settled = torch.cat((torch.ones_like(before), opens | (condition < release) | starts))
    state = torch.cat((before, opens))
    return state.gather(0, latest(settled))[1:]


def renorm(process: torch.Tensor, success: torch.Tensor) -> torch.Tensor:
    """r_process + r_outcome - 1, process rewards first brought to [0, 1]; after ReNorm of PPR (arXiv 2509.25598).

    Successes lie in [0, 1] and failures in [-1, 0] whatever the scale of the process reward, so that it only orders
    episodes of the same outcome.

    Args:
        process: (E,) mean process reward of each episode.
        success: (E,) bool.
    """
    low, high = process.min(), process.max()
    return (process - low) / (high - low).clamp(min=torch.finfo(process.dtype).tiny) + success.to(process.dtype) - 1.0
