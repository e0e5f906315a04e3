"""What lies on the table of the arm tasks: coloured objects of a few shapes, and how people ask for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from robolearn.errors import RobolearnError, unknown
from sim.objects import Geom, ObjectSpec
from sim.randomizers.base import Randomizer, Timing
from sim.randomizers.draw import Draw
from sim.selection import Selection
from sim.varied import Edit
from sim.world import World

FIRST, SECOND = "first", "second"
"""Bodies of the two objects."""

SHAPES = {
    "cube": ObjectSpec("cube", "box", (Geom("box", (0.025, 0.025, 0.025)),)),
    "can": ObjectSpec("can", "cylinder", (Geom("cylinder", (0.023, 0.035)),)),
    "puck": ObjectSpec("puck", "cylinder", (Geom("cylinder", (0.031, 0.016)),)),
    "ball": ObjectSpec("ball", "sphere", (Geom("sphere", (0.027,)),)),
}
"""Shape → object, all of them within the gripper's 8 cm."""

COLORS = {
    "red": (0.85, 0.10, 0.10),
    "green": (0.10, 0.65, 0.15),
    "blue": (0.10, 0.25, 0.85),
    "yellow": (0.95, 0.80, 0.10),
    "purple": (0.55, 0.15, 0.65),
}
"""Colour → RGB."""

HELDOUT = (("blue", "cube"), ("red", "can"), ("yellow", "ball"), ("green", "puck"))
"""Pairs of colour and shape that training never names or shows."""

PAIRS = ("seen", "heldout", "any")
"""Which pairs are drawn: those of training; a held-out one for the named object; or any."""

TEMPLATES = {
    "reach": (
        ("reach the {thing}", "move the gripper to the {thing}", "go to the {thing}", "approach the {thing}"),
        ("bring the hand over to the {thing}", "reach out for the {thing}"),
    ),
    "push": (
        (
            "push the {thing} to the white pad",
            "push the {thing} onto the white pad",
            "slide the {thing} to the white square",
            "move the {thing} onto the white pad by pushing it",
        ),
        ("shove the {thing} over to the white pad", "get the {thing} to the white square without lifting it"),
    ),
    "pick_place": (
        (
            "put the {thing} on the white pad",
            "place the {thing} on the white pad",
            "pick up the {thing} and put it on the white pad",
            "move the {thing} to the white square",
        ),
        ("set the {thing} down on the white pad", "take the {thing} and lay it on the white square"),
    ),
}
"""Task → (what training is told, paraphrases that it never hears)."""


class ThingsError(RobolearnError):
    """Objects that cannot be drawn as asked."""


def allowed(color: str, shape: str) -> bool:
    """Whether training may show this pair."""
    return (color, shape) not in HELDOUT


