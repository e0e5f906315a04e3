"""Two real processes under torchrun share one learner."""

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def test_two_ranks_learn_together_and_stay_identical(tmp_path: Path) -> None:
    worker = Path(__file__).with_name("torchrun_worker.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(worker), str(tmp_path)], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    a, b = (torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in (0, 1))
    assert a["world_size"] == 2
    assert a["lr"] == b["lr"]
    for name, value in a["network"].items():
        assert torch.equal(value, b["network"][name]), name
    assert not torch.equal(a["noise"], b["noise"])  # ranks explore differently
    assert a["network"]["norm.policy.count"] == 2 * 64 * 16 * 12  # statistics of both ranks
    for state in (a, b):
        assert state["rewards"][-1] > state["rewards"][0] + 0.2
