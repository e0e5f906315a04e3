"""A process critic from a vision-language model on this machine: Qwen3-VL and others that chat about pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robolearn.errors import unknown
from vlm_rewards.chat_model import ChatModel
from vlm_rewards.critic import Judged
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.models import local_model, revision_of
from vlm_rewards.prompted import Asking, PromptedCritic
from vlm_rewards.prompts import Prompt
from vlm_rewards.replies import read_texts
from vlm_rewards.score_tokens import Labels, expectation
from vlm_rewards.settings import settings_of

ANSWERS = ("expectation", "text")


@dataclass
class Options(Asking):
    """Settings of `load`."""

    device: str = "cpu"
    """Of torch, such as cuda."""
    dtype: str = "auto"
    """Of the weights: auto (as in the file), float32, bfloat16 or float16."""
    answer: str = "expectation"
    """How replies are read: the expectation over the labels' probabilities, or the text that the model writes."""
    batch: int = 8
    """Prompts in one forward pass."""
    download: bool = False
    """Fetch the model where it is not in the cache."""


class VlmCritic(PromptedCritic):
    """Asks a `ChatModel`.

    Args:
        what: the folder or the id of a transformers model.
        options: settings.
    """

    def __init__(self, what: str | Path, options: Options) -> None:
        super().__init__(options)
        if options.answer not in ANSWERS:
            raise CriticError(unknown("answer", options.answer, ANSWERS))
        if options.batch < 1:
            raise CriticError(f"batch is at least 1, got {options.batch}")
        folder = local_model(what, options.download)
        self.name = Path(str(what)).name
        self._model = ChatModel(folder, options.device, options.dtype)
        self._options = options
        kind = str(self._model.model.dtype)
        self.revision = self._fingerprint(revision_of(folder), kind, options.answer, options.max_new_tokens)

    def put(self, prompts: Sequence[Prompt], labels: Labels) -> Judged:
        """Ask in batches: the expectation over the labels and their mass, or the worth of the text that is written."""
        chunks = [prompts[i : i + self._options.batch] for i in range(0, len(prompts), self._options.batch)]
        if self._options.answer == "text":
            texts = [text for chunk in chunks for text in self._model.replies(chunk, self._options.max_new_tokens)]
            return read_texts(texts, labels)
        log_p = [self._model.log_probabilities(chunk, labels) for chunk in chunks]
        if not log_p:
            return Judged(torch.zeros(0))
        values, mass = expectation(torch.cat(log_p), labels.values)
        return Judged(values, mass)

    def _checked(self, capability: Any, instructions: Sequence[str], *seen: Frames) -> tuple[Frames, ...]:
        self._model.refuse_control_tokens(instructions)
        return super()._checked(capability, instructions, *seen)


def load(what: str | Path, **settings: Any) -> VlmCritic:
    """A critic from the folder or the id of a transformers model; settings are those of `Options`.

    Raises:
        CriticError: the model is not there or cannot be read, or a setting is unknown or out of range.
    """
    return VlmCritic(what, settings_of(Options, settings, "a vision-language critic"))
