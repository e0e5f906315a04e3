"""Sentences as vectors, without a download: signed hashing of words and pairs of words, or a text model on disk."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from vlm_rewards.errors import CriticError

HASHED = "hashed"
"""Name of the embedding that needs no model."""
HUES = frozenset("red orange yellow green cyan turquoise blue violet purple magenta pink brown".split())
"""Words that are no longer true when the channels of a picture are exchanged; black, grey and white stay true."""
_HALF = 256


class SentenceEncoder(Protocol):
    """What turns sentences into vectors.

    Attributes:
        name: `HASHED`, or the folder of a text model.
        size: D, length of a vector.
    """

    name: str
    size: int

    def embed(self, sentences: Sequence[str]) -> torch.Tensor:
        """(B, D) float32 of B sentences; the same sentence always gives the same vector."""
        ...


def words_of(sentence: str) -> list[str]:
    """Its words in lower case, in order."""
    return re.findall(r"\w+", sentence.casefold())


class HashedText:
    """Sums of fixed random sign vectors, one for each word and one for each pair of neighbours, each half of length 1.

    A word's vector is read from its hash (BLAKE2b), so that any word in any language has one, nothing is stored, and
    different words are nearly orthogonal: random indexing (Kanerva et al. 2000). A layer that is linear in the first
    half treats "red cube" as "red" plus "cube", which is what carries over to pairs never seen together.
    """

    name = HASHED
    size = 2 * _HALF

    def embed(self, sentences: Sequence[str]) -> torch.Tensor:
        """(B, 512): words, then pairs of words."""
        rows = np.zeros((len(sentences), 2, _HALF), np.float32)
        for row, sentence in zip(rows, sentences, strict=True):
            words = words_of(sentence)
            pairs = [f"{one} {two}" for one, two in zip(words, words[1:], strict=False)]
            for half, parts in zip(row, (words, pairs), strict=True):
                for part in parts:
                    half += _signs(part)
                half /= max(float(np.linalg.norm(half)), 1e-9)
        return torch.from_numpy(rows.reshape(len(sentences), self.size))


class ModelText:
    """Mean of a transformers text model's last hidden states over the words, of length 1.

    Args:
        folder: of the model, already on this machine.

    Raises:
        CriticError: transformers is not installed, or the folder holds no text model.
    """

    def __init__(self, folder: str) -> None:
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise CriticError("a text model needs transformers: pip install 'robolearn[vlm]'") from error
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model: Any = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise CriticError(f"{folder} holds no text model that can be read: {reason}") from error
        self.name = folder
        self.size = int(self._model.config.hidden_size)

    def embed(self, sentences: Sequence[str]) -> torch.Tensor:
        """(B, D) float32."""
        tokens = self._tokenizer(list(sentences), return_tensors="pt", padding=True, truncation=True)
        with torch.no_grad():
            hidden = self._model(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"].unsqueeze(-1).float()
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1).clamp(min=1.0), dim=1)


def sentence_encoder(name: str = HASHED) -> SentenceEncoder:
    """The encoder that ``name`` stands for: `HASHED`, or the folder of a transformers text model.

    Raises:
        CriticError: it is neither.
    """
    if name == HASHED:
        return HashedText()
    if not Path(name).is_dir():
        raise CriticError(f"text model {name!r} is no folder; give one of a transformers text model, or {HASHED!r}")
    return ModelText(name)


def telling_words(pairs: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Words by which instructions for one scene differ: those that carry the meaning, such as colours and shapes."""
    telling: set[str] = set()
    for one, two in pairs:
        telling |= set(words_of(one)) ^ set(words_of(two))
    return frozenset(telling)


def varied(sentence: str, telling: frozenset[str], rng: np.random.Generator, rate: float) -> str:
    """A paraphrase in the roughest sense: words that do not tell are left out, and words without meaning put in.

    Args:
        telling: words to keep.
        rate: probability of each, for each word.
    """
    made: list[str] = []
    for word in words_of(sentence):
        if rng.random() < rate:
            made.append("".join(chr(97 + int(letter)) for letter in rng.integers(0, 26, 8)))
        if word in telling or rng.random() >= rate:
            made.append(word)
    return " ".join(made)


def without(sentence: str, dropped: frozenset[str]) -> str:
    """The sentence in lower case, without some of its words."""
    return " ".join(word for word in words_of(sentence) if word not in dropped)


def known_share(sentence: str, vocabulary: frozenset[str]) -> float:
    """Share of its words that are in ``vocabulary``; 0 without words."""
    words = words_of(sentence)
    return sum(word in vocabulary for word in words) / max(len(words), 1)


@lru_cache(maxsize=65536)
def _signs(part: str) -> np.ndarray:
    digest = hashlib.blake2b(part.encode(), digest_size=_HALF // 8).digest()
    return np.unpackbits(np.frombuffer(digest, np.uint8)).astype(np.float32) * 2.0 - 1.0
