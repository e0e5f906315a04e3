"""Pictures as CLIP-like models want them: a transformers image processor's work, in torch, in batches, on any device.

The processors themselves need torchvision to work on tensors; without it they take pictures one by one through Pillow.
Here only their settings are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import interpolate, pad

from vlm_rewards.errors import CriticError
from vlm_rewards.models import ModelError, first_line, quiet, require

_MODES = {2: "bilinear", 3: "bicubic"}
"""Pillow's number of a filter → torch's name."""


class ImageInputs:
    """Resizes, crops, scales and normalises pictures.

    Args:
        settings: of an image processor, as its ``to_dict()`` gives them: ``size`` with ``height`` and ``width``, or
            ``shortest_edge``; ``crop_size``, ``resample``, ``rescale_factor``, ``image_mean``, ``image_std``, and what
            of them applies (``do_...``).

    Raises:
        CriticError: settings that mean something which is not done here.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = dict(settings)
        size = settings.get("size") or {}
        if settings.get("do_resize") and not (size.get("shortest_edge") or size.get("height") and size.get("width")):
            raise CriticError(f"image processor resizes to {size}; known: shortest_edge, or height and width")
        resample = int(settings.get("resample", 3))
        if resample not in _MODES:
            raise CriticError(f"image processor uses filter {resample} of Pillow; known: 2 (bilinear), 3 (bicubic)")
        self._mode = _MODES[resample]
        mean = torch.tensor(settings["image_mean"] if settings.get("do_normalize") else [0.0] * 3)
        std = torch.tensor(settings["image_std"] if settings.get("do_normalize") else [1.0] * 3)
        factor = settings["rescale_factor"] if settings.get("do_rescale") else 1.0
        # (x * factor - mean) / std as one multiplication and one addition.
        self._scale, self._shift = (factor / std).view(3, 1, 1), (-mean / std).view(3, 1, 1)

    @classmethod
    def load(cls, folder: Path) -> ImageInputs:
        """From the processor saved beside a model.

        Raises:
            ModelError: there is none.
            CriticError: as above.
        """
        processors = require("transformers").AutoImageProcessor
        try:
            with quiet():
                made = processors.from_pretrained(folder, local_files_only=True, backend="pil")
        except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
            raise ModelError(f"{folder} holds no image processor that can be read: {first_line(error)}") from error
        settings = made.to_dict()
        return PatchInputs(settings, made) if "max_num_patches" in settings else cls(settings)

    def __call__(self, rgb: torch.Tensor) -> dict[str, torch.Tensor]:
        """Inputs of the vision model for pictures (K, H, W, 3) uint8: ``pixel_values`` (K, 3, h, w) float32."""
        return {"pixel_values": self.normalised(self.fitted(rgb))}

    def fitted(self, rgb: torch.Tensor) -> torch.Tensor:
        """Pictures (K, H, W, 3) uint8 resized and cropped: (K, 3, h, w) uint8."""
        x = rgb.permute(0, 3, 1, 2)
        if self._settings.get("do_resize"):
            x = _resized(x, *self._target(x.shape[2], x.shape[3]), self._mode)
        if self._settings.get("do_center_crop"):
            crop = self._settings["crop_size"]
            x = _cropped(x, int(crop["height"]), int(crop["width"]))
        return x

    def normalised(self, fitted: torch.Tensor) -> torch.Tensor:
        """What `fitted` gave, scaled and normalised, float32."""
        return fitted.float() * self._scale.to(fitted.device) + self._shift.to(fitted.device)

    def _target(self, height: int, width: int) -> tuple[int, int]:
        """Size to resize to; a shortest edge keeps the picture's proportions, its longer edge rounded down."""
        size = self._settings["size"]
        edge = size.get("shortest_edge")
        if not edge:
            return int(size["height"]), int(size["width"])
        return (int(edge * height / width), edge) if width <= height else (edge, int(edge * width / height))


class PatchInputs(ImageInputs):
    """For models that take patches of pictures of any proportions (SigLIP 2 NaFlex)."""

    def __init__(self, settings: Mapping[str, Any], processor: Any) -> None:
        super().__init__({**settings, "do_resize": False, "do_center_crop": False})
        self._processor = processor
        self._patch, self._most = int(settings["patch_size"]), int(settings["max_num_patches"])
        self._grids: dict[tuple[int, int], tuple[int, int]] = {}

    def __call__(self, rgb: torch.Tensor) -> dict[str, torch.Tensor]:
        """``pixel_values`` (K, P, p * p * 3) float32 of P patches in rows, zeros after the last one;
        ``pixel_attention_mask`` (K, P), 1 for a patch; ``spatial_shapes`` (K, 2) patches down and across."""
        down, across = self._grid(int(rgb.shape[1]), int(rgb.shape[2]))
        p, count = self._patch, len(rgb)
        x = self.normalised(_resized(rgb.permute(0, 3, 1, 2), down * p, across * p, self._mode))
        patches = x.unflatten(3, (across, p)).unflatten(2, (down, p)).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        empty = self._most - down * across
        mask = torch.ones(count, down * across, dtype=torch.long, device=rgb.device)
        return {
            "pixel_values": pad(patches, (0, 0, 0, empty)),
            "pixel_attention_mask": pad(mask, (0, empty)),
            "spatial_shapes": torch.tensor([[down, across]], device=rgb.device).expand(count, 2),
        }

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Patches down and across, as the processor itself chooses them."""
        if (height, width) not in self._grids:
            blank = torch.zeros(3, height, width, dtype=torch.uint8).numpy()
            down, across = self._processor(images=blank, return_tensors="pt")["spatial_shapes"][0].tolist()
            self._grids[height, width] = (down, across)
        return self._grids[height, width]


def _resized(x: torch.Tensor, height: int, width: int, mode: str) -> torch.Tensor:
    """(K, 3, H, W) uint8 resized as Pillow does it: anti-aliased, rounded after each direction."""
    if tuple(x.shape[2:]) == (height, width):
        return x
    y = x.float()  # torch's own resizing of bytes has weights of 8 bits, and exists on the CPU only
    for size in ((y.shape[2], width), (height, width)):
        y = interpolate(y, size, mode=mode, antialias=True).round_().clamp_(0, 255)
    return y.to(torch.uint8)


def _cropped(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The middle of (K, 3, H, W), black where it is smaller than the crop."""
    down, across = max(height - x.shape[2], 0), max(width - x.shape[3], 0)
    x = pad(x, (across - across // 2, across // 2, down - down // 2, down // 2))
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    return x[:, :, top : top + height, left : left + width]
