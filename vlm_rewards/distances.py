"""How far one reward function is from another, blind to potential shaping and positive scale.

EPIC (Gleave et al. 2021, arXiv 2006.13900: Pearson distance of canonically shaped rewards) takes out potentials with
sampled states. STARC (Skalse et al. 2024, arXiv 2309.15257: standardised, value-adjusted rewards) takes out the value
of the policy that made the data. Both lie in [0, 1]: 0 for rewards that differ by shaping and scale, 1 for
opposite ones, .71 for unrelated ones.

A reward over F recorded states is a function of two arrays of their indices: ``reward(i, j)`` of going from i to j, of
the shape to which i and j broadcast. Actions play no part: critics do not see them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vlm_rewards.errors import CriticError

Reward = Callable[[np.ndarray, np.ndarray], np.ndarray]
_NOTHING = 1e-9
"""A canonical reward this much smaller than the reward is rounding: it prefers no policy to another."""
_PAIRS = 2_000_000
"""Rewards of pairs of states that are held at once."""


def on_arrival(values: np.ndarray) -> Reward:
    """The reward that pays ``values`` (F,) of the state that is reached."""
    return lambda i, j: np.broadcast_to(values[j], np.broadcast_shapes(i.shape, j.shape))


def epic(
    first: Reward,
    second: Reward,
    before: np.ndarray,
    after: np.ndarray,
    states: np.ndarray,
    gamma: float,
    states_of_second: np.ndarray | None = None,
) -> float:
    """EPIC distance sqrt((1 - rho) / 2) over the transitions ``before`` to ``after``, (K,) each.

    Args:
        states: (M,) sampled states S and S' of the canonicalisation.
        gamma: discount factor.
        states_of_second: (M',) another sample for the second reward, to see what sampling alone does.
    """
    other = states if states_of_second is None else states_of_second
    return _apart(
        _centred(epic_canonical(first, before, after, states, gamma), first(before, after)),
        _centred(epic_canonical(second, before, after, other, gamma), second(before, after)),
    )


def epic_canonical(
    reward: Reward, before: np.ndarray, after: np.ndarray, states: np.ndarray, gamma: float
) -> np.ndarray:
    """R(s, s') + E[gamma R(s', S') - R(s, S') - gamma R(S, S')] of K transitions; S and S' from ``states`` (M,)."""
    onward = gamma * _mean_onward(reward, after, states) - _mean_onward(reward, before, states)
    return reward(before, after) + onward - gamma * _mean_onward(reward, states, states).mean()


def starc(
    first: Reward,
    second: Reward,
    before: np.ndarray,
    after: np.ndarray,
    features: np.ndarray,
    gamma: float,
    rows: np.ndarray | None = None,
    rows_of_second: np.ndarray | None = None,
) -> float:
    """STARC distance ||s1 - s2|| / 2 of standardised canonical rewards over K transitions.

    Args:
        before, after: (K,) states of each transition.
        features: (F, D) of every state, for the value baseline (see `value_baseline`); potentials in their span are
            taken out exactly.
        gamma: discount factor.
        rows, rows_of_second: the transitions, by index or mask, that each baseline is fitted to; all where None.
    """
    return _apart(
        _scaled(starc_canonical(first, before, after, features, gamma, rows), first(before, after)),
        _scaled(starc_canonical(second, before, after, features, gamma, rows_of_second), second(before, after)),
    )


def starc_canonical(
    reward: Reward,
    before: np.ndarray,
    after: np.ndarray,
    features: np.ndarray,
    gamma: float,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """R(s, s') - V(s) + gamma V(s') of K transitions, V the value of the policy that made them."""
    used = slice(None) if rows is None else rows
    value = value_baseline(reward, before[used], after[used], features, gamma)
    return reward(before, after) - value[before] + gamma * value[after]


def value_baseline(
    reward: Reward, before: np.ndarray, after: np.ndarray, features: np.ndarray, gamma: float
) -> np.ndarray:
    """Value (F,) of the policy that made the transitions, linear in ``features`` (F, D).

    By least-squares temporal differences (Bradtke & Barto 1996). The last state of an episode should come with a
    transition to itself, or nothing says what it is worth.
    """
    here = features[before]
    weights = np.linalg.lstsq(here.T @ (here - gamma * features[after]), here.T @ reward(before, after), rcond=None)
    return features @ weights[0]


def state_features(states: np.ndarray, count: int = 16, seed: int = 0) -> np.ndarray:
    """A constant, the standardised coordinates, and random Fourier features of states (F, k) → (F, 1 + k + count).

    The Fourier features are those of a Gaussian kernel as wide as the data (Rahimi & Recht 2007).
    """
    z = (states - states.mean(0)) / np.maximum(states.std(0), 1e-8)
    draw = np.random.default_rng(seed)
    directions = draw.normal(0.0, 1.0 / np.sqrt(max(1, z.shape[1])), (z.shape[1], count))
    waves = np.cos(z @ directions + draw.uniform(0.0, 2.0 * np.pi, count)) * np.sqrt(2.0 / max(1, count))
    return np.concatenate([np.ones((len(z), 1)), z, waves], axis=1)


def epic_tabular(first: np.ndarray, second: np.ndarray, gamma: float) -> float:
    """Exact EPIC distance of two rewards (S, A, S), all states, actions and transitions equally likely."""

    def canonical(reward: np.ndarray) -> np.ndarray:
        mean = reward.mean(axis=(1, 2))
        return reward + gamma * mean[None, None, :] - mean[:, None, None] - gamma * mean.mean()

    return _apart(*(_centred(canonical(reward), reward) for reward in (first, second)))


def starc_tabular(
    first: np.ndarray, second: np.ndarray, transition: np.ndarray, policy: np.ndarray, gamma: float
) -> float:
    """Exact STARC distance of two rewards (S, A, S) in an MDP.

    Args:
        transition: (S, A, S) probability of the next state.
        policy: (S, A) probability of each action, of the policy whose value is the baseline.
        gamma: discount factor.

    Raises:
        CriticError: rows of ``transition`` or ``policy`` that do not sum to one.
    """
    if not (np.allclose(transition.sum(-1), 1.0) and np.allclose(policy.sum(-1), 1.0)):
        raise CriticError("rows of transition and policy are probabilities, and must sum to one")

    def canonical(reward: np.ndarray) -> np.ndarray:
        expected = (transition * reward).sum(-1)
        onward = np.einsum("sa,sat->st", policy, transition)
        value = np.linalg.solve(np.eye(len(policy)) - gamma * onward, (policy * expected).sum(-1))
        return expected - value[:, None] + gamma * transition @ value

    return _apart(*(_scaled(canonical(reward), reward) for reward in (first, second)))


def _mean_onward(reward: Reward, states: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """E[R(s, S')] of each of ``states``, S' from ``sample``; in parts that fit into memory."""
    parts = np.array_split(states, max(1, len(states) * len(sample) // _PAIRS))
    return np.concatenate([reward(part[:, None], sample[None, :]).mean(1) for part in parts])


def _centred(canonical: np.ndarray, reward: np.ndarray) -> np.ndarray:
    return _scaled(canonical - canonical.mean(), reward)


def _scaled(canonical: np.ndarray, reward: np.ndarray) -> np.ndarray:
    """Of length one; of length zero where the reward is nothing but shaping."""
    length = np.linalg.norm(canonical)
    return canonical / length if length > _NOTHING * np.linalg.norm(reward) else np.zeros_like(canonical)


def _apart(first: np.ndarray, second: np.ndarray) -> float:
    """Half the distance of two directions, which is sqrt((1 - rho) / 2) of their cosine rho."""
    return float(min(1.0, 0.5 * np.linalg.norm(first - second)))
