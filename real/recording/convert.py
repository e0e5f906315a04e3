"""Recorded episodes into a LeRobotDataset v3.0."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from real.msgs import MessageStore
from real.recording import observations
from real.recording.labels import Labels
from real.recording.mcap_writer import ACTIVE, RecordingError
from real.recording.reading import Summary, episode_files, summarize
from real.recording.steps import CLAMPS, CRITIC, Steps, read_steps
from robolearn.episodes import Dataset, exists, open_dataset
from robolearn.errors import unknown

IMAGE = "observation.images."
STATE = "observation.environment_state"
GOAL = "observation.goal."


@dataclass(frozen=True)
class Export:
    """What came of a conversion.

    Attributes:
        dataset: its folder.
        added: file name → index of the episode; skipped: file name → why.
        frames: rows written.
    """

    dataset: Path
    added: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    frames: int = 0


@dataclass(frozen=True)
class _Layout:
    """What every episode of a data set has."""

    joints: tuple[str, ...]
    objects: tuple[str, ...]
    goals: tuple[tuple[str, int], ...]
    cameras: tuple[tuple[str, str, tuple[int, ...]], ...]


def export(
    source: Path | Sequence[Path],
    target: Path,
    store: MessageStore,
    fps: int = 10,
    cameras: Sequence[str] | None = None,
    robot: str = "",
    progress: Callable[[str], None] = lambda name: None,
) -> Export:
    """Convert episodes to a data set, or add them to one. Nothing is changed unless all of it succeeds.

    Episodes without an end, without steps, and those that the data set has already are skipped, and named. Steps that
    are not valid are kept and marked.

    Args:
        source: a folder of episodes, or files.
        target: the data set's folder.
        store: message types.
        fps: rows per second.
        cameras: which; None: all of the first episode; empty: none.
        robot: its name.
        progress: told the name of each file.

    Raises:
        RecordingError: there is nothing to convert, a camera does not exist, or episodes do not fit together.
        EpisodeStoreError: the data set cannot be written, or has other features or another rate.
    """
    if fps < 1:
        raise RecordingError(f"fps is a number of rows per second >= 1, not {fps}")
    files = episode_files(source) if isinstance(source, Path) else list(source)
    result = Export(target)
    usable = _usable(files, target, result)
    if not usable:
        why = "; ".join(f"{name}: {reason}" for name, reason in result.skipped.items())
        raise RecordingError(f"no episode to export{f' ({why})' if why else ''}")
    layout = _layout(usable[0], store, cameras)
    frames = 0
    with open_dataset(target, _features(layout), fps, robot) as writer:
        for summary in usable:
            progress(summary.path.name)
            frames += _add(writer, summary, layout, store, fps, result)
    return Export(target, result.added, result.skipped, frames)


def _usable(files: Iterable[Path], target: Path, result: Export) -> list[Summary]:
    known = {row.get("recording") for row in Dataset(target).episodes} if exists(target) else set()
    found = []
    for path in files:
        summary = summarize(path)
        if path.name.endswith(ACTIVE):
            result.skipped[path.name] = "it has no end; `robolearn episodes recover` gives it one"
        elif not any(count for topic, count in summary.counts.items() if topic.endswith("safety/step")):
            result.skipped[path.name] = "no message on safety/step"
        elif _identity(summary) in known:
            result.skipped[path.name] = "the data set has it already"
        else:
            found.append(summary)
    return found


def _identity(summary: Summary) -> str:
    """Of a recording: its name and when it began; a recovered one is the same."""
    return f"{summary.path.name}@{summary.begin_ns}"


def _layout(summary: Summary, store: MessageStore, cameras: Sequence[str] | None) -> _Layout:
    path = summary.path
    known = observations.camera_topics(summary)
    for name in cameras or ():
        if name not in known:
            raise RecordingError(f"{path.name}: {unknown('camera', name, known)}")
    chosen = list(known) if cameras is None else list(dict.fromkeys(cameras))
    now = np.array([summary.end_ns])
    sizes = {name: next(observations.pictures(path, store, known[name], now)).shape for name in chosen}
    goals = observations.goal_topics(summary)
    return _Layout(
        joints=read_steps(path, store).joints,
        objects=tuple(observations.object_topics(summary)),
        goals=tuple((topic, observations.goals(path, store, topic, now).shape[1]) for topic in goals),
        cameras=tuple((name, known[name], sizes[name]) for name in chosen),
    )


def _features(layout: _Layout) -> dict[str, dict[str, Any]]:
    joints = list(layout.joints)

    def numbers(names: list[str], dtype: str = "float32") -> dict[str, Any]:
        return {"dtype": dtype, "shape": (len(names),), "names": names}

    def one(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "shape": (1,), "names": None}

    found = {
        f"{IMAGE}{name}": {"dtype": "video", "shape": shape, "names": ["height", "width", "channels"]}
        for name, _, shape in layout.cameras
    }
    found["observation.state"] = numbers(joints)
    found["observation.velocity"] = numbers(joints)
    if layout.objects:
        axes = ("x", "y", "z", "qw", "qx", "qy", "qz")
        names = [f"{observations.object_name(topic)}.{axis}" for topic in layout.objects for axis in axes]
        found[STATE] = numbers(names)
    for topic, size in layout.goals:
        found[GOAL + topic.rsplit("/", 1)[-1]] = numbers([str(i) for i in range(size)])
    found |= {key: numbers(joints) for key in ("action", "action.proposed", "action.human", "action.executed")}
    found |= {key: one("int64") for key in ("step.mode", "step.source", "step.chunk_sequence")}
    found |= {key: one("float64") for key in ("step.stamp", "step.observation_stamp", "critic.stamp")}
    found |= {key: one("float32") for key in ("step.observation_age", "step.joint_age")}
    found |= {key: one("bool") for key in ("step.valid", "next.done", "next.success")}
    found["step.clamped"] = numbers(list(CLAMPS), "bool")
    return found | {f"critic.{name}": one("float32") for name in CRITIC}


def _add(writer: Any, summary: Summary, layout: _Layout, store: MessageStore, fps: int, result: Export) -> int:
    path = summary.path
    steps = read_steps(path, store, fps)
    if steps.joints != layout.joints:
        raise RecordingError(f"{path.name} has joints {list(steps.joints)}, the first episode {list(layout.joints)}")
    label = Labels(path.parent).read().get(path.name, {})
    outcome = label.get("outcome", summary.end.get("outcome", ""))
    images = {
        f"{IMAGE}{name}": observations.pictures(path, store, topic, steps.log_ns) for name, topic, _ in layout.cameras
    }
    extra = {
        "recording": _identity(summary),
        "state": summary.state,
        "outcome": outcome,
        "interventions": int(float(summary.end.get("interventions", 0) or 0)),
        "operator": summary.start.get("operator", ""),
        "bundle_hash": summary.start.get("bundle_hash", ""),
    }
    task = summary.start.get("instruction") or summary.start.get("task") or "unknown"
    columns = _columns(steps, summary, layout, store, outcome)
    result.added[path.name] = writer.add(columns, task, images, extra)
    return len(steps)


def _columns(
    steps: Steps, summary: Summary, layout: _Layout, store: MessageStore, outcome: str
) -> dict[str, np.ndarray]:
    rows, path = steps.log_ns, summary.path
    last = np.arange(len(steps)) == len(steps) - 1
    columns = {
        "observation.state": steps.measured,
        "observation.velocity": observations.speeds(path, store, steps.joints, rows),
        "action": steps.limited,
        "action.proposed": steps.proposed,
        "action.human": steps.human,
        "action.executed": steps.executed,
        "step.mode": steps.mode,
        "step.source": steps.source,
        "step.chunk_sequence": steps.chunk_sequence,
        "step.stamp": steps.stamp,
        "step.observation_stamp": steps.observation_stamp,
        "step.observation_age": steps.observation_age,
        "step.joint_age": steps.joint_age,
        "step.valid": steps.valid,
        "step.clamped": steps.clamped,
        "critic.stamp": steps.critic_stamp,
        "next.done": last,
        "next.success": last & (outcome == "success"),
        **{f"critic.{name}": values for name, values in steps.critic.items()},
    }
    if layout.objects:
        columns[STATE] = observations.poses(path, store, layout.objects, rows)
    for topic, size in layout.goals:
        values = observations.goals(path, store, topic, rows)
        if values.shape[1] != size:
            raise RecordingError(f"{path.name}: {topic} has {values.shape[1]} values, {size} in the first episode")
        columns[GOAL + topic.rsplit("/", 1)[-1]] = values
    return columns
