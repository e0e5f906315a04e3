"""Progress out of pairwise judgements: Robo-Dopamine's hops and their fusion, and VLAC's value.

A hop H(p, q) is the share of what is left at p that q has gained, or the share of what p had reached that q has lost.
Progress Φ at a moment can be estimated from a hop that starts at any moment whose own progress is known: the moment
before (incremental), the start of the episode (forward-anchored), the goal (backward-anchored), or a frame of a
recorded success. Errors of incremental estimates add up over an episode; those of anchored ones do not.

Source: Robo-Dopamine (arXiv 2512.23703) for hops and fusion; VLAC (arXiv 2509.15937, ``evo_vlac``) for its value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from robolearn.errors import unknown
from vlm_rewards.errors import CriticError
from vlm_rewards.worlds import Memory

FORMS = ("weighted", "mean", "anchored", "chain", "vlac")
"""How hops become progress.

weighted: a step towards all estimates that shrinks as the anchors disagree (Robo-Dopamine out of distribution).
mean: of the incremental and all anchored estimates (Robo-Dopamine in distribution).
anchored: the mean of the anchored estimates alone; depends on no history.
chain: the incremental estimate alone.
vlac: VLAC's value, for critics whose judgement of a pair is VLAC's and not a hop.
"""


@dataclass(frozen=True)
class Rule:
    """How estimates are fused.

    Attributes:
        form: one of `FORMS`.
        alpha: how fast trust falls with the anchors' disagreement Δ, w = exp(-alpha Δ²). The paper gives no figure.
        eps: keeps Δ, which is relative to the anchored progress, finite at the start.

    Raises:
        CriticError: an unknown form, or a number that makes no sense.
    """

    form: str = "weighted"
    alpha: float = 1.0
    eps: float = 1e-3

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise CriticError(unknown("fusion form", self.form, FORMS))
        if not self.alpha >= 0 or not self.eps > 0:
            raise CriticError(f"fusion needs alpha >= 0 and eps > 0, got {self.alpha} and {self.eps}")

    @property
    def incremental(self) -> bool:
        """Whether it takes the hop from the moment before."""
        return self.form != "anchored"

    @property
    def anchors(self) -> bool:
        """Whether it takes anchored estimates."""
        return self.form not in ("chain", "vlac")


def hop(
    phi_p: torch.Tensor,
    phi_q: torch.Tensor,
    phi_start: float | torch.Tensor = 0.0,
    phi_goal: float | torch.Tensor = 1.0,
) -> torch.Tensor:
    """H(p, q) = (Φq - Φp) / (Φgoal - Φp) where Φq >= Φp, else (Φq - Φp) / (Φp - Φstart); in [-1, 1].

    0 where nothing changes, also at the very goal or start. All arguments broadcast.
    """
    gain = phi_q - phi_p
    span = torch.where(gain >= 0, phi_goal - phi_p, phi_p - phi_start)
    return torch.where(gain == 0, torch.zeros_like(gain), gain / span).clamp(-1.0, 1.0)


def after_hop(
    phi_p: torch.Tensor, h: torch.Tensor, phi_start: float | torch.Tensor = 0.0, phi_goal: float | torch.Tensor = 1.0
) -> torch.Tensor:
    """Φq after a hop ``h`` from Φp, the inverse of `hop` in its second argument; in [Φstart, Φgoal] if Φp is."""
    h = h.clamp(-1.0, 1.0)
    return phi_p + h * torch.where(h >= 0, phi_goal - phi_p, phi_p - phi_start)


def anchored(forward: torch.Tensor, backward: torch.Tensor) -> torch.Tensor:
    """Estimates of Φ from hops out of the start and the goal: Φ_F = H(start, now), Φ_B = 1 + H(goal, now).

    Args:
        forward, backward: (...) the two hops; a loss from the start, or a gain on the goal, counts as none.

    Returns:
        (..., 2) in [0, 1].
    """
    progress = torch.tensor([0.0, 1.0]).to(forward)
    return after_hop(progress, torch.stack([forward, backward], -1))


def fuse(
    previous: torch.Tensor, incremental: torch.Tensor, anchors: torch.Tensor, rule: Rule | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of a `Rule`, for any number of worlds or views at once.

    With Φ_I the progress after the incremental hop from Φ*prev, and Φ̄ the mean of the A anchored estimates:

    - ``weighted``: Φ* = Φ*prev + (w / 2)(Φ̄ - Φ*prev + Φ_I - Φ*prev),  w = exp(-alpha Δ²),
      Δ = (largest - smallest anchored estimate) / (Φ̄ + eps): |Φ_B - Φ_F| / (Φ̄ + eps) for the two of the paper;
    - ``mean``: Φ* = (Φ_I + A Φ̄) / (1 + A), for the two of the paper the mean of its three perspectives;
    - ``anchored``: Φ* = Φ̄;   ``chain``: Φ* = Φ_I;   ``vlac``: `vlac_value`.

    Args:
        previous: (...) Φ*prev.
        incremental: (...) hop from the moment of ``previous``. Where it is NaN the anchors alone count, if any.
        anchors: (..., A) anchored estimates of Φ. Where one is NaN, so is the result of a rule that takes anchors.

    Returns:
        Φ* (...) in [0, 1], and the weight (...), which also is the confidence: w where there are anchors, else 1;
        0 where Φ* is NaN.
    """
    rule = rule or Rule()
    if not rule.anchors:
        value = vlac_value(previous, incremental) if rule.form == "vlac" else after_hop(previous, incremental)
        return value.clamp(0.0, 1.0), (~value.isnan()).to(value)
    centre = anchors.mean(-1)
    spread = (anchors.amax(-1) - anchors.amin(-1)) / (centre + rule.eps)
    weight = torch.exp(-rule.alpha * spread.square())
    step = torch.where(incremental.isnan(), centre, after_hop(previous, incremental))
    if rule.form == "weighted":
        value = previous + 0.5 * weight * (centre - previous + step - previous)
    elif rule.form == "mean":
        value = (step + anchors.sum(-1)) / (1 + anchors.shape[-1])
    else:
        value = centre
    return value.clamp(0.0, 1.0), torch.nan_to_num(weight, nan=0.0)


