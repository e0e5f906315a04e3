"""Potential shaping, bounds and gates: identities with numbers, and what an optimal policy makes of each."""

import pytest
import torch

from policies.rollout import gae
from tests.vlm_rewards.tabular import Tabular, chain, generator
from vlm_rewards.errors import CriticError
from vlm_rewards.shaping import (
    check_gamma,
    clip,
    delta,
    gate,
    heuristic_shaping,
    par,
    potential_shaping,
    renorm,
    shaped,
)
from vlm_rewards.stage import RewardConfig, RewardStage

SPARSE = {"shaping": "none"}


@pytest.mark.parametrize("terminals", [0, 2])
def test_potential_shaping_keeps_every_optimal_policy_and_the_others_do_not(terminals: int) -> None:
    mdps = Tabular.random(200, states=10, actions=4, gamma=0.9, terminals=terminals)
    goal = torch.zeros_like(mdps.terminal)
    goal[:, -1] = True
    kept: dict[str, list[float]] = {"potential": [], "difference": [], "value": []}
    for spread in (0.1, 1.0, 5.0):
        phi = spread * torch.rand(200, 10, generator=generator(1), dtype=torch.float64)
        sparse = mdps.reward(phi, goal, **SPARSE)
        for shaping, shares in kept.items():
            shares.append(mdps.kept(mdps.reward(phi, goal, shaping=shaping), sparse))
    assert kept["potential"] == [1.0, 1.0, 1.0]
    # Without and with terminal states: difference .945/.595/.135 and .935/.380/.060; value .595/.015/0 and .215/0/0.
    for shaping, upper in (("difference", (0.97, 0.65, 0.2)), ("value", (0.65, 0.05, 0.0))):
        first, middle, last = kept[shaping]
        assert first > middle > last or last == middle == 0.0
        assert all(share <= bound for share, bound in zip(kept[shaping], upper, strict=True))
    assert kept["difference"][1] > kept["value"][1]


def test_naive_rewards_make_loitering_optimal_where_potential_shaping_finishes() -> None:
    # A last step that works in 7 of 10 cases: worth trying for the success alone, whatever it pays.
    mdp, goal = chain(length=6, gamma=0.95, success=0.7)
    phi = torch.tensor([[0.0, 0.18, 0.36, 0.54, 0.72, 0.9, 1.0, 0.0]], dtype=torch.float64)
    reached = {}
    for shaping in ("none", "potential", "difference", "value"):
        reward = mdp.reward(phi, goal, shaping=shaping, bonus=0.2)
        reached[shaping] = float(mdp.reaches(reward, goal))
    assert reached["none"] == pytest.approx(0.7)
    assert reached["potential"] == pytest.approx(0.7)
    assert reached["difference"] == 0.0
    assert reached["value"] == 0.0


def test_heuristic_shaping_is_potential_shaping_and_pay_for_what_lies_beyond_the_horizon() -> None:
    phi, next_phi = torch.rand(2, 50, generator=generator(), dtype=torch.float64)
    ends = torch.rand(50, generator=generator(1)) < 0.2
    gamma, lam = 0.99, 0.9
    beyond = (1 - lam) * gamma * next_phi.masked_fill(ends, 0.0)
    expected = potential_shaping(phi, next_phi, ends, lam * gamma) + beyond
    assert torch.allclose(heuristic_shaping(phi, next_phi, ends, gamma), expected, atol=1e-12)
    assert torch.equal(
        heuristic_shaping(phi, next_phi, ends, gamma), shaped("heuristic", phi, next_phi, ends, lam * gamma, gamma)
    )


def far_goal(learner_gamma: float) -> tuple[Tabular, torch.Tensor, torch.Tensor]:
    """200 processes that a learner of a short sight sees, the goal, and the values of a long sight."""
    mdps = Tabular.random(200, states=10, actions=4, gamma=0.9, terminals=2)
    goal = torch.zeros_like(mdps.terminal)
    goal[:, -1] = True
    value = mdps.values(mdps.reward(torch.zeros(200, 10, dtype=torch.float64), goal, **SPARSE))
    mdps.gamma = learner_gamma
    return mdps, goal, value


def test_a_good_heuristic_gives_a_short_sighted_learner_the_policies_of_a_long_sight() -> None:
    """Cheng et al. 2021: no bias where the heuristic is the value of the task, however little the learner sees."""
    long, goal, value = far_goal(0.9)
    best = long.reward(value, goal, **SPARSE)
    kept = {}
    for learner_gamma in (0.1, 0.5, 0.8):
        short, _, _ = far_goal(learner_gamma)
        guided = short.reward(value, goal, shaping="heuristic", horizon_gamma=0.9)
        assert short.kept(guided, best, long) == 1.0
        kept[learner_gamma] = short.kept(short.reward(value, goal, **SPARSE), best, long)
    assert kept[0.1] < kept[0.5] < kept[0.8] < 1.0  # without it, the short sight alone


