"""Starting speed: from the command to the first training step, with and without compiled kernels at hand."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from robolearn.bench_sim import BenchError


def bench_start(
    overrides: Sequence[str] = (),
    repeats: int = 3,
    cold: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Start `robolearn train` again and again, each time in a process of its own, for one iteration.

    Args:
        overrides: settings of `robolearn train`.
        repeats: how often.
        cold: begin with a start that finds no compiled kernels (GPU engine), which takes a minute.
        progress: told what is being done.

    Returns:
        ``warm_s``: median seconds from the start of the program to the first training step, kernels being compiled;
        ``cold_s``: the same without them, or None; ``memory_mb``: the most that any of the processes used.

    Raises:
        BenchError: impossible numbers, or a training that fails.
    """
    if repeats < 1:
        raise BenchError(f"bench start: repeats must be at least 1, got {repeats}")
    first = None
    if cold:
        with tempfile.TemporaryDirectory() as empty:
            progress("cold start")
            first = _start(overrides, {"WARP_CACHE_PATH": empty, "TORCHINDUCTOR_CACHE_DIR": empty})
    warm = []
    for k in range(repeats):
        progress(f"start {k + 1} of {repeats}")
        warm.append(_start(overrides, {}))
    return {
        "benchmark": "start",
        "overrides": list(overrides),
        "warm_s": statistics.median(warm),
        "cold_s": first,
        "memory_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10,
    }


def _start(overrides: Sequence[str], environment: dict[str, str]) -> float:
    """Seconds to the first training step of one run, which is then thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        quick = ["budget.iterations=1", "evaluate=false", "video=false", "curves=false"]
        command = [sys.executable, "-m", "robolearn", "train", "--json", *overrides, *quick]
        command.append(f"run_dir={Path(folder) / 'run'}")
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BenchError(f"bench start: training ended with status {done.returncode}: {last}")
    return float(json.loads(done.stdout.strip().splitlines()[-1])["startup_s"])
