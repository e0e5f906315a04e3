"""Metrics of critics against values worked out by hand, and by SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from robolearn.statistics import wilson
from vlm_rewards import metrics
from vlm_rewards.errors import CriticError
from vlm_rewards.metrics import choose_operating_point, fires, firing


def test_voc_is_spearmans_correlation_with_ties():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values, times = rng.integers(0, 6, 25).astype(float), np.arange(25) * 0.2
        assert metrics.voc(values, times) == pytest.approx(spearmanr(values, times).statistic, abs=1e-12)
    assert metrics.voc(torch.tensor([0.0, 0.1, 0.4]), torch.arange(3)) == pytest.approx(1.0)
    assert metrics.voc([3.0, 2.0, 1.0], [0, 1, 2]) == pytest.approx(-1.0)
    assert metrics.voc([0.5, 0.5, 0.5], [0, 1, 2]) == 0.0


def test_answers_that_could_not_be_used_are_left_out():
    assert metrics.voc([0.0, math.nan, 0.2, 0.4], [0, 1, 2, 3]) == pytest.approx(1.0)
    assert math.isnan(metrics.voc([0.0, math.nan], [0, 1]))
    assert metrics.valid_share([1.0, math.nan, 0.0, 0.0]) == 0.75
    assert math.isnan(metrics.negative_rate([0.1, math.nan, 0.2]))


def test_a_good_critic_has_vroc_one_and_a_clock_minus_one():
    times = np.arange(10.0)
    falling = 1.0 - times / 9.0
    assert metrics.vroc(falling, times) == pytest.approx(1.0)
    assert metrics.vroc(times, times) == pytest.approx(-1.0)
    assert metrics.voc_f1(0.8, 0.4) == pytest.approx(2 * 0.32 / 1.2)
    assert metrics.voc_f1(1.0, -1.0) == 0.0


def test_negative_rate_and_gap():
    assert metrics.negative_rate([0.0, 0.2, 0.1, 0.1, 0.5]) == 0.25
    assert metrics.end_gap([0.9, 0.7, 0.2, 0.4], [True, True, False, False]) == pytest.approx(0.5)
    assert math.isnan(metrics.end_gap([0.9, 0.7], [True, True]))
    mean = metrics.mean_over_episodes(metrics.negative_rate, [0, 0, 1, 1, 2, 2], [0.0, 1.0, 1.0, 0.0, math.nan, 0.0])
    assert mean == 0.5
    assert metrics.mean_over_episodes(metrics.negative_rate, [0, 0, 1, 1], [0.0, 1.0, 1.0, 0.0], only=[1]) == 1.0


def test_detection_by_hand():
    found = metrics.detection([1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 1, 0, 0, 0, 0])
    assert (found.precision, found.recall, found.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert found.false_positive_rate == pytest.approx(0.2)
    assert found.balanced_accuracy == pytest.approx(0.5 * (2 / 3 + 0.8))
    never = metrics.detection([0, 0], [1, 0])
    assert math.isnan(never.precision) and never.recall == 0.0


def test_calibration_by_hand_and_of_honest_probabilities():
    assert metrics.brier([0.8, 0.4], [1, 0]) == pytest.approx((0.04 + 0.16) / 2)
    # two bins: 0.2 and 0.3 together (mean .25, half true), 0.9 alone (true)
    assert metrics.ece([0.2, 0.3, 0.9], [0, 1, 1], bins=2) == pytest.approx(2 / 3 * 0.25 + 1 / 3 * 0.1)
    rng = np.random.default_rng(1)
    p = rng.random(40_000)
    true = rng.random(40_000) < p
    assert metrics.ece(p, true) < 0.01 and metrics.ece(p, true, adaptive=True) < 0.01
    assert metrics.ece(np.sqrt(p), true) > 0.1
    curve = metrics.reliability(p, true, bins=10)
    assert curve.count.sum() == 40_000 and np.abs(curve.share - np.linspace(0.05, 0.95, 10)).max() < 0.03
    assert metrics.ece([0.0, 1.0], [0, 1]) == 0.0


def test_adaptive_bins_hold_equally_many():
    p = np.concatenate([np.full(90, 0.01), np.linspace(0.1, 0.9, 60)])
    assert set(metrics.reliability(p, np.zeros(150), adaptive=True).count.tolist()) == {10}


def test_preference_and_rates():
    accuracy, abstained = metrics.preference([0.9, 0.2, 0.52, math.nan, 0.7], [1, 0, 1, 1, 0])
    assert accuracy.rate == pytest.approx(2 / 3) and accuracy.n == 3 and abstained == pytest.approx(0.4)
    rate = metrics.Rate.of([True, False, False, False])
    assert (rate.rate, rate.n, rate.low, rate.high) == (0.25, 4, *wilson(0.25, 4))
    assert math.isnan(metrics.Rate.of([]).rate) and metrics.Rate.of([]).high == 1.0


def test_done_fires_after_frames_in_a_row():
    p = torch.tensor([0.95, 0.1, 0.95, 0.95, 0.2, 0.95, 0.95, 0.95])
    assert fires(p, 0.9, 1) == 0 and fires(p, 0.9, 2) == 3 and fires(p, 0.9, 3) == 7 and fires(p, 0.9, 4) is None
    assert fires(torch.tensor([0.95, math.nan, 0.95]), 0.9, 2) is None
    two = firing(np.array([0.1, 0.9, 0.9, 0.9]), 0.5, 2, np.array([0, 0, 1, 1]))
    assert two.tolist() == [False, False, False, True]  # frames of two episodes are not in a row
    with pytest.raises(CriticError, match="at least one frame"):
        firing(np.array([0.1]), 0.5, 0)


def episodes_with_blips() -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """40 successes whose last four of ten frames are done, 40 misses of which half have one high frame."""
    p, truth = np.full((80, 10), 0.1), np.zeros((80, 10), dtype=bool)
    p[:40, 6:], truth[:40, 6:] = 0.8, True
    p[40:60, 5] = 0.85
    return p.ravel(), truth.ravel(), np.repeat(np.arange(80), 10), ["expert"] * 40 + ["miss"] * 40


def test_the_operating_point_debounces_what_a_threshold_cannot_separate():
    point = choose_operating_point(*episodes_with_blips())
    assert point.met and point.debounce >= 2 and point.threshold <= 0.8
    assert point.recall == 1.0 and point.precision == 1.0 and point.false_done["miss"] == 0.0


def test_where_no_point_keeps_the_limits_it_says_so():
    p, truth, index, modes = episodes_with_blips()
    point = choose_operating_point(p, truth, index, modes, debounces=(1,))
    assert not point.met
    assert point.false_done["miss"] == 0.5 and point.recall == 1.0  # rather than one that never fires


def test_exempt_modes_bind_nothing_and_a_point_needs_both_outcomes():
    p, truth, index, modes = episodes_with_blips()
    same = ["wrong_object_same_colour" if e >= 40 and e < 60 else mode for e, mode in enumerate(modes)]
    point = choose_operating_point(p, truth, index, same, debounces=(1,), min_precision=0.5)
    assert point.met and point.false_done["wrong_object_same_colour"] == 1.0
    with pytest.raises(CriticError, match="no failures"):
        choose_operating_point(p[:400], truth[:400], index[:400], modes[:40])
    with pytest.raises(CriticError, match="no successful episodes"):
        choose_operating_point(p[400:], truth[400:], index[400:] - 40, modes[40:])