def fuse_recording(
    incremental: torch.Tensor, anchors: torch.Tensor, rule: Rule | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fused progress of recordings of T steps, in order, from 0 before the first.

    A step that cannot be told has a NaN value, and nobody knows where the hop of the step after it starts: that hop is
    left out where there are anchors; a rule without anchors takes it from the last known value.

    Args:
        incremental: (T, ...) hop from each step's predecessor; the first row's is from the start of the episode.
        anchors: (T, ..., A) anchored estimates, see `anchored`.

    Returns:
        Φ* (T, ...) and weights (T, ...), see `fuse`.
    """
    rule = rule or Rule()
    last = torch.zeros_like(incremental[0])
    unknown_start = torch.zeros_like(last, dtype=torch.bool)
    values, weights = torch.empty_like(incremental), torch.empty_like(incremental)
    for t in range(len(incremental)):
        hops = incremental[t].masked_fill(unknown_start & rule.anchors, torch.nan)
        values[t], weights[t] = fuse(last, hops, anchors[t], rule)
        unknown_start = values[t].isnan()
        last = torch.where(unknown_start, last, values[t])
    return values, weights


def fuse_views(values: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Progress by several views (..., V) as one (...): the mean by weight over views that are not NaN.

    Returns:
        Values (...), NaN where every view is, and weights (...): the mean weight of the views that are not NaN.
    """
    seen = ~values.isnan()
    count = seen.sum(-1)
    weights = weights.masked_fill(~seen, 0.0)
    total = weights.sum(-1, keepdim=True)
    # Views without any weight count alike.
    shares = torch.where(total > 0, weights / total, seen / count.unsqueeze(-1))
    value = (shares * values.nan_to_num(nan=0.0)).sum(-1)
    return value.masked_fill(count == 0, torch.nan), weights.sum(-1) / count.clamp(min=1)


class Fusion:
    """Fused progress while episodes go on: Φ* of each world and view.

    Args:
        rule: how estimates are fused.
    """

    def __init__(self, rule: Rule | None = None) -> None:
        self.rule = rule or Rule()
        self._memory = Memory()

    def begin(self, worlds: torch.Tensor, views: int = 1) -> None:
        """Episodes of ``worlds`` (K,) start: progress 0 by definition, seen by ``views`` views."""
        self._memory.write("phi", worlds, torch.zeros(len(worlds), views, device=worlds.device))

    def update(
        self,
        worlds: torch.Tensor,
        incremental: torch.Tensor,
        anchors: torch.Tensor,
        confidence: torch.Tensor | None = None,
    ) -> Fused:
        """Take in what one step showed.

        Args:
            worlds: (K,).
            incremental: (K, V) hop of each view since its last step that was not NaN.
            anchors: (K, V, A) anchored estimates. A view that cannot be told keeps its state as it was.
            confidence: (K, V) the critic's own trust in these; 1 where not given.

        Raises:
            CriticError: a world that has not begun.
        """
        before = self._memory.read("phi", worlds).to(incremental)
        if bool(before.isnan().any()):
            raise CriticError("a world has no episode: begin it first")
        views, weights = fuse(before, incremental, anchors, self.rule)
        self._memory.write("phi", worlds, torch.where(views.isnan(), before, views).float())
        value, trust = fuse_views(views, weights if confidence is None else weights * confidence)
        return Fused(value, trust, views)

    def state_dict(self) -> dict[str, object]:
        """Plain tensors."""
        return self._memory.state_dict()

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Continue from what `state_dict` gave."""
        self._memory.load_state_dict(state)


@dataclass(frozen=True)
class Fused:
    """Progress of K worlds.

    Attributes:
        value: (K,) over the views; NaN where no view could tell.
        confidence: (K,).
        views: (K, V) of each view.
    """

    value: torch.Tensor
    confidence: torch.Tensor
    views: torch.Tensor


def vlac_value(v: torch.Tensor, c: torch.Tensor, full: float = 1.0) -> torch.Tensor:
    """VLAC's value after a pairwise progress ``c`` from a moment of value ``v``.

    On its scale of 0 to 100:

    - c > 0: v + (100 - v) c / 100;
    - c <= 0 and v > 50: max(10, 100 - 100 max(100 - v, 1) / (100 + c));
    - else: v + v c / 100.

    A step back from above 50 undoes the step forward of the same size (VLAC labels a pair by what is left at its
    earlier frame), from below it takes a share of what had been reached, as a hop does. Hence its asymmetries: above
    50 it never falls below 10 in one step, below 50 it may fall to 0; at 50 it is not continuous; and a c of 0 lowers
    a value above 99 to 99.

    Args:
        v: (...) in [0, full].
        c: (...) in [-full, full].
        full: 1 or 100, the value of a finished task.
    """
    v, c = v * (100.0 / full), (c * (100.0 / full)).clamp(-100.0, 100.0)
    up = v + (100.0 - v) * c / 100.0
    undone = (100.0 - 100.0 * (100.0 - v).clamp(min=1.0) / (100.0 + c)).clamp(min=10.0)
    down = torch.where(v > 50.0, undone, v + v * c / 100.0)
    return torch.where(c > 0, up, down) * (full / 100.0)
