"""Transitions as the reward stage takes them, and how recordings become such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from vlm_rewards.errors import CriticError


@dataclass(frozen=True)
class Transitions:
    """Steps from s to s' of one shape: (N,), one step of N worlds; (T, N), T steps in order; (B,), rows of a replay.

    At an end s' is the last state of the episode that ended, before the reset, and the next row's s is the first one of
    the next episode: judge both pictures where a step ended an episode.

    Attributes:
        terminated: bool, ended by the task: no value lies beyond.
        truncated: bool, ended by the clock; where both are true the step terminated.
        potential, next_potential: critic's Φ(s) and Φ(s'); (M, ...) of an ensemble's M members. None: no critic.
        valid, next_valid: bool, where these may be used; None: where they are finite. NaN is never used.
        distilled, next_distilled: what a distilled model says of s and s', for where the critic is not valid.
        success: bool, s' is one in which the task is done, as the critic or as the environment says.
        success_valid: bool, where that may be used; None: everywhere.
        terms: the task's own named reward terms, already weighted by the task.

    Raises:
        CriticError: shapes that differ, flags that are not bool, or half of a pair.
    """

    terminated: torch.Tensor
    truncated: torch.Tensor
    potential: torch.Tensor | None = None
    next_potential: torch.Tensor | None = None
    valid: torch.Tensor | None = None
    next_valid: torch.Tensor | None = None
    distilled: torch.Tensor | None = None
    next_distilled: torch.Tensor | None = None
    success: torch.Tensor | None = None
    success_valid: torch.Tensor | None = None
    terms: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("terminated", "truncated", "valid", "next_valid", "success", "success_valid"):
            given = getattr(self, name)
            if given is not None and given.dtype != torch.bool:
                hint = "; compare a probability with its threshold first" if name == "success" else ""
                raise CriticError(f"transitions: {name} is bool, got {str(given.dtype).removeprefix('torch.')}{hint}")
        for one, other in (("potential", "next_potential"), ("distilled", "next_distilled")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise CriticError(f"transitions: {one} and {other} belong together, one of them is missing")
        self._check_shapes()

    def _check_shapes(self) -> None:
        shape = tuple(self.terminated.shape)
        if len(shape) not in (1, 2):
            raise CriticError(f"transitions have shape (worlds,), (steps, worlds) or (rows,), got {shape}")
        rows = {name: getattr(self, name) for name in ("truncated", "distilled", "next_distilled")}
        rows |= {"success": self.success, "success_valid": self.success_valid}
        rows |= {f"term {name!r}": term for name, term in self.terms.items()}
        for name, given in rows.items():
            if given is not None and tuple(given.shape) != shape:
                raise CriticError(f"transitions of shape {shape} came with {name} of shape {tuple(given.shape)}")
        whole = shape if self.potential is None else tuple(self.potential.shape)
        if whole[-len(shape) :] != shape or len(whole) > len(shape) + 1:
            raise CriticError(f"transitions of shape {shape} came with potential of shape {whole}")
        for name in ("next_potential", "valid", "next_valid"):
            given = getattr(self, name)
            if given is not None and tuple(given.shape) != whole:
                raise CriticError(f"potential of shape {whole} came with {name} of shape {tuple(given.shape)}")

    @property
    def shape(self) -> torch.Size:
        """The leading shape."""
        return self.terminated.shape

    @property
    def ended(self) -> torch.Tensor:
        """Bool, the step was the last of its episode."""
        return self.terminated | self.truncated


def relabel(
    potentials: torch.Tensor,
    terminated: torch.Tensor,
    truncated: torch.Tensor,
    revisions: Sequence[str],
    final: torch.Tensor | None = None,
    success: torch.Tensor | None = None,
    terms: Mapping[str, torch.Tensor] | None = None,
) -> Transitions:
    """T steps of N worlds, judged anew by one revision of a critic: both terms of every transition.

    Args:
        potentials: (T + 1, N) Φ of what the policy saw before each step, and after the last; NaN where invalid.
        terminated, truncated: (T, N) bool.
        revisions: of the critic, of every answer that the potentials come from.
        final: (T, N) Φ of the last state of each episode, read where a step ended one.
        success, terms: as in `Transitions`.

    Raises:
        CriticError: more than one revision, shapes that do not fit, or episodes that end without ``final``.
    """
    _one_revision(revisions)
    if potentials.dim() != 2 or tuple(terminated.shape) != (len(potentials) - 1, potentials.shape[1]):
        raise CriticError(
            f"T steps have T + 1 potentials: got {tuple(potentials.shape)} for {tuple(terminated.shape)} steps"
        )
    ended = terminated | truncated
    following = potentials[1:]
    if final is not None:
        following = torch.where(ended, final, following)
    elif bool(ended.any()):
        raise CriticError(
            "episodes end within these steps, where the state after a step belongs to the next episode: "
            "give the potentials of their last states as final"
        )
    return Transitions(terminated, truncated, potentials[:-1], following, success=success, terms=terms or {})


def relabel_episodes(
    potentials: Sequence[torch.Tensor],
    terminated: Sequence[bool],
    revisions: Sequence[str],
    success: Sequence[torch.Tensor] | None = None,
    terms: Mapping[str, Sequence[torch.Tensor]] | None = None,
) -> Transitions:
    """Recorded episodes one after another, as if one world had lived them: shape (L, 1), L steps in all.

    Args:
        potentials: of each episode (Lₑ + 1,): Φ of every state, the last one included; NaN where invalid.
        terminated: of each episode: it ended by the task (True), or the recording or a clock did (False).
        revisions: as in `relabel`.
        success: of each episode (Lₑ,) bool, for the state after each step.
        terms: name → of each episode (Lₑ,).

    Raises:
        CriticError: more than one revision, or an episode without a step.
    """
    _one_revision(revisions)
    if not potentials or len(potentials) != len(terminated):
        raise CriticError(f"{len(potentials)} episodes came with {len(terminated)} endings; one or more of each needed")
    if any(phi.dim() != 1 or len(phi) < 2 for phi in potentials):
        shapes = ", ".join(str(tuple(phi.shape)) for phi in potentials if phi.dim() != 1 or len(phi) < 2)
        raise CriticError(f"an episode of L steps, one or more, has L + 1 potentials; got shape {shapes}")
    last = torch.cat([torch.arange(1, len(phi)) == len(phi) - 1 for phi in potentials]).unsqueeze(-1)
    by_task = torch.cat([torch.full((len(phi) - 1,), end) for phi, end in zip(potentials, terminated, strict=True)])
    by_task = by_task.bool().unsqueeze(-1) & last
    return Transitions(
        by_task,
        last & ~by_task,
        torch.cat([phi[:-1] for phi in potentials]).unsqueeze(-1),
        torch.cat([phi[1:] for phi in potentials]).unsqueeze(-1),
        success=None if success is None else torch.cat(list(success)).unsqueeze(-1),
        terms={name: torch.cat(list(values)).unsqueeze(-1) for name, values in (terms or {}).items()},
    )


def _one_revision(revisions: Sequence[str]) -> None:
    """Raise unless all are the same: Φ(s) and Φ(s') of different models do not telescope."""
    found = sorted(set(revisions))
    if len(found) != 1:
        raise CriticError(
            f"potentials of {len(found)} revisions of a critic ({', '.join(found) or 'none given'}) cannot be mixed: "
            "judge all rows again with one"
        )
