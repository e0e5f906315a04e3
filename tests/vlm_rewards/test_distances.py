"""Distances between rewards: what they must not see, and what they must."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from vlm_rewards import distances
from vlm_rewards.errors import CriticError

GAMMA = 0.9


def mdp(seed: int, states: int = 10, actions: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reward (S, A, S), transition (S, A, S) and a policy (S, A), at random."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(states, 0.3), (states, actions))
    return rng.normal(size=(states, actions, states)), transition, rng.dirichlet(np.ones(actions), states)


def shaping(potential: np.ndarray) -> np.ndarray:
    """(S, 1, S) from (S,)."""
    return GAMMA * potential[None, None, :] - potential[:, None, None]


@pytest.mark.parametrize("seed", range(5))
def test_tabular_distances_do_not_see_scale_and_shaping(seed):
    reward, transition, policy = mdp(seed)
    same = 3.0 * reward + 20.0 * shaping(np.random.default_rng(seed + 100).normal(size=10))
    assert distances.epic_tabular(reward, same, GAMMA) == pytest.approx(0.0, abs=1e-14)
    assert distances.starc_tabular(reward, same, transition, policy, GAMMA) == pytest.approx(0.0, abs=1e-14)
    assert distances.epic_tabular(reward, -same, GAMMA) == pytest.approx(1.0)
    assert distances.starc_tabular(reward, -same, transition, policy, GAMMA) == pytest.approx(1.0)


def test_starc_does_not_see_where_the_same_reward_is_paid():
    """Rewards with equal expectation over the next state order policies equally; EPIC tells them apart."""
    reward, transition, policy = mdp(0)
    moved = np.broadcast_to((transition * reward).sum(-1, keepdims=True), reward.shape)
    assert distances.starc_tabular(reward, moved, transition, policy, GAMMA) == pytest.approx(0.0, abs=1e-14)
    assert distances.epic_tabular(reward, moved, GAMMA) > 0.1


def test_pure_shaping_is_half_away_from_everything():
    reward, transition, policy = mdp(1)
    nothing = np.broadcast_to(shaping(np.arange(10.0)), reward.shape)
    assert distances.starc_tabular(reward, nothing, transition, policy, GAMMA) == pytest.approx(0.5)
    assert distances.starc_tabular(nothing, nothing, transition, policy, GAMMA) == 0.0
    with pytest.raises(CriticError, match="sum to one"):
        distances.starc_tabular(reward, reward, 2 * transition, policy, GAMMA)


def best_and_worst(reward: np.ndarray, transition: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Optimal policy (S,), and mean value of the best and the worst policy."""
    expected, found = (transition * reward).sum(-1), []
    for sign in (1.0, -1.0):
        value = np.zeros(len(reward))
        for _ in range(300):
            q = sign * expected + GAMMA * transition @ value
            value = q.max(1)
        found.append((q.argmax(1), sign * value.mean()))
    return found[0][0], found[0][1], found[1][1]


def test_starc_goes_with_regret():
    """Under strong shaping, the regret of following another reward rises with the distance (as in the paper)."""
    rng, found = np.random.default_rng(0), []
    for seed in range(60):
        reward, transition, policy = mdp(seed)
        noise = rng.uniform(0.0, 2.0) * rng.normal(size=reward.shape)
        other = rng.choice([-1.0, 1.0], p=[0.2, 0.8]) * reward + noise + 10.0 * shaping(rng.normal(size=10))
        acts, high, low = *best_and_worst(other, transition)[:1], *best_and_worst(reward, transition)[1:]
        rows = np.arange(10)
        onward, paid = transition[rows, acts], (transition * reward).sum(-1)[rows, acts]
        got = np.linalg.solve(np.eye(10) - GAMMA * onward, paid).mean()
        distance = distances.starc_tabular(reward, other, transition, policy, GAMMA)
        found.append((distance, (high - got) / (high - low)))
    assert spearmanr(*zip(*found, strict=True)).statistic > 0.9


def walks(states: int = 300, length: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions (F, 2) of random walks, and transitions, the last state of each going on to itself."""
    rng = np.random.default_rng(seed)
    where = rng.normal(0.0, 0.2, (states // length, length, 2)).cumsum(1).reshape(-1, 2)
    before = np.arange(states)
    return where, before, np.where((before + 1) % length == 0, before, before + 1)


def test_sampled_distances_do_not_see_scale_and_shaping():
    where, before, after = walks()
    features = distances.state_features(where)
    goal = np.exp(-((where - 0.5) ** 2).sum(1))
    potential = features @ np.random.default_rng(1).normal(size=features.shape[1])
    reward = distances.on_arrival(goal)

    def shaped(i, j):
        return 2.0 * reward(i, j) + GAMMA * potential[j] - potential[i]

    sample = np.random.default_rng(2).integers(0, len(where), 100)
    assert distances.epic(reward, shaped, before, after, sample, GAMMA) < 1e-6
    assert distances.starc(reward, shaped, before, after, features, GAMMA) < 1e-6
    opposite = distances.on_arrival(-3.0 * goal)
    assert distances.epic(reward, opposite, before, after, sample, GAMMA) == pytest.approx(1.0)
    assert distances.starc(reward, opposite, before, after, features, GAMMA) == pytest.approx(1.0)
    unrelated = distances.on_arrival(np.random.default_rng(3).normal(size=len(where)))
    assert distances.epic(reward, unrelated, before, after, sample, GAMMA) == pytest.approx(0.707, abs=0.06)


def test_epic_of_samples_approaches_the_exact_one():
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=(12, 12)), rng.normal(size=(12, 12))
    second += first
    pairs = np.stack(np.meshgrid(np.arange(12), np.arange(12), indexing="ij")).reshape(2, -1)
    exact = distances.epic_tabular(first[:, None, :], second[:, None, :], GAMMA)
    sampled = distances.epic(lambda i, j: first[i, j], lambda i, j: second[i, j], *pairs, np.arange(12), GAMMA)
    assert sampled == pytest.approx(exact, abs=1e-12)


def test_the_value_baseline_is_the_policys_value():
    where, before, after = walks(60, 20)
    paid = np.linspace(0.0, 1.0, 60)
    value = distances.value_baseline(distances.on_arrival(paid), before, after, np.eye(60), GAMMA)
    assert np.allclose(value, paid[after] + GAMMA * value[after])
    assert value[19] == pytest.approx(paid[19] / (1 - GAMMA))
