"""Model, tokenizer and image processor of a small CLIP, all of the classes that CLIP itself has in transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlm_rewards.errors import CriticError
from vlm_rewards.models import require

START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = 2048
"""Most entries of the vocabulary, single letters included."""


@dataclass(frozen=True)
class TinyClip:
    """Sizes.

    Attributes:
        size: height and width of pictures, pixels; others are resized, whatever their proportions.
        patch: side of a patch, pixels.
        width: of both transformers; a multiple of 32.
        picture_layers, text_layers: of the transformers.
        context: most tokens of a text.
    """

    size: int = 64
    patch: int = 16
    width: int = 128
    picture_layers: int = 4
    text_layers: int = 2
    context: int = 48

    def __post_init__(self) -> None:
        if self.size % self.patch or self.width % 32:
            raise CriticError(f"size {self.size} must be a multiple of patch {self.patch}, width {self.width} of 32")


def make_model(parts: TinyClip, tokenizer: Any) -> Any:
    """A ``CLIPModel`` with random weights, of torch's generator."""
    transformers = require("transformers")
    common = {
        "hidden_size": parts.width,
        "intermediate_size": 2 * parts.width,
        "num_attention_heads": parts.width // 32,
    }
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = {
        **common,
        **special,
        "num_hidden_layers": parts.text_layers,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": parts.context,
    }
    vision = {
        **common,
        "num_hidden_layers": parts.picture_layers,
        "image_size": parts.size,
        "patch_size": parts.patch,
    }
    return transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=parts.width)
    )


def make_tokenizer(texts: Sequence[str], context: int) -> Any:
    """A ``CLIPTokenizer`` whose byte pairs are those of ``texts``: words that occur in them are one token each, any
    other text is spelt in bytes.

    Raises:
        CriticError: a text is longer than ``context`` tokens.
    """
    tokenizers, transformers = require("tokenizers"), require("transformers")
    model = tokenizers.models.BPE(end_of_word_suffix="</w>")
    trained, clips = tokenizers.Tokenizer(model), transformers.CLIPTokenizer().backend_tokenizer
    trained.normalizer, trained.pre_tokenizer = clips.normalizer, clips.pre_tokenizer
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    known = [START, END, *letters, *(f"{letter}</w>" for letter in letters)]
    # All letters are given as special, so that their numbers, by which ties between pairs are broken, are always equal.
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=_WORDS, special_tokens=known, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    words = list(dict.fromkeys([*known, *("".join(pair) for pair in merges)]))
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = transformers.CLIPTokenizer(vocabulary, merges, model_max_length=context)
    lengths = [len(ids) for ids in tokenizer(list(texts))["input_ids"]]
    if max(lengths) > context:
        longest = texts[lengths.index(max(lengths))]
        raise CriticError(f"a caption of {max(lengths)} tokens is longer than the context of {context}: {longest!r}")
    return tokenizer


def make_processor(parts: TinyClip) -> Any:
    """A CLIP image processor that squeezes pictures into a square, so that nothing is cut off."""
    module = require("transformers.models.clip.image_processing_pil_clip")
    square = {"height": parts.size, "width": parts.size}
    return module.CLIPImageProcessorPil(size=square, crop_size=square, do_center_crop=False)
