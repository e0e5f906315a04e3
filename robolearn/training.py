"""The training loop: iterations until the budget is spent, metrics, checkpoints, a clean end on Ctrl-C.

Nothing here influences what is learned: budgets, checkpoints, the display and interruptions only decide when
the loop stops and what is written. So one seed gives one run, and a continued run is the run it continues.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Protocol

import torch
import torch.distributed as dist

from robolearn.config import TrainConfig
from robolearn.errors import RobolearnError
from robolearn.progress import Silent, Status
from robolearn.runs import Run


class TrainingError(RobolearnError):
    """A training run that cannot go on."""


class Environment(Protocol):
    """What the loop needs of an environment; `sim.env.Env` is one."""

    num_envs: int

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact continuation needs."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class Reward(Protocol):
    """What the loop needs of what rewards the learner, if that is not the environment alone."""

    def report(self) -> dict[str, float]:
        """Metrics of the rollout that was collected."""

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact continuation needs."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class Learner(Protocol):
    """What the loop needs of a learner; `policies.ppo.PPO` is one."""

    config: Any
    reward_stage: Any
    iteration: int
    env_steps: int

    def iterate(self, env: Any) -> dict[str, float]:
        """Collect and learn once; return metrics."""

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact continuation needs."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


@dataclass
class Outcome:
    """How a training loop ended.

    Attributes:
        iteration, env_steps, elapsed_s: totals of the run, over all continuations and processes.
        metrics: the last iteration's.
        signal: the signal that interrupted it, or None when the budget was spent.
        nonfinite: metric → how many iterations it was NaN or infinite in.
    """

    iteration: int
    env_steps: int
    elapsed_s: float
    metrics: dict[str, float]
    signal: int | None
    nonfinite: dict[str, int]


class Training:
    """Environment, learner and run folder, joined.

    Under ``torchrun`` every process has its own environment and learner; the first one alone has a run
    folder, and decides for all when to write a checkpoint and when to stop.

    Args:
        config: budget and checkpoint cadence are read here.
        env, learner: of this process.
        run: open for writing; None in every process but the first.
        display: shows progress.
        reward: what rewards the learner, where that is not the environment alone.
    """

    def __init__(
        self,
        config: TrainConfig,
        env: Environment,
        learner: Learner,
        run: Run | None,
        display: Silent,
        reward: Reward | None = None,
    ) -> None:
        self.config, self.env, self.learner, self.run, self.display = config, env, learner, run, display
        self.reward = reward
        self.elapsed_s = 0.0
        self.first_step_at: float | None = None
        self._saved_at = (0, 0.0)
        self._scores: list[float] = []
        self._nonfinite: dict[str, int] = {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's state.

        Raises:
            TrainingError: it was written by another number of processes.
        """
        ranks = state["ranks"]
        if len(ranks) != _world_size():
            raise TrainingError(
                f"the checkpoint was written by {len(ranks)} processes, {_world_size()} cannot continue it"
            )
        mine = ranks[_rank()]
        self.learner.load_state_dict(mine["learner"])
        self.env.load_state_dict(mine["env"])
        if self.reward is not None:
            self.reward.load_state_dict(mine["reward"])
        self.elapsed_s = float(state["elapsed_s"])
        self._saved_at = (self.learner.iteration, self.elapsed_s)

    def run_until_spent(self) -> Outcome:
        """Iterate until the budget is spent or a signal asks to stop; the last iteration is checkpointed."""
        metrics: dict[str, float] = {}
        with Interrupt() as interrupt, self.display:
            fraction, stop = _from_first_rank(self.fraction_spent(), 0.0)
            while fraction < 1.0 and not stop:
                self.first_step_at = self.first_step_at or time.monotonic()
                steps, started = self.env_steps, time.perf_counter()
                metrics = self.learner.iterate(self.env)
                took = time.perf_counter() - started
                self.elapsed_s += took
                metrics = self._report(metrics, (self.env_steps - steps) / took)
                fraction, stop, save = _from_first_rank(
                    self.fraction_spent(), interrupt.signal is not None, self._checkpoint_due()
                )
                if save or stop or fraction >= 1.0:
                    self._save()
        return Outcome(
            self.learner.iteration,
            self.env_steps,
            self.elapsed_s,
            metrics,
            interrupt.signal,
            dict(self._nonfinite),
        )

    @property
    def env_steps(self) -> int:
        """Environment steps so far, of all processes."""
        return self.learner.env_steps * _world_size()

    def fraction_spent(self) -> float:
        """Share of the budget that is spent; the bound that is nearest counts."""
        budget = self.config.budget
        seconds = None if budget.minutes is None else budget.minutes * 60.0
        used = [
            (self.elapsed_s, seconds),
            (self.learner.iteration, budget.iterations),
            (self.env_steps, budget.steps),
        ]
        return max(done / bound for done, bound in used if bound is not None)

    def _report(self, metrics: dict[str, float], rate: float) -> dict[str, float]:
        """Record one iteration, show it, and return its metrics with the loop's own."""
        extra = {
            "elapsed_s": self.elapsed_s,
            "env_steps": float(self.env_steps),
            "time/env_steps_per_s": rate,
        }
        diverged = getattr(self.env, "diverged", None)
        if diverged is not None:
            extra["run/diverged_worlds"] = float(diverged)
        if self.reward is not None:
            extra |= self.reward.report()
        metrics = {**metrics, **extra}
        if self.run is None:
            return metrics
        best = self.config.checkpoint.best
        if best is not None and math.isfinite(metrics.get(best, math.nan)):
            self._scores.append(metrics[best])
        for name in self.run.record(self.learner.iteration, metrics):
            if name not in self._nonfinite:
                self.display.note(f"{name} was {metrics[name]} in iteration {self.learner.iteration}; stored as null")
            self._nonfinite[name] = self._nonfinite.get(name, 0) + 1
        shown = {name: value for name, value in metrics.items() if "/" in name}
        self.display.update(
            Status(self.learner.iteration, self.env_steps, rate, self.elapsed_s, self.fraction_spent(), shown)
        )
        return metrics

    def _checkpoint_due(self) -> bool:
        cadence = self.config.checkpoint
        iteration, elapsed_s = self._saved_at
        by_time = cadence.every_s is not None and self.elapsed_s - elapsed_s >= cadence.every_s
        every = cadence.every_iterations
        return by_time or (every is not None and self.learner.iteration - iteration >= every)

    def _save(self) -> None:
        """Write a checkpoint of all processes."""
        mine = {"learner": self.learner.state_dict(), "env": self.env.state_dict()}
        if self.reward is not None:
            mine["reward"] = self.reward.state_dict()
        ranks: list[Any] | None = [mine]
        if _world_size() > 1:
            ranks = [None] * _world_size() if _rank() == 0 else None
            dist.gather_object(mine, ranks)  # between our own processes
        self._saved_at = (self.learner.iteration, self.elapsed_s)
        if self.run is not None:
            score = sum(self._scores) / len(self._scores) if self._scores else None
            self._scores = []
            state = {"elapsed_s": self.elapsed_s, "ranks": ranks}
            self.run.save(self.learner.iteration, state, score=score, keep=self.config.checkpoint.keep)


class Interrupt:
    """Within its ``with``, notes the first SIGINT or SIGTERM in ``signal``; a second SIGINT interrupts."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


def _world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _from_first_rank(*values: float) -> list[float]:
    """The first process's values, the same in every process."""
    shared = torch.tensor([float(value) for value in values], dtype=torch.float64)
    if _world_size() > 1:
        dist.broadcast(shared, src=0)
    return [float(value) for value in shared]
