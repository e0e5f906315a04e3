"""A transformers model that talks about pictures: its processor, prompts as tokens, and the logits of its replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from robolearn.errors import unknown
from vlm_rewards.errors import CriticError
from vlm_rewards.models import ModelError, first_line, quiet, require
from vlm_rewards.prompts import Prompt
from vlm_rewards.score_tokens import Labels, TokenTree

DTYPES = ("auto", "float32", "bfloat16", "float16")


class ChatModel:
    """A model of ``AutoModelForImageTextToText`` with its processor, ready to be asked.

    Args:
        folder: of a transformers model.
        device: of torch.
        dtype: one of `DTYPES`; ``auto`` is that of the file.

    Raises:
        CriticError: transformers is missing, the model cannot be read, or it is none to chat with.
    """

    def __init__(self, folder: Path, device: str, dtype: str) -> None:
        if dtype not in DTYPES:
            raise CriticError(unknown("dtype", dtype, DTYPES))
        transformers = require()
        kind = dtype if dtype == "auto" else getattr(torch, dtype)
        with quiet():
            try:
                self.processor = _processor(folder)
                loader = transformers.AutoModelForImageTextToText
                model = loader.from_pretrained(folder, local_files_only=True, dtype=kind)
                self.model = model.to(device).eval()
            except ModelError:
                raise
            except Exception as error:  # what loaders of configurations, weights and devices raise has no common base
                raise ModelError(f"model {folder} cannot be read: {first_line(error)}") from error
        self._tokenizer = self.processor.tokenizer
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        if not (self.processor.chat_template or self._tokenizer.chat_template):
            raise ModelError(f"model {folder} has no chat template: it is none that can be asked in words")
        # The model's own settings are for free chat: temperature, nucleus, penalties.
        self.model.generation_config = transformers.GenerationConfig(
            do_sample=False,
            pad_token_id=self._tokenizer.pad_token_id,
            eos_token_id=self.model.generation_config.eos_token_id,
            return_dict_in_generate=True,
        )

    def refuse_control_tokens(self, instructions: Sequence[str]) -> None:
        """Raise where a text holds one of the model's own control tokens, which would change the prompt's structure.

        Raises:
            CriticError: naming the token.
        """
        for token in {*self._tokenizer.all_special_tokens, *self._tokenizer.get_added_vocab()}:
            for instruction in instructions:
                if token.strip() and token in instruction:
                    raise CriticError(f"instruction {instruction!r} holds {token!r}, a control token of the model")

    @torch.inference_mode()
    def log_probabilities(self, prompts: Sequence[Prompt], labels: Labels) -> torch.Tensor:
        """Log-probability of replying with each label, (N, L), in the prompts' context."""
        tokens = [self._label_tokens(text) for text in labels.texts]
        tree = TokenTree(tokens)
        inputs = self._inputs(prompts)
        told = self._generate(inputs, max_new_tokens=1, output_logits=True)
        cache = told.past_key_values if _can_be_cut(told.past_key_values) else None
        logits = [told.logits[0]]
        for context in tree.contexts[1:]:
            logits.append(self._after(inputs, context, cache))
        return tree.log_probabilities(logits).cpu()

    @torch.inference_mode()
    def replies(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
        """The most likely text, greedily."""
        inputs = self._inputs(prompts)
        told = self._generate(inputs, max_new_tokens=max_new_tokens)
        written = told.sequences[:, inputs["input_ids"].shape[1] :]
        texts: list[str] = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        return texts

    def _inputs(self, prompts: Sequence[Prompt]) -> Mapping[str, torch.Tensor]:
        """Tokens, padded on the left, and pictures, as the model's own processor makes them."""
        images = [[_picture(part) for part in prompt if not isinstance(part, str)] for prompt in prompts]
        texts = [self._templated(prompt) for prompt in prompts]
        made = self.processor(text=texts, images=images, padding=True, return_tensors="pt")
        inputs: Mapping[str, torch.Tensor] = made.to(self.model.device, self.model.dtype)
        return inputs

    def _templated(self, prompt: Prompt) -> str:
        parts = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in prompt]
        chat = [{"role": "user", "content": parts}]
        text: str = self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        return text

    def _label_tokens(self, text: str) -> list[int]:
        """Token ids of a label as it follows a line break: some tokenizers put a space before a text's first word."""
        anchor, whole = (self._tokenizer(t, add_special_tokens=False)["input_ids"] for t in ("\n", f"\n{text}"))
        if whole[: len(anchor)] == anchor and len(whole) > len(anchor):
            return list(whole[len(anchor) :])
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _after(self, inputs: Mapping[str, torch.Tensor], context: Sequence[int], cache: Any) -> torch.Tensor:
        """The next token's logits (N, vocabulary) after prompt and ``context``; the work on the prompt is kept."""
        longer = _extended(inputs, torch.tensor(context, device=inputs["input_ids"].device))
        if cache is None:
            told = self._generate(longer, max_new_tokens=1, output_logits=True)
        else:
            shape = longer["input_ids"].shape
            alike = {name: value for name, value in longer.items() if value.shape == shape}
            told = self._generate(alike, max_new_tokens=1, output_logits=True, past_key_values=cache)
            cache.crop(-len(context))
        logits: torch.Tensor = told.logits[0]
        return logits

    def _generate(self, inputs: Mapping[str, torch.Tensor], **options: Any) -> Any:
        try:
            return self.model.generate(**inputs, **options)
        except torch.OutOfMemoryError as error:
            rows = len(inputs["input_ids"])
            raise CriticError(f"{rows} prompts at once do not fit into the device's memory: lower batch") from error