def test_staying_for_good_is_worth_at_most_the_potential_to_a_guided_learner() -> None:
    mdp, goal = chain(length=6, gamma=0.95, success=0.7)
    phi = torch.tensor([[0.0, 0.18, 0.36, 0.54, 0.72, 0.9, 1.0, 0.0]], dtype=torch.float64)
    for bonus, reaches in ((2.0, 0.7), (0.2, 0.0)):
        reward = mdp.reward(phi, goal, shaping="heuristic", bonus=bonus)
        assert float(mdp.reaches(reward, goal)) == pytest.approx(reaches)


def test_a_gate_keeps_a_proxy_that_pays_for_dithering_from_being_farmed() -> None:
    mdp, goal = chain(length=6, gamma=0.95, success=1.0)
    phi = torch.zeros(1, 8, dtype=torch.float64)
    state = torch.arange(8, dtype=torch.float64)
    terms = {
        "touch": 0.2 * (state[:, None, None] - state).abs().clamp(max=1.0),  # for every move, to and fro
        "stage": (state >= 4).double().expand(8, 3, 8),
    }
    settings = {"shaping": "none", "terms": {"touch": 1.0}}
    ungated = mdp.reward(phi, goal, terms, **settings)
    gated = mdp.reward(phi, goal, terms, gate="success", **settings)
    staged = mdp.reward(phi, goal, terms, gate="stage", bonus=10.0, **settings)
    assert float(mdp.reaches(ungated, goal)) == 0.0
    assert float(mdp.reaches(gated, goal)) == 1.0
    assert float(mdp.reaches(staged, goal)) == 1.0


