"""Training of the small critic's network, bounded by wall-clock time or by steps."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from robolearn.errors import unknown
from robolearn.versions import usable_cores
from vlm_rewards.batches import Augmentation, Batches
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
        threads: that share the work, each a part of every batch; 0: every core, up to 8. The result depends on it.
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
    threads: int = 0
    precision: str = "auto"
    weights: Weights = field(default_factory=Weights)
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def workers(self) -> int:
        """Threads that share the work."""
        return max(1, min(self.threads or min(usable_cores(), 8), self.episodes))


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
    with threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CriticNetwork(shape)
        if initial is not None:
            _require_same(initial.shape, shape)
            network.load_state_dict(initial.state_dict())
        workers = [_Worker(network, clips, encoder, how, (seed, i)) for i in range(how.workers)]
        return _run(network, workers, how, progress)


class _Worker:
    """Gradients of a share of each batch, on one thread: the others do not wait for it inside of an operation."""

    def __init__(
        self, network: CriticNetwork, clips: ClipSet, encoder: SentenceEncoder, how: Training, seed: tuple[int, int]
    ) -> None:
        episodes = max(1, how.episodes // how.workers)
        self._network, self._how = network, how
        self._batches = Batches(clips, encoder, seed, episodes, how.moments, how.augmentation)
        self._generator = torch.Generator().manual_seed(seed[0] * 1009 + seed[1])
        self._brief = _brief(how.precision)

    def work(self) -> tuple[dict[str, float], tuple[torch.Tensor, ...]]:
        """The next losses, and the gradients of all parameters in order."""
        batch, network = self._batches.next(), self._network
        # without its cache, which all threads would share
        with torch.autocast("cpu", torch.bfloat16, enabled=self._brief, cache_enabled=False):
            seen = network.see(batch.pictures)
        anchored = torch.rand(len(batch.text), generator=self._generator) >= self._how.unanchored
        anchor = network.anchor(seen.part(0, 1), batch.text)
        said = network(seen.part(1, None), batch.text, anchor, anchored)
        parts = losses(said, batch, network.cells, self._how.weights)
        gradients = torch.autograd.grad(torch.stack(list(parts.values())).sum(), list(network.parameters()))
        return {name: part.item() for name, part in parts.items()}, gradients


def _run(network: CriticNetwork, workers: list[_Worker], how: Training, progress: Progress | None) -> CriticNetwork:
    average = copy.deepcopy(network).requires_grad_(False)
    optimiser = _optimiser(network, how)
    means: dict[str, float] = {}
    started, step, share = time.monotonic(), 0, 0.0
    with ThreadPoolExecutor(len(workers), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        while share < 1.0:
            done = list(pool.map(_Worker.work, workers))
            parts = {name: sum(part[name] for part, _ in done) / len(done) for name in done[0][0]}
            _require_finite(parts, step)
            for parameter, *each in zip(network.parameters(), *(gradients for _, gradients in done), strict=True):
                parameter.grad = torch.stack(each).mean(0) if len(each) > 1 else each[0]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            for group in optimiser.param_groups:
                group["lr"] = how.rate * _schedule(share)
            optimiser.step()
            step += 1
            keep = min(how.average, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - keep)
            share = step / how.steps if how.steps else (time.monotonic() - started) / (60 * how.minutes)
            means = {name: 0.95 * means.get(name, part) + 0.05 * part for name, part in parts.items()}
            if progress is not None:
                progress(min(share, 1.0), {"steps": step, **means})
    return average.eval()


def _optimiser(network: CriticNetwork, how: Training) -> torch.optim.Optimizer:
    """Weights decay; biases and the like do not."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": how.decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=how.rate, betas=(0.9, 0.98))


def _require_same(given: Shape, wanted: Shape) -> None:
    if given != wanted:
        raise CriticError(f"training cannot start from a network of {given}; these recordings need {wanted}")


def _require_finite(parts: Mapping[str, float], step: int) -> None:
    bad = [name for name, part in parts.items() if not math.isfinite(part)]
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
