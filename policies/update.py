"""One update of PPO's parameters: steps on minibatches, of which the host reads nothing before they are done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from policies.captured import Captured, CudaRecorder, Recorder
from policies.distributed import mean_over_ranks_, world_size
from policies.errors import NonFiniteError
from policies.fetch import fetch
from policies.loss import LOSS_COLUMNS, STATISTICS, ppo_loss
from policies.networks import ActorCritic
from policies.optim import FlatAdam
from policies.passes import Passes, compiled
from policies.ppo_config import PPOConfig

Batch = Mapping[str, torch.Tensor]
Extra = Callable[[Batch, torch.Tensor], torch.Tensor]
"""``extra(batch, mean)`` → a loss to add, given a minibatch and the policy's mean actions now (B, A)."""

_FIGURES = (*STATISTICS, "gradient of the policy", "gradient of the value function")
_KL = STATISTICS.index("policy/kl")


class Update:
    """Steps on minibatches: loss, gradients and their mean over ranks, learning rate, Adam.

    A minibatch whose losses or gradients are not finite moves nothing, nor does any after it: that is decided on the
    device, and found out by the host at the end.

    Args:
        config: of the learner.
        network: whose parameters are learned.
        passes: how it is run.
        optimizer: over all its parameters.
        recorder: records CUDA graphs; default: of CUDA where the configuration has it.
    """

    def __init__(
        self,
        config: PPOConfig,
        network: ActorCritic,
        passes: Passes,
        optimizer: FlatAdam,
        recorder: Recorder | None = None,
    ) -> None:
        self.config, self.network, self.passes, self.optimizer = config, network, passes, optimizer
        device = optimizer.flat.device
        self._loss = compiled(ppo_loss, config.compile)
        self._old_log_std = torch.zeros_like(network.log_std, requires_grad=False)
        self._begun = torch.zeros((), dtype=torch.bool, device=device)
        """Whether a minibatch of this update was there before."""
        self._figures = torch.zeros(len(_FIGURES), device=device)
        self._history = torch.zeros(config.epochs * config.minibatches, len(_FIGURES), device=device)
        if recorder is None and device.type == "cuda" and config.cuda_graph is not False and world_size() == 1:
            recorder = CudaRecorder(device)
        self._captured = None if recorder is None else Captured(self.minibatch, recorder)

    def forget_recordings(self) -> None:
        """To be called when tensors of the optimizer were replaced."""
        if self._captured is not None:
            self._captured.forget()

    def run(self, batches: Sequence[Batch], extra: Extra | None, watch: bool, where: str) -> dict[str, float]:
        """Step on each of ``batches`` in turn; return the means of `STATISTICS`, learning rate and deviation.

        Args:
            batches: of `Rollout.shuffle`, all epochs.
            extra: a further loss.
            watch: look at the figures after every minibatch, and not only at the end.
            where: for errors.

        Raises:
            NonFiniteError: losses or gradients; parameters are those of before the faulty minibatch.
        """
        with torch.no_grad():
            self._old_log_std.copy_(self.network.log_std)
            self.optimizer.skip.zero_()
            self._begun.zero_()
        for k, batch in enumerate(batches):
            if self._captured is not None and extra is None:
                self._captured({name: value for name, value in batch.items() if name != "index"})
            else:
                self.minibatch(batch, extra)
            self._history[k].copy_(self._figures)
            if watch:
                _check(self._figures.tolist(), where)
        with torch.no_grad():
            std = self.network.log_std.exp().mean()
        history = self._history[: len(batches)]
        found = fetch({"history": history, "policy/lr": self.optimizer.rate, "policy/std": std})
        columns = len(_FIGURES)
        rows = [found["history"][k * columns : (k + 1) * columns] for k in range(len(batches))]
        for row in rows:
            _check(row, where)
        means = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        metrics = dict(zip(STATISTICS, means, strict=False))  # the gradients' norms are no metrics
        return metrics | {name: found[name][0] for name in ("policy/lr", "policy/std")}

    def minibatch(self, batch: Batch, extra: Extra | None = None) -> None:
        """Step on one minibatch; nothing here waits for the device."""
        opt = self.optimizer
        opt.zero_grad()
        loss, statistics = self.loss(batch, extra)
        loss.backward()
        with torch.no_grad():
            opt.extra.copy_(statistics)
            mean_over_ranks_(opt.message)
            torch.cat((opt.extra, opt.grad_norms()), out=self._figures)
            opt.skip.logical_or_(torch.isfinite(self._figures.sum()).logical_not())
            if self.config.schedule == "adaptive":
                self._adapt(self._figures[_KL])
            opt.step(self._figures[len(STATISTICS) :])
            self.network.log_std.clamp_(min=math.log(self.config.min_std))
            self._begun.fill_(True)

    def loss(self, batch: Batch, extra: Extra | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of a minibatch, and its `STATISTICS` (6,)."""
        mean = self.passes.minibatch("policy", batch)
        value = self.passes.minibatch("critic", batch).squeeze(-1)
        more = None if extra is None else extra(batch, mean)
        columns = {name: batch[name] for name in LOSS_COLUMNS}
        return self._loss(self.config, columns, mean, value, self.network.log_std, self._old_log_std, more)

    def _adapt(self, kl: torch.Tensor) -> None:
        """Adaptive schedule: hold KL(old ‖ new) near `desired_kl`, from the second minibatch on."""
        c, rate = self.config, self.optimizer.rate
        kl = kl.double()
        lower, higher = (rate / 1.5).clamp(min=c.lr_min), (rate * 1.5).clamp(max=c.lr_max)
        wanted = torch.where(kl > 2.0 * c.desired_kl, lower, torch.where(kl < 0.5 * c.desired_kl, higher, rate))
        moves = self._begun & (self.optimizer.skip == 0)
        rate.copy_(torch.where(moves, wanted, rate))


def _check(figures: Sequence[float], where: str) -> None:
    """Raise `NonFiniteError` if a figure of a minibatch is not finite."""
    bad = [name for name, figure in zip(_FIGURES, figures, strict=True) if not math.isfinite(figure)]
    if bad:
        raise NonFiniteError(f"NaN or infinity in {', '.join(bad)} ({where})")
