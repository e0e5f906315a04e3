"""Half a minute of random faults on virtual time; `experiments/real_soak.py` is the long one."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from tests.real.fuzz_room import quiet
from tests.real.small_bundle import write_bundle
from tests.real.soak_room import Soak


def test_a_short_soak_keeps_within_limits_and_loses_no_episode(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    try:
        with quiet():
            soak = Soak(write_bundle(tmp_path / "bundle"), "arm_reach", tmp_path / "episodes", seed=5)
            books = soak.run(30.0, faults_until=25.0)
    finally:
        logging.disable(logging.NOTSET)
    assert not books.problems, books.problems
    assert sum(books.faults.values()) >= 5 and books.commands > 3000
    assert sum(books.episodes.values()) >= 1 and sum(books.files.values()) >= 1
    assert not any(books.violations.values())
