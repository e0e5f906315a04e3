"""Pictures are prepared as the image processors of transformers prepare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoImageProcessor

from tests.vlm_rewards.tiny_encoders import SAVERS
from vlm_rewards.errors import CriticError
from vlm_rewards.image_inputs import ImageInputs
from vlm_rewards.models import quiet


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    return {kind: save(root / kind) for kind, save in SAVERS.items()}


@pytest.mark.parametrize("kind", SAVERS)
@pytest.mark.parametrize("height, width", [(32, 32), (40, 56), (97, 64), (20, 33)])
def test_pictures_are_prepared_as_the_processor_does(
    kind: str, height: int, width: int, folders: dict[str, Path]
) -> None:
    made = torch.Generator().manual_seed(1)
    rgb = torch.randint(0, 256, (3, height, width, 3), dtype=torch.uint8, generator=made)
    with quiet():
        processor = AutoImageProcessor.from_pretrained(folders[kind], backend="pil")
    expected = processor(images=list(rgb.numpy()), return_tensors="pt")
    ours = ImageInputs.load(folders[kind])(rgb)
    assert set(ours) == set(expected)
    # Pillow shrinks tall pictures in height first, we always in width: in pure noise, the worst case, the rounding in
    # between makes some values differ by a few of 255 levels.
    level = 1 / 255 / (0.26 if kind == "clip" else 0.5)
    gap = (ours["pixel_values"] - expected["pixel_values"]).abs() / level
    assert float(gap.max()) < (4 if height > width else 1.01) and float(gap.mean()) < 0.25
    for name in set(ours) - {"pixel_values"}:
        assert torch.equal(ours[name].long(), expected[name].long())


@pytest.mark.parametrize(
    "changed",
    [
        {"size": {"shortest_edge": 24}, "crop_size": {"height": 32, "width": 32}},
        {"size": {"height": 30, "width": 50}, "resample": 2},
        {"do_center_crop": False, "size": {"height": 32, "width": 32}, "do_normalize": False},
        {"do_resize": False, "do_rescale": False},
    ],
)
def test_unusual_processors_are_followed(changed: dict[str, Any], folders: dict[str, Path]) -> None:
    with quiet():
        processor = AutoImageProcessor.from_pretrained(folders["clip"], backend="pil", **changed)
    rgb = torch.randint(0, 256, (2, 41, 57, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    expected = processor(images=list(rgb.numpy()), return_tensors="pt")["pixel_values"]
    ours = ImageInputs(processor.to_dict())(rgb)["pixel_values"]
    assert ours.shape == expected.shape
    assert float((ours - expected).abs().mean()) < 1e-3 * float(expected.std())


def test_an_unknown_filter_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(CriticError, match="filter 1 of Pillow"):
        ImageInputs({**json.loads((folders["clip"] / "preprocessor_config.json").read_text()), "resample": 1})
