"""`robolearn episodes`: what the robot's recorder wrote: look at it, recover it, make a data set of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robolearn.errors import RobolearnError, unknown
from robolearn.files import json_line
from robolearn.settings import add_json

SUMMARY = "list, show, export and recover recorded episodes"
DEFAULT_FOLDER = "episodes"


class EpisodesError(RobolearnError):
    """Episodes that cannot be looked at, or a missing extra."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-verb each."""
    verbs = parser.add_subparsers(dest="action", metavar="list|show|export|recover", required=True)
    listing = verbs.add_parser("list", help="a table of a folder's episodes")
    listing.add_argument("folder", nargs="?", default=DEFAULT_FOLDER, help=f"default: {DEFAULT_FOLDER}")
    show = verbs.add_parser("show", help="topics, rates and gaps of one episode, and who drove when")
    show.add_argument("file", help="its .mcap, one without an end (.mcap.active) included")
    show.add_argument("--plot", metavar="PNG", help="also plot joints, modes and the critic")
    export = verbs.add_parser("export", help="convert to a LeRobotDataset v3.0, or add to one")
    export.add_argument("source", help="a folder of episodes, or one file")
    export.add_argument("--to", required=True, metavar="FOLDER", help="the data set")
    export.add_argument("--fps", type=int, default=10, help="rows per second; default: 10")
    export.add_argument("--cameras", help="names with commas, or none; default: all")
    export.add_argument("--robot", default="", help="the robot's name, kept with the data")
    recover = verbs.add_parser("recover", help="give an end to episodes whose recorder was killed")
    recover.add_argument("target", help="a folder, or one .mcap.active")
    for verb in (listing, show, export, recover):
        add_json(verb)


def main(args: argparse.Namespace) -> int:
    """The verb."""
    actions: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
        "list": _list,
        "show": _show,
        "export": _export,
        "recover": _recover,
    }
    if args.action not in actions:
        raise EpisodesError(unknown("action", args.action, actions))
    try:
        import mcap  # noqa: F401
        import rosbags  # noqa: F401
    except ImportError as error:
        raise EpisodesError(f"episodes need {error.name}: pip install 'robolearn[real]'") from error
    found = actions[args.action](args)
    if args.json:
        print(json_line(found))
    return int(found.pop("code", 0))


def _list(args: argparse.Namespace) -> dict[str, Any]:
    from real.recording.inspection import overview

    rows = overview(Path(args.folder))
    if not args.json:
        columns = ("episode", "state", "task", "outcome", "duration_s", "interventions", "autonomous", "steps", "mb")
        _table([{**row, "episode": row["file"]} for row in rows], columns)
        print(f"{len(rows)} episodes in {args.folder}")
        partial = sum(row["state"] == "partial" and row["file"].endswith(".active") for row in rows)
        if partial:
            print(f"{partial} without an end: robolearn episodes recover {args.folder}")
    return {"folder": args.folder, "episodes": rows}


def _show(args: argparse.Namespace) -> dict[str, Any]:
    from real.recording.inspection import details
    from real.recording.plot import plot

    found = details(Path(args.file))
    if args.plot:
        found["plot"] = str(plot(Path(args.file), Path(args.plot)))
    if args.json:
        return found
    summary = {
        k: found[k] for k in ("file", "state", "outcome", "duration_s", "messages", "mb", "fault") if found[k] != ""
    }
    about = {**found["start"], **{k: v for k, v in found["end"].items() if k not in summary}}
    for key, value in {**summary, **about}.items():
        print(f"{key:<20} {value}")
    _table(found["topics"], ("topic", "type", "messages", "rate_hz", "longest_gap_s"))
    for span in found["modes"]:
        print(f"{span['from_s']:8.2f} - {span['to_s']:7.2f} s  {span['mode']}")
    if args.plot:
        print(f"plot: {args.plot}")
    return found


def _export(args: argparse.Namespace) -> dict[str, Any]:
    from real.msgs import store
    from real.recording.convert import export

    source = Path(args.source)
    cameras = None if args.cameras is None else [name for name in args.cameras.split(",") if name not in ("", "none")]

    def progress(name: str) -> None:
        if not args.json:
            print(name)

    made = export(
        source if source.is_dir() else [source],
        Path(args.to),
        store(),
        fps=args.fps,
        cameras=cameras,
        robot=args.robot,
        progress=progress,
    )
    if not args.json:
        for name, why in made.skipped.items():
            print(f"skipped {name}: {why}")
        print(f"{len(made.added)} episodes, {made.frames} frames added to {made.dataset}")
    return {"dataset": str(made.dataset), "added": made.added, "skipped": made.skipped, "frames": made.frames}


def _recover(args: argparse.Namespace) -> dict[str, Any]:
    from real.recording.recovery import recover

    done = recover(Path(args.target))
    rows = [
        {
            "source": one.source.name,
            "recovered": one.path.name if one.path else "",
            "messages": one.messages,
            "note": one.fault,
        }
        for one in done
    ]
    if not args.json:
        _table(rows, ("source", "recovered", "messages", "note"))
        print(f"{sum(bool(row['recovered']) for row in rows)} of {len(rows)} episodes without an end recovered")
    return {"target": args.target, "files": rows, "code": int(any(not row["recovered"] for row in rows))}


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    if not rows:
        return
    texts = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(column), *(len(row[i]) for row in texts)) for i, column in enumerate(columns)]
    for line in [list(columns), *texts]:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
