"""Freshness of sources: ages, frozen cameras, and clocks that jump."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from real.core.staleness import Freshness, digest
from real.errors import RealError

HOUR_NS = 3_600_000_000_000


def test_before_the_first_message_nothing_is_fresh() -> None:
    source = Freshness("front camera", 0.5)
    assert not source.fresh(0.0) and source.age(0.0) == float("inf")
    assert source.why(0.0) == "nothing of front camera yet"


def test_age_runs_from_the_last_arrival() -> None:
    source = Freshness("joint_states", 0.125)
    source.seen(5.0)
    assert source.fresh(5.125) and source.why(5.125) == ""
    assert not source.fresh(5.13)
    assert source.why(5.25) == "joint_states is 0.25 s old, 0.125 s allowed"
    assert not source.fresh(float("nan"))


@given(st.lists(st.sampled_from([-HOUR_NS, HOUR_NS, 7, -7]), min_size=1, max_size=20))
def test_a_clock_that_jumps_changes_nothing(jumps: list[int]) -> None:
    source, stamp = Freshness("camera", 0.1, frozen_after=2), 10 * HOUR_NS
    for i, jump in enumerate(jumps):
        stamp += jump
        source.seen(i * 0.05, stamp + 30 * HOUR_NS)
        assert source.fresh(i * 0.05 + 0.09)
        assert not source.fresh(i * 0.05 + 0.11)
    assert source.backwards == sum(jump < 0 for jump in jumps[1:])


def test_a_frozen_picture_is_stale_until_it_changes() -> None:
    source = Freshness("camera", 0.5, frozen_after=3)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (8, 8, 3), np.uint8) for _ in range(2)]
    for i in range(3):
        source.seen(i / 30, 1000 + i, digest(pictures[0]))
        assert source.fresh(i / 30)
    source.seen(0.1, 1003, digest(pictures[0].tobytes()))
    assert not source.fresh(0.1)
    assert source.why(0.1) == "camera is frozen: the same content in 4 messages in a row"
    source.seen(0.13, 1004, digest(pictures[1]))
    assert source.fresh(0.13)


def test_a_frozen_stamp_is_stale_and_a_missing_one_is_not() -> None:
    frozen, unstamped = Freshness("camera", 0.5, frozen_after=2), Freshness("camera", 0.5, frozen_after=2)
    for i in range(4):
        frozen.seen(i / 30, 77, i)
        unstamped.seen(i / 30, 0, i)
    assert "the same stamp" in frozen.why(0.1)
    assert unstamped.fresh(0.1)


def test_without_a_number_nothing_freezes() -> None:
    source = Freshness("joint_states", 0.5)
    for i in range(100):
        source.seen(i / 100, 77, 5)
    assert source.fresh(1.0) and source.repeats == 99


@pytest.mark.parametrize(("age", "frozen"), [(0.0, None), (-1.0, None), (float("nan"), None), (1.0, 0)])
def test_impossible_settings(age: float, frozen: int | None) -> None:
    with pytest.raises(RealError, match="camera"):
        Freshness("camera", age, frozen)
