"""Settings of the reward stage and their validation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robolearn.errors import unknown
from vlm_rewards.choices import ENSEMBLES, FALLBACKS, MIXINGS, MOST_REFERENCES, SHAPINGS
from vlm_rewards.errors import CriticError

CHOICES: dict[str, tuple[str, ...]] = {
    "shaping": SHAPINGS,
    "fallback": FALLBACKS,
    "success": ("critic", "task", "none"),
    "mixing": MIXINGS,
    "bound": ("none", "clip", "par"),
    "ensemble": ("none", *ENSEMBLES),
    "credit": ("each", "min"),
}
NOT_NEGATIVE = ("weight", "bonus", "ensemble_k")


@dataclass
class RewardConfig:
    """Settings of `vlm_rewards.stage.RewardStage`; the reward is weight · shaping + bonus · success + mix(terms).

    Raises:
        CriticError: a value outside its range, naming the setting, the value and what is allowed.
    """

    shaping: str = "potential"
    """What the critic's Φ is worth: ``potential`` γΦ(s')-Φ(s), which cannot change what is optimal; ``heuristic``,
    the same with ``horizon_gamma`` for γ, which keeps leading a learner; for ablations ``difference`` Φ(s')-Φ(s) and
    ``value`` Φ(s'); ``none``."""
    weight: float = 1.0
    """Factor of the shaping."""
    gamma: float | None = None
    """Discount of the shaping; ``null`` takes the learner's, another value than the learner's is refused."""
    horizon_gamma: float = 1.0
    """γ of ``shaping=heuristic``, at least the learner's: Φ counts as the value of what lies beyond the learner's."""
    fallback: str = "hold"
    """What an invalid Φ becomes: ``hold`` the last valid one of the episode, ``distilled`` that of a distilled model;
    ``drop`` leaves out the shaping of the transitions it is part of, which can be exploited (docs/reward_stage.md)."""
    success: str = "critic"
    """Whose word earns the bonus: the ``critic``'s done, the ``task``'s true success, or ``none``."""
    bonus: float = 1.0
    """Reward of each step into a state of success."""
    terms: dict[str, float] = field(default_factory=dict)
    """The task's own named terms that count, and their factors; none of them where it is empty."""
    mixing: str = "sum"
    """How the task's terms are combined: weighted ``sum``, ``soft_and`` (Σ log σ), or ``gdpo`` over all rows given."""
    bound: str = "none"
    """Bound of Φ before it is used: ``clip`` min(Φ-η, 0), or ``par``, mean of σ(Φ-reference); Φ stays a potential."""
    clip: float = 0.9
    """η of ``bound=clip``."""
    references: tuple[float, ...] = ()
    """Reference values of Φ for ``bound=par``, 1 to 10."""
    ensemble: str = "none"
    """How the Φ of several critics become one: ``mean``, ``min``, ``lower`` (mean - k · std); ``none``: one critic."""
    ensemble_k: float = 1.0
    """k of ``ensemble=lower``."""
    abstain_std: float | None = None
    """Standard deviation of an ensemble's members above which Φ is invalid; ``null``: it never abstains."""
    gate: str | None = None
    """Name of the term, or ``success``, that must pass a threshold before other terms, and the value of
    ``shaping=value``, count; ``null``: they always do. Shaping by a potential or a difference is never gated."""
    gate_threshold: float = 0.5
    """Value at which the gate opens."""
    gate_release: float | None = None
    """Value below which it closes again, -.inf: only at the episode's end; ``null``: the threshold."""
    credit: str = "each"
    """``each`` step is paid its own; ``min``, with ``shaping=value`` and whole episodes: the worst counts (PURE)."""
    min_temperature: float = 0.1
    """Temperature of ``credit=min``."""

    def __post_init__(self) -> None:
        self.references = tuple(self.references)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise CriticError(unknown(f"reward {name}", getattr(self, name), choices))
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if item.type in ("float", "float | None") and value is not None and item.name != "gate_release":
                self._require(item.name, _finite(value), "a finite number")
        self._check_ranges()
        self._check_pairs()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RewardConfig:
        """Build from a mapping; an unknown name raises `CriticError` with the closest valid one."""
        names = [f.name for f in dataclasses.fields(cls)]
        for name in values:
            if name not in names:
                raise CriticError(unknown("reward setting", str(name), names))
        return cls(**values)

    @property
    def uses_critic(self) -> bool:
        """Whether a critic's potential is needed."""
        return self.shaping != "none"

    def _check_ranges(self) -> None:
        for name in NOT_NEGATIVE:
            self._require(name, getattr(self, name) >= 0.0, "0 or more")
        self._require("gamma", self.gamma is None or 0.0 <= self.gamma <= 1.0, "between 0 and 1, or null")
        self._require("horizon_gamma", 0.0 <= self.horizon_gamma <= 1.0, "between 0 and 1")
        self._require("abstain_std", self.abstain_std is None or self.abstain_std >= 0.0, "0 or more, or null")
        self._require("min_temperature", self.min_temperature > 0.0, "greater than 0")
        self._require("references", all(_finite(r) for r in self.references), "a list of finite numbers")
        good = isinstance(self.terms, Mapping)
        good = good and all(isinstance(name, str) and _finite(weight) for name, weight in self.terms.items())
        self._require("terms", good, "a mapping from names to finite factors")
        release = self.gate_release
        below = release is None or (isinstance(release, (int, float)) and release <= self.gate_threshold)
        self._require("gate_release", below, f"at most gate_threshold ({self.gate_threshold:g}), or null")

    def _check_pairs(self) -> None:
        if self.bound == "par":
            rule = f"1 to {MOST_REFERENCES} values with bound=par"
            self._require("references", 1 <= len(self.references) <= MOST_REFERENCES, rule)
        if self.credit == "min":
            self._require("shaping", self.shaping == "value", "value with credit=min")
        if self.abstain_std is not None:
            self._require("ensemble", self.ensemble != "none", "mean, min or lower where abstain_std is given")
        if self.mixing != "sum":
            self._require("terms", bool(self.terms), f"given with mixing={self.mixing}")
            self._require("gate", self.gate is None, f"null with mixing={self.mixing}")
        rewards = self.uses_critic or self.success != "none" or bool(self.terms)
        self._require("terms", rewards, "given where shaping and success are none: nothing would be rewarded")

    def _require(self, name: str, condition: bool, rule: str) -> None:
        if not condition:
            raise CriticError(f"reward {name} must be {rule}; got {getattr(self, name)!r}")


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
