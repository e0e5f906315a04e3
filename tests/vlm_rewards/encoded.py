"""Clips whose truth is written into their pixels, and critics that read it, each with a fault of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vlm_rewards.clips import Clip, ClipSet
from vlm_rewards.critic import Capability, Critic, Judged
from vlm_rewards.frames import Frames

LENGTH = 12
MODES = ("expert", "miss", "drop", "wrong_object")
_NAMED, _OTHER = "put the red cube on the pad", "put the blue ball on the pad"


def encoded_clips(episodes: int = 32, seed: int = 0, modes: Sequence[str] = MODES) -> ClipSet:
    """Two objects; the front camera's first pixel is progress and done of the red cube, its second of the blue ball.

    The wrist camera's first pixel says how the episode was made, as the index of its mode.
    """
    rng = np.random.default_rng(seed)
    return ClipSet([encoded_clip(mode, rng) for mode in modes for _ in range(episodes)])


def encoded_clip(mode: str, rng: np.random.Generator) -> Clip:
    """One clip of `LENGTH` frames or a few more, of 4 x 4 pixels."""
    frames = LENGTH + int(rng.integers(0, 4))
    share = np.linspace(0.0, 1.0, frames)
    idle = 0.05 + 0.02 * rng.random(frames)
    if mode == "expert":
        named, other = share, idle
    elif mode == "miss":
        named, other = np.minimum(share, 0.3) + 0.02 * rng.random(frames), idle
    elif mode == "drop":
        named, other = np.where(share < 0.6, share, 0.2 + 0.02 * rng.random(frames)), idle
    else:
        named, other = idle, share
    done, done_other = named > 0.8, other > 0.8
    red = bool(rng.random() < 0.5)
    pair = ((named, done), (other, done_other))
    rgb = np.zeros((frames, 2, 4, 4, 3), np.uint8)
    for place, (progress, success) in enumerate(pair if red else pair[::-1]):
        rgb[:, 0, 0, place, 0], rgb[:, 0, 0, place, 1] = np.round(255 * progress), 255 * success
    rgb[:, 1, 0, 0, 0] = MODES.index(mode)
    texts = (_NAMED, _OTHER) if red else (_OTHER, _NAMED)
    state = torch.tensor(np.stack([named, other, share], 1), dtype=torch.float32)
    return Clip(
        torch.from_numpy(rgb),
        ("front", "wrist"),
        torch.arange(frames).double() * 0.2,
        texts[0],
        torch.from_numpy(named).float(),
        torch.from_numpy(done),
        mode,
        (texts[1],),
        {"state": state, "proprioception": state[:, 2:] + 0.1 * torch.from_numpy(rng.normal(size=(frames, 1))).float()},
    )


def read_pixels(now: Frames, instructions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Progress and done (B,) of the object that each instruction names."""
    place = torch.tensor([0 if "red" in text else 1 for text in instructions])
    pixel = now.newest[torch.arange(len(now)), 0, 0, place].float() / 255.0
    return pixel[:, 0], pixel[:, 1]


class Oracle(Critic):
    """Says the truth, and is as sure as it should be."""

    name = "oracle"
    revision = "1"
    capabilities = frozenset({Capability.VALUE, Capability.DONE})
    cameras = ("front", "wrist")
    picture = (4, 4)

    def _value(self, now: Frames, start: Frames, instructions: list[str]) -> Judged:
        return Judged(read_pixels(now, instructions)[0])

    def _done(self, now: Frames, instructions: list[str]) -> Judged:
        return Judged(0.01 + 0.98 * read_pixels(now, instructions)[1])


class BlindToDrops(Oracle):
    """Takes the highest point of a drop for a success."""

    name = "blind"

    def _done(self, now: Frames, instructions: list[str]) -> Judged:
        progress, _ = read_pixels(now, instructions)
        dropped = (now.newest[:, 1, 0, 0, 0] == MODES.index("drop")) & (progress > 0.25)
        return Judged(torch.where(dropped, torch.tensor(0.99), super()._done(now, instructions).values))


class Unsure(Oracle):
    """Right, but its probabilities say less than it knows."""

    name = "unsure"

    def _done(self, now: Frames, instructions: list[str]) -> Judged:
        return Judged(0.3 + 0.4 * read_pixels(now, instructions)[1])


class Scoring(Critic):
    """Offers a score alone, on a scale of its own."""

    name = "scoring"
    revision = "1"
    capabilities = frozenset({Capability.SCORE})

    def _score(self, now: Frames, instructions: list[str]) -> Judged:
        return Judged(100.0 * read_pixels(now, instructions)[0] - 40.0)


class Comparing(Critic):
    """Compares moments; abstains from every fifth preference."""

    name = "comparing"
    revision = "1"
    capabilities = frozenset({Capability.DELTA, Capability.PREFER})

    def _delta(self, before: Frames, after: Frames, instructions: list[str]) -> Judged:
        then, now = read_pixels(before, instructions)[0], read_pixels(after, instructions)[0]
        rise, fall = (now - then) / (1 - then).clamp(min=1e-6), (now - then) / then.clamp(min=1e-6)
        return Judged(torch.where(now >= then, rise, fall))

    def _prefer(self, first: Frames, second: Frames, instructions: list[str]) -> Judged:
        better = read_pixels(second, instructions)[0] > read_pixels(first, instructions)[0]
        reasons = ["abstained: it is tired" if i % 5 == 0 else "" for i in range(len(first))]
        return Judged(better.float(), reasons=reasons)