def episode(steps: int, gamma: float, terminated: bool, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Φ of T + 1 visits, the shaping of T steps, and discounts."""
    phi = torch.rand(steps + 1, generator=generator(seed), dtype=torch.float64)
    ends = torch.zeros(steps, dtype=torch.bool)
    ends[-1] = terminated
    return phi, potential_shaping(phi[:-1], phi[1:], ends, gamma), gamma ** torch.arange(steps, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(10))
def test_shaping_telescopes_at_time_outs_and_terminations(seed: int) -> None:
    steps, gamma = 3 + 7 * seed, 0.9 + 0.01 * seed
    phi, shaping, discount = episode(steps, gamma, False, seed)
    assert float((discount * shaping).sum()) == pytest.approx(float(gamma**steps * phi[-1] - phi[0]), abs=1e-12)
    phi, shaping, discount = episode(steps, gamma, True, seed)
    assert float((discount * shaping).sum()) == pytest.approx(-float(phi[0]), abs=1e-12)


def test_at_a_termination_the_next_potential_does_not_matter() -> None:
    end = torch.tensor([True, False])
    got = potential_shaping(torch.tensor([0.4, 0.4]), torch.tensor([torch.nan, 0.5]), end, 0.9)
    assert got.tolist() == pytest.approx([-0.4, 0.05])


@pytest.mark.parametrize("lam", [0.0, 0.9, 1.0])
def test_the_learner_sees_the_same_advantages_as_without_shaping(lam: float) -> None:
    """With V - Φ for V, terminations and time-outs included: what the learner's own bootstrapping makes of them."""
    g, gamma, (T, N) = generator(), 0.95, (40, 8)
    reward = torch.randn(T, N, generator=g, dtype=torch.float64)
    value = torch.randn(T + 1, N, generator=g, dtype=torch.float64)
    phi = torch.rand(T + 1, N, generator=g, dtype=torch.float64)
    terminated = torch.rand(T, N, generator=g) < 0.1
    timeout = (torch.rand(T, N, generator=g) < 0.1) & ~terminated
    final_value, final_phi = (torch.rand(T, N, generator=g, dtype=torch.float64) for _ in range(2))
    done = (terminated | timeout).double()
    next_phi = torch.where(done.bool(), final_phi, phi[1:])
    shaped_reward = reward + potential_shaping(phi[:-1], next_phi, terminated, gamma)
    plain = gae(reward + gamma * timeout * final_value, value, done, gamma, lam)
    same = gae(shaped_reward + gamma * timeout * (final_value - final_phi), value - phi, done, gamma, lam)
    assert torch.allclose(plain, same, atol=1e-12)


def test_another_gamma_than_the_learners_is_refused() -> None:
    assert check_gamma(None, 0.97) == 0.97
    assert check_gamma(0.97, 0.97) == 0.97
    with pytest.raises(CriticError, match=r"gamma 0\.99, the learner discounts with 0\.97"):
        check_gamma(0.99, 0.97)


def test_a_heuristic_of_a_shorter_sight_than_the_learners_is_refused() -> None:
    RewardStage(RewardConfig(shaping="heuristic", horizon_gamma=0.98), gamma=0.98)
    with pytest.raises(CriticError, match=r"at least the learner's gamma, 0\.98; got 0\.95"):
        RewardStage(RewardConfig(shaping="heuristic", horizon_gamma=0.95), gamma=0.98)
    with pytest.raises(CriticError, match="horizon_gamma must be between 0 and 1; got 1.5"):
        RewardConfig(horizon_gamma=1.5)


def test_an_unknown_shaping_names_the_others() -> None:
    one = torch.zeros(1)
    with pytest.raises(CriticError, match="did you mean 'potential'"):
        shaped("potental", one, one, one.bool(), 0.9)


def test_par_is_half_at_the_reference_and_bounded() -> None:
    reward = torch.linspace(-30, 30, 101, dtype=torch.float64)
    got = par(reward, [0.5])
    assert float(par(torch.tensor(0.5), [0.5])) == 0.5
    assert bool(((got > 0) & (got < 1)).all())
    assert bool((got.diff() > 0).all())
    several = par(reward, [0.0, 1.0, 2.0])
    assert torch.allclose(several, sum(par(reward, [m]) for m in (0.0, 1.0, 2.0)) / 3)
    own = par(reward, torch.stack((reward, reward)))
    assert torch.allclose(own, torch.full_like(own, 0.5))
    for wrong in ([], [0.0] * 11):
        with pytest.raises(CriticError, match=f"1 to 10 reference rewards, got {len(wrong)}"):
            par(reward, wrong)


def test_clipped_process_rewards_never_pay_for_more_steps() -> None:
    process = torch.rand(50, generator=generator())
    got = clip(process, 0.7)
    assert float(got.max()) == 0.0
    assert bool((got.cumsum(0).diff() <= 0).all())
    assert torch.allclose(got[process < 0.7], process[process < 0.7] - 0.7)


def test_delta_telescopes_and_repetition_gains_nothing() -> None:
    process = torch.rand(9, 4, generator=generator(), dtype=torch.float64)
    assert torch.allclose(delta(process).sum(0), process[-1])
    repeated = process.repeat_interleave(5, 0)
    assert torch.allclose(delta(repeated).sum(0), process[-1])
    ended = torch.zeros(9, 4, dtype=torch.bool)
    ended[3] = True
    parts = delta(process, ended)
    assert torch.allclose(parts[:4].sum(0), process[3])
    assert torch.allclose(parts[4:].sum(0), process[-1])


def test_a_gate_opens_holds_and_closes_with_its_episode() -> None:
    stage = torch.tensor([0.2, 0.6, 0.4, 0.2, 0.4, 0.6, 0.1, 0.4])
    ended = torch.tensor([0, 0, 0, 0, 0, 1, 0, 0]).bool()
    assert gate(stage, 0.5).int().tolist() == [0, 1, 0, 0, 0, 1, 0, 0]
    assert gate(stage, 0.5, 0.3, ended).int().tolist() == [0, 1, 1, 0, 0, 1, 0, 0]
    assert gate(stage, 0.5, -torch.inf, ended).int().tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
    assert gate(stage[2:], 0.5, 0.3, ended[2:], torch.tensor(True)).int().tolist() == [1, 0, 0, 1, 0, 0]
    with pytest.raises(CriticError, match="cannot be released above"):
        gate(stage, 0.5, 0.6)


@pytest.mark.parametrize("seed", range(5))
def test_a_gate_is_the_automaton_that_it_describes(seed: int) -> None:
    g = generator(seed)
    stage, ended = torch.rand(60, 5, generator=g), torch.rand(60, 5, generator=g) < 0.1
    before = torch.rand(5, generator=g) < 0.5
    expected, state = [], before.clone()
    for t in range(60):
        if t:
            state = state & ~ended[t - 1]
        state = (stage[t] >= 0.7) | (state & (stage[t] >= 0.3))
        expected.append(state.clone())
    assert torch.equal(gate(stage, 0.7, 0.3, ended, before), torch.stack(expected))


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_renormalised_process_never_ranks_a_failure_above_a_success(scale: float) -> None:
    process = scale * torch.rand(200, generator=generator())
    success = torch.rand(200, generator=generator(1)) < 0.3
    got = renorm(process, success)
    assert float(got[success].min()) >= float(got[~success].max())
    for same in (success, ~success):
        assert torch.equal(got[same].argsort(), process[same].argsort())
