"""benchmarks/learner.py runs and reports what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_of_the_learner_reports_ratios() -> None:
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "learner.py"),
        "--device",
        "cpu",
        "--variants",
        "eager",
        "bf16",
    ]
    command += ["--num-envs", "8", "--hidden", "8", "--seconds", "0", "--threads", "1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert result["benchmark"] == "learner" and result["versions"]["torch"]
    assert set(result["variants"]) == {"eager", "bf16"}
    eager, bf16 = result["variants"]["eager"], result["variants"]["bf16"]
    assert eager["ratio"] == eager["learn_ratio"] == 1.0
    assert bf16["learn_ratio"] == bf16["learn_samples_per_s"] / eager["learn_samples_per_s"]
