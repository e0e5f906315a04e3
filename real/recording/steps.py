"""The step table of an episode: what was proposed, asked for, sent and measured, by whom, and on what observation."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from real.core.arbiter import Mode
from real.errors import MessageError
from real.msgs import MessageStore
from real.recording.mcap_writer import RecordingError
from real.recording.reading import Recorded, messages

_LOG = logging.getLogger(__name__)
_READ = ("safety/step", "critic/value", "episode/event")
STEP = "step"
JOINT_FIELDS = ("proposed", "human", "executed", "limited", "measured")
CLAMPS = ("position", "velocity", "acceleration", "jerk", "workspace")
SCALARS = ("mode", "source", "observation_stamp", "joint_age_s", "chunk_sequence", "valid")
CRITIC = ("progress", "p_done", "confidence", "valid")
SOURCE_HUMAN = 2
NO_ROW = -1


@dataclass(frozen=True)
class Steps:
    """Rows of one episode, one a step of the safety node, or on a grid of ``fps``.

    Attributes:
        joints: names, J of them.
        time: (T,) s since the first row; log_ns: (T,) when it was recorded; stamp: (T,) s, by safety's wall clock.
        proposed, human, executed, limited, measured: (T, J) rad or m; NaN where there is none.
        mode, source, chunk_sequence: (T,) int64, as on ``safety/step``; -1 where there is no step.
        clamped: (T, 5) bool, in the order of `CLAMPS`; on a grid: in any step since the row before.
        observation_stamp: (T,) s; observation_age: (T,) s, how old it was at the row; joint_age: (T,) s.
        valid: (T,) bool: the safety node says so of every step since the row before, and there is one.
        critic: `CRITIC` → (T,), of the newest observation not after the row; NaN where there is none.
        critic_stamp: (T,) s, of that observation.
    """

    joints: tuple[str, ...]
    time: np.ndarray
    log_ns: np.ndarray
    stamp: np.ndarray
    proposed: np.ndarray
    human: np.ndarray
    executed: np.ndarray
    limited: np.ndarray
    measured: np.ndarray
    mode: np.ndarray
    source: np.ndarray
    chunk_sequence: np.ndarray
    clamped: np.ndarray
    observation_stamp: np.ndarray
    observation_age: np.ndarray
    joint_age: np.ndarray
    valid: np.ndarray
    critic: Mapping[str, np.ndarray]
    critic_stamp: np.ndarray

    def __len__(self) -> int:
        return len(self.time)


def read_steps(path: Path, store: MessageStore, fps: int | None = None) -> Steps:
    """The step table of a recorded episode.

    Args:
        path: its file; one without an end is read as far as it goes.
        store: message types.
        fps: rows per second; None: one a step.

    Raises:
        RecordingError: the file cannot be read or holds no step.
    """
    raw, critic, span, seen = _collect(path, store)
    if not raw:
        raise RecordingError(f"{path}: no message on safety/step")
    joints = raw[0].joints
    wrong = next((step for step in raw if step.joints != joints), None)
    if wrong is not None:
        raise RecordingError(f"{path}: the joints change from {list(joints)} to {list(wrong.joints)}")
    begin, end = span
    raw = [step for step in raw if begin <= step.log_ns <= end] or raw
    logs = np.array([step.log_ns for step in raw])
    if fps is None:
        rows = logs
        chosen = np.arange(len(raw))
        first = chosen
    else:
        rows = logs[0] + (np.arange(1 + int((logs[-1] - logs[0]) * fps / 1e9 + 1e-6)) * 1e9 / fps).astype(np.int64)
        chosen = np.searchsorted(logs, rows, side="right") - 1
        first = np.concatenate([[0], chosen[:-1] + 1])
    return _table(joints, raw, rows, chosen, first, _joined(critic, seen, rows))


def sirius_labels(steps: Steps, before: int = 15) -> np.ndarray:
    """(T,) labels of Sirius (Liu et al. 2022): 1 where a person drives, -10 in the ``before`` rows before, else 0."""
    human = steps.source == SOURCE_HUMAN
    labels = np.where(human, 1, 0)
    for start in np.flatnonzero(human & ~np.concatenate([[False], human[:-1]])):
        earlier = labels[max(0, start - before) : start]
        earlier[earlier == 0] = -10
    return labels


@dataclass(frozen=True)
class _Step:
    log_ns: int
    stamp: float
    joints: tuple[str, ...]
    fields: dict[str, list[float]]
    scalars: dict[str, float]


@dataclass(frozen=True)
class _Judged:
    stamp_ns: int
    values: dict[str, float]


def interfaces(message: Any) -> dict[str, dict[str, float]]:
    """A control_msgs/DynamicJointState as name → interface → value. Raises RecordingError where its sizes differ."""
    if len(message.joint_names) != len(message.interface_values):
        raise RecordingError(f"{len(message.joint_names)} names for {len(message.interface_values)} sets of values")
    found = {}
    for name, one in zip(message.joint_names, message.interface_values, strict=True):
        if len(one.interface_names) != len(one.values):
            raise RecordingError(f"{name}: {len(one.interface_names)} names for {len(one.values)} values")
        found[str(name)] = dict(zip(one.interface_names, map(float, one.values), strict=True))
    return found


def _collect(path: Path, store: MessageStore) -> tuple[list[_Step], list[_Judged], tuple[int, int], dict[int, int]]:
    """Steps, the critic's answers, when the episode began and ended, and when the picture of a stamp was recorded."""
    steps, critic = [], []
    begin, end = 0, 2**63 - 1
    seen: dict[int, int] = {}
    malformed: Counter[str] = Counter()
    for message in messages(path):
        if message.type in ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"):
            seen.setdefault(message.publish_ns, message.log_ns)
            continue
        if not message.topic.endswith(_READ):
            continue
        try:
            said = store.deserialize(message.data, message.type)
            if message.topic.endswith("safety/step"):
                steps.append(_step(message, said, store))
            elif message.topic.endswith("critic/value"):
                critic.append(_Judged(store.ns(said.header.stamp), interfaces(said).get("critic", {})))
            elif (kind := _event(said.data)) == "started":  # what was told of earlier episodes is over
                begin, end = message.log_ns, 2**63 - 1
            elif kind == "ended":
                end = min(end, message.log_ns)
        except (MessageError, RecordingError):
            malformed[message.topic] += 1
    for topic, count in malformed.items():
        _LOG.warning("%s: %d malformed messages of %s are left out", path.name, count, topic)
    return steps, critic, (begin, end), seen


