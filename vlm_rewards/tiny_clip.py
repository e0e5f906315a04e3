"""A small CLIP trained from scratch on rendered frames and captions derived from the state.

It is a ``CLIPModel`` of transformers, saved in that library's format: the zero-shot score loads it like any other CLIP.
It knows the words and pictures that it was trained on, and nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize, pad

from vlm_rewards.captions import CARRIED_OUT, SCENE
from vlm_rewards.contrastive import contrastive_loss
from vlm_rewards.errors import CriticError
from vlm_rewards.image_inputs import ImageInputs
from vlm_rewards.models import quiet
from vlm_rewards.registry import read_description, write_description
from vlm_rewards.tiny_clip_parts import TinyClip, make_model, make_processor, make_tokenizer
from vlm_rewards.zero_shot import ZeroShotCritic
from vlm_rewards.zero_shot import load as load_zero_shot

Captions = Sequence[Sequence[str]]
Progress = Callable[[float, Mapping[str, float]], None]
"""``progress(share of the training, what is measured)``."""

_SHIFT = 4
"""Pixels by which pictures are shifted at most."""
_WARMUP = 0.05
_LARGEST_SCALE = 100.0
"""CLIP's own bound (Radford et al., 2021, section 2.5)."""


@dataclass(frozen=True)
class Examples:
    """Pictures with what is true and false of them.

    Attributes:
        pictures: (F, 3, h, w) uint8.
        tokens: (n, L) int64 of n distinct captions.
        truth, lies: (F, n) bool: the caption is true of the picture; it is false though about the same things.
    """

    pictures: torch.Tensor
    tokens: torch.Tensor
    truth: torch.Tensor
    lies: torch.Tensor

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``count`` pictures, randomly shifted; captions for them (m, L), a true and a false one of each; and which of
        these are true of which pictures (count, m)."""
        rows = torch.randint(len(self.pictures), (count,), generator=generator)
        true, lies = self.truth[rows], self.lies[rows]
        own = torch.multinomial(true.float(), 1, generator=generator)
        some = lies.any(1)
        false = torch.multinomial(lies[some].float(), 1, generator=generator) if bool(some.any()) else own[:0]
        columns = torch.cat([own, false]).unique()
        return self._shifted(rows, generator), self.tokens[columns], true[:, columns]

    def _shifted(self, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        x = pad(self.pictures[rows].float(), (_SHIFT,) * 4, mode="replicate")
        dx, dy = torch.randint(2 * _SHIFT + 1, (2,), generator=generator).tolist()
        height, width = self.pictures.shape[2:]
        return x[:, :, dy : dy + height, dx : dx + width]


def train_tiny_clip(
    frames: torch.Tensor,
    captions: Sequence[str] | Captions | Callable[[int], str | Sequence[str]],
    folder: Path,
    *,
    false_captions: Captions | None = None,
    minutes: float = 3.0,
    steps: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    parts: TinyClip | None = None,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Train a CLIP and write it to ``folder`` as a critic of kind ``tiny_clip``.

    Equal captions are true of all frames that have them. A false caption about the same scene is a wrong answer for all
    frames of a batch (hard negatives, as in Yuksekgonul et al., 2023): without them the model learns what is going on
    and not with which object.

    Args:
        frames: (F, H, W, 3) uint8.
        captions: for each frame a text, or several that are true of it; or what gives them for a frame's number.
        false_captions: for each frame texts that are false of it, though about the same things.
        minutes: how long to train.
        steps: train for so many batches instead, whatever the time; then equal seeds give equal weights on one machine.
            0: an untrained model, to compare with.
        parts: sizes of the model.
        settings: what `load` takes for granted of `vlm_rewards.zero_shot.ZeroShotSettings`, such as ``camera``; by
            default the baseline and the goal prompt of `vlm_rewards.captions`.

    Returns:
        ``steps``, ``seconds``, ``frames``, ``captions`` (distinct ones), and ``loss``, the mean of the last batches.

    Raises:
        CriticError: frames or captions that do not fit together.
    """
    parts = parts or TinyClip()
    texts = _true_captions(captions, len(frames))
    _check(frames, texts, false_captions)
    distinct = sorted({text for some in (texts, false_captions or []) for row in some for text in row})
    tokenizer = make_tokenizer(distinct, parts.context)
    processor = make_processor(parts)
    inputs = ImageInputs(processor.to_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model(parts, tokenizer)
    number = {text: i for i, text in enumerate(distinct)}
    ids = tokenizer(distinct, padding="longest")["input_ids"]
    examples = Examples(
        torch.cat([inputs.fitted(part) for part in frames.split(1024)]),
        torch.tensor(ids),
        _table(texts, number),
        _table(false_captions or [[]] * len(frames), number),
    )
    made = _fit(model, examples, inputs, seed, steps, 60.0 * minutes, batch_size, learning_rate, progress)
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        for part in (model, tokenizer, processor):
            part.save_pretrained(folder)
    metrics = {**made, "frames": len(frames), "captions": len(distinct)}
    defaults = {"baseline": SCENE, "goals": CARRIED_OUT, **(settings or {})}
    write_description(folder, "tiny_clip", settings=defaults, seed=seed, trained=metrics)
    return metrics


def load(folder: str | Path, **settings: Any) -> ZeroShotCritic:
    """The zero-shot critic of a trained folder.

    Args:
        settings: of `vlm_rewards.zero_shot.ZeroShotSettings`, before those that the folder names.

    Raises:
        CriticError: the folder holds no such critic, or a setting cannot be.
    """
    described = read_description(Path(folder)).get("settings")
    if not isinstance(described, dict):
        raise CriticError(f"{folder}: critic.json of a tiny CLIP names its settings, this one does not")
    return load_zero_shot(Path(folder), **{**described, **settings})


def _fit(
    model: Any,
    examples: Examples,
    inputs: ImageInputs,
    seed: int,
    steps: int | None,
    seconds: float,
    batch_size: int,
    learning_rate: float,
    progress: Progress | None,
) -> dict[str, float]:
    """Train in place, by steps or by the clock; the learning rate warms up and falls along a cosine."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.05, fused=True)
    losses: list[float] = []
    started = time.perf_counter()

    def share() -> float:
        return (time.perf_counter() - started) / seconds if steps is None else len(losses) / max(steps, 1)

    model.train()
    while (steps is None or len(losses) < steps) and (done := share()) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (done + 1e-3) / _WARMUP) * (0.5 + 0.5 * math.cos(math.pi * done))
        pictures, tokens, truth = examples.draw(batch_size, generator)
        images = normalize(model.get_image_features(inputs.normalised(pictures)).pooler_output, dim=-1)
        texts = normalize(model.get_text_features(tokens).pooler_output, dim=-1)
        loss = contrastive_loss(images, texts, truth, model.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0.0, math.log(_LARGEST_SCALE))
        losses.append(float(loss.detach()))
        if progress is not None:
            progress(share(), {"step": len(losses), "loss": losses[-1]})
    model.eval()
    last = losses[-20:]
    return {
        "steps": len(losses),
        "seconds": time.perf_counter() - started,
        "loss": sum(last) / len(last) if last else math.nan,
    }


def _true_captions(captions: Any, count: int) -> list[list[str]]:
    given = [captions(i) for i in range(count)] if callable(captions) else captions
    return [[row] if isinstance(row, str) else list(row) for row in given]


def _check(frames: torch.Tensor, texts: Captions, lies: Captions | None) -> None:
    shape = tuple(frames.shape)
    if frames.dtype != torch.uint8 or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
        raise CriticError(f"frames are (frames, height, width, 3) uint8, got {shape} {frames.dtype}")
    for rows, kind in ((texts, "captions"), (lies, "false captions")):
        if rows is not None and len(rows) != len(frames):
            raise CriticError(f"{len(frames)} frames came with {kind} for {len(rows)}")
    without = sum(not any(text.strip() for text in row) for row in texts)
    if without:
        raise CriticError(f"{without} of {len(frames)} frames have no caption")


def _table(rows: Captions, number: Mapping[str, int]) -> torch.Tensor:
    """(F, n) bool: which captions each frame has."""
    table = torch.zeros(len(rows), len(number), dtype=torch.bool)
    for frame, row in enumerate(rows):
        table[frame, [number[text] for text in row]] = True
    return table
