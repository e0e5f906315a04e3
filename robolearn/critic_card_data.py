"""The sets of episodes that a critic card needs: simulated, or read from a folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robolearn.critic_data import SAME_COLOR, SHIFTS, Recipe, collect, even_counts
from vlm_rewards.card import CardData
from vlm_rewards.clips import ClipSet
from vlm_rewards.errors import CriticError

if TYPE_CHECKING:
    from vlm_rewards.critic import Critic

_SHIFT = "shift_"
_NEEDED = ("test", "validation")
_OPTIONAL = ("heldout", "same_colour")
_SIZE = 64


@dataclass(frozen=True)
class Wanted:
    """How many episodes to simulate.

    Attributes:
        task: an arm task.
        test, validation, shifted: of each mode in the test set, the validation set, and under each shift.
        seed: of the first set; each other has one of its own.
        every: control steps between frames.
    """

    task: str
    test: int
    validation: int
    shifted: int
    seed: int
    every: int = 2


def simulate(critic: Critic, wanted: Wanted, threads: int, say: Callable[[str], None]) -> CardData:
    """Simulate all sets, in pictures of the size that the critic was made for.

    Raises:
        CriticError: the critic was made for pictures that are not square.
        RobolearnError: the task has no scripts.
    """
    height, width = critic.picture or (_SIZE, _SIZE)
    if height != width:
        raise CriticError(
            f"critic {critic.name!r} judges pictures of {height}x{width} pixels; simulated ones are square"
        )
    seeds = iter(range(wanted.seed, wanted.seed + 100))

    def made(name: str, counts: dict[str, int], **settings: object) -> ClipSet:
        say(f"simulating {sum(counts.values())} episodes: {name}")
        return collect(Recipe(wanted.task, counts, next(seeds), height, wanted.every, settings), threads, say)

    def mixed(failures: int) -> dict[str, int]:
        counts = even_counts(wanted.task, failures)
        return {mode: count for mode, count in counts.items() if mode != SAME_COLOR}

    test = made("test", mixed(wanted.test))
    alike = SAME_COLOR in even_counts(wanted.task, 1)
    return CardData(
        test=test,
        validation=made("validation", mixed(wanted.validation)),
        shifts={name: made(name, mixed(wanted.shifted), randomize=drawn) for name, drawn in SHIFTS.items()},
        heldout=made("held-out objects", {"expert": wanted.test, "wrong_object": wanted.test}, pairs="heldout"),
        same_colour=made("same colour", {SAME_COLOR: wanted.test}) if alike else None,
        wordings=wordings(test.instructions),
        modes=tuple(mode for mode in mixed(1) if mode != "expert"),
    )


def save(data: CardData, folder: Path) -> None:
    """Write all sets, each to a folder of its own, for `load`."""
    for name, clips in _sets(data).items():
        clips.save(folder / name)


def load(folder: Path) -> CardData:
    """Read sets from the folders ``test`` and ``validation``, and ``heldout``, ``same_colour`` and ``shift_<name>``.

    Raises:
        CriticError: one of the first two is missing, or one is damaged.
    """
    missing = [name for name in _NEEDED if not (folder / name).is_dir()]
    if missing:
        raise CriticError(f"{folder} has no folder {' and no folder '.join(missing)}; a critic card needs both")
    others = {name: ClipSet.load(folder / name) for name in _OPTIONAL if (folder / name).is_dir()}
    shifts = {place.name.removeprefix(_SHIFT): place for place in sorted(folder.glob(f"{_SHIFT}*"))}
    test = ClipSet.load(folder / "test")
    return CardData(
        test=test,
        validation=ClipSet.load(folder / "validation"),
        shifts={name: ClipSet.load(place) for name, place in shifts.items()},
        heldout=others.get("heldout"),
        same_colour=others.get("same_colour"),
        wordings=wordings(test.instructions),
    )


def wordings(instructions: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Instruction → wordings that training never hears, for those that a task's templates made."""
    from sim.tasks.arm_things import TEMPLATES

    found: dict[str, tuple[str, ...]] = {}
    for text in dict.fromkeys(instructions):
        for known, unheard in TEMPLATES.values():
            for template in known:
                before, after = (re.escape(part) for part in template.split("{thing}"))
                match = re.fullmatch(f"{before}(.+){after}", text)
                if match:
                    found.setdefault(text, tuple(other.format(thing=match[1]) for other in unheard))
    return found


def _sets(data: CardData) -> dict[str, ClipSet]:
    named = {"test": data.test, "validation": data.validation, "heldout": data.heldout, "same_colour": data.same_colour}
    named |= {f"{_SHIFT}{name}": clips for name, clips in data.shifts.items()}
    return {name: clips for name, clips in named.items() if clips is not None}