class Assignment(Randomizer):
    """Draws, at every reset, the colours of both objects, which of them is named, and the wording.

    Args:
        task: one of `TEMPLATES`.
        shapes: for each world, the shapes of its objects.
        pairs: one of `PAIRS`.
        same_color: probability that two objects of different shapes have the same colour; others never have.
        paraphrase: use the wordings that training never hears.
        device: where the worlds are.

    Attributes:
        colors: (N, 2) int64, indices into `COLORS`.
        named: (N,) int64, 0 or 1: which object the instruction names.

    Raises:
        ThingsError: no colours satisfy what is asked.
    """

    discrete = True

    def __init__(
        self,
        task: str,
        shapes: Sequence[tuple[str, str]],
        pairs: str = "seen",
        same_color: float = 0.3,
        paraphrase: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__("assignment", Draw(0, len(COLORS) - 1), Timing("reset"), ", ".join(COLORS))
        if pairs not in PAIRS:
            raise ThingsError(unknown("pairs", pairs, PAIRS))
        if not 0.0 <= same_color <= 1.0:
            raise ThingsError(f"same_color must be between 0 and 1, got {same_color!r}")
        self.shapes = tuple(shapes)
        self._templates = TEMPLATES[task][1 if paraphrase else 0]
        n = len(self.shapes)
        self.colors = torch.zeros(n, 2, dtype=torch.long, device=device)
        self.named = torch.zeros(n, dtype=torch.long, device=device)
        self._wording = torch.zeros(n, dtype=torch.long, device=device)
        kinds = sorted(set(shapes))
        self._kind = torch.tensor([kinds.index(s) for s in shapes], device=device)
        weights = [[_weights(kind, who, pairs, same_color) for who in (0, 1)] for kind in kinds]
        self._weights = torch.tensor(np.array(weights), dtype=torch.float32, device=device)  # (kinds, 2, C * C)
        if bool((self._weights.sum(-1) <= 0).any()):
            raise ThingsError(f"no colours of {', '.join('+'.join(k) for k in kinds)} make {pairs!r} pairs")
        self._rgb = torch.tensor(list(COLORS.values()), dtype=torch.float64, device=device)
        self._shown = torch.zeros(n, 2, 3, dtype=torch.float64, device=device)

    @property
    def fields(self) -> tuple[str, ...]:
        return ("geom_rgba",)

    def instructions(self, other: bool = False) -> list[str]:
        """What each world is asked to do, N texts; with ``other``, the same about the object that is not named."""
        colors, named, wording = (v.tolist() for v in (self.colors, self.named, self._wording))
        names = list(COLORS)
        out = []
        for pair, shapes, who, template in zip(colors, self.shapes, named, wording, strict=True):
            which = 1 - who if other else who
            out.append(self._templates[template].format(thing=f"{names[pair[which]]} {shapes[which]}"))
        return out

    def same_colored(self) -> torch.Tensor:
        """(N,) bool: both objects have one colour."""
        return self.colors[:, 0] == self.colors[:, 1]

    def state_dict(self) -> dict[str, Any]:
        """What is drawn; the shown colours are part of the world's state."""
        return {**super().state_dict(), "named": self.named.clone(), "wording": self._wording.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.named.copy_(state["named"])
        self._wording.copy_(state["wording"])
        self.colors.copy_(self.drawn.squeeze(-1).nan_to_num(0.0).long())
        self._shown.copy_(self._rgb[self.colors])

    def _look_up(self, world: World) -> int:
        rows = []
        for shard in world.shards:
            model = shard.physics.model
            rows.append(np.array([model.geom(f"{body}_0").id for body in (FIRST, SECOND)]))
        world.vary("geom_rgba").add(Edit("set", tuple(rows), self._shown, columns=(0, 3)))
        return 2

    def _make_factor(self, world: World) -> torch.Tensor:
        return self.drawn.new_zeros(world.num_worlds, 0)

    def _redraw(self, world: World, select: Selection, generator: torch.Generator) -> None:
        ids = select.ids
        u = torch.rand(len(ids), 2, generator=generator, device=ids.device)
        named = (u[:, 0] < 0.5).long()
        pick = _one_of(self._weights[self._kind[ids], named], generator)
        colors = torch.stack([pick // len(COLORS), pick % len(COLORS)], dim=1)
        select.write(self.named, named)
        select.write(self._wording, (u[:, 1] * len(self._templates)).long())
        select.write(self.colors, colors)
        select.write(self.drawn, colors.unsqueeze(-1))
        select.write(self._shown, self._rgb[colors])
        world.refresh("geom_rgba", select)


def _one_of(weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(K,) drawn in proportion to ``weights`` (K, M): `torch.multinomial`, which asks the host about a GPU's numbers.

    Of exponentially distributed times with these rates, each is the shortest with just that probability.
    """
    return (weights / torch.empty_like(weights).exponential_(1.0, generator=generator)).argmax(1)


def _weights(shapes: tuple[str, str], named: int, pairs: str, same_color: float) -> np.ndarray:
    """(C * C,) how likely each pair of colours is for objects of these shapes."""
    colors = list(COLORS)
    same, other = np.zeros((len(colors), len(colors))), np.zeros((len(colors), len(colors)))
    for i, a in enumerate(colors):
        for k, b in enumerate(colors):
            seen = (allowed(a, shapes[0]), allowed(b, shapes[1]))
            if pairs == "seen" and not all(seen) or pairs == "heldout" and (seen[named] or not seen[1 - named]):
                continue
            if a != b:
                other[i, k] = 1.0
            elif shapes[0] != shapes[1]:
                same[i, k] = 1.0
    parts = [(w / w.sum(), share) for w, share in ((same, same_color), (other, 1.0 - same_color)) if w.sum() > 0]
    total = sum((w * share for w, share in parts), np.zeros_like(same))
    if parts and total.sum() == 0:  # the share that is wanted cannot be had: take what can
        total = parts[0][0]
    return total.ravel()
