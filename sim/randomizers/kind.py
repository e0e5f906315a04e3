"""What a randomiser is, before anybody asks for one: what it varies, how it may be drawn, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sim.randomizers.base import TIMES, Randomizer, Timing
from sim.randomizers.draw import Draw
from sim.randomizers.fields import Change, FieldRandomizer, with_operation
from sim.randomizers.target import Target

FACTOR = "×"
"""Unit of what scales."""


@dataclass(frozen=True)
class Request:
    """A randomiser as somebody asked for it; what is not given stands as the kind has it.

    Attributes:
        name: in full, such as ``object_mass``.
        draw, timing: what is drawn, and when.
        operation: one of the kind's.
        target: what it concerns.
        each: numbers of its own for every element.
        duration_s: of pushes.
        sensors: channel → how many numbers its noise has.
    """

    name: str
    draw: Draw
    timing: Timing
    operation: str
    target: Target | None = None
    each: bool = False
    duration_s: float = 0.1
    sensors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """One kind of randomiser.

    Attributes:
        name: ``mass`` is called ``<target>_mass``; without a target the name stands alone.
        needs: what its target has to have (`Target.offers`); empty where there is no target.
        varies: in words.
        unit: of the numbers, where they do not scale.
        range: a typical one, taken where none is given.
        changes: of model fields.
        operations: that may be chosen, the usual one first; none where nothing in the model is changed.
        form: of the draw, see `sim.randomizers.draw.FORMS`.
        times: when it may be drawn, the usual time first.
        derive: other constants of the model follow from it.
        privileged: critics see what was drawn.
        least: the least number that can be drawn, beside what the operation asks for.
        data: the `mujoco.MjData` fields that it writes.
        settings: what can be set beside range, distribution and time.
        make: makes one that changes no model field.
    """

    name: str
    needs: str
    varies: str
    unit: str
    range: tuple[float, float]
    changes: tuple[Change, ...] = ()
    operations: tuple[str, ...] = ()
    form: str = "one"
    times: tuple[str, ...] = TIMES
    derive: bool = False
    privileged: bool = True
    least: float = float("-inf")
    data: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    make: Callable[[Kind, Request], Randomizer] | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """The `mujoco.MjModel` fields that it writes."""
        return tuple(change.field for change in self.changes)

    def unit_of(self, operation: str) -> str:
        """Unit of the numbers drawn."""
        return FACTOR if operation == "scale" else self.unit

    def build(self, request: Request) -> Randomizer:
        """The randomiser that was asked for."""
        if self.make is not None:
            return self.make(self, request)
        chosen = request.operation == self.operations[0]
        return FieldRandomizer(
            request.name,
            request.draw,
            request.timing,
            self.unit_of(request.operation),
            self.changes if chosen else with_operation(self.changes, request.operation),
            request.target,
            each=request.each,
            derive=self.derive,
            privileged=self.privileged,
        )
