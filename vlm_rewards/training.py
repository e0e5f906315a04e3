"""Training of the small critic's network, bounded by wall-clock time or by steps."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from robolearn.errors import unknown
from vlm_rewards.batches import Augmentation, Batch, Batches
from vlm_rewards.clips import ClipSet
from vlm_rewards.errors import CriticError
from vlm_rewards.losses import Weights, losses
from vlm_rewards.network import CriticNetwork, Shape
from vlm_rewards.text import SentenceEncoder

PRECISIONS = ("auto", "float32", "bfloat16")
"""Of the convolutions in training; ``auto`` takes bfloat16 where the processor computes with it."""

Progress = Callable[[float, dict[str, float]], None]
"""Called now and then with the share of training that is done, and running means of the losses."""


@dataclass(frozen=True)
class Training:
    """How a critic is trained.

    Attributes:
        minutes: of wall-clock time, used where ``steps`` is 0.
        steps: of the optimiser; a run bounded by steps is the same each time on one machine.
        episodes, moments: of a batch.
        rate: the highest learning rate; it warms up, then falls to 0 along a cosine.
        decay: of weights.
        average: decay of the moving average of the weights, which is what is kept.
        unanchored: share of episodes judged without their first pictures.
        threads: of torch, during training.
        precision: one of `PRECISIONS`.
    """

    minutes: float = 5.5
    steps: int = 0
    episodes: int = 24
    moments: int = 5
    rate: float = 2e-3
    decay: float = 0.02
    average: float = 0.995
    unanchored: float = 0.25
    threads: int = 2
    precision: str = "auto"
    weights: Weights = field(default_factory=Weights)
    augmentation: Augmentation = field(default_factory=Augmentation)


def trained(
    clips: ClipSet,
    encoder: SentenceEncoder,
    shape: Shape,
    how: Training,
    seed: int,
    progress: Progress | None = None,
    initial: CriticNetwork | None = None,
) -> CriticNetwork:
    """A network trained on ``clips``, from the weights of ``initial`` if given.

    Raises:
        CriticError: a loss is not finite, an unknown precision, or an initial network of another shape.
    """
    if how.precision not in PRECISIONS:
        raise CriticError(unknown("precision", how.precision, PRECISIONS))
    with threads(how.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CriticNetwork(shape)
        if initial is not None:
            _require_same(initial.shape, shape)
            network.load_state_dict(initial.state_dict())
        batches = Batches(clips, encoder, seed, how.episodes, how.moments, how.augmentation)
        return _run(network, batches, how, progress)


def _run(network: CriticNetwork, batches: Batches, how: Training, progress: Progress | None) -> CriticNetwork:
    average = copy.deepcopy(network).requires_grad_(False)
    matrices = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": how.decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=how.rate, betas=(0.9, 0.98))
    started, step, share = time.monotonic(), 0, 0.0
    means: dict[str, float] = {}
    while share < 1.0:
        batch = batches.next()
        for group in optimiser.param_groups:
            group["lr"] = how.rate * _schedule(share)
        parts = _losses(network, batch, how)
        total = torch.stack(list(parts.values())).sum()
        _require_finite(parts, step)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
        keep = min(how.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
        share = step / how.steps if how.steps else (time.monotonic() - started) / (60 * how.minutes)
        for name, part in parts.items():
            means[name] = 0.95 * means.get(name, part.item()) + 0.05 * part.item()
        if progress is not None:
            progress(min(share, 1.0), {"steps": step, **means})
    return average.eval()


def _losses(network: CriticNetwork, batch: Batch, how: Training) -> dict[str, torch.Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=_brief(how.precision)):
        seen = network.see(batch.pictures)
    anchored = torch.rand(len(batch.text)) >= how.unanchored
    anchor = network.anchor(seen.part(0, 1), batch.text)
    return losses(network(seen.part(1, None), batch.text, anchor, anchored), batch, network.cells, how.weights)


def _require_same(given: Shape, wanted: Shape) -> None:
    if given != wanted:
        raise CriticError(f"training cannot start from a network of {given}; these recordings need {wanted}")


def _require_finite(parts: dict[str, torch.Tensor], step: int) -> None:
    bad = [name for name, part in parts.items() if not math.isfinite(part.item())]
    if bad:
        raise CriticError(f"training diverged at step {step}: the loss of {', '.join(bad)} is not finite")


def _schedule(share: float, warm: float = 0.04) -> float:
    """Of the learning rate, at a share of the training."""
    if share < warm:
        return max(share / warm, 0.02)
    return 0.5 * (1 + math.cos(math.pi * (share - warm) / (1 - warm)))


def _brief(precision: str) -> bool:
    if precision == "auto":
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(supported is not None and supported())
    return precision == "bfloat16"


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch use ``number`` threads, and restore what it used before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
