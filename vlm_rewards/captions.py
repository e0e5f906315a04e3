"""Captions derived from a simulation's state, to train a text-image model on pictures that nobody has described."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch

from vlm_rewards.clips import ClipSet
from vlm_rewards.errors import CriticError

SCENE = "a robot arm at a table"
"""True of every frame: the baseline prompt."""
CARRIED_OUT = "a robot that has done this: {}"
"""True of frames in which an instruction is carried out: the goal prompt."""
COLORS = ("red", "green", "blue", "yellow", "purple")
_THING = re.compile(rf"\b({'|'.join(COLORS)}) \w+")


@dataclass(frozen=True)
class Relations:
    """What holds in F frames for the object that the instruction names (column 0) and for the other one (column 1).

    Attributes:
        held: (F, 2) bool: in the gripper, off the table.
        reached: (F, 2) bool: the gripper is at it, or right above it.
        at_pad: (F, 2) bool: on the white pad, or above it.
        done: (F, 2) bool: the instruction that names it is carried out.
    """

    held: torch.Tensor
    reached: torch.Tensor
    at_pad: torch.Tensor
    done: torch.Tensor


@dataclass(frozen=True)
class Captions:
    """Statements about F frames.

    Attributes:
        true: for each frame, the statements that hold.
        false: for each frame, statements about the same things that do not.
    """

    true: list[list[str]]
    false: list[list[str]]


def thing_in(instruction: str) -> str:
    """The coloured object that an instruction names, such as ``red cube``.

    Raises:
        CriticError: it names none.
    """
    found = _THING.search(instruction)
    if found is None:
        raise CriticError(f"{instruction!r} names no coloured object; colours: {', '.join(COLORS)}")
    return found.group()


def captions_for(clips: ClipSet, relations: Relations, name: Callable[[str], str] = thing_in) -> Captions:
    """Captions of every frame of ``clips``, about the named object and, where an episode has one, the other.

    Args:
        name: what an instruction calls its object.

    Raises:
        CriticError: an instruction without object.
    """
    captions = Captions([], [])
    columns = (relations.held, relations.reached, relations.at_pad, relations.done)
    rows = torch.stack(columns, dim=-1).tolist()
    for e, (start, stop) in enumerate(zip(clips.starts.tolist(), clips.starts[1:].tolist(), strict=False)):
        asked = [clips.instructions[e], *clips.others[e][:1]]
        things = [name(instruction) for instruction in asked]
        for frame in range(start, stop):
            said = [_statements(*part) for part in zip(things, asked, rows[frame], strict=False)]
            both = [item for statements in said for item in statements.items()]
            captions.true.append([SCENE, *(text for text, holds in both if holds)])
            captions.false.append([text for text, holds in both if not holds])
    return captions


def _statements(thing: str, instruction: str, row: list[bool]) -> dict[str, bool]:
    held, reached, at_pad, done = row
    return {
        f"the robot holds the {thing}": held,
        f"the robot holds the {thing} over the white pad": held and at_pad,
        f"the gripper is above the {thing}": reached and not held,
        f"the {thing} is on the white pad": at_pad and not held,
        f"the {thing} is on the table": not at_pad and not held,
        CARRIED_OUT.format(instruction): done,
    }
