"""Tiny random vision-language models on disk: they exercise every path of a real one and know nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vlm_rewards.models import quiet

QWEN = {
    "end": "<|endoftext|>",
    "start_turn": "<|im_start|>",
    "end_turn": "<|im_end|>",
    "picture": "<|vision_start|><|image_pad|><|vision_end|>",
}
INTERN = {**QWEN, "picture": "<IMG_CONTEXT>"}
TEMPLATE = (
    "{%- for m in messages %}{{ 'START' + m.role + '\n' }}{%- for c in m.content %}{%- if c.type == 'image' %}"
    "{{ 'PICTURE' }}{%- else %}{{ c.text }}{%- endif %}{%- endfor %}{{ 'STOP\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ 'STARTassistant\n' }}{%- endif %}"
)


def tiny_qwen(folder: Path, seed: int = 0) -> Path:
    """A random Qwen3-VL of two layers whose tokens are bytes, saved as a real one is."""
    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = byte_tokenizer(special, QWEN)
    ids = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config={**_text(tokenizer), "head_dim": 16, "rope_parameters": rope},
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 8,
            "temporal_patch_size": 2, "spatial_merge_size": 2, "out_hidden_size": 64, "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )  # fmt: skip
    pictures = Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, size={"shortest_edge": 16 * 16, "longest_edge": 48 * 48}
    )
    return _saved(folder, Qwen3VLForConditionalGeneration, config, tokenizer, pictures, seed)


def tiny_intern(folder: Path, seed: int = 0) -> Path:
    """A random InternVL: another family, with plain positions and pictures of a fixed size."""
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = byte_tokenizer(["<|im_start|>", "<|im_end|>", *named.values()], INTERN, extra_special_tokens=named)
    config = InternVLConfig(
        text_config={"model_type": "qwen2", **_text(tokenizer)},
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": [32, 32], "patch_size": [8, 8],
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
    )  # fmt: skip
    pictures = GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, crop_to_patches=False)
    made = _saved(folder, InternVLForConditionalGeneration, config, tokenizer, pictures, seed)
    (folder / "processor_config.json").write_text('{"processor_class": "InternVLProcessor", "image_seq_length": 4}')
    return made


def byte_tokenizer(special: list[str], marks: dict[str, str], **more: Any) -> PreTrainedTokenizerFast:
    """Every byte is a token, so that "10" takes two, as it does in Qwen."""
    core = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", **more
    )
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    template = TEMPLATE.replace("START", marks["start_turn"]).replace("STOP", marks["end_turn"])
    tokenizer.chat_template = template.replace("PICTURE", marks["picture"])
    return tokenizer


def _text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None,
    }  # fmt: skip


def _saved(folder: Path, kind: Any, config: Any, tokenizer: Any, pictures: Any, seed: int) -> Path:
    """Weights larger than at the start of a training, so that answers depend visibly on what is shown."""
    torch.manual_seed(seed)
    model = kind(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(4.0)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.update(do_sample=True, temperature=0.7, top_p=0.8)
    with quiet():
        for part in (model, tokenizer, pictures):
            part.save_pretrained(folder)
    return folder
