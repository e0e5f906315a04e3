"""A success classifier with calibrated probabilities, whose misses are counted: what tells a robot to reset itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vlm_rewards.clips import ClipSet
from vlm_rewards.critic import Capability
from vlm_rewards.fit import learned, training_settings
from vlm_rewards.losses import Weights
from vlm_rewards.metrics import brier, detection, ece
from vlm_rewards.operating_point import firing, found_episodes, successes
from vlm_rewards.process import ProcessCritic, restored
from vlm_rewards.text import HASHED
from vlm_rewards.training import Progress

ONLY_DONE = Weights(value=0.0, order=0.0, hop=0.0)


class SuccessClassifier(ProcessCritic):
    """Whether an instruction is carried out in a picture, and nothing else.

    RoboFuME (arXiv 2310.15145) uses such a classifier as the reward of online fine-tuning. Its accuracy of 84-89% hid
    60-81% of missed successes, since most frames are failures; `fit_success_classifier` reports misses on their own.
    """

    name = "success"
    capabilities = frozenset({Capability.DONE})


def fit_success_classifier(
    train: ClipSet,
    validation: ClipSet,
    folder: Path,
    *,
    minutes: float = 3.0,
    seed: int = 0,
    text: str = HASHED,
    max_false: float = 0.05,
    min_precision: float = 0.95,
    start_from: ProcessCritic | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train a classifier, calibrate it on ``validation``, and save it in ``folder``.

    Args:
        start_from: a process critic of the same cameras, whose network is trained further.
        others: as of `vlm_rewards.fit.fit_process_critic`.

    Returns:
        Figures of ``validation``: accuracy, calibration, and what is missed, see `misses`.

    Raises:
        CriticError: as there.
    """
    how = training_settings(minutes, {"weights": ONLY_DONE, **settings, "unanchored": 1.0})
    initial = start_from.network if start_from is not None else None
    network, knowledge, seen = learned(
        train, validation, how, seed, text, (max_false, min_precision), progress, initial
    )
    probability = knowledge.done(seen.done[:, 0])
    point = knowledge.point
    figures = {
        "episodes": len(validation),
        "frames": validation.num_frames,
        "ece": ece(probability, validation.done),
        "brier": brier(probability, validation.done),
        "at_half": misses(probability, validation, 0.5, 1),
        "at_point": misses(probability, validation, point.threshold, point.debounce),
    }
    SuccessClassifier(network, knowledge).save(folder, validation=figures, seed=seed)
    return figures


def misses(probability: torch.Tensor, clips: ClipSet, threshold: float, debounce: int) -> dict[str, float | int]:
    """What a threshold, held for ``debounce`` frames, makes of probabilities (F,).

    Returns:
        ``accuracy``, ``precision``, and ``missed_frames``, the share of successful frames that are not recognised;
        ``missed_episodes``, the share of successful episodes in which no successful frame is; and how many there are.
    """
    truth, episode = clips.done.numpy(), clips.episode().numpy()
    said = firing(probability, threshold, debounce, episode)
    won = successes(truth, episode, len(clips))
    found = found_episodes(said, truth, episode, len(clips))
    found_frames = detection(said, truth)
    return {
        "threshold": threshold,
        "debounce": debounce,
        "accuracy": float((said == truth).mean()),
        "precision": found_frames.precision,
        "missed_frames": 1.0 - found_frames.recall,
        "missed_episodes": float(1.0 - found[won].mean()),
        "successful_episodes": int(won.sum()),
    }


def load(folder: str | Path, **settings: Any) -> SuccessClassifier:
    """A classifier that `SuccessClassifier.save` wrote; settings and errors as of `vlm_rewards.process.load`."""
    return SuccessClassifier(*restored(folder, settings), **settings)
