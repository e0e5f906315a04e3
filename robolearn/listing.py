"""`robolearn list`: the names that settings accept."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, TypedDict

from robolearn.config import choices
from robolearn.errors import RobolearnError, unknown
from robolearn.files import json_line
from robolearn.settings import add_json

if TYPE_CHECKING:
    from sim.robots import Robot

SUMMARY = "list tasks, robots, objects, algorithms, presets and randomisers"


class ListError(RobolearnError):
    """An unknown kind of thing to list."""


class Entry(TypedDict):
    """One name and what it stands for."""

    name: str
    summary: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One optional kind."""
    parser.add_argument("kind", nargs="?", help=f"one of {', '.join(KINDS)}; default: all")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """The verb."""
    if args.kind is not None and args.kind not in KINDS:
        raise ListError(unknown("kind", args.kind, KINDS))
    found = {kind: entries(kind) for kind in ([args.kind] if args.kind else KINDS)}
    if args.json:
        print(json_line(found))
        return 0
    for kind, listed in found.items():
        print(kind)
        for entry in listed:
            print(f"  {entry['name']:<24} {entry['summary']}".rstrip())
    return 0


def entries(kind: str) -> list[Entry]:
    """All names of one of `KINDS`, sorted."""
    return KINDS[kind]()


def _group(group: str) -> Callable[[], list[Entry]]:
    """Names of a configuration group; the summary is the first comment of its file that says something."""

    def listed() -> list[Entry]:
        found: list[Entry] = []
        for name in choices(group):
            text = resources.files("robolearn.conf").joinpath(group).joinpath(f"{name}.yaml").read_text()
            comments = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
            summary = next((comment for comment in comments if not comment.startswith("@package")), "")
            found.append({"name": name, "summary": summary})
        return found

    return listed


def _robots() -> list[Entry]:
    from sim.robots import AssetNotAvailable, get_robot, list_robots

    found: list[Entry] = []
    for name in list_robots():
        try:
            robot = get_robot(name)
            text = _parts(robot)
        except AssetNotAvailable as error:
            text = f"not available: {error}"
        found.append({"name": name, "summary": text})
    return found


def _parts(robot: Robot) -> str:
    if robot.palm_site:
        return f"hand, {len(robot.finger_joints)} finger joints, {len(robot.fingertip_sites)} fingertips"
    return f"whole robot, {len(robot.joint_names)} joints, {len(robot.foot_sites)} feet"


def _objects() -> list[Entry]:
    from sim.objects import get_object, list_objects

    made = [get_object(name) for name in list_objects()]
    return [{"name": o.name, "summary": f"{o.kind}, {1000 * o.mass:.0f} g, split {o.split}"} for o in made]


def _randomizers() -> list[Entry]:
    from sim.randomize import RANDOMIZERS

    return [
        {"name": name, "summary": (inspect.getdoc(make) or "").partition("\n")[0]}
        for name, make in sorted(RANDOMIZERS.items())
    ]


KINDS: dict[str, Callable[[], list[Entry]]] = {
    "tasks": _group("task"),
    "robots": _robots,
    "objects": _objects,
    "algos": _group("algo"),
    "worlds": _group("world"),
    "experiments": _group("experiment"),
    "randomizers": _randomizers,
}
