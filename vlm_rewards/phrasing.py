"""What is said about training episodes: sentences for each, in many wordings, of which the truth is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vlm_rewards.clips import ClipSet
from vlm_rewards.text import HUES, SentenceEncoder, telling_words, varied, without, words_of

SENTENCES = 3
"""Of each episode: its own instruction, the other object's, and one that names an object which is not there."""
_WORDINGS = 24
"""Of each sentence."""
_WHOLE, _HUELESS, _HUE = range(3)
"""Versions of a sentence: all of it, without the words for hues, and with no other words that tell."""


class Phrasing:
    """Sentences about the episodes of a set, as vectors.

    An instruction of another episode whose telling words fit neither object of a scene is not carried out there.
    A version that leaves telling words out is used only where those that stay fit no other object: "the cube" has to
    be found among red and blue things alike, which teaches shape apart from colour.

    Args:
        clips: `Clip.others` must be worded like the instruction, so that what differs is what tells.
        words: probability, for each word, that it is dropped or that a meaningless one is put before it.
        partial: share of sentences that leave telling words out.
        near_misses: share of the absent objects that have a telling word in common with the named one.

    Attributes:
        tells: whether the set has any two instructions for one scene.
    """

    def __init__(
        self,
        clips: ClipSet,
        encoder: SentenceEncoder,
        rng: np.random.Generator,
        words: float,
        partial: float,
        near_misses: float = 0.5,
    ) -> None:
        self._clips, self._rng, self._partial, self._near = clips, rng, partial, near_misses
        pairs = [(one, two) for one, others in zip(clips.instructions, clips.others, strict=True) for two in others]
        telling = telling_words(pairs)
        self.tells = bool(telling)
        sentences = sorted({*clips.instructions, *(two for _, two in pairs)})
        self._row = {sentence: row for row, sentence in enumerate(sentences)}
        versions = [[sentence, without(sentence, HUES), without(sentence, telling - HUES)] for sentence in sentences]
        self._meaning = [[frozenset(words_of(part)) & telling for part in three] for three in versions]
        wordings = [
            [
                [part, *(varied(part, telling, rng, words) for _ in range(_WORDINGS - 1 if words else 0))]
                for part in three
            ]
            for three in versions
        ]
        self._vectors = torch.stack([torch.stack([encoder.embed(texts) for texts in three]) for three in wordings])

    def say(self, episodes: Sequence[int], hueless: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors (E, S, D) of what is said of some episodes, and (E, S) bool, whether its truth is known.

        Args:
            hueless: (E,) bool, the episodes of which no hue may be named.
        """
        picked = np.zeros((3, len(episodes), SENTENCES), np.int64)  # sentence, version, wording
        picked[2] = self._rng.integers(0, self._vectors.shape[2], picked.shape[1:])
        known = torch.zeros(len(episodes), SENTENCES, dtype=torch.bool)
        for i, episode in enumerate(episodes):
            there = [self._row[self._clips.instructions[episode]], *self._others(episode)]
            rows = [there[0], there[1] if len(there) > 1 else -1, self._absent(there)]
            for s, row in enumerate(rows):
                if row < 0:
                    continue
                version = _HUELESS if hueless[i] else self._version()
                clear = version == _WHOLE or self._clear(row, version, [other for other in there if other != row])
                picked[:2, i, s] = row, version if clear or hueless[i] else _WHOLE
                known[i, s] = clear or not hueless[i]
        return self._vectors[tuple(torch.from_numpy(part) for part in picked)], known

    def _version(self) -> int:
        return int(self._rng.integers(_HUELESS, _HUE + 1)) if self._rng.random() < self._partial else _WHOLE

    def _clear(self, row: int, version: int, others: Sequence[int]) -> bool:
        """Whether the telling words that a version keeps fit none of the ``others``."""
        words = self._meaning[row][version]
        return bool(words) and not any(words <= self._meaning[other][_WHOLE] for other in others)

    def _others(self, episode: int) -> list[int]:
        return [self._row[other] for other in self._clips.others[episode]]

    def _absent(self, there: Sequence[int]) -> int:
        """A sentence that fits nothing in a scene; -1 if the set has none."""
        seen = [self._meaning[row][_WHOLE] for row in there]
        fits = [row for row, (words, *_) in enumerate(self._meaning) if words and words not in seen]
        near = [row for row in fits if self._meaning[row][_WHOLE] & seen[0]]
        fits = near if near and self._rng.random() < self._near else fits
        return int(self._rng.choice(fits)) if fits else -1
