"""What a freshly trained network says of held-out recordings, and what that tells about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from vlm_rewards.calibration import Platt, fit_platt
from vlm_rewards.clips import ClipSet
from vlm_rewards.domain import traits
from vlm_rewards.metrics import brier, ece, end_gap, preference, voc
from vlm_rewards.network import CriticNetwork, normalised
from vlm_rewards.operating_point import OperatingPoint, choose_operating_point
from vlm_rewards.text import SentenceEncoder

SWAPPED = "swapped_instruction"
"""Mode of a recording that is judged against the other object's instruction."""
_DEBOUNCES = (2,)
_THRESHOLDS = tuple(round(0.99 - 0.01 * i, 2) for i in range(50))
_SPARE_RECALL = 0.03
_LEAST_CHANGE = 0.05
"""Of progress between two moments of which one is to be preferred."""


@dataclass(frozen=True)
class Reading:
    """What a network says of F frames under their own instruction and the other object's, and what is so.

    Attributes:
        value, value_alone: (F, S) logits, with the episode's first pictures and without them.
        done: (F, S) logits.
        progress, truth: (F, S) in [0, 1]; NaN where nobody knows.
        traits: (F, D), see `vlm_rewards.domain`.
    """

    value: torch.Tensor
    value_alone: torch.Tensor
    done: torch.Tensor
    progress: torch.Tensor
    truth: torch.Tensor
    traits: torch.Tensor


@torch.inference_mode()
def read(network: CriticNetwork, encoder: SentenceEncoder, clips: ClipSet) -> Reading:
    """Judge every frame; S is 2 where the set knows the other instruction's truth, else 1."""
    both = "done_other" in clips.facts and "progress_other" in clips.facts and all(clips.others)
    columns: list[tuple[torch.Tensor, ...]] = []
    for e in range(len(clips)):
        clip = clips[e]
        sentences = [clip.instruction, *(clip.others[:1] if both else ())]
        text = encoder.embed(sentences).unsqueeze(0)
        pictures = normalised(clip.rgb)
        seen = network.see(pictures.unsqueeze(0))
        anchor = network.anchor(seen.part(0, 1), text)
        said, alone = (network(seen, text, anchor, torch.tensor([known])) for known in (True, False))
        look = traits(pictures, seen.near[0])
        columns.append((said.value[0], alone.value[0], said.done[0], look))
    value, value_alone, done, looks = (torch.cat(column) for column in zip(*columns, strict=True))
    progress, truth = clips.progress[:, None], clips.done[:, None].float()
    if both:
        progress = torch.cat([progress, clips.facts["progress_other"]], 1)
        truth = torch.cat([truth, clips.facts["done_other"]], 1)
    return Reading(value, value_alone, done, progress, truth, looks)


def operating_point(
    probabilities: torch.Tensor, reading: Reading, clips: ClipSet, max_false: float, min_precision: float
) -> OperatingPoint:
    """Threshold and debounce for probabilities (F, S), chosen over all modes and swapped instructions.

    Most points keep the limits on a validation set of some hundred episodes, where one false "done" more or less says
    little. So a single frame never decides, and of the thresholds that find nearly as many successes as the best one
    the highest is taken, which leaves most room for what validation does not show.
    """
    columns = probabilities.shape[1]
    known = torch.isfinite(reading.truth).T.flatten()
    modes = list(clips.modes) + [SWAPPED] * len(clips) * (columns - 1)
    episode = clips.episode()
    episodes = torch.cat([episode + len(clips) * s for s in range(columns)])
    choose = partial(
        choose_operating_point,
        probabilities.T.flatten()[known],
        reading.truth.T.flatten()[known] > 0.5,
        episodes[known],
        modes,
        max_false=max_false,
        min_precision=min_precision,
    )
    best = choose(debounces=_DEBOUNCES)
    if not best.met:
        return choose()
    for threshold in _THRESHOLDS:
        point = choose(debounces=(best.debounce,), thresholds=(threshold,))
        if point.met and point.recall >= best.recall - _SPARE_RECALL:
            return point
    return best


def fit_preference(reading: Reading, clips: ClipSet, seed: int) -> tuple[Platt, float]:
    """The temperature of preferences between two moments of an episode, and their accuracy."""
    rng = np.random.default_rng(seed)
    lengths, starts = clips.starts.diff().numpy(), clips.starts[:-1].numpy()
    episodes = rng.integers(0, len(clips), 20 * len(clips))
    one, two = (
        torch.from_numpy(starts[episodes] + (rng.random(len(episodes)) * lengths[episodes]).astype(np.int64))
        for _ in range(2)
    )
    change = reading.progress[two, 0] - reading.progress[one, 0]
    clear = change.abs() > _LEAST_CHANGE
    difference = (reading.value_alone[two, 0] - reading.value_alone[one, 0])[clear]
    platt = fit_platt(difference, change[clear] > 0, shifted=False)
    return platt, preference(platt(difference), change[clear] > 0)[0].rate


def measured(reading: Reading, clips: ClipSet, done: Platt, point: OperatingPoint) -> dict[str, Any]:
    """Figures of the validation set itself; the operating point and the calibration were chosen on it."""
    value, probability = torch.sigmoid(reading.value[:, 0]), done(reading.done[:, 0])
    last = clips.starts[1:] - 1
    success = clips.done[last]
    won = [e for e in range(len(clips)) if bool(success[e])]
    rows = [slice(int(clips.starts[e]), int(clips.starts[e + 1])) for e in won]
    return {
        "episodes": len(clips),
        "frames": clips.num_frames,
        "value_error": float((value - reading.progress[:, 0]).abs().nanmean()),
        "voc_success": float(np.nanmean([voc(value[r], clips.times[r]) for r in rows])) if rows else None,
        "end_gap": end_gap(value[last], success),
        "ece": ece(probability, clips.done),
        "brier": brier(probability, clips.done),
        "point": asdict(point),
    }
