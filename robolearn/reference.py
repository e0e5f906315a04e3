"""`robolearn reference make|check|retarget|view`: reference motions from the command line."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from robolearn.errors import RobolearnError
from robolearn.files import json_line, write_atomic

SUMMARY = "make, check, retarget and view reference motions"
INDEX = "index.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the four sub-commands; the chosen one is ``args.action``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="make|check|retarget|view")

    make = actions.add_parser("make", help="generate a folder of clips with an index")
    make.add_argument("out", type=Path, help="folder to write")
    make.add_argument("--clips", type=int, default=48, help="clips in each split (default 48)")
    make.add_argument("--objects", default="", help="comma-separated object names (default: those of the split)")
    make.add_argument("--splits", default="train,heldout,heldout_objects", help="comma-separated splits")
    make.add_argument("--kind", default="grasp_lift", help="kind of motion (default grasp_lift)")
    make.add_argument("--robot", default="allegro")
    make.add_argument("--side", default="right", choices=("right", "left"))
    make.add_argument("--rate", type=float, default=60.0, help="frames per second (default 60)")
    make.add_argument("--noise", type=float, default=1.0, help="scale of the noise on the hand (default 1)")
    make.add_argument("--seed", type=int, default=0)

    check = actions.add_parser("check", help="check clips; exit code 1 when any is bad")
    check.add_argument("paths", type=Path, nargs="+", help="clips, or folders of clips")

    retarget = actions.add_parser("retarget", help="repair a recording and move it to a robot hand")
    retarget.add_argument("clip", type=Path, help="recording to read")
    retarget.add_argument("out", type=Path, help="clip to write (.npz)")
    retarget.add_argument("--robot", default="allegro")
    retarget.add_argument("--rate", type=float, default=60.0, help="frames per second of the result (default 60)")
    retarget.add_argument("--max-gap", type=float, default=0.25, help="longest gap to fill, s (default 0.25)")
    retarget.add_argument("--smooth", type=float, default=0.2, help="smoothing window, s; 0: none (default 0.2)")
    retarget.add_argument("--split-gaps", action="store_true", help="cut at longer gaps: <out>_00.npz, …")
    retarget.add_argument(
        "--wrist",
        default="fit",
        choices=("fit", "given"),
        help="find the palm pose, or keep the recorded one",
    )
    retarget.add_argument("--scale", type=float, help="robot hand size by human hand size (default: measured)")
    retarget.add_argument("--no-contact", action="store_true", help="do not keep thumb-to-finger distances")

    view = actions.add_parser("view", help="render a clip to mp4 and its curves to PNG")
    view.add_argument("clip", type=Path)
    view.add_argument("--out", type=Path, help="mp4 to write, the PNG beside it (default: the clip's own name)")

    for action in (make, retarget, view):
        action.add_argument("--force", action="store_true", help="overwrite existing files")
    for action in (make, check, retarget, view):
        action.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def main(args: argparse.Namespace) -> int:
    """Run the chosen sub-command; raises :class:`RobolearnError` for what the user can mend."""
    try:
        report, code = {"make": _make, "check": _check, "retarget": _retarget, "view": _view}[args.action](args)
    except OSError as error:
        raise RobolearnError(f"{error.filename or 'file'}: {error.strerror or error}") from error
    if args.json:
        print(json_line(report))
    return code


def _make(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from sim.references.format import FORMAT_VERSION
    from sim.robots import get_hand
    from sim.tasks.tracking_motions import ClipConfig, clips_for

    out: Path = args.out
    index = out / INDEX
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not args.force:
        raise RobolearnError(f"{out} exists and is not an empty folder; --force overwrites its clips")
    robot = get_hand(args.robot, side=args.side)
    config = ClipConfig(
        kind=args.kind,
        clips=args.clips,
        heldout_clips=args.clips,
        seed=args.seed,
        noise=args.noise,
        objects=_names(args.objects),
    )
    clips = {}
    for split in _names(args.splits):
        _say(f"{split}: generating {args.clips} clips")
        for number, clip in enumerate(clips_for(config, robot, split, args.rate)):
            clips[f"{split}_{number:03d}.npz"] = replace(clip, split=split)
    out.mkdir(parents=True, exist_ok=True)
    for file in out.glob("*.npz"):  # only with --force: clips of an earlier set would mix with these
        file.unlink()
    rows = []
    for file_name, clip in clips.items():
        clip.save(out / file_name)
        rows.append(
            {"file": file_name, "name": clip.name, "object": clip.object, "split": clip.split,
             "frames": clip.num_frames}
        )  # fmt: skip
    made = {
        "format_version": FORMAT_VERSION,
        "robot": args.robot,
        "side": args.side,
        "rate_hz": args.rate,
        "kind": args.kind,
        "seed": args.seed,
        "noise": args.noise,
        "clips": rows,
    }
    write_atomic(index, (json_line(made) + "\n").encode())
    _say(f"wrote {len(rows)} clips and {index}")
    return {"folder": str(out), **made}, 0


def _check(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from sim.references.check import problems
    from sim.references.format import ReferenceError, load

    rows: list[dict[str, Any]] = []
    for file in _files(args.paths):
        row: dict[str, Any] = {"file": str(file), "ok": False, "problems": []}
        try:
            clip = load(file)
        except ReferenceError as error:
            row["problems"].append({"field": "", "message": str(error).removeprefix(f"{file}: ")})
        else:
            row |= {key: getattr(clip, key) for key in ("name", "robot", "side", "object", "split", "rate_hz")}
            row["frames"] = clip.num_frames
            row["problems"] = [asdict(problem) | {"text": str(problem)} for problem in problems(clip)]
        row["ok"] = not row["problems"]
        rows.append(row)
    bad = sum(not row["ok"] for row in rows)
    if not args.json:
        width = max(len(row["file"]) for row in rows)
        print(f"{'file':{width}}  frames  rate  robot    object           result")
        for row in rows:
            numbers = f"{row['frames']:6d} {row['rate_hz']:5.0f}" if "frames" in row else f"{'-':>6} {'-':>5}"
            who = f"{row.get('robot', '-'):8} {row.get('object', '-'):16}"
            result = "ok" if row["ok"] else f"bad ({len(row['problems'])})"
            print(f"{row['file']:{width}}  {numbers}  {who} {result}")
            for problem in row["problems"]:
                print(f"{'':{width}}    {problem.get('text', problem['message'])}")
        print(f"{len(rows)} clips, {bad} bad")
    return {"ok": bad == 0, "checked": len(rows), "bad": bad, "clips": rows}, 1 if bad else 0


def _retarget(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from sim.references.check import check
    from sim.references.fit import RetargetConfig
    from sim.references.format import load
    from sim.references.repair import repair, split_gaps
    from sim.references.retarget import retarget
    from sim.robots import get_hand

    recording = load(args.clip)
    robot = get_hand(args.robot, side=recording.side)
    pieces = split_gaps(recording, args.max_gap) if args.split_gaps else [recording]
    stem = args.out.with_suffix("")
    outputs = [args.out] if len(pieces) == 1 else [Path(f"{stem}_{i:02d}.npz") for i in range(len(pieces))]
    _refuse_existing(outputs, args.force)
    config = RetargetConfig(wrist=args.wrist, scale=args.scale, contact=not args.no_contact)
    written = []
    for piece, out in zip(pieces, outputs, strict=True):
        clip, repairs = repair(piece, args.rate, max_gap_s=args.max_gap, smooth_s=args.smooth)
        _say(f"repaired: {repairs or 'nothing'}")
        row: dict[str, Any] = {"out": str(out), "repaired": str(repairs), "repairs": asdict(repairs)}
        if clip.robot != robot.name:
            clip, residual = retarget(clip, robot, config)
            _say(f"residual: {residual}")
            row["residual"] = asdict(residual)
        else:
            _say(f"the clip already moves {robot.name}: repaired only")
        check(clip)
        clip.save(out)
        _say(f"wrote {out}: {clip.num_frames} frames at {clip.rate_hz:g} Hz")
        written.append(row | {"frames": clip.num_frames, "rate_hz": clip.rate_hz})
    return {"clip": str(args.clip), "robot": robot.name, "written": written}, 0


def _view(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from sim.references.check import missing_frames
    from sim.references.format import ReferenceError, load
    from sim.references.view import film, plot

    video = (args.out or args.clip).with_suffix(".mp4")
    picture = video.with_suffix(".png")
    _refuse_existing([video, picture], args.force)
    clip = load(args.clip)
    if missing_frames(clip).any():
        raise ReferenceError(f"{args.clip}: has missing frames; repair it with `robolearn reference retarget`")
    video.parent.mkdir(parents=True, exist_ok=True)
    film(clip, video)
    plot(clip, picture)
    _say(f"wrote {video} and {picture}")
    return {"clip": str(args.clip), "video": str(video), "picture": str(picture)}, 0


def _files(paths: list[Path]) -> list[Path]:
    files = []
    for path in paths:
        if path.is_dir():
            found = sorted(path.glob("*.npz"))
            if not found:
                raise RobolearnError(f"folder {path} has no .npz clips")
            files += found
        elif path.exists():
            files.append(path)
        else:
            raise RobolearnError(f"no file or folder {path}")
    return files


def _refuse_existing(paths: list[Path], force: bool) -> None:
    existing = [str(path) for path in paths if path.exists()]
    if existing and not force:
        raise RobolearnError(f"{', '.join(existing)} exists; --force overwrites it")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _say(text: str) -> None:
    print(text, file=sys.stderr)
