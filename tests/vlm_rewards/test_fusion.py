"""Progress out of pairwise judgements: what exact hops give, and what wrong ones may not do."""

from __future__ import annotations

import pytest
import torch

from vlm_rewards.errors import CriticError
from vlm_rewards.fusion import (
    FORMS,
    Fusion,
    Rule,
    after_hop,
    anchored,
    fuse,
    fuse_recording,
    fuse_views,
    hop,
    vlac_value,
)

NAN = float("nan")
PATH = torch.tensor([0.0, 0.1, 0.4, 0.4, 0.2, 0.75, 1.0, 1.0, 0.0, 0.6])
"""Progress with rises, falls, standstill, the very start and the very goal."""


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def exact_hops(path: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Incremental hops and anchored estimates of a path (T, ...)."""
    before = torch.cat([torch.zeros_like(path[:1]), path[:-1]])
    return hop(before, path), anchored(hop(torch.zeros_like(path), path), hop(torch.ones_like(path), path))


def test_hops_are_shares_of_what_is_left_or_was_reached():
    assert hop(t(0.2, 0.8, 0.5), t(0.6, 0.2, 0.5)).tolist() == pytest.approx([0.5, -0.75, 0.0])
    assert hop(t(0.0, 1.0, 0.3), t(0.3, 0.4, 1.0)).tolist() == pytest.approx([0.3, -0.6, 1.0])
    assert hop(t(12.0), t(16.0), 10.0, 20.0) == pytest.approx(0.5)


def test_hops_at_the_very_start_and_goal_are_finite():
    assert hop(t(1.0, 0.0), t(1.0, 0.0)).tolist() == [0.0, 0.0]
    assert hop(t(1.0, 0.0), t(1.2, -0.2)).tolist() == [1.0, -1.0]
    assert hop(t(NAN), t(0.5)).isnan().all()


def test_a_hop_is_undone_by_its_inverse():
    p, q = torch.rand(2, 1000, generator=torch.Generator().manual_seed(0))
    h = hop(p, q)
    assert (h.abs() <= 1.0).all()
    torch.testing.assert_close(after_hop(p, h), q)
    torch.testing.assert_close(after_hop(5 + 3 * p, hop(5 + 3 * p, 5 + 3 * q, 5.0, 8.0), 5.0, 8.0), 5 + 3 * q)


def test_no_hop_leaves_the_range():
    p = torch.rand(1000, generator=torch.Generator().manual_seed(1))
    for h in torch.linspace(-1.5, 1.5, 13):
        reached = after_hop(p, h)
        assert (reached >= 0.0).all() and (reached <= 1.0).all()


def test_anchors_are_the_papers_estimates():
    assert anchored(t(0.3), t(-0.6)).tolist() == [pytest.approx([0.3, 0.4])]
    # A loss from the start, and a gain on the goal, cannot be.
    assert anchored(t(-0.5), t(0.5)).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("form", ["weighted", "mean", "anchored", "chain"])
def test_exact_hops_reproduce_progress_exactly(form):
    incremental, anchors = exact_hops(PATH)
    values, weights = fuse_recording(incremental, anchors, Rule(form))
    torch.testing.assert_close(values, PATH, atol=1e-6, rtol=0)
    torch.testing.assert_close(weights, torch.ones_like(PATH))


@pytest.mark.parametrize("form", ["weighted", "mean", "anchored", "chain"])
def test_whatever_the_view_and_online_as_over_recordings(form):
    paths = torch.rand(30, 4, 3, generator=torch.Generator().manual_seed(2))  # steps, worlds, views
    incremental, anchors = exact_hops(paths)
    torch.testing.assert_close(fuse_recording(incremental, anchors, Rule(form))[0], paths, atol=1e-5, rtol=0)
    online = Fusion(Rule(form))
    worlds = torch.tensor([2, 0, 7, 1])
    online.begin(worlds, views=3)
    for step, (h, estimates) in enumerate(zip(incremental, anchors, strict=True)):
        given = online.update(worlds, h, estimates)
        torch.testing.assert_close(given.views, paths[step], atol=1e-5, rtol=0)
        torch.testing.assert_close(given.value, paths[step].mean(-1), atol=1e-5, rtol=0)


def test_the_weighted_form_is_the_papers():
    previous, h = t(0.5), t(-0.2)
    anchors = torch.tensor([[0.3, 0.5]])
    value, weight = fuse(previous, h, anchors, Rule(alpha=2.0, eps=0.1))
    w = torch.exp(t(-2.0 * (0.2 / (0.4 + 0.1)) ** 2))
    torch.testing.assert_close(weight, w)
    torch.testing.assert_close(value, 0.5 + 0.5 * w * (0.4 - 0.5 + 0.4 - 0.5))
    mean, _ = fuse(previous, h, anchors, Rule("mean"))
    assert mean == pytest.approx((0.4 + 0.3 + 0.5) / 3)


def test_contradictory_anchors_move_the_fused_value_little():
    previous, h = t(0.4), t(0.9)
    agreeing = torch.tensor([[0.9, 0.9]])
    contradicting = torch.tensor([[0.0, 1.0]])
    sure, trust = fuse(previous, h, agreeing)
    torn, doubt = fuse(previous, h, contradicting)
    assert sure > 0.85 and trust == 1.0
    assert abs(torn - previous) < 0.01 and doubt < 0.05
    plain, _ = fuse(previous, h, contradicting, Rule("mean"))
    assert abs(plain - previous) > 0.2


def test_trust_falls_with_disagreement():
    gaps = torch.linspace(0.0, 1.0, 11)
    anchors = torch.stack([0.5 - gaps / 2, 0.5 + gaps / 2], -1)
    _, weights = fuse(torch.full((11,), 0.5), torch.zeros(11), anchors)
    assert (weights.diff() < 0).all() and weights[0] == 1.0
    _, strict = fuse(torch.full((11,), 0.5), torch.zeros(11), anchors, Rule(alpha=5.0))
    assert (strict[1:] < weights[1:]).all()


@pytest.mark.parametrize("form", FORMS)
def test_values_stay_in_range_whatever_the_critic_says(form):
    made = torch.Generator().manual_seed(3)
    hops = 2 * torch.rand(50, 20, 3, generator=made) - 1
    values, weights = fuse_recording(hops[..., 0], anchored(hops[..., 1], hops[..., 2]), Rule(form))
    for made in (values, weights):
        assert torch.isfinite(made).all() and (made >= 0).all() and (made <= 1).all()


def test_more_anchors_make_a_better_estimate_of_noisy_hops():
    made = torch.Generator().manual_seed(4)
    truth = torch.rand(2000, generator=made)

    def error(progress: torch.Tensor) -> float:
        noise = 0.1 * torch.randn(2000, len(progress), generator=made)
        estimates = after_hop(progress, hop(progress, truth.unsqueeze(-1)) + noise)
        value, _ = fuse(truth, torch.zeros(2000), estimates, Rule("anchored"))
        return float((value - truth).square().mean().sqrt())

    assert error(t(0.0, 0.25, 0.5, 0.75, 1.0)) < 0.6 * error(t(0.0, 1.0))


def test_a_drifting_chain_is_held_by_anchors():
    incremental, anchors = exact_hops(torch.linspace(0.0, 0.5, 200))
    biased = incremental + 0.01
    drifted, _ = fuse_recording(biased, anchors, Rule("chain"))
    held, _ = fuse_recording(biased, anchors, Rule("weighted"))
    assert drifted[-1] > 0.9
    assert abs(held[-1] - 0.5) < 0.02


def test_what_cannot_be_told_is_not_a_number_and_changes_nothing():
    fusion = Fusion()
    world = torch.tensor([3])
    fusion.begin(world)
    fusion.update(world, t(0.4).unsqueeze(0), torch.tensor([[[0.4, 0.4]]]))
    lost = fusion.update(world, t(0.9).unsqueeze(0), torch.tensor([[[NAN, 0.9]]]))
    assert lost.value.isnan().all() and lost.confidence == 0.0
    still = fusion.update(world, t(0.0).unsqueeze(0), torch.tensor([[[0.4, 0.4]]]))
    assert still.value == pytest.approx(0.4)


def test_without_an_incremental_hop_the_anchors_count():
    value, weight = fuse(t(0.2), t(NAN), torch.tensor([[0.6, 0.6]]))
    assert value == pytest.approx(0.6) and weight == 1.0
    chained, trust = fuse(t(0.2), t(NAN), torch.tensor([[0.6, 0.6]]), Rule("chain"))
    assert chained.isnan().all() and trust == 0.0


@pytest.mark.parametrize("form", ["weighted", "mean", "anchored", "chain"])
def test_a_recording_goes_on_after_a_step_that_cannot_be_told(form):
    incremental, anchors = exact_hops(PATH)
    incremental[2], anchors[2] = NAN, NAN
    values, weights = fuse_recording(incremental, anchors, Rule(form))
    assert values[2].isnan() and weights[2] == 0.0
    assert torch.isfinite(values[3:]).all()
    if form != "chain":
        torch.testing.assert_close(values[3:], PATH[3:], atol=1e-6, rtol=0)


def test_views_count_by_their_weight():
    values = torch.tensor([[0.2, 0.8], [0.2, NAN], [NAN, NAN], [0.2, 0.8]])
    weights = torch.tensor([[0.1, 0.3], [0.1, 0.9], [0.5, 0.5], [0.0, 0.0]])
    fused, trust = fuse_views(values, weights)
    assert fused[[0, 1, 3]].tolist() == pytest.approx([0.65, 0.2, 0.5])
    assert fused[2].isnan()
    assert trust.tolist() == pytest.approx([0.2, 0.1, 0.0, 0.0])


def test_a_view_that_contradicts_itself_counts_less():
    fusion = Fusion()
    world = torch.tensor([0])
    fusion.begin(world, views=2)
    honest, torn = [0.7, 0.7], [0.0, 1.0]
    given = fusion.update(world, torch.tensor([[0.7, 0.1]]), torch.tensor([[honest, torn]]))
    assert given.value == pytest.approx(0.7, abs=0.02)


def test_worlds_are_apart_and_begin_anew():
    fusion = Fusion(Rule("chain"))
    both, none = torch.tensor([0, 1]), torch.zeros(2, 1, 0)
    fusion.begin(both)
    fusion.update(both, torch.tensor([[0.5], [0.2]]), none)
    fusion.begin(torch.tensor([1]))
    given = fusion.update(both, torch.tensor([[0.5], [0.5]]), none)
    assert given.value.tolist() == pytest.approx([0.75, 0.5])
    with pytest.raises(CriticError, match="begin it first"):
        fusion.update(torch.tensor([5]), torch.tensor([[0.5]]), none[:1])


def test_fusion_goes_on_from_its_state():
    one, other = Fusion(), Fusion()
    worlds = torch.tensor([1, 4])
    one.begin(worlds)
    one.update(worlds, torch.tensor([[0.5], [0.2]]), torch.tensor([[[0.5, 0.6]], [[0.2, 0.2]]]))
    other.load_state_dict(one.state_dict())
    step = (worlds, torch.tensor([[0.1], [-0.2]]), torch.tensor([[[0.5, 0.5]], [[0.1, 0.2]]]))
    assert torch.equal(one.update(*step).value, other.update(*step).value)


@pytest.mark.parametrize("settings", [{"form": "means"}, {"alpha": -1.0}, {"alpha": NAN}, {"eps": 0.0}])
def test_a_rule_that_makes_no_sense_is_refused(settings):
    with pytest.raises(CriticError):
        Rule(**settings)


# VLAC


def test_vlac_values_by_hand():
    v = t(0.0, 40.0, 40.0, 80.0, 80.0, 80.0, 100.0)
    c = t(30.0, 50.0, -50.0, -50.0, -100.0, 0.0, -10.0)
    expected = [30.0, 70.0, 20.0, 60.0, 10.0, 80.0, 100.0 - 100.0 / 90.0]
    assert vlac_value(v, c, full=100.0).tolist() == pytest.approx(expected)
    assert vlac_value(v / 100, c / 100).tolist() == pytest.approx([e / 100 for e in expected])


def test_vlac_above_half_a_step_back_undoes_the_step_forward():
    v = torch.linspace(0.51, 0.9, 20)
    c = t(0.1, 0.3, 0.6, 0.8).unsqueeze(-1)
    torch.testing.assert_close(vlac_value(vlac_value(v, c), -c), v.expand(4, 20))


def test_vlac_asymmetries():
    below = t(0.3)
    assert vlac_value(vlac_value(below, t(0.2)), t(-0.2)) != pytest.approx(0.3)
    assert vlac_value(t(0.50), t(-0.5)) == pytest.approx(0.25)
    assert vlac_value(t(0.501), t(-0.5)) == pytest.approx(0.1)  # not continuous, and not below a tenth
    assert vlac_value(t(0.4), t(-1.0)) == 0.0
    assert vlac_value(t(1.0), t(0.0)) == pytest.approx(0.99)
    grid, steps = torch.linspace(0, 1, 101).unsqueeze(-1), torch.linspace(-1, 1, 81)
    moved = vlac_value(grid, steps)
    assert torch.isfinite(moved).all() and (moved >= 0).all() and (moved <= 1).all()
    assert (moved.diff(dim=-1) >= -1e-6).all()  # more progress never gives less value


def test_vlac_labels_forward_reproduce_time():
    """Labels of successive pairs, Δ / (T - i), add up to the share of time."""
    steps = 20
    values, v = [], t(0.0)
    for i in range(steps):
        v = vlac_value(v, t(1.0 / (steps - i)))
        values.append(float(v))
    assert values == pytest.approx([(i + 1) / steps for i in range(steps)], abs=1e-6)
