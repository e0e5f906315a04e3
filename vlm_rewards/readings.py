"""What a critic says of every frame of a set of clips, asked in batches; and how long it takes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from vlm_rewards.anchors import moments
from vlm_rewards.answer import Answer
from vlm_rewards.clips import ClipSet
from vlm_rewards.critic import Capability, Critic, Window
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames

Alter = Callable[[Frames], Frames]


@dataclass(frozen=True)
class Readings:
    """Answers about the F frames of a set of clips, NaN where they are invalid.

    Attributes:
        clips: what was judged, and its truth.
        progress: (F,) or None if the critic offers none.
        source: the capability that gave it: ``value``; ``delta`` from the start of the clip; ``score``, on any scale.
        done: (F,) probability, or None if the critic offers none.
        confidence: (F,) of the progress, or of done where there is no progress.
        reasons: why answers were invalid → how many were.
    """

    clips: ClipSet
    progress: np.ndarray | None
    source: str
    done: np.ndarray | None
    confidence: np.ndarray
    reasons: Counter[str]

    @property
    def truth(self) -> np.ndarray:
        """(F,) bool: truly done."""
        return np.asarray(self.clips.done)

    @property
    def episodes(self) -> np.ndarray:
        """(F,) int64 index of each frame's episode."""
        return np.asarray(self.clips.episode())

    @property
    def last(self) -> np.ndarray:
        """(E,) index of each episode's last frame."""
        return np.asarray(self.clips.starts[1:]) - 1


def progress_source(critic: Critic) -> Capability | None:
    """What a critic's progress is read from: its value, its deltas from the start, or its score."""
    order = (Capability.VALUE, Capability.DELTA, Capability.SCORE)
    return next((c for c in order if c in critic.capabilities), None)


@torch.inference_mode()
def read(
    critic: Critic,
    clips: ClipSet,
    batch: int = 64,
    window: Window | None = None,
    alter: Alter | None = None,
    starts: torch.Tensor | None = None,
) -> Readings:
    """Ask a critic about every frame.

    Args:
        critic: with at least one of VALUE, DELTA, SCORE and DONE.
        batch: moments in one question, at most.
        window: pictures of each moment; the critic's own where None.
        alter: what happens to the frames before the critic sees them.
        starts: (E,) int64 the frame that stands for each episode's start; its first where None.

    Raises:
        CriticError: the critic offers none of these, or needs the future.
    """
    critic.require_online()
    source = progress_source(critic)
    if source is None and Capability.DONE not in critic.capabilities:
        raise CriticError(f"critic {critic.name!r} offers neither value, delta, score nor done: nothing can be judged")
    window, change = window or critic.window, alter or _unaltered
    episode = clips.episode()
    start = (clips.starts[:-1] if starts is None else starts)[episode]
    progress: list[Answer] = []
    done: list[Answer] = []
    for rows in torch.arange(clips.num_frames).split(batch):
        now, first = change(moments_of(clips, window, rows)), change(_beginnings(clips, window, rows, start[rows]))
        said = _ask(critic, now, first, [clips.instructions[e] for e in episode[rows].tolist()])
        progress += said[0]
        done += said[1]
    return Readings(
        clips,
        _values(progress),
        "" if source is None else source.value,
        _values(done),
        np.concatenate([answer.confidence.double().cpu().numpy() for answer in progress or done]),
        Counter(reason for answer in (*progress, *done) for reason in answer.reasons if reason),
    )


def moments_of(clips: ClipSet, window: Window, rows: torch.Tensor) -> Frames:
    """The moments of frames ``rows`` (B,) int64 of a set, each with its history."""
    order = rows.argsort(stable=True)
    ordered, episode = rows[order], clips.episode()[rows[order]]
    parts = [
        moments(clips[e], window, ordered[episode == e] - clips.starts[e])
        for e in episode.unique_consecutive().tolist()
    ]
    return Frames.cat(parts).rows(order.argsort())


def _beginnings(clips: ClipSet, window: Window, rows: torch.Tensor, pictures: torch.Tensor) -> Frames:
    """The start of each row's episode (B,): the picture in ``pictures`` (B,) repeated, at the clip's first time."""
    rgb = clips.rgb[pictures].unsqueeze(1).expand(-1, window.frames, -1, -1, -1, -1)
    return Frames(rgb, clips.cameras, clips.times[clips.starts[:-1][clips.episode()[rows]]])


def latency_ms(critic: Critic, clips: ClipSet, batch: int, calls: int = 30, seconds: float = 10.0) -> dict[str, float]:
    """Wall time of asking what training would ask about ``batch`` moments at once, for each moment, ms.

    Returns:
        ``p50_ms`` and ``p95_ms``, percentiles over ``calls``. One call before them warms up; at least three are timed,
        and none begins after ``seconds``.
    """
    rows = torch.arange(batch) % clips.num_frames
    episode = clips.episode()[rows]
    now = moments_of(clips, critic.window, rows)
    first = _beginnings(clips, critic.window, rows, clips.starts[:-1][episode])
    asked = [clips.instructions[e] for e in episode.tolist()]
    taken: list[float] = []
    began = time.perf_counter()
    with torch.inference_mode():
        _ask(critic, now, first, asked)
        while len(taken) < 3 or (len(taken) < calls and time.perf_counter() - began < seconds):
            started = time.perf_counter()
            _ask(critic, now, first, asked)
            taken.append(1e3 * (time.perf_counter() - started) / batch)
    low, high = np.percentile(taken, [50, 95])
    return {"p50_ms": float(low), "p95_ms": float(high), "calls": len(taken)}


def _ask(critic: Critic, now: Frames, first: Frames, instructions: Sequence[str]) -> tuple[list[Answer], list[Answer]]:
    """Progress and done, each a list of one answer, or of none if it is not offered."""
    source, offers_done = progress_source(critic), Capability.DONE in critic.capabilities
    if source is Capability.VALUE and offers_done:
        value, done = critic.value_and_done(now, first, instructions)
        return [value], [done]
    progress = []
    if source is Capability.VALUE:
        progress = [critic.value(now, first, instructions)]
    elif source is Capability.DELTA:
        # From the start nothing can be lost: a hop back from zero ends at zero.
        hop = critic.delta(first, now, instructions)
        progress = [replace(hop, values=hop.values.clamp(min=0.0))]
    elif source is Capability.SCORE:
        progress = [critic.score(now, instructions)]
    return progress, [critic.done(now, instructions)] if offers_done else []


def _values(answers: Sequence[Answer]) -> np.ndarray | None:
    return np.concatenate([answer.values.double().cpu().numpy() for answer in answers]) if answers else None


def _unaltered(frames: Frames) -> Frames:
    return frames
