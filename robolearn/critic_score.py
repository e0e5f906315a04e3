"""`robolearn critic score`: what a critic says over a real recording, as numbers, a plot and a film."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import settings
from robolearn.critic_inputs import (
    ScoreError,
    assigned,
    named_views,
    quoted,
    read_instructions,
    run_name,
)
from robolearn.errors import unknown
from robolearn.files import json_line, to_json, write_atomic
from robolearn.progress import progress_bar
from robolearn.settings import MISSING

if TYPE_CHECKING:
    from robolearn.critic_keyframes import Subtask
    from robolearn.critic_summary import Scored
    from vlm_rewards.critic import Critic
    from vlm_rewards.judging import How, Judgement
    from vlm_rewards.videos import Recording

SUMMARY = "score a recording with a critic: progress over time as JSON, PNG and mp4"

_FALLBACKS = ("drop", "hold")


@dataclass
class Options:
    """Settings of `robolearn critic score`."""

    critic: str = MISSING
    """A critic's folder, a model's folder or id, an endpoint's address, or a baseline."""
    video: list[str] = MISSING
    """Videos or folders of pictures, one for each view: a.mp4,b.mp4; name=a.mp4 names the view's camera."""
    instruction: str = MISSING
    """What the robot was asked to do: a text, or a JSON file with a list of paraphrases."""
    keyframes: str | None = None
    """JSON file with annotated subtasks, in frames of the first video."""
    reference: str | None = None
    """A recorded success of the same task: a folder with the same names of videos, or a video of the one view."""
    in_context: bool = False
    """Show the reference to the critic before each question (vision-language models)."""
    views: dict[str, str] = field(default_factory=dict)
    """The critic's cameras and which view is each, such as views.front=cam_high."""
    capability: str | None = None
    """What progress is made from: value, delta, score, prefer or done; null: the best there is."""
    fuse: str = "together"
    """The critic sees all views together, or each apart, and the mean by confidence counts."""
    alone: bool = True
    """Judge each view alone, too, where the critic can."""
    rule: str | None = None
    """How progress deltas are fused: weighted, mean, anchored, chain or vlac; null: weighted with a reference."""
    goal: float | None = None
    """Score of a carried-out instruction, for critics that only score."""
    paraphrases: bool = True
    """Judge by every paraphrase of the instruction, too."""
    abstain: float = 0.3
    """Confidence below which the critic abstains."""
    fallback: str = "drop"
    """Where it abstains: drop the moment, or hold the last value."""
    rate_hz: float | None = None
    """Moments judged per second; null: as far apart as the critic's window wants its pictures, else 5."""
    size: list[int] | None = None
    """Height and width of the pictures; null: the critic's, or at most 320 pixels a side."""
    fit: str = "crop"
    """How pictures of another shape are fitted: crop, stretch or letterbox."""
    start_s: float = 0.0
    """Where to start."""
    end_s: float | None = None
    """Where to end; null: at the end."""
    max_frames: int = 3000
    """More moments are refused: they are held in memory."""
    fps: float | None = None
    """Pictures per second of folders of pictures."""
    trim: bool = False
    """Read what there is of damaged videos, and the part that all views share."""
    batch: int = 16
    """Moments judged at once."""
    plot: bool = True
    """Write the plot."""
    film: bool = True
    """Write the film."""
    film_fps: float = 10.0
    """Pictures per second of the film."""
    out: str | None = None
    """Folder to write to; null: critic_scores/<recording>-<time>."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the critic, such as settings.download=true."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``key=value`` settings and ``--json``."""
    settings.add_arguments(parser, Options)


def main(args: argparse.Namespace) -> int:
    """The verb: a table on standard output, or JSON; three files in the folder."""
    from robolearn.critic_table import print_table

    options = settings.parse(Options, [quoted(given) for given in args.settings])
    scored, written = score(options)
    if args.json:
        print(json_line(written))
    else:
        print_table(scored, sys.stdout)
        print(f"wrote {', '.join(written['files'])}")
    return 0


def score(options: Options) -> tuple[Scored, dict[str, Any]]:
    """Read, judge, and write ``scores.json``, ``scores.png`` and ``scores.mp4``.

    Returns:
        The judged recording, and what ``scores.json`` holds, with ``folder`` and ``files``.

    Raises:
        RobolearnError: the critic, the recording, or what is said about it cannot be used.
    """
    from robolearn.critic_reading import read_recording, reference_goal
    from robolearn.critic_summary import Scored, per_moment, summarise
    from robolearn.critic_views import plot_scores
    from vlm_rewards.judging import passes

    _check(options)
    texts = read_instructions(options.instruction)
    given = named_views(options.video)
    critic, judging = _critic(options, given, texts[0])
    cameras = assigned(critic, given, options.views)
    passes(critic, tuple(cameras), judging)  # refuses what the critic cannot judge before anything is read
    with _output(Path(options.out or Path("critic_scores") / run_name(given))) as folder:
        recording = read_recording(options, critic, {camera: given[view] for camera, view in cameras.items()})
        keyframes = _keyframes(options, recording)
        if options.reference is not None:
            goal = reference_goal(options, critic, given, cameras, texts[0])
            judging = dataclasses.replace(judging, reference=goal)
        judged = _judge(critic, recording, texts if options.paraphrases else texts[:1], judging)
        scored = Scored.of(critic, judged, recording.times.numpy(), keyframes, options.abstain, options.fallback)
        described = {
            "format": 1,
            "critic": {"what": options.critic, "name": critic.name, "revision": critic.revision},
            "instruction": texts[0],
            **summarise(scored),
            "settings": dataclasses.asdict(options),
            "recording": _described(recording, cameras),
        }
        files = [folder / f"scores.{kind}" for kind in ("json", "png", "mp4")]
        for file in files:  # what stays of an earlier scoring would not belong to this one
            file.unlink(missing_ok=True)
        whole = {**described, "per_moment": per_moment(scored)}
        with _writing(folder):
            write_atomic(files[0], (json.dumps(to_json(whole), indent=1, allow_nan=False) + "\n").encode())
            if options.plot:
                plot_scores(scored, files[1])
        if options.film:
            _film(options, scored, given, cameras, files[2])
    return scored, {**described, "files": [str(file) for file in files if file.exists()]}


