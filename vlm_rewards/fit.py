"""The small in-house critic from recordings whose truth a simulation knows: trained, calibrated, and saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robolearn.errors import unknown
from vlm_rewards.calibration import Platt, fit_platt
from vlm_rewards.clips import ClipSet
from vlm_rewards.domain import Domain
from vlm_rewards.errors import CriticError
from vlm_rewards.network import CriticNetwork, Shape
from vlm_rewards.process import Knowledge, ProcessCritic
from vlm_rewards.text import HASHED, sentence_encoder, words_of
from vlm_rewards.training import Progress, Training, threads, trained
from vlm_rewards.validation import Reading, fit_preference, measured, operating_point, read

_DOMAIN_FRAMES = 4000
"""Training frames, at least, whose traits make the critic's domain."""


def fit_process_critic(
    train: ClipSet,
    validation: ClipSet,
    folder: Path,
    *,
    minutes: float = 5.5,
    seed: int = 0,
    text: str = HASHED,
    max_false: float = 0.05,
    min_precision: float = 0.95,
    progress: Progress | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train a critic, calibrate it on ``validation``, and save it in ``folder``.

    Args:
        train, validation: recordings by the same cameras, of successes and of every failure that is to be judged.
            `ClipSet.others` and the facts of a simulation are used where they are, see `vlm_rewards.batches`.
        minutes: of wall-clock time for training; reading the validation set comes on top.
        text: `HASHED`, or the folder of a transformers text model.
        max_false, min_precision: what the operating point of "done" has to keep, see `choose_operating_point`.
        settings: others of `Training`, such as ``steps``.

    Returns:
        What was measured on ``validation``; the critic's description holds it as well.

    Raises:
        CriticError: unknown settings, recordings that do not go together, or training that diverges.
    """
    how = training_settings(minutes, settings)
    network, knowledge, seen = learned(train, validation, how, seed, text, (max_false, min_precision), progress)
    prefer, accuracy = fit_preference(seen, validation, seed)
    figures = measured(seen, validation, knowledge.done, knowledge.point)
    figures["preference_accuracy"] = accuracy
    ProcessCritic(network, replace(knowledge, prefer=prefer)).save(folder, validation=figures, seed=seed)
    return figures


def learned(
    train: ClipSet,
    validation: ClipSet,
    how: Training,
    seed: int,
    text: str,
    limits: tuple[float, float],
    progress: Progress | None,
    initial: CriticNetwork | None = None,
) -> tuple[CriticNetwork, Knowledge, Reading]:
    """A network, all that it has to know beside its weights but preferences, and what it says of ``validation``.

    Args:
        limits: largest share of false "done" in any mode, least precision.
        initial: a network to start from.
    """
    if validation.cameras != train.cameras or validation.rgb.shape[1:] != train.rgb.shape[1:]:
        raise CriticError("training and validation recordings are not of the same cameras and sizes")
    encoder = sentence_encoder(text)
    shape = Shape(len(train.cameras), int(train.rgb.shape[2]), int(train.rgb.shape[3]), encoder.size)
    network = trained(train, encoder, shape, how, seed, progress, initial)
    with threads(how.threads):
        seen = read(network, encoder, validation)
        share = min(1.0, _DOMAIN_FRAMES / train.num_frames)
        some = np.random.default_rng(seed).permutation(len(train))[: max(1, round(share * len(train)))]
        familiar = read(network, encoder, train.subset(some.tolist())).traits
    known = torch.isfinite(seen.truth)
    done = fit_platt(seen.done[known], seen.truth[known] > 0.5)
    sentences = [*train.instructions, *(other for others in train.others for other in others)]
    knowledge = Knowledge(
        cameras=train.cameras,
        text=text,
        vocabulary=frozenset(word for sentence in sentences for word in words_of(sentence)),
        done=done,
        prefer=Platt(),
        domain=Domain.of(familiar, seen.traits),
        point=operating_point(done(seen.done), seen, validation, *limits),
    )
    return network, knowledge, seen


def training_settings(minutes: float, settings: Mapping[str, Any]) -> Training:
    """The settings of a training run.

    Raises:
        CriticError: unknown ones, or no time to train.
    """
    names = [field.name for field in fields(Training)]
    for name in settings:
        if name not in names:
            raise CriticError(unknown("setting of training", name, names))
    how = Training(minutes=minutes, **settings)
    if how.steps < 0 or (how.steps == 0 and not how.minutes > 0):
        raise CriticError(f"training needs a number of steps or of minutes, got {how.steps} and {how.minutes:g}")
    return how
