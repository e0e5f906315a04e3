"""Learning speed: samples per second of whole training iterations, and of their two halves."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from robolearn.bench_raw import synchronize
from robolearn.bench_sim import BenchError, memory_mb
from robolearn.config import compose, to_train_config


def bench_learn(
    overrides: Sequence[str] = (),
    iterations: int = 10,
    warm_up: int = 3,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure training as `robolearn train` runs it, without run folder, checkpoints or display.

    Args:
        overrides: settings of `robolearn train`, such as ``task=g1_walk`` or ``num_envs=4096``.
        iterations: measured.
        warm_up: iterations before that, which compile and capture.
        progress: told what is being done.

    Returns:
        Samples per second (medians over iterations) of the whole, of collecting and of learning; seconds to make
        everything and until the first iteration was done; memory.

    Raises:
        BenchError: impossible numbers; and what training raises for its settings.
    """
    for name, value, least in (("iterations", iterations, 1), ("warm_up", warm_up, 1)):
        if value < least:
            raise BenchError(f"bench learn: {name} must be at least {least}, got {value}")
    from robolearn.train import make_environment_and_learner

    config = to_train_config(compose(overrides))
    progress(f"making {config.num_envs} worlds of {config.task['name']}")
    start = time.perf_counter()
    env, learner = make_environment_and_learner(config)
    made = time.perf_counter()
    seconds: list[float] = []
    metrics: list[dict[str, float]] = []
    first = 0.0
    for k in range(warm_up + iterations):
        progress(f"iteration {k + 1} of {warm_up + iterations}")
        steps, before = learner.env_steps, time.perf_counter()
        measured = learner.iterate(env)
        synchronize(env.device)
        first = first or time.perf_counter() - made
        if k >= warm_up:
            seconds.append(time.perf_counter() - before)
            metrics.append(measured)
    samples = learner.env_steps - steps
    return {
        "benchmark": "learn",
        "task": config.task["name"],
        "algo": config.algo["name"],
        "world": "gpu" if env.device.type == "cuda" else "cpu",
        "num_envs": config.num_envs,
        "samples_per_iteration": samples,
        "samples_per_s": samples / statistics.median(seconds),
        "collect_samples_per_s": samples / statistics.median(m["time/collect"] for m in metrics),
        "learn_samples_per_s": samples / statistics.median(m["time/learn"] for m in metrics),
        "make_s": made - start,
        "first_iteration_s": first,
        "memory_mb": memory_mb(env.device),
        "overrides": list(overrides),
    }