def _event(text: str) -> str:
    try:
        return str(json.loads(text)["event"])
    except (ValueError, KeyError, TypeError):
        return ""


def _step(message: Recorded, step: Any, store: MessageStore) -> _Step:
    found = interfaces(step)
    scalars = found.pop(STEP, {})
    fields = {name: [one.get(name, math.nan) for one in found.values()] for name in JOINT_FIELDS}
    return _Step(message.log_ns, store.ns(step.header.stamp) / 1e9, tuple(found), fields, scalars)


def _joined(critic: list[_Judged], seen: Mapping[int, int], rows: np.ndarray) -> dict[str, np.ndarray]:
    """The critic's answers by row; late ones count for the rows that their observation was made for.

    An observation's time is when the picture with its stamp was recorded: stamps may jump with the clock.
    """
    found = {name: np.full(len(rows), np.nan) for name in (*CRITIC, "stamp")}
    timed = sorted(((seen.get(one.stamp_ns, one.stamp_ns), one) for one in critic), key=lambda pair: pair[0])
    if not timed:
        return found
    index = np.searchsorted(np.array([log for log, _ in timed]), rows, side="right") - 1
    for name in CRITIC:
        values = np.array([one.values.get(name, math.nan) for _, one in timed])
        found[name] = np.where(index >= 0, values[index], np.nan)
    stamps = np.array([one.stamp_ns / 1e9 for _, one in timed])
    return {**found, "stamp": np.where(index >= 0, stamps[index], np.nan)}


def _table(
    joints: tuple[str, ...],
    raw: list[_Step],
    rows: np.ndarray,
    chosen: np.ndarray,
    first: np.ndarray,
    critic: dict[str, np.ndarray],
) -> Steps:
    """``chosen``: the step of each row; ``first``: the first after the row before, beyond ``chosen`` if none."""
    scalars = {name: np.array([step.scalars.get(name, math.nan) for step in raw]) for name in SCALARS}
    clamps = np.array([[step.scalars.get(f"clamp_{name}", 0.0) > 0 for name in CLAMPS] for step in raw])
    valid = scalars["valid"] == 1.0
    fresh = first <= chosen
    spans = [slice(min(a, b), b + 1) for a, b in zip(first, chosen, strict=True)]
    stamp = np.array([step.stamp for step in raw])[chosen]
    observed = scalars["observation_stamp"][chosen]
    return Steps(
        joints=joints,
        time=(rows - rows[0]) / 1e9,
        log_ns=rows,
        stamp=stamp,
        **{name: np.array([step.fields[name] for step in raw])[chosen] for name in JOINT_FIELDS},
        mode=_whole(scalars["mode"][chosen]),
        source=_whole(scalars["source"][chosen]),
        chunk_sequence=_whole(scalars["chunk_sequence"][chosen]),
        clamped=np.array([clamps[span].any(0) for span in spans]),
        observation_stamp=observed,
        observation_age=stamp - observed,
        joint_age=scalars["joint_age_s"][chosen],
        valid=fresh & np.array([bool(valid[span].all()) for span in spans]),
        critic={name: critic[name] for name in CRITIC},
        critic_stamp=critic["stamp"],
    )


def _whole(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, NO_ROW).astype(np.int64)


def mode_name(number: int) -> str:
    """Such as POLICY."""
    return Mode(number).name if number in set(Mode) else str(number)
