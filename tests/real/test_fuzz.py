"""A hostile peer on every topic, in every mode: no crash, no command; `experiments/real_fuzz.py` is the long one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from tests.real.fuzz_room import fuzz, fuzz_driver, quiet
from tests.real.small_bundle import write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_bundle(tmp_path_factory.mktemp("bundle") / "to_and_fro")


@pytest.mark.parametrize("setting", ["INIT", "POLICY", "HUMAN", "ROUNDS"])
def test_garbage_crashes_nothing_and_commands_nothing(setting: str, bundle: Path, tmp_path: Path) -> None:
    logging.disable(logging.CRITICAL)
    try:
        with quiet():
            result = fuzz(setting, 700, 7, bundle, tmp_path, after_s=0.03)
    finally:
        logging.disable(logging.NOTSET)
    assert not result.crashes, dict(result.crashes)
    assert not result.moved, dict(result.moved)
    assert not any(result.violations.values()), result.violations
    assert result.malformed > 100 and sum(result.sent.values()) >= 700
    # Garbage may well read as a deadman that is let go.
    least = 0.05 if setting == "HUMAN" else 0.5
    share = result.modes[setting] / result.modes.total()
    assert setting == "ROUNDS" or share >= least, f"what is fuzzed is the mode that was meant, not {result.modes}"


def test_the_driver_stays_sane_where_garbage_reaches_it(bundle: Path, tmp_path: Path) -> None:
    result = fuzz_driver(300, 7, bundle, tmp_path)
    assert result.good, result
