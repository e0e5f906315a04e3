"""Training batches of the small critic: some moments of some episodes, under sentences whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vlm_rewards.clips import ClipSet
from vlm_rewards.network import QUERIES, normalised
from vlm_rewards.phrasing import Phrasing
from vlm_rewards.text import SentenceEncoder


@dataclass(frozen=True)
class Augmentation:
    """How training pictures and sentences are varied.

    Attributes:
        shift: pixels, the most that a view moves by.
        brightness, contrast, tint: the most that all channels, or one, are scaled by, as a share; colour is meaning,
            so these are small.
        noise: standard deviation of a camera's noise, in units of [0, 255].
        words: probability, for each word, that it is dropped or that a meaningless one is put before it.
        recoloured: share of episodes whose colour channels are exchanged; their sentences name no hue.
        partial: share of the other sentences that name things by hue alone, or without it, where that still tells.
    """

    shift: int = 3
    brightness: float = 0.1
    contrast: float = 0.1
    tint: float = 0.03
    noise: float = 4.0
    words: float = 0.12
    recoloured: float = 0.25
    partial: float = 0.15


_PLAIN = Augmentation(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
_NOISES = 16


@dataclass(frozen=True)
class Batch:
    """E episodes, M moments each, S sentences each. Truth is NaN where nobody knows it.

    Attributes:
        pictures: (E, 1 + M, V, 3, H, W) float in about [-1, 1]; the first are those that the episode starts with.
        text: (E, S, D).
        value, done: (E, M, S) in [0, 1].
        pixels: (E, M, V, S, Q, 2) of the named object and the goal, in [0, 1] of the picture; NaN: not in it.
        located: (E, S, Q) bool, whether ``pixels`` are known at all.
    """

    pictures: torch.Tensor
    text: torch.Tensor
    value: torch.Tensor
    done: torch.Tensor
    pixels: torch.Tensor
    located: torch.Tensor


class Batches:
    """Endless batches of a `ClipSet`.

    The truth under the other object's instruction comes from the facts ``progress_other`` and ``done_other``, and
    where things are from ``pixel_named``, ``pixel_other`` and ``pixel_goal``; what a set lacks is not trained on.

    Args:
        clips: see `vlm_rewards.phrasing.Phrasing` about their words.
        episodes, moments: E and M.
        augmentation: None for the plain pictures and sentences.
    """

    def __init__(
        self,
        clips: ClipSet,
        encoder: SentenceEncoder,
        seed: int,
        episodes: int = 24,
        moments: int = 5,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.clips, self.episodes, self.moments = clips, min(episodes, len(clips)), moments
        self._plain, self._by = augmentation is None, augmentation or _PLAIN
        self._rng = np.random.default_rng(seed)
        noise = np.random.default_rng(seed).standard_normal((_NOISES, *clips.rgb.shape[2:]), np.float32)
        self._noise = torch.from_numpy(noise)
        self._phrasing = Phrasing(clips, encoder, self._rng, self._by.words, self._by.partial)
        self._recoloured = self._by.recoloured if self._phrasing.tells else 0.0
        self._order: list[int] = []

    def next(self) -> Batch:
        """The next E episodes of a shuffled round through all of them."""
        while len(self._order) < self.episodes:
            self._order += self._rng.permutation(len(self.clips)).tolist()
        chosen, self._order = self._order[: self.episodes], self._order[self.episodes :]
        first = self.clips.starts[:-1][chosen].numpy()
        length = self.clips.starts.diff()[chosen].numpy()
        # One moment of each of M equal parts of the episode.
        share = (np.arange(self.moments) + self._rng.random((len(chosen), self.moments))) / self.moments
        moments = torch.from_numpy(first[:, None] + (share * length[:, None]).astype(np.int64))
        rgb = self.clips.rgb[torch.cat([torch.from_numpy(first)[:, None], moments], 1)]
        pixels, located = self._pixels(moments)
        recoloured = self._rng.random(len(chosen)) < self._recoloured
        text, known = self._phrasing.say(chosen, recoloured)
        value, done = (part.masked_fill(~known.unsqueeze(1), torch.nan) for part in self._truth(moments))
        located = located & known.unsqueeze(-1)
        if self._plain:
            return Batch(normalised(rgb), text, value, done, pixels, located)
        rgb, pixels = self._shifted(rgb, pixels, self._by.shift)
        pictures = self._lit(rgb, self._by)
        for e in np.flatnonzero(recoloured):
            pictures[e] = pictures[e][:, :, self._rng.permutation(3)]
        return Batch(pictures, text, value, done, pixels, located)

    def _truth(self, moments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Progress and success (E, M, S) under the three sentences."""
        clips, made = self.clips, []
        unknown = torch.full_like(moments, torch.nan, dtype=torch.float32)
        for own, name in ((clips.progress, "progress_other"), (clips.done.float(), "done_other")):
            other = clips.facts[name][moments].squeeze(-1) if name in clips.facts else unknown
            made.append(torch.stack([own[moments], other, torch.zeros_like(unknown)], -1))
        return made[0], made[1]

    def _pixels(self, moments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        views = len(self.clips.cameras)
        nowhere = torch.full((*moments.shape, views, 2), torch.nan)
        seen = {}
        for name in ("pixel_named", "pixel_other", "pixel_goal"):
            known = self.clips.facts.get(name)
            seen[name] = nowhere if known is None else known[moments].unflatten(-1, (views, 2))
        goal = seen["pixel_goal"]
        both = [torch.stack([x, goal], 3) for x in (seen["pixel_named"], seen["pixel_other"], nowhere)]
        named, other, at_goal = (name in self.clips.facts for name in ("pixel_named", "pixel_other", "pixel_goal"))
        located = torch.tensor([[named, at_goal], [other, at_goal], [named or other, at_goal]])
        assert both[0].shape[3] == QUERIES
        return torch.stack(both, 3), located

    def _shifted(self, rgb: torch.Tensor, pixels: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Each view of each episode moved by some pixels, its edge repeated."""
        episodes, _, views, height, width = rgb.shape[:5]
        moves = self._rng.integers(-most, most + 1, (episodes, views, 2))
        out = torch.empty_like(rgb)
        for e in range(episodes):
            for v in range(views):
                columns, rows = (
                    torch.arange(size).sub_(int(move)).clamp_(0, size - 1)
                    for size, move in zip((width, height), moves[e, v], strict=True)
                )
                out[e, :, v] = rgb[e, :, v].index_select(1, rows).index_select(2, columns)
        moved = pixels + torch.from_numpy(moves / (width, height)).float()[:, None, :, None, None]
        outside = ((moved < 0) | (moved > 1)).any(-1, keepdim=True)
        return out, moved.masked_fill(outside, torch.nan)

    def _lit(self, rgb: torch.Tensor, by: Augmentation) -> torch.Tensor:
        """Other light and camera noise, the same light for all moments of an episode's view."""
        episodes, moments, views = rgb.shape[:3]
        spread = np.stack([by.brightness, by.contrast, *[by.tint] * 3])
        drawn = torch.from_numpy(self._rng.uniform(-1, 1, (episodes, 1, views, 5)) * spread).float()
        gain = ((1 + drawn[..., 1:2]) * (1 + drawn[..., 2:]))[..., None, None]
        pictures = normalised(rgb) * gain + drawn[..., :1, None, None]
        if by.noise:
            rows = torch.from_numpy(self._rng.integers(0, len(self._noise), (episodes, moments, views)))
            pictures += self._noise[rows].movedim(-1, -3) * (by.noise / 127.5)
        return pictures
