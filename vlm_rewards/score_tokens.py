"""Scores as expectations over the probabilities of a few possible answers, instead of the text that a model writes.

A question comes with `Labels`: the texts that count as an answer, and what each is worth. The probability of a label is
the product of the probabilities of its tokens, each given those before it (`TokenTree` says which contexts that takes),
so numbers that a tokenizer splits into digits are treated exactly. The labels' share of all probability is the
confidence; the score is the mean of their worths under the labels' probabilities, normalised over the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Labels:
    """The answers to a question that count. No text begins with another, so that the events exclude each other.

    Attributes:
        texts: (L,) what a model may reply; several texts may be worth the same.
        values: (L,) what each is worth.
        unit: what a bare number in a reply is to be multiplied with, or None where a number is no answer.

    Raises:
        ValueError: a text begins with another one.
    """

    texts: tuple[str, ...]
    values: tuple[float, ...]
    unit: float | None = None

    def __post_init__(self) -> None:
        ordered = sorted(self.texts)
        clash = [(a, b) for a, b in zip(ordered, ordered[1:], strict=False) if b.startswith(a)]
        if clash:
            raise ValueError(f"label {clash[0][1]!r} begins with label {clash[0][0]!r}")

    def __len__(self) -> int:
        """L."""
        return len(self.texts)

    @property
    def span(self) -> str:
        """What is counted, in a few words, for messages."""
        if len(self) <= 4:
            return ", ".join(self.texts)
        ranked = sorted(range(len(self)), key=lambda i: self.values[i])
        return f"{self.texts[ranked[0]]} to {self.texts[ranked[-1]]}"


YES_NO = Labels(("yes", "Yes", "no", "No"), (1.0, 1.0, 0.0, 0.0))
FIRST_SECOND = Labels(("1", "2"), (0.0, 1.0))


class TokenTree:
    """The contexts in which a model's next token decides between labels.

    Attributes:
        contexts: (C,) beginnings of labels, as token ids, the shorter first; the first one is empty.

    Args:
        tokens: (L,) the token ids of each label.
    """

    def __init__(self, tokens: Sequence[Sequence[int]]) -> None:
        begun = {tuple(label[:n]) for label in tokens for n in range(len(label))}
        self.contexts = sorted(begun, key=lambda context: (len(context), context))
        where = {context: i for i, context in enumerate(self.contexts)}
        self._steps = [[(where[tuple(label[:n])], label[n]) for n in range(len(label))] for label in tokens]

    def log_probabilities(self, logits: Sequence[torch.Tensor]) -> torch.Tensor:
        """Log-probability of each label, (B, L), from the next token's logits in each context: C of (B, vocabulary)."""
        log_z = [each.double().logsumexp(-1) for each in logits]
        conditional = [
            torch.stack([logits[at][:, token].double() - log_z[at] for at, token in steps]) for steps in self._steps
        ]
        return torch.stack([label.sum(0) for label in conditional], -1)


def expectation(log_p: torch.Tensor, values: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of ``values`` (L,) under the labels' probabilities, and the labels' share of all probability; both (B,).

    Args:
        log_p: (B, L); not normalised over the labels.
    """
    worth = torch.tensor(values, dtype=log_p.dtype, device=log_p.device)
    return log_p.softmax(-1) @ worth, log_p.logsumexp(-1).exp().clamp(max=1.0)