def _processor(folder: Path) -> Any:
    """The model's processor, without the part for videos, which needs torchvision, and with pictures left to pillow.

    So it is also where torchvision is installed: answers must not depend on that.
    """
    auto = require("transformers.models.auto")
    config = auto.AutoConfig.from_pretrained(folder, local_files_only=True)
    full = auto.PROCESSOR_MAPPING[type(config)]

    def check(self: Any, name: str, given: Any) -> Any:
        return None if given is None else full.check_argument_for_proper_class(self, name, given)

    pictures_only: Any = type(full.__name__, (full,), {"check_argument_for_proper_class": check})
    described, _ = full.get_processor_dict(folder, local_files_only=True)
    parts = {
        "tokenizer": lambda: auto.AutoTokenizer.from_pretrained(folder, local_files_only=True),
        "image_processor": lambda: auto.AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True
        ),
        "video_processor": lambda: None,
    }
    if not set(full.get_attributes()) <= set(parts):
        return auto.AutoProcessor.from_pretrained(folder, local_files_only=True)
    return pictures_only.from_args_and_dict([parts[name]() for name in full.get_attributes()], described)


def _can_be_cut(cache: Any) -> bool:
    """Whether tokens can be taken back from a cache: every layer keeps the keys and values of all tokens."""
    dynamic = require("transformers.cache_utils").DynamicLayer
    return all(type(layer) is dynamic for layer in getattr(cache, "layers", [None]))


def _extended(inputs: Mapping[str, torch.Tensor], context: torch.Tensor) -> dict[str, torch.Tensor]:
    """Inputs with ``context`` (T,) behind every prompt: as tokens, attended to, and of no picture."""
    rows = inputs["input_ids"]
    fill = {"input_ids": context, "attention_mask": torch.ones_like(context)}
    longer = {}
    for name, value in inputs.items():
        if value.shape == rows.shape:
            more = fill.get(name, torch.zeros_like(context)).to(value.dtype).expand(len(rows), -1)
            value = torch.cat([value, more], 1)
        longer[name] = value
    return longer


def _picture(part: Any) -> Any:
    """A picture (H, W, 3) uint8 as an image of pillow, whose order of channels cannot be mistaken."""
    return require("PIL.Image").fromarray(part.cpu().numpy())
