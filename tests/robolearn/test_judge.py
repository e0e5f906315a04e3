"""Judging: one whole episode per world, intervals that hold, and faults that do not hide."""

from __future__ import annotations

import json
import logging
import math

import numpy as np
import pytest
import torch

from policies.ppo import PPO, PPOConfig
from robolearn.evaluate import best_variant
from robolearn.judge import Verdict, judge, zero_action
from robolearn.statistics import wilson
from robolearn.trained import policy_controller


def test_wilsons_interval_against_known_values():
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29 (z = 1.959964)
    table = ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718))
    for hits, n, low, high in table:
        assert wilson(hits / n, n) == pytest.approx((low, high), abs=2e-4)
    assert wilson(1.0, 10) == pytest.approx(tuple(1 - x for x in reversed(wilson(0.0, 10))))
    assert all(0 <= x <= 1 for k in range(11) for x in wilson(k / 10, 10))
    assert wilson(math.nan, 0) == (0.0, 1.0)


def test_rates_get_wilsons_interval_and_others_a_bootstrap():
    rng = np.random.default_rng(0)
    values = rng.normal(3.0, 2.0, 400)
    verdict = Verdict({"tight": np.repeat([1.0, 0.0], [81, 182]), "T_err_cm": values})
    assert verdict.interval("tight") == pytest.approx((0.2553, 0.3662), abs=2e-4)
    low, high = verdict.interval("T_err_cm")
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert verdict.interval("T_err_cm") == (low, high)  # the same at every call


def test_episodes_that_say_nothing_are_left_out():
    verdict = Verdict({"tight": np.array([1.0, np.nan, 0.0, 1.0]), "nothing": np.full(4, np.nan)})
    assert verdict.mean("tight") == pytest.approx(2 / 3)
    assert verdict.count("tight") == 2
    assert verdict.interval("tight") == wilson(2 / 3, 3)
    assert all(math.isnan(x) for x in verdict.interval("nothing"))
    plain = verdict.to_dict()
    assert plain["episodes"] == 4 and "nothing" not in plain
    assert set(plain["tight"]) == {"mean", "median", "low", "high"}
    assert "NaN" not in json.dumps(plain)


@pytest.mark.filterwarnings("error")
def test_a_metric_without_any_value_is_not_a_warning():
    verdict = Verdict({"tight": np.full(4, np.nan)})
    assert math.isnan(verdict.mean("tight")) and math.isnan(verdict.median("tight"))
    assert verdict.count("tight") == 0


def test_no_episodes_at_all():
    assert Verdict({}).to_dict() == {"episodes": 0}


def test_one_wild_episode_moves_the_mean_and_not_the_median():
    calm = np.random.default_rng(0).normal(2, 0.1, 41)
    wild = np.append(calm, 1e9)
    verdict = Verdict({"T_err_cm": wild})
    assert verdict.median("T_err_cm") == pytest.approx(np.median(calm), abs=0.05)
    assert verdict.mean("T_err_cm") > 1e6


def test_one_episode_in_every_world_is_judged(small):
    """Worlds end at different times, some several times: the first episode of each counts."""
    env, twin = small(8, seed=2), small(8, seed=2)
    generator = torch.Generator().manual_seed(0)
    noise = 3.0 * torch.randn(200, 8, env.num_actions, generator=generator)
    taken = iter(noise)
    verdict = judge(env, lambda env, obs: next(taken))

    twin.reset()
    first: dict[int, dict[str, float]] = {}
    ended = 0
    for action in noise:
        step = twin.step(action)
        ended += len(step.final_ids)
        for k, i in enumerate(step.final_ids.tolist()):
            first.setdefault(i, {name: float(values[k]) for name, values in step.episodes.items()})
        if len(first) == 8:
            break
    assert ended > 8
    for name, values in verdict.episodes.items():
        np.testing.assert_array_equal(values, [np.float32(first[i][name]) for i in range(8)], err_msg=name)


def test_the_controller_sees_the_environment_and_its_observations(small):
    env = small(0, evaluation=True)
    seen = []

    def controller(given, obs):
        assert given is env and torch.is_inference_mode_enabled()
        seen.append(obs["policy"].clone())
        return zero_action(given, obs)

    verdict = judge(env, controller)
    assert len(seen) == env.max_episode_length - 1
    assert not any(torch.equal(a, b) for a, b in zip(seen[:-1], seen[1:], strict=True))
    assert verdict.episodes["length"].tolist() == [env.max_episode_length - 1] * 3
    assert verdict.episodes["completed"].tolist() == [1, 1, 1]
    again = judge(env, zero_action)
    for name, values in again.episodes.items():  # judging twice judges the same thing, up to the starts drawn
        assert values.shape == (3,), name


def test_a_diverged_world_is_counted_and_does_not_move_the_median(small, caplog):
    def verdict(fault: bool) -> Verdict:
        env = small(9, evaluation=True)
        count = 0

        def controller(env, obs):
            nonlocal count
            count += 1
            if fault and count == 40:
                env.world.shards[0].physics.bind("qpos")[1, 0] = torch.nan
            return zero_action(env, obs)

        return judge(env, controller)

    with caplog.at_level(logging.ERROR):
        clean, faulty = verdict(False), verdict(True)
    assert clean.count("diverged") == 0 and faulty.count("diverged") == 1
    assert faulty.episodes["diverged"][1] == 1 and faulty.episodes["length"][1] == 40
    assert faulty.episodes["tight"][1] == 0 and faulty.episodes["completed"][1] == 0
    for name, values in faulty.episodes.items():
        assert np.isfinite(values).all(), name
        np.testing.assert_array_equal(np.delete(values, 1), np.delete(clean.episodes[name], 1), err_msg=name)
    for name in ("T_err_cm", "R_err_deg"):
        spread = np.ptp(clean.episodes[name])
        assert abs(faulty.median(name) - clean.median(name)) <= spread / 2


def test_the_best_variant_of_a_baseline_is_reported(small):
    env = small(0, evaluation=True)
    variants = dict(list(env.task.baselines["constant flexion"].items())[::3])
    values = {}
    for name, function in variants.items():
        values[name] = judge(env, lambda env, obs, f=function: f(env)).mean("E_finger")
    name, verdict = best_variant(env, variants, "E_finger")
    assert len(set(values.values())) == len(variants)
    assert name == max(values, key=values.__getitem__) and verdict.mean("E_finger") == values[name]


@pytest.mark.parametrize("network", ["mlp", "gru"])
def test_one_controller_judges_environments_of_different_sizes(small, network):
    """Each has a memory of its own, also after earlier environments are gone."""
    config = PPOConfig(network=network, hidden=(8,), gru_hidden=8, policy_gain=1.0, num_steps=4, minibatches=1)
    env = small(3, evaluation=True)
    controller = policy_controller(PPO(env.observation_dims, env.num_actions, 3, config))
    alone = judge(env, controller)
    for num_envs in (1, 2, 5, 1, 4, 2):
        verdict = judge(small(num_envs, evaluation=True), controller)
        assert all(values.shape == (num_envs,) for values in verdict.episodes.values())
    for name, values in judge(env, controller).episodes.items():  # and it forgets between episodes
        np.testing.assert_array_equal(values, alone.episodes[name], err_msg=name)
