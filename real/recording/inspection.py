"""What a person wants to know about recorded episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from real.msgs import MessageStore, store
from real.recording.labels import Labels
from real.recording.mcap_writer import RecordingError
from real.recording.reading import Summary, episode_files, messages, summarize
from real.recording.steps import SOURCE_HUMAN, Steps, mode_name, read_steps

MB = 1024 * 1024


def overview(folder: Path) -> list[dict[str, Any]]:
    """One row an episode: file, state, task, instruction, outcome, duration_s, interventions, autonomous, steps,
    messages, mb.

    A number is None where the episode does not tell it. Raises RecordingError where there is no such folder.
    """
    labels = Labels(folder).read()
    rows = []
    for path in episode_files(folder):
        found = summarize(path)
        outcome = labels.get(path.name, {}).get("outcome", found.end.get("outcome", ""))
        interventions = _whole(found.end.get("interventions"))
        rows.append(
            {
                "file": path.name,
                "state": found.state,
                "task": found.start.get("task", ""),
                "instruction": found.start.get("instruction", ""),
                "outcome": outcome,
                "duration_s": _seconds(found),
                "interventions": interventions,
                "autonomous": None if interventions is None else interventions == 0,
                "steps": sum(count for topic, count in found.counts.items() if topic.endswith("safety/step")),
                "messages": found.messages,
                "mb": found.size / MB,
            }
        )
    return rows


def details(path: Path, types: MessageStore | None = None) -> dict[str, Any]:
    """Everything about one episode: metadata, topics with rates and gaps, and modes over time.

    Raises:
        RecordingError: the file cannot be read.
    """
    found = summarize(path)
    times: dict[str, list[int]] = {topic: [] for topic in found.counts}
    for message in messages(path):
        times[message.topic].append(message.log_ns)
    label = Labels(path.parent).read().get(path.name, {})
    return {
        "file": str(path),
        "state": found.state,
        "outcome": label.get("outcome", found.end.get("outcome", "")),
        "fault": found.fault,
        "duration_s": found.duration_s,
        "messages": found.messages,
        "mb": found.size / MB,
        "start": found.start,
        "end": found.end,
        "topics": [{"topic": topic, "type": found.types[topic], **_rates(times[topic])} for topic in sorted(times)],
        "modes": timeline(path, types or store()),
    }


def timeline(path: Path, types: MessageStore) -> list[dict[str, Any]]:
    """Modes of the safety node over time: from_s, to_s since the first step, mode, human."""
    try:
        steps = read_steps(path, types)
    except RecordingError:
        return []
    starts = np.flatnonzero(np.concatenate([[True], (steps.mode[1:] != steps.mode[:-1])]))
    ends = [*starts[1:], len(steps) - 1]
    return [_span(steps, int(a), int(b)) for a, b in zip(starts, ends, strict=True)]


def _span(steps: Steps, first: int, last: int) -> dict[str, Any]:
    return {
        "from_s": float(steps.time[first]),
        "to_s": float(steps.time[last]),
        "mode": mode_name(int(steps.mode[first])),
        "human": bool(steps.source[first] == SOURCE_HUMAN),
    }


def _rates(times: list[int]) -> dict[str, Any]:
    gaps = np.diff(np.array(times, np.int64)) / 1e9
    rate = len(gaps) / gaps.sum() if len(gaps) and gaps.sum() > 0 else None
    longest = float(gaps.max()) if len(gaps) else None
    return {"messages": len(times), "rate_hz": None if rate is None else float(rate), "longest_gap_s": longest}


def _seconds(found: Summary) -> float:
    told = found.end.get("duration_s", "")
    try:
        return float(told)
    except ValueError:
        return found.duration_s


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
