"""`robolearn list`: the names that settings accept."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import resources
from typing import TYPE_CHECKING, TypedDict

from robolearn.config import choices
from robolearn.errors import RobolearnError, unknown
from robolearn.files import json_line
from robolearn.settings import add_json

if TYPE_CHECKING:
    from sim.randomize import Kind
    from sim.robots import Robot

SUMMARY = "list tasks, robots, objects, algorithms, rewards, presets and randomisers"


class ListError(RobolearnError):
    """An unknown kind of thing to list."""


class Entry(TypedDict):
    """One name and what it stands for."""

    name: str
    summary: str


class RandomizerEntry(Entry):
    """A randomiser, and which tasks have it.

    ``at`` lists when it may be drawn, the usual time first, ``operations`` likewise; ``fields`` are those of
    `mujoco.MjModel` that it writes, ``data`` those of `mujoco.MjData`.
    """

    unit: str
    range: list[float]
    at: list[str]
    operations: list[str]
    fields: list[str]
    data: list[str]
    tasks: list[str]


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
        if kind == "randomizers":
            _print_randomizers(randomizers())
            continue
        for entry in listed:
            print(f"  {entry['name']:<24} {entry['summary']}".rstrip())
    return 0


def entries(kind: str) -> Sequence[Entry]:
    """All names of one of `KINDS`."""
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
    if robot.tool_site:
        return f"arm, {len(robot.joint_names) - len(robot.gripper_joints)} joints and a gripper"
    return f"whole robot, {len(robot.joint_names)} joints, {len(robot.foot_sites)} feet"


def _objects() -> list[Entry]:
    from sim.objects import get_object, list_objects

    made = [get_object(name) for name in list_objects()]
    return [{"name": o.name, "summary": f"{o.kind}, {1000 * o.mass:.0f} g, split {o.split}"} for o in made]


def randomizers() -> list[RandomizerEntry]:
    """What every task can randomise."""
    from sim.randomize import available
    from sim.tasks import list_tasks, targets

    found: dict[str, RandomizerEntry] = {}
    for task in list_tasks():
        for name, (kind, _) in available(targets(task)).items():
            found.setdefault(name, _randomizer(name, kind))["tasks"].append(task)
    return list(found.values())


def _randomizer(name: str, kind: Kind) -> RandomizerEntry:
    return {
        "name": name,
        "summary": kind.varies,
        "unit": kind.unit_of(kind.operations[0] if kind.operations else ""),
        "range": [float(bound) for bound in kind.range],
        "at": list(kind.times),
        "operations": list(kind.operations),
        "fields": list(kind.fields),
        "data": list(kind.data),
        "tasks": [],
    }


def _print_randomizers(listed: Sequence[RandomizerEntry]) -> None:
    """A table, as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_edge=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("", "name", "varies", "typical range", "unit", "drawn", "writes", "tasks"):
        table.add_column(title, no_wrap=title in ("name", "typical range", "drawn"))
    for entry in listed:
        low, high = entry["range"]
        writes = " ".join([*entry["fields"], *(f"data.{name}" for name in entry["data"])])
        cells = [entry["name"], entry["summary"], f"{low:g} to {high:g}", entry["unit"], entry["at"][0], writes]
        table.add_row("", *cells, " ".join(entry["tasks"]))
    Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False).print(table)
    print("  task.randomize.<name>=[low,high], or {range: [low, high], distribution: log_uniform, at: reset}")


KINDS: dict[str, Callable[[], Sequence[Entry]]] = {
    "tasks": _group("task"),
    "robots": _robots,
    "objects": _objects,
    "algos": _group("algo"),
    "rewards": _group("reward"),
    "worlds": _group("world"),
    "experiments": _group("experiment"),
    "randomizers": randomizers,
}
