"""From what a critic can judge to a potential Φ in [0, 1], which is what shaping needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from vlm_rewards.anchors import Reference, moments
from vlm_rewards.answer import Answer
from vlm_rewards.critic import Capability, Critic
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.fusion import Rule
from vlm_rewards.potential_basic import FromDone, FromPrefer, FromScore, FromValue, goal_scores
from vlm_rewards.potential_delta import FromDelta
from vlm_rewards.potential_plan import FromPlan

__all__ = [
    "FromDelta",
    "FromDone",
    "FromPlan",
    "FromPrefer",
    "FromScore",
    "FromValue",
    "Potential",
    "Reference",
    "Rule",
    "as_potential",
    "goal_scores",
    "moments",
]


class Potential(Protocol):
    """Φ of worlds whose episodes go on; Φ rises towards the goal.

    An invalid answer leaves what is remembered of its world as it was. What then counts as Φ is the caller's choice:
    `Answer.resolve`.
    """

    @property
    def revision(self) -> str:
        """Of the critic behind it."""

    def begin(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer:
        """New episodes of ``worlds`` (K,) int64 start with ``frames`` (K moments); Φ (K,) there."""

    def read(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer:
        """Φ (K,) of ``worlds`` now.

        Raises:
            CriticError: a world whose episode did not begin.
        """

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and texts: all that is remembered of the worlds."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave."""


def as_potential(
    critic: Critic,
    capability: Capability | str | None = None,
    *,
    online: bool = False,
    goal: float | Mapping[str, float] | None = None,
    reference: Reference | None = None,
    rule: Rule | None = None,
    views: Sequence[Sequence[str]] = (),
    points: Callable[[torch.Tensor, Frames], torch.Tensor] | None = None,
    lift: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> Potential:
    """The potential of a critic, by the capability asked for or the best that it has and that is given what it needs.

    In order: VALUE; DELTA; SCORE with a ``goal``; PREFER; PLAN with ``points``; DONE, which says least on the way.

    Args:
        critic: asked.
        capability: which of its capabilities; None: the best.
        online: the episodes go on while it is asked: a critic that looks ahead is refused.
        goal: for SCORE, see `FromScore`.
        reference: for DELTA and PREFER: a recorded success.
        rule, views: for DELTA, see `FromDelta`.
        points, lift: for PLAN, see `FromPlan`.

    Raises:
        MissingCapability: the critic lacks it, or every one.
        CriticError: a capability without what it needs, or an unknown one.
    """
    if online:
        critic.require_online()
    lacking = {Capability.SCORE: "goal" if goal is None else "", Capability.PLAN: "points" if points is None else ""}
    chosen = _capability(critic, capability, [c for c, lacks in lacking.items() if lacks])
    if lacking.get(chosen):
        raise CriticError(f"a potential from {chosen.value} needs {lacking[chosen]}=...")
    if chosen is Capability.DELTA:
        return FromDelta(critic, reference, rule, views)
    if chosen is Capability.SCORE and goal is not None:
        return FromScore(critic, goal)
    if chosen is Capability.PLAN and points is not None:
        return FromPlan(critic, points, lift)
    if chosen is Capability.PREFER:
        return FromPrefer(critic, reference)
    return FromValue(critic) if chosen is Capability.VALUE else FromDone(critic)


_BEST_FIRST = (
    Capability.VALUE,
    Capability.DELTA,
    Capability.SCORE,
    Capability.PREFER,
    Capability.PLAN,
    Capability.DONE,
)


def _capability(critic: Critic, asked: Capability | str | None, without: Sequence[Capability]) -> Capability:
    """What to make a potential of; of those ``without`` what they need only if there is nothing else."""
    if asked is not None:
        chosen = Capability.named(asked) if isinstance(asked, str) else asked
        critic.require(chosen)
        return chosen
    able = [c for c in _BEST_FIRST if c in critic.capabilities]
    if not able:
        critic.require(Capability.VALUE)
    return next((c for c in able if c not in without), able[0])
