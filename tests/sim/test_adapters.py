"""The environment behind gymnasium's and rsl_rl's interfaces, held against their own checkers and learner."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import vector as wrappers

from robolearn.errors import RobolearnError
from sim.adapters.gymnasium import ACTION_BOUND, GymEnv, GymVectorEnv
from sim.adapters.rsl_rl import RslRlEnv

RNG = np.random.default_rng(0)


def test_gymnasiums_own_checker(small):
    env = GymEnv(small(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unbounded observations, no registered id
        check_env(env, skip_render_check=True)
    with pytest.raises(RobolearnError, match="one world, got 2; use GymVectorEnv"):
        GymEnv(small(2))


def test_one_world_shows_the_last_observation_of_its_episode(small):
    plain, env = small(1), GymEnv(small(1))
    first, info = env.reset(seed=3)
    np.testing.assert_array_equal(first, plain.reset(3)["policy"][0].numpy())
    assert env.observation_space.contains(first) and info == {}
    for _ in range(200):
        action = env.action_space.sample()
        obs, reward, terminated, truncated, info = env.step(action)
        step = plain.step(torch.from_numpy(action)[None])
        assert env.observation_space.contains(obs) and reward == float(step.reward[0])
        assert (terminated, truncated) == (bool(step.terminated[0]), bool(step.truncated[0]))
        if terminated or truncated:
            np.testing.assert_array_equal(obs, step.final_obs["policy"][0].numpy())
            assert info["length"] == float(step.episodes["length"][0])
            break
        np.testing.assert_array_equal(obs, step.obs["policy"][0].numpy())
    else:
        pytest.fail("no episode ended")


def test_the_vector_environment_resets_within_the_step(small):
    plain, env = small(5), GymVectorEnv(small(5))
    assert isinstance(env, gymnasium.vector.VectorEnv)
    assert env.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.SAME_STEP
    obs, info = env.reset(seed=1)
    start = plain.reset(1)
    np.testing.assert_array_equal(obs, start["policy"].numpy())
    np.testing.assert_array_equal(info["critic"], start["critic"].numpy())
    ended = 0
    for _ in range(60):
        actions = env.action_space.sample()
        assert env.action_space.contains(actions)
        obs, reward, terminated, truncated, info = env.step(actions)
        step = plain.step(torch.from_numpy(actions))
        assert env.observation_space.contains(obs)
        assert reward.shape == terminated.shape == truncated.shape == (5,)
        assert terminated.dtype == truncated.dtype == np.bool_
        np.testing.assert_array_equal(obs, step.obs["policy"].numpy())
        np.testing.assert_array_equal(reward, step.reward.numpy())
        done = terminated | truncated
        if not done.any():
            assert "final_obs" not in info
            continue
        ended += 1
        np.testing.assert_array_equal(info["_final_obs"], done)
        for i in range(5):
            if not done[i]:
                assert info["final_obs"][i] is None
        final = np.stack([info["final_obs"][i] for i in np.flatnonzero(done)])
        np.testing.assert_array_equal(final, step.final_obs["policy"].numpy())
        assert (final != obs[done]).any(axis=1).all()
        for name, values in step.episodes.items():
            assert info["episodes"][name].shape == (5,)
            np.testing.assert_array_equal(info["episodes"][name][done], values.numpy())
    assert ended
    env.close()


def test_what_it_returns_is_the_callers(small):
    env = GymVectorEnv(small(3))
    first, _ = env.reset()
    kept = first.copy()
    obs, *_ = env.step(env.action_space.sample())
    np.testing.assert_array_equal(first, kept)
    obs[:] = np.nan
    assert np.isfinite(env.step(env.action_space.sample())[0]).all()


def test_gymnasiums_wrappers_work_on_it(small):
    env = wrappers.RecordEpisodeStatistics(GymVectorEnv(small(4)))
    env.reset(seed=0)
    returns, lengths, seen = np.zeros(4), np.zeros(4, int), 0
    for _ in range(80):
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
        returns += reward
        lengths += 1
        done = terminated | truncated
        if done.any():
            np.testing.assert_allclose(info["episode"]["r"][done], returns[done], rtol=1e-5)
            np.testing.assert_array_equal(info["episode"]["l"][done], lengths[done])
            returns[done], lengths[done] = 0, 0
            seen += done.sum()
    assert seen == env.episode_count > 0


def test_info_splits_into_one_dictionary_per_world(small):
    env = wrappers.DictInfoToList(GymVectorEnv(small(4)))
    env.reset(seed=0)
    for _ in range(80):
        _, _, terminated, truncated, infos = env.step(env.action_space.sample())
        done = terminated | truncated
        assert len(infos) == 4
        for i, info in enumerate(infos):
            assert info["critic"].shape == (env.unwrapped.env.observation_dims["critic"],)
            assert ("final_obs" in info) == done[i]
        if done.any():
            return
    pytest.fail("no episode ended")


def test_actions_are_clipped_to_the_declared_space(small):
    a, b = GymVectorEnv(small(2)), GymVectorEnv(small(2))
    a.reset(seed=0), b.reset(seed=0)
    wild = np.full(a.action_space.shape, 1e6, np.float32)
    obs, *_ = a.step(wild)
    np.testing.assert_array_equal(obs, b.step(np.full_like(wild, ACTION_BOUND))[0])
    with pytest.raises(RobolearnError, match="shape"):
        a.step(np.zeros((3, a.action_space.shape[1]), np.float32))
    with pytest.raises(RobolearnError, match="finite"):
        a.step(np.full(a.action_space.shape, np.nan, np.float32))


def test_a_list_of_seeds_and_repetition(small):
    env = GymVectorEnv(small(3))
    first, _ = env.reset(seed=[5, 6, 7])
    again, _ = env.reset(seed=5)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, env.reset()[0])


def settings() -> dict:
    network = {"class_name": "MLPModel", "hidden_dims": [16], "activation": "elu", "obs_normalization": True}
    spread = {"class_name": "GaussianDistribution", "init_std": 1.0, "std_type": "log"}
    return {
        "num_steps_per_env": 12,
        "save_interval": 100,
        "obs_groups": {"actor": ["policy"], "critic": ["critic"]},
        "actor": {**network, "distribution_cfg": spread},
        "critic": network,
        "algorithm": {
            "class_name": "PPO",
            "num_learning_epochs": 2,
            "num_mini_batches": 2,
            "rnd_cfg": None,
            "symmetry_cfg": None,
        },
        "check_for_nan": True,
    }


def test_rsl_rls_runner_trains_on_it(small, tmp_path):
    pytest.importorskip("rsl_rl", reason="rsl-rl-lib is an optional yardstick: pip install -e '.[dev]'")
    from rsl_rl.runners import OnPolicyRunner

    env = RslRlEnv(small(6, start_fraction=0.0))
    runner = OnPolicyRunner(env, settings(), log_dir=str(tmp_path), device="cpu")
    before = [p.detach().clone() for p in runner.alg.actor.parameters()]
    runner.learn(2, init_at_random_ep_len=True)
    assert any(not torch.equal(a, b) for a, b in zip(before, runner.alg.actor.parameters(), strict=True))
    assert all(torch.isfinite(p).all() for p in runner.alg.actor.parameters())


def test_rsl_rls_conventions(small):
    pytest.importorskip("tensordict", reason="rsl_rl's observations are tensordicts")
    plain, env = small(6), RslRlEnv(small(6))
    assert (env.num_envs, env.num_actions) == (6, plain.num_actions)
    assert env.max_episode_length == plain.max_episode_length
    obs = env.get_observations()
    assert obs.batch_size == (6,) and set(obs.keys()) == {"policy", "critic"}
    plain.reset()  # the adapter's constructor resets once more
    generator = torch.Generator().manual_seed(0)
    timeouts = 0
    env.episode_length_buf = torch.tensor([80, 0, 85, 0, 0, 0])
    plain.episode_steps.copy_(torch.tensor([80, 0, 85, 0, 0, 0]))
    for _ in range(20):
        action = torch.randn(6, env.num_actions, generator=generator)
        obs, reward, dones, extras = env.step(action)
        step = plain.step(action)
        assert torch.equal(obs["policy"], step.obs["policy"]) and torch.equal(reward, step.reward)
        assert torch.equal(dones.bool(), step.terminated | step.truncated)
        assert torch.equal(extras["time_outs"], step.truncated)
        assert torch.equal(extras["final_ids"], step.final_ids)
        if len(step.final_ids):
            assert torch.equal(extras["final_obs"]["critic"], step.final_obs["critic"])
        assert torch.equal(env.episode_length_buf, plain.episode_steps)
        timeouts += int(step.truncated.sum())
    assert timeouts >= 2  # those whose clocks were set forward