def _check(options: Options) -> None:
    """Raise unless the numbers make sense: before a long reading, not after it."""
    if options.fallback not in _FALLBACKS:
        raise ScoreError(unknown("fallback", options.fallback, _FALLBACKS))
    if not 0.0 <= options.abstain <= 1.0:
        raise ScoreError(f"abstain is a confidence from 0 to 1, got {options.abstain:g}")
    for name in ("rate_hz", "film_fps", "fps"):
        value = getattr(options, name)
        if value is not None and not 0.0 < value < math.inf:
            raise ScoreError(f"{name} must be above 0, got {value:g}")


def _critic(options: Options, views: Mapping[str, Path], instruction: str) -> tuple[Critic, How]:
    """The critic, and how it is asked but for a reference."""
    from robolearn.critic_reading import as_success, read_reference
    from vlm_rewards.critic import Capability
    from vlm_rewards.fusion import Rule
    from vlm_rewards.judging import How
    from vlm_rewards.registry import load_critic

    how = How(
        None if options.capability is None else Capability.named(options.capability),
        options.fuse,
        options.alone,
        None if options.rule is None else Rule(options.rule),
        goal=options.goal,
        batch=options.batch,
    )
    more = dict(options.settings)
    if options.in_context:
        if options.reference is None:
            raise ScoreError("in_context=true needs reference=<recording>, which is what is shown")
        more["reference"] = as_success(read_reference(options, None, views), instruction)
    return load_critic(options.critic, **more), how


def _judge(critic: Critic, recording: Recording, texts: Sequence[str], how: How) -> dict[str, Judgement]:
    """Judgements by the instruction and, for all views alone, by each paraphrase."""
    from vlm_rewards.judging import judge, passes

    plain = dataclasses.replace(how, alone=False)
    plans = {text: how if text == texts[0] else plain for text in texts}
    total = sum(len(passes(critic, recording.cameras, plan)) for plan in plans.values()) * len(recording)
    with progress_bar(f"{critic.name} judges", total) as tick:
        return {text: judge(critic, recording, text, plan, tick) for text, plan in plans.items()}


def _film(options: Options, scored: Scored, views: Mapping[str, Path], cameras: Mapping[str, str], path: Path) -> Path:
    from robolearn.critic_film import film_scores
    from vlm_rewards.videos import ViewReader

    names = {view: camera for camera, view in cameras.items()}
    readers = {}
    for view, file in views.items():
        title = view if names.get(view, view) == view else f"{names[view]}: {view}"
        title += "" if view in names else " (not judged)"
        readers[title] = ViewReader(
            names.get(view, view), file, options.film_fps, options.start_s, options.end_s, options.fps
        )
    frames = round(len(scored.times) * scored.step_s * options.film_fps)
    with progress_bar("filming", frames) as tick:
        return film_scores(scored, readers, path, options.film_fps, tick)


def _keyframes(options: Options, recording: Recording) -> tuple[Subtask, ...]:
    """Annotated subtasks that end in the part that was read."""
    from robolearn.critic_keyframes import read_keyframes

    if options.keyframes is None:
        return ()
    source = recording.sources[0]
    found = read_keyframes(Path(options.keyframes), source.taken, whole=options.end_s is None)
    first, last = float(recording.times[0]), source.length_s + 1e-6
    return tuple(subtask for subtask in found if first < subtask.end_s <= last)


@contextlib.contextmanager
def _output(folder: Path) -> Iterator[Path]:
    """The folder to write to, made before the work; if nothing gets written, one that was made goes.

    Raises:
        ScoreError: it cannot be made.
    """
    new = not folder.exists()
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ScoreError(f"cannot write to {folder}: {error.strerror or error}") from error


def _described(recording: Recording, cameras: Mapping[str, str]) -> dict[str, Any]:
    """What was read, for ``scores.json``."""
    sources = [
        {
            "camera": source.camera,
            "view": cameras[source.camera],
            "path": str(source.path),
            "pictures": len(source.taken),
            "fps": source.fps,
            "length_s": source.length_s,
            "size": list(source.size),
        }
        for source in recording.sources
    ]
    return {
        "moments": len(recording),
        "size": list(recording.frames.shape[2:4]),
        "views": sources,
        "notes": recording.notes,
    }
