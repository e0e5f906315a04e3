"""Random CLIP, SigLIP and SigLIP 2 models of a few thousand parameters, saved as transformers saves them."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from vlm_rewards.models import quiet

SIZE = 32
_LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def save_clip(folder: Path, seed: int = 0) -> Path:
    """A CLIP with the tokenizer of CLIP, its vocabulary the single bytes."""
    torch.manual_seed(seed)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokenizer = CLIPTokenizer({word: i for i, word in enumerate(words)}, [], model_max_length=77)
    text = {**_LAYERS, "vocab_size": len(words), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config=_vision(), projection_dim=16)
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    return _saved(folder, CLIPModel(config), tokenizer, processor)


def save_siglip(folder: Path, seed: int = 0) -> Path:
    """A SigLIP with a byte-level tokenizer."""
    torch.manual_seed(seed)
    config = SiglipConfig(text_config=_text(257), vision_config=_vision())
    return _saved(folder, SiglipModel(config), _bytes(), SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE}))


def save_siglip2(folder: Path, seed: int = 0) -> Path:
    """A SigLIP 2 that takes up to 24 patches of pictures of any proportions."""
    torch.manual_seed(seed)
    vision = {**_LAYERS, "patch_size": 8, "num_patches": 16}
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Siglip2Tokenizer({word: i for i, word in enumerate(words)}, [], model_max_length=64)
    config = Siglip2Config(text_config={**_text(len(words)), "projection_size": 32}, vision_config=vision)
    return _saved(folder, Siglip2Model(config), tokenizer, Siglip2ImageProcessorPil(patch_size=8, max_num_patches=24))


SAVERS = {"clip": save_clip, "siglip": save_siglip, "siglip2": save_siglip2}


def _vision() -> dict[str, int]:
    return {**_LAYERS, "image_size": SIZE, "patch_size": 8}


def _text(vocabulary: int) -> dict[str, int]:
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return {**_LAYERS, **special, "vocab_size": vocabulary, "max_position_embeddings": 64}


def _bytes() -> PreTrainedTokenizerFast:
    words = ["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(BPE({word: i for i, word in enumerate(words)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", pad_token="</s>", model_max_length=64, padding_side="right"
    )


def _saved(folder: Path, model: torch.nn.Module, tokenizer: object, processor: object) -> Path:
    with quiet():
        for part in (model, tokenizer, processor):
            part.save_pretrained(folder)  # type: ignore[union-attr, attr-defined, operator]
    return folder
