"""Recordings of one colour a picture, and a critic that reads it: progress in red, confidence in blue."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import torch

from vlm_rewards.critic import Capability, Critic, Judged, Window
from vlm_rewards.frames import Frames
from vlm_rewards.fusion import hop
from vlm_rewards.registry import read_description, write_description

KIND = "painted"


def paint(
    path: Path,
    progress: Sequence[float] | np.ndarray,
    trust: Sequence[float] | np.ndarray | float = 1.0,
    *,
    fps: float = 10.0,
    size: tuple[int, int] = (48, 64),
) -> Path:
    """A lossless video whose picture ``i`` has red 250 ``progress[i]`` and blue 250 ``trust[i]``."""
    count = len(progress)
    colours = np.zeros((count, 3))
    colours[:, 0], colours[:, 2] = np.asarray(progress), np.broadcast_to(trust, count)
    writer = imageio_ffmpeg.write_frames(
        str(path), size[::-1], fps=fps, codec="png", pix_fmt_out="rgb24", macro_block_size=1, output_params=["-an"]
    )
    writer.send(None)
    for colour in np.round(250 * colours).astype(np.uint8):
        writer.send(np.broadcast_to(colour, (*size, 3)).copy())
    writer.close()
    return path


class PaintedCritic(Critic):
    """Reads the mean colour of its newest pictures; an instruction with the word "half" halves progress.

    Its folder says what it can be asked, which cameras it needs, and how far back it looks. An instruction with the
    word "stop" interrupts it, as Ctrl-C would.
    """

    name = KIND
    revision = "colours"

    def __init__(self, capabilities: Sequence[str], cameras: Sequence[str], window: Sequence[float]) -> None:
        self.capabilities = frozenset(Capability(name) for name in capabilities)
        self.cameras = tuple(cameras)
        self.picture = (16, 16)
        self.window = Window(int(window[0]), window[1])

    def _value(self, now: Frames, start: Frames, instructions: list[str]) -> Judged:
        return Judged(self._progress(now, instructions), self._trust(now))

    def _delta(self, before: Frames, after: Frames, instructions: list[str]) -> Judged:
        hops = hop(self._progress(before, instructions), self._progress(after, instructions))
        return Judged(hops, torch.minimum(self._trust(before), self._trust(after)))

    def _score(self, now: Frames, instructions: list[str]) -> Judged:
        return Judged(3.0 + 2.0 * self._progress(now, instructions), self._trust(now))

    def _done(self, now: Frames, instructions: list[str]) -> Judged:
        return Judged((self._progress(now, instructions) > 0.9).float(), self._trust(now))

    def _prefer(self, first: Frames, second: Frames, instructions: list[str]) -> Judged:
        return Judged((self._progress(second, instructions) > self._progress(first, instructions)).float())

    def _progress(self, frames: Frames, instructions: list[str]) -> torch.Tensor:
        if "stop" in instructions[0]:
            raise KeyboardInterrupt
        halves = torch.tensor([0.5 if "half" in text else 1.0 for text in instructions])
        return halves * frames.newest[..., 0].float().mean((1, 2, 3)) / 250.0

    def _trust(self, frames: Frames) -> torch.Tensor:
        return frames.newest[..., 2].float().mean((1, 2, 3)) / 250.0


def save(folder: Path, *capabilities: str, cameras: Sequence[str] = (), window: Sequence[float] = (1, 0.0)) -> Path:
    """A folder that `load` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    write_description(folder, KIND, capabilities=list(capabilities), cameras=list(cameras), window=list(window))
    return folder


def load(folder: Path, **settings: Any) -> PaintedCritic:
    described = read_description(folder)
    assert not settings, json.dumps(settings)
    return PaintedCritic(described["capabilities"], described["cameras"], described["window"])
