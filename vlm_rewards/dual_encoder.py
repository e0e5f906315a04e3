"""Models that place pictures and texts in one space (CLIP, SigLIP), through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

from robolearn.errors import unknown
from vlm_rewards.errors import CriticError
from vlm_rewards.image_inputs import ImageInputs
from vlm_rewards.models import ModelError, first_line, quiet, require

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class DualEncoder:
    """Embeds pictures and texts as unit vectors of D numbers; texts only once.

    Args:
        model: a ``CLIPModel``, ``SiglipModel`` or ``Siglip2Model``.
        tokenizer: its own.
        inputs: prepares its pictures.
        batch_size: pictures embedded at once.

    Attributes:
        scale: what the model multiplies cosines by to get logits.
    """

    def __init__(self, model: Any, tokenizer: Any, inputs: ImageInputs, batch_size: int = 64) -> None:
        self._model, self._tokenizer, self._inputs, self._batch_size = model.eval(), tokenizer, inputs, batch_size
        self._texts: dict[str, torch.Tensor] = {}
        self._context = int(model.config.text_config.max_position_embeddings)
        # The SigLIP models were trained on lower-case texts; not all of their tokenizers see to it.
        self._lower = str(model.config.model_type).startswith("siglip")
        self.scale = float(model.logit_scale.detach().float().exp())

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", dtype: str = "float32", batch_size: int = 64) -> DualEncoder:
        """From a folder in the format of transformers.

        Raises:
            ModelError: something is missing or damaged, weights included, or the device is not there.
            CriticError: an unknown dtype.
        """
        if dtype not in DTYPES:
            raise CriticError(unknown("dtype", dtype, DTYPES))
        inputs = ImageInputs.load(folder)
        model = _model(folder, DTYPES[dtype])
        _require_fit(folder, inputs, model)
        try:
            model = model.to(torch.device(device))
        except (RuntimeError, AssertionError) as error:
            raise ModelError(f"cannot use device {device!r}: {first_line(error)}") from error
        return cls(model, _tokenizer(folder), inputs, batch_size)

    @torch.no_grad()
    def images(self, rgb: torch.Tensor) -> torch.Tensor:
        """Pictures (K, H, W, 3) uint8 → (K, D) float32, on the model's device."""
        out = []
        for part in rgb.split(self._batch_size):
            inputs = self._inputs(part.to(self._model.device))
            inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
            out.append(normalize(_pooled(self._model.get_image_features(**inputs)).float(), dim=-1))
        return torch.cat(out)

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> torch.Tensor:
        """n texts → (n, D) float32, on the model's device.

        Raises:
            CriticError: a text is longer than the model can read.
        """
        for prompt in prompts:
            if prompt not in self._texts:
                self._texts[prompt] = normalize(_pooled(self._text_features(prompt)).float(), dim=-1)[0]
        return torch.stack([self._texts[prompt] for prompt in prompts])

    def _text_features(self, prompt: str) -> Any:
        text = [prompt.lower() if self._lower else prompt]
        with quiet():
            length = len(self._tokenizer(text)["input_ids"][0])
            if length > self._context:
                raise CriticError(f"{length} tokens are too many for a model that reads {self._context}: {prompt!r}")
            # Filled up to the context for every model: the SigLIP models were trained so, without a mask, and CLIP
            # does not look behind the end-of-text token.
            ids = self._tokenizer(text, padding="max_length", max_length=self._context)["input_ids"]
        return self._model.get_text_features(input_ids=torch.tensor(ids, device=self._model.device))


def _pooled(features: Any) -> torch.Tensor:
    """transformers 5 returns an output object, earlier versions the tensor."""
    pooled: torch.Tensor = getattr(features, "pooler_output", features)
    return pooled


def _model(folder: Path, dtype: torch.dtype) -> Any:
    transformers, safetensors = require("transformers"), require("safetensors")
    try:
        with quiet():
            model, info = transformers.AutoModel.from_pretrained(
                folder, local_files_only=True, dtype=dtype, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise ModelError(f"model {folder} cannot be read: {first_line(error)}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(f"the weights in {folder} lack {len(missing)} of the model's tensors, such as {missing[0]}")
    return model


def _require_fit(folder: Path, inputs: ImageInputs, model: Any) -> None:
    wanted = getattr(model.config.vision_config, "image_size", None)
    made = tuple(inputs(torch.zeros(1, 8, 8, 3, dtype=torch.uint8))["pixel_values"].shape[2:])
    if wanted is not None and made != (wanted, wanted):
        raise ModelError(f"{folder}: the image processor makes pictures of {made}, the model takes {wanted}x{wanted}")


def _tokenizer(folder: Path) -> Any:
    try:
        with quiet():
            return require("transformers").AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except ImportError as error:
        package = "sentencepiece" if "sentencepiece" in str(error).lower() else "another package"
        raise ModelError(f"the tokenizer of {folder} needs {package}: pip install {package}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} holds no tokenizer that can be read: {first_line(error)}") from error
