"""What a model's reply is worth: read from its text, or from the probabilities that an endpoint tells with it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from vlm_rewards.critic import Judged
from vlm_rewards.score_tokens import Labels

_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_TAG = re.compile(r"<score>(.*?)(?:</score>|$)", re.DOTALL)
_WORD = re.compile(r"[+-]?\d+(?:\.\d+)?\s*%?|[A-Za-z]+")
_SHOWN = 60


@dataclass(frozen=True)
class Choice:
    """One token of a reply.

    Attributes:
        text: of the token that was chosen.
        alternatives: text → probability of the likeliest tokens at this place, the chosen one among them.
    """

    text: str
    alternatives: Mapping[str, float]


@dataclass(frozen=True)
class Reading:
    """What the probabilities of a reply say.

    Attributes:
        value: expectation over the labels.
        share: of all probability that is on labels.
        chosen: the reply that was chosen is a label itself.
    """

    value: float
    share: float
    chosen: bool


def read_texts(texts: Sequence[str], labels: Labels) -> Judged:
    """The worth of each reply; invalid where `read_text` finds none."""
    found = [read_text(text, labels) for text in texts]
    values = torch.tensor([math.nan if value is None else value for value in found])
    reasons = ["" if value is not None else unread(text, labels) for value, text in zip(found, texts, strict=True)]
    return Judged(values, None, reasons)


def read_text(text: str, labels: Labels) -> float | None:
    """What a reply is worth: the label or number in its ``<score>``, or the only one in it; None where there is none.

    A number is counted in the labels' unit, with a percent sign in percent, and must lie between the labels' extremes.
    """
    text = _THOUGHT.sub(" ", text)
    tagged = _TAG.search(text)
    words = _WORD.findall(tagged.group(1) if tagged else text)
    if len(words) > 1 and all(len(label) == 1 and label.isalpha() for label in labels.texts):
        return None  # "A robot ..." is no A
    worths = {worth for worth in (_worth(word, labels) for word in words) if worth is not None}
    return worths.pop() if len(worths) == 1 else None


def read_choices(choices: Sequence[Choice], labels: Labels) -> Reading | None:
    """The expectation over the labels and their share of probability, from the likeliest tokens at each place.

    Follows the tokens that were chosen. At each place, the probability of a token that completes a label goes to that
    label; that of a token with which several labels begin, but which was not chosen, is divided evenly between them,
    since an endpoint does not tell how they would go on. So this is exact where labels are single tokens, except for
    what the endpoint leaves out beyond its most alternatives; that is missing from the share.

    Returns:
        None where no label has any probability.
    """
    mass = dict.fromkeys(labels.texts, 0.0)
    start = _start("".join(choice.text for choice in choices))
    so_far, reached, offset, chose = "", 1.0, 0, False
    for choice in choices:
        skip = min(max(start - offset, 0), len(choice.text))
        offset += len(choice.text)
        if skip == len(choice.text):
            continue
        head = choice.text[:skip] if choice.text[:skip].strip() else ""  # white space is no part of an answer
        chosen = (so_far + choice.text[skip:]).lstrip()
        for token, p in {choice.text: 0.0, **choice.alternatives}.items():
            if not token.startswith(head):
                continue
            reply = (so_far + token[len(head) :]).lstrip()
            whole = _label_in(reply, labels)
            begun = [text for text in labels.texts if text.startswith(reply) and text != reply]
            if whole is not None:
                mass[whole] += reached * p
            elif token != choice.text and reply:
                for text in begun:
                    mass[text] += reached * p / len(begun)
        chose = _label_in(chosen, labels) is not None
        if chose or not any(text.startswith(chosen) for text in labels.texts):
            break
        so_far, reached = chosen, reached * choice.alternatives.get(choice.text, 0.0)
    share = sum(mass.values())
    if share <= 0.0:
        return None
    mean = sum(p * value for p, value in zip(mass.values(), labels.values, strict=True)) / share
    return Reading(mean, min(share, 1.0), chose)


def _start(text: str) -> int:
    """Where in a reply the answer begins: behind ``<score>`` if there is one, and behind white space."""
    tag = _TAG.search(text)
    start = tag.start(1) if tag else 0
    return start + len(text[start:]) - len(text[start:].lstrip())


def _label_in(reply: str, labels: Labels) -> str | None:
    """The label that a reply begins with, if no letter or digit follows it."""
    for text in labels.texts:
        if reply.startswith(text) and not reply[len(text) : len(text) + 1].isalnum():
            return text
    return None


def _worth(word: str, labels: Labels) -> float | None:
    word = word.replace(" ", "")
    known = {text.lower(): value for text, value in zip(labels.texts, labels.values, strict=True)}
    if word.lower() in known:
        return known[word.lower()]
    if labels.unit is None or not word.rstrip("%").lstrip("+-").replace(".", "", 1).isdigit():
        return None
    value = float(word[:-1]) / 100 if word.endswith("%") else float(word) * labels.unit
    return value if min(labels.values) <= value <= max(labels.values) else None


def unread(text: str, labels: Labels) -> str:
    """Why a reply is no answer."""
    shown = " ".join(text.split())
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
    return f"the model's reply {shown!r} holds no answer from {labels.span}"
