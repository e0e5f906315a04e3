"""What a vision-language model is asked, and the scale that it answers on."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from robolearn.errors import unknown
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.reference import Reference
from vlm_rewards.score_tokens import Labels

Prompt = list["str | torch.Tensor"]
"""Texts and pictures (H, W, 3) uint8 in the order in which a model sees them."""

SCALES = ("numbers", "percent", "letters")


@dataclass(frozen=True)
class Wording:
    """The texts of the questions; ``{instruction}`` and ``{scale}`` are filled in.

    A model that was trained on questions of its own should be asked those: `Wording.read` takes them from a file.
    """

    task: str = "You judge how far a robot has come with a task. The task is: {instruction}"
    reference: str = (
        "First, pictures of another recording in which the robot was asked: {instruction}. "
        "The percentage tells how much of that task was done."
    )
    delta: str = (
        "How far did the robot come between moment A and moment B? If it came closer to the end of the task, say which "
        "share of the work that was left at A is done at B. If it went back, say as a negative number which share of "
        "the work that was done at A is lost at B. {scale}"
    )
    done: str = "Has the robot finished the task in what you see? Answer yes or no, in one word."
    value: str = "How much of the task is done now, compared with the start of the episode? {scale}"
    prefer: str = (
        "In which of the two moments has the robot come further with the task? Answer with the number of the moment "
        "alone: 1 or 2."
    )

    @classmethod
    def read(cls, given: str | Path | Mapping[str, str] | None) -> Wording:
        """The default with the texts of a JSON file, or of a mapping, in place of those it names.

        Raises:
            CriticError: the file cannot be read, or names a text that does not exist.
        """
        if given is None:
            return cls()
        if isinstance(given, (str, Path)):
            try:
                given = json.loads(Path(given).read_text())
            except (OSError, ValueError) as error:
                raise CriticError(f"wording={given} cannot be read: {error}") from error
        if not isinstance(given, Mapping):
            raise CriticError('wording is an object of texts, such as {"done": "Is the task finished?"}')
        names = [field.name for field in fields(cls)]
        for name, text in given.items():
            if name not in names:
                raise CriticError(unknown("wording", str(name), names))
            if not isinstance(text, str) or not text.strip():
                raise CriticError(f"wording {name!r} is not a text")
        return cls(**given)


@dataclass(frozen=True)
class Scale:
    """How a model expresses progress: one of `SCALES`, with ``granularity`` steps from nothing to everything.

    Attributes:
        value: labels of progress, in [0, 1].
        delta: labels of a change, in [-1, 1].
        value_hint, delta_hint: how a question tells the model about it.
    """

    value: Labels
    delta: Labels
    value_hint: str
    delta_hint: str

    @classmethod
    def of(cls, name: str, granularity: int) -> Scale:
        """A scale by name.

        Raises:
            CriticError: an unknown scale, or a granularity that it cannot express.
        """
        if name not in SCALES:
            raise CriticError(unknown("scale", name, SCALES))
        if granularity < 2 or granularity % 2:
            raise CriticError(f"granularity is an even number of steps from 2, got {granularity}")
        limit = {"numbers": 1000, "percent": 200, "letters": 24}[name]
        if granularity > limit or (name == "percent" and 200 % granularity):
            what = "that divides 200" if name == "percent" else f"up to {limit}"
            raise CriticError(f"scale {name!r} needs a granularity {what}, got {granularity}")
        made: Scale = {"numbers": _numbers, "percent": _percent, "letters": _letters}[name](granularity)
        return made


def _numbers(steps: int) -> Scale:
    """Numbers of a fixed width: no label begins with another, whichever way a tokenizer splits them."""
    half, wide, narrow = steps // 2, len(str(steps)), len(str(steps // 2))
    value = [f"{k:0{wide}d}" for k in range(steps + 1)]
    delta = [f"{'-' if k < 0 else '+'}{abs(k):0{narrow}d}" for k in range(-half, half + 1)]
    return Scale(
        Labels(tuple(value), _worths(0, steps, steps), 1 / steps),
        Labels((*delta, f"-{0:0{narrow}d}"), (*_worths(-half, half, half), 0.0), 1 / half),
        f"Answer with a whole number from {value[0]} to {value[-1]} and nothing else, always with {wide} digits: "
        f"{value[0]} means that nothing is done, {value[-1]} that all is done.",
        f"Answer with a whole number from {delta[0]} to {delta[-1]} and nothing else, always with its sign and "
        f"{narrow} digits: {delta[-1]} means that all that was left is done, {delta[0]} that all done is lost, "
        f"{delta[half]} that nothing changed.",
    )


def _percent(steps: int) -> Scale:
    """Percentages as people write them; the sign at their end keeps 1% apart from 10%."""
    half, step = steps // 2, 200 // steps
    delta = [f"{k * step:+d}%" for k in range(-half, half + 1) if k]
    value = [f"{k * step / 2:g}%" for k in range(steps + 1)]
    return Scale(
        Labels(tuple(value), _worths(0, steps, steps), 0.01),
        Labels((*delta, "0%", "+0%"), (*(w for w in _worths(-half, half, half) if w), 0.0, 0.0), 0.01),
        f"Answer with a percentage in steps of {step / 2:g}% and nothing else, such as {value[steps // 4]}: "
        "0% means that nothing is done, 100% that all is done.",
        f"Answer with a percentage in steps of {step}%, with its sign, and nothing else, such as {delta[half]}: +100% "
        "means that all that was left is done, -100% that all that was done is lost, 0% that nothing changed.",
    )


def _letters(steps: int) -> Scale:
    """One letter, which is one token for nearly every tokenizer: one forward pass, and exact on every endpoint."""
    half, texts = steps // 2, tuple(string.ascii_uppercase[: steps + 1])
    return Scale(
        Labels(texts, _worths(0, steps, steps)),
        Labels(texts, _worths(-half, half, half)),
        f"Answer with one letter from {texts[0]} to {texts[-1]} and nothing else, on an even scale: {texts[0]} means "
        f"that nothing is done, {texts[-1]} that all is done.",
        f"Answer with one letter from {texts[0]} to {texts[-1]} and nothing else, on an even scale: {texts[-1]} means "
        f"that all that was left is done, {texts[0]} that all that was done is lost, {texts[half]} that nothing "
        "changed.",
    )


def _worths(low: int, high: int, whole: int) -> tuple[float, ...]:
    return tuple(k / whole for k in range(low, high + 1))


class Prompter:
    """Writes the prompts of B moments.

    Args:
        wording: the texts.
        scale: of the answers.
        reference: a recording with percentages that is shown first, or None.
    """

    def __init__(self, wording: Wording, scale: Scale, reference: Reference | None) -> None:
        self._wording = wording
        self._scale = scale
        self._reference = reference

    def delta(self, before: Frames, after: Frames, instructions: Sequence[str]) -> list[Prompt]:
        """What changed from one moment to the other."""
        question = self._wording.delta.replace("{scale}", self._scale.delta_hint)
        return self._asked(question, instructions, [("Moment A", before), ("Moment B", after)])

    def prefer(self, first: Frames, second: Frames, instructions: Sequence[str]) -> list[Prompt]:
        """Which moment shows more progress."""
        return self._asked(self._wording.prefer, instructions, [("Moment 1", first), ("Moment 2", second)])

    def done(self, now: Frames, instructions: Sequence[str]) -> list[Prompt]:
        """Whether the task is finished."""
        return self._asked(self._wording.done, instructions, [("Now", now)])

    def value(self, now: Frames, start: Frames, instructions: Sequence[str]) -> list[Prompt]:
        """How much is done since the start."""
        question = self._wording.value.replace("{scale}", self._scale.value_hint)
        return self._asked(question, instructions, [("Start of the episode", start), ("Now", now)])

    def _asked(self, question: str, instructions: Sequence[str], moments: Sequence[tuple[str, Frames]]) -> list[Prompt]:
        prompts = []
        for row, instruction in enumerate(instructions):
            prompt: Prompt = [_filled(self._wording.task, instruction)]
            if self._reference is not None:
                prompt += self._shown(self._reference)
            for title, frames in moments:
                prompt += _views(title, frames.newest[row], frames.cameras)
            prompt.append(_filled(question, instruction))
            prompts.append(_joined(prompt))
        return prompts

    def _shown(self, reference: Reference) -> Prompt:
        shown: Prompt = [_filled(self._wording.reference, reference.instruction)]
        for pictures, percent in zip(reference.rgb, reference.percent, strict=True):
            shown += _views(f"Reference, {percent:.0f}%", pictures, reference.cameras)
        return shown


def _views(title: str, pictures: torch.Tensor, cameras: Sequence[str]) -> Prompt:
    """One moment: pictures (V, H, W, 3), each behind the name of its camera."""
    shown: Prompt = []
    for camera, picture in zip(cameras, pictures, strict=True):
        shown += [f"{title}, camera {camera}:", picture]
    return shown


def _filled(text: str, instruction: str) -> str:
    return text.replace("{instruction}", instruction.strip())


def _joined(prompt: Prompt) -> Prompt:
    """The same with neighbouring texts on lines of one text."""
    joined: Prompt = []
    for part in prompt:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] = f"{joined[-1]}\n{part}"
        else:
            joined.append(part)
    return joined
