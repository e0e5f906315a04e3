"""The batched environment, on a small dex_track: commands, rewards, ends of episodes, faults, noise, and its state."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace

import pytest
import torch

from robolearn.errors import RobolearnError
from robolearn.judge import judge, zero_action
from sim.channels import ChannelError, Channels
from sim.env import Env, EnvError, Step
from sim.physics import PhysicsError
from sim.task import ObservationTerm
from sim.terms import noise, tracking

ENDLESS = {"terminate_distance": 1e9, "terminate_angle": 1e9}
WHOLE = {"start_fraction": 1.0, **ENDLESS}


def actions(env: Env, steps: int, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(steps, env.num_envs, env.num_actions, generator=generator)


def ctrl(env: Env) -> torch.Tensor:
    return torch.cat([shard.physics.bind("ctrl") for shard in env.world.shards]).float()


def assert_equal_steps(a: Step, b: Step, rows: object = slice(None)) -> None:
    for group in a.obs:
        assert torch.equal(a.obs[group][rows], b.obs[group][rows]), group
    for name in a.rewards:
        assert torch.equal(a.rewards[name][rows], b.rewards[name][rows]), name
    assert torch.equal(a.terminated[rows], b.terminated[rows]) and torch.equal(a.truncated[rows], b.truncated[rows])


def test_a_zero_action_sends_the_reference(small):
    env = small(6, **ENDLESS)
    command = env.task.action.command
    low, high = torch.tensor(command.lower), torch.tensor(command.upper)
    for _ in range(30):
        wanted = env.channels["reference_joint_pos"][:, 1].clamp(low, high)
        env.step(zero_action(env, {}))
        assert torch.equal(ctrl(env)[~(env.episode_steps == 0)], wanted[~(env.episode_steps == 0)])


def test_commands_keep_the_limits(small):
    env = small(6)
    low, high = (torch.tensor(v) for v in (env.task.action.command.lower, env.task.action.command.upper))
    for action in actions(env, 20, 1000.0):
        env.step(action)
        assert (ctrl(env) >= low - 1e-6).all() and (ctrl(env) <= high + 1e-6).all()


@pytest.mark.parametrize("reward", ["exp", "dextrack"])
def test_rewards_are_named_and_add_up(small, reward):
    env = small(6, reward=reward)
    for action in actions(env, 30):
        step = env.step(action)
        assert set(step.rewards) == set(env.task.rewards)
        assert all(value.shape == (6,) for value in step.rewards.values())
        assert torch.allclose(step.reward, sum(step.rewards.values()), atol=1e-6)
        assert torch.isfinite(step.reward).all()


def test_an_episode_ends_in_one_way_and_its_length_is_counted(small):
    env = small(6, joint_noise=0.05, start_fraction=0.0, terminate_distance=0.18)
    steps = torch.zeros(6, dtype=torch.long)
    ends = {"terminated": 0, "truncated": 0}
    for action in actions(env, 100, 0.3):
        step = env.step(action)
        steps += 1
        assert not (step.terminated & step.truncated).any()
        ended = step.terminated | step.truncated
        assert torch.equal(step.final_ids, torch.nonzero(ended).squeeze(1))
        if ended.any():
            assert torch.equal(step.episodes["length"].long(), steps[ended])
            assert step.summary()["episode/length"] == pytest.approx(steps[ended].float().mean().item())
            for value in step.episodes.values():
                assert value.shape == step.final_ids.shape
        else:
            assert not step.final_obs and not step.episodes
        steps[ended] = 0
        assert torch.equal(env.episode_steps, steps)
        ends["terminated"] += int(step.terminated.sum())
        ends["truncated"] += int(step.truncated.sum())
    assert ends["terminated"] and ends["truncated"]


def test_time_is_up_at_the_last_frame_of_each_clip(small):
    env = small(4, **WHOLE)
    length = env.task.goal.motions.length
    for _ in range(3):
        clip = env.task.goal.clip.clone()
        lengths = set()
        for t in range(1, int(length.max())):
            step = env.step(zero_action(env, {}))
            assert torch.equal(step.truncated, torch.full((4,), t) == length[clip] - 1)
            lengths |= set(step.episodes.get("length", torch.tensor([])).tolist())
        assert lengths == {float(n - 1) for n in length[clip]}
        assert (env.episode_steps == 0).all()


def test_final_obs_is_what_the_ended_world_would_have_shown(small):
    """The same episodes with and without early termination: only the reset tells them apart."""
    env, going_on = small(6, start_fraction=1.0), small(6, **WHOLE)
    for action in actions(env, 80, 3.0):
        a, b = env.step(action), going_on.step(action)
        if len(a.final_ids):
            assert a.terminated.any() and not b.terminated.any()
            for group in a.obs:
                assert torch.equal(a.final_obs[group], b.obs[group][a.final_ids])
                assert not torch.equal(a.obs[group][a.final_ids], a.final_obs[group])
            others = ~a.terminated
            assert_equal_steps(a, b, others)
            assert torch.equal(a.reward, b.reward)  # the reward of the last step is not the next episode's
            break
    else:
        pytest.fail("no episode was terminated")


def test_obs_after_an_end_is_the_first_of_the_next_episode(small):
    env = small(6, sensor_noise=False)
    for action in actions(env, 80, 3.0):
        step = env.step(action)
        if len(step.final_ids):
            break
    raw = {name: env.channels[name][step.final_ids] for name in env.channels if name not in env.task.derived}
    fresh = Channels(raw, env.task.derived)
    for group in step.obs:
        assert torch.equal(env.task.observe(group, fresh), step.obs[group][step.final_ids])
    assert not fresh["residual"].any() and not fresh["last_action"].any()
    assert (fresh["joint_pos"] - fresh["reference_joint_pos"][:, 0]).abs().max() < 1e-6
    assert (fresh["object_pose"] - fresh["reference_object_pose"][:, 0]).abs().max() < 1e-6


def test_returned_observations_are_not_overwritten_later(small):
    env = small(4)
    first = env.reset()
    kept = {group: value.clone() for group, value in first.items()}
    step = env.step(actions(env, 1)[0])
    step_kept = {group: value.clone() for group, value in step.obs.items()}
    for action in actions(env, 5):
        env.step(action)
    for group in first:
        assert torch.equal(first[group], kept[group]) and torch.equal(step.obs[group], step_kept[group])


def test_one_seed_is_one_run(small):
    settings = {"sensor_noise": True, "command_delay": [0, 2], "joint_noise": 0.02}
    a, b, other = (small(5, seed=seed, **settings) for seed in (3, 3, 4))
    different = False
    for action in actions(a, 200):
        x, y, z = a.step(action), b.step(action), other.step(action)
        assert_equal_steps(x, y)
        assert x.log == y.log or any(v != v for v in x.log.values())
        different |= not torch.equal(x.obs["policy"], z.obs["policy"])
    assert different


def test_reset_with_a_seed_repeats(small):
    env = small(5, sensor_noise=True, command_delay=[0, 2])

    def run(seed: int) -> list[torch.Tensor]:
        return [env.reset(seed)["policy"], *(env.step(action).obs["policy"] for action in actions(env, 40))]

    first, other, again = run(7), run(8), run(7)
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def with_randomizers_at_reset(small, seed: int) -> Env:
    ranges = {"object_mass": [0.5, 2.0], "object_size": [0.9, 1.1], "object_friction": [0.4, 1.0]}
    drawn = {name: {"range": r, "at": "reset"} for name, r in ranges.items()}
    return small(5, seed=seed, randomize=drawn, sensor_noise=True, command_delay=[1, 3])


@pytest.mark.parametrize(
    "make",
    [
        lambda small, seed: small(5, seed=seed),
        lambda small, seed: small(5, seed=seed, sensor_noise=True),
        lambda small, seed: small(5, seed=seed, command_delay=[0, 2], joint_noise=0.02),
        lambda small, seed: small(5, seed=seed, randomize={"object_size": [0.9, 1.1], "actuator_gains": [0.8, 1.2]}),
        with_randomizers_at_reset,
    ],
    ids=["plain", "noise", "delay", "size and gains", "everything, drawn at resets"],
)
def test_the_state_continues_bit_for_bit_in_another_environment(small, make):
    a, b = make(small, 1), make(small, 2)
    for action in actions(a, 37, 2.0):
        a.step(action)
    for action in actions(b, 5):
        b.step(action)
    state = copy.deepcopy(a.state_dict())
    kept = copy.deepcopy(state)
    b.load_state_dict(state)
    ended = 0
    for action in actions(a, 90, 2.0, seed=1):
        x, y = a.step(action), b.step(action)
        assert_equal_steps(x, y)
        for name, value in x.episodes.items():
            assert torch.equal(value.nan_to_num(-1), y.episodes[name].nan_to_num(-1)), name
        ended += len(x.final_ids)
    assert ended and a.diverged == b.diverged
    for name, value in kept["obs"].items():  # loading shares nothing with what was loaded
        assert torch.equal(state["obs"][name], value)
    for name, value in kept["seen"].items():
        assert torch.equal(state["seen"][name], value)


def test_a_state_of_another_size_is_refused(small):
    with pytest.raises(PhysicsError, match="shape"):
        small(4).load_state_dict(small(6).state_dict())


@pytest.mark.parametrize("noisy", [False, True])
def test_a_world_that_diverges_is_replaced_counted_and_alone(small, noisy, caplog):
    settings = {"sensor_noise": noisy, **WHOLE}
    clean, env = small(6, **settings), small(6, **settings)
    for action in actions(env, 10):
        clean.step(action), env.step(action)
    env.world.shards[1].physics.bind("qpos")[0, 2] = torch.nan
    sick = env.world.shards[1].start
    others = [i for i in range(6) if i != sick]
    action = actions(env, 1, seed=5)[0]
    with caplog.at_level(logging.WARNING):
        x, y = clean.step(action), env.step(action)
    assert f"world {sick} diverged" in caplog.text
    assert env.diverged == 1 and clean.diverged == 0
    assert y.log["world/diverged"] == 1.0 and y.final_ids.tolist() == [sick]
    assert y.terminated[sick] and not y.truncated[sick] and y.reward[sick] == 0
    assert y.episodes["diverged"].tolist() == [1.0] and y.episodes["length"].tolist() == [11.0]
    for name in ("tight", "strict", "loose", "completed"):
        assert y.episodes[name].tolist() == [0.0]
    for value in [*y.obs.values(), *y.final_obs.values(), *y.rewards.values(), *y.episodes.values()]:
        assert torch.isfinite(value).all()
    if not noisy:
        assert_equal_steps(x, y, others)
    for action in actions(env, 20, seed=6):
        x, y = clean.step(action), env.step(action)
        assert torch.isfinite(y.obs["policy"]).all() and torch.isfinite(y.obs["critic"]).all()
        group = "critic" if noisy else "policy"  # the sick world's reset draws noise too
        assert torch.equal(x.obs[group][others], y.obs[group][others])
    assert env.diverged == 1 and not env.world.unusable().any()


@pytest.mark.parametrize("noisy", [False, True])
def test_masks_do_what_ids_do(small, noisy):
    """A GPU steps by masks; without draws that depend on how many worlds end, both ways are one."""
    settings = {"start_fraction": 1.0, "terminate_distance": 0.05}
    sparse, dense = small(6, **settings), small(6, sensor_noise=noisy, **settings)
    for env in (sparse, dense):
        env.task.goal._num_candidates.fill_(1)  # the same clip again and again
        env.reset()
    dense.world.dense = True
    ended = 0
    for t, action in enumerate(actions(sparse, 60, 3.0)):
        if t in (20, 40):
            for env in (sparse, dense):
                env.world.shards[0].physics.bind("qpos")[1, 0] = torch.nan
        x, y = sparse.step(action), dense.step(action)
        assert len(y.final_ids) == 6
        y = y.ended()
        ended += len(x.final_ids)
        assert torch.equal(x.final_ids, y.final_ids)
        assert torch.equal(x.obs["critic"], y.obs["critic"]) and torch.equal(x.reward, y.reward)
        assert float(x.log["world/diverged"]) == float(y.log["world/diverged"]) == float(t in (20, 40))
        if len(x.final_ids):
            assert torch.equal(x.final_obs["critic"], y.final_obs["critic"])
            assert x.episodes.keys() == y.episodes.keys()
            for name, values in x.episodes.items():
                assert torch.equal(values, y.episodes[name]), name
        if not noisy:
            assert torch.equal(x.obs["policy"], y.obs["policy"])
    assert ended > 6 and sparse.diverged == dense.diverged == 2


def test_a_gpu_reports_bad_actions_at_the_rollouts_end(small):
    env = small(4)
    env.world.dense = True
    action = torch.zeros(4, env.num_actions)
    env.step(action)
    env.check()
    action[2, 1] = torch.nan
    env.step(action)
    with pytest.raises(EnvError, match="1 actions"):
        env.check()
    env.check()


def test_an_episode_begun_within_a_clip_says_nothing_of_success_even_when_it_diverges(small):
    env = small(6, start_fraction=0.0, **ENDLESS)
    env.step(zero_action(env, {}))
    begun = env.task.goal.first_frame.clone()
    for shard in env.world.shards:
        shard.physics.bind("qpos")[:, 1] = torch.nan
    env.task.goal.start_fraction = 1.0  # the replacement starts at the first frame
    step = env.step(zero_action(env, {}))
    assert step.episodes["diverged"].tolist() == [1.0] * 6
    assert torch.equal(step.episodes["tight"].isnan(), begun > 0)


@pytest.mark.parametrize("delay", [1, 3])
def test_commands_arrive_late(small, delay):
    env = small(4, command_delay=[delay, delay], **WHOLE)
    at_reset = ctrl(env).clone()
    sent = []
    for t, action in enumerate(actions(env, 12)):
        sent.append(env.task.action.decode(env.channels, action)[0])
        env.step(action)
        assert torch.equal(ctrl(env), sent[t - delay] if t >= delay else at_reset)
    assert env.contract.delay_s == pytest.approx(delay / 60)


def test_delays_are_drawn_for_each_world_within_their_bounds(small):
    env = small(64, command_delay=[1, 3], **WHOLE)
    sent = []
    for action in actions(env, 8):
        sent.append(env.task.action.decode(env.channels, action)[0])
        env.step(action)
    arrived = torch.stack([(ctrl(env) == sent[-1 - d]).all(1) for d in range(8)])
    assert arrived.sum(0).tolist() == [1] * 64
    assert set(arrived.float().argmax(0).tolist()) == {1, 2, 3}


def test_sensor_noise_reaches_the_policy_and_not_the_critic(small):
    clean, noisy = small(200, **WHOLE), small(200, sensor_noise=True, **WHOLE)
    width = clean.observation_dims["policy"]
    errors = []
    for action in actions(clean, 6):
        x, y = clean.step(action), noisy.step(action)
        assert torch.equal(x.obs["critic"], y.obs["critic"])
        assert torch.equal(x.obs["critic"][:, :width], x.obs["policy"])
        assert torch.equal(x.reward, y.reward)
        errors.append(y.obs["policy"] - x.obs["policy"])
    error = torch.stack(errors)
    joints = error[..., : clean.num_actions]  # the first term is joint_pos
    assert joints.std().item() == pytest.approx(0.005, rel=0.03) and abs(joints.mean().item()) < 1e-4
    assert abs((joints[0] * joints[1]).mean().item()) < 0.05 * 0.005**2  # drawn afresh at each step
    assert (error[..., -clean.task.goal.channels[-1].shape[0] :] == 0).all()  # the object's shape is known


def test_noise_of_a_pose_has_the_declared_sizes():
    generator = torch.Generator().manual_seed(0)
    pose = torch.zeros(20000, 7)
    pose[:, 3] = 1.0
    seen = noise.pose(pose, torch.randn(20000, 6, generator=generator), position=0.002, rotation=0.02)
    assert seen[:, :3].std().item() == pytest.approx(0.002, rel=0.03)
    assert (2 * seen[:, 4:]).std().item() == pytest.approx(0.02, rel=0.03)
    assert torch.allclose(seen[:, 3:].norm(dim=1), torch.ones(20000), atol=1e-6)
    assert torch.equal(pose[:, 0], torch.zeros(20000))


def test_noise_of_ended_worlds_leaves_that_of_the_others(small):
    """What a world was shown is what it acts on: a neighbour's reset must not redraw it."""
    env = small(6, sensor_noise=True, start_fraction=0.5)
    for action in actions(env, 80, 3.0):
        step = env.step(action)
        if 0 < len(step.final_ids) < 6:
            seen = env.state_dict()["seen"]["joint_pos"]
            assert torch.equal(step.obs["policy"][:, : env.num_actions], seen)
            assert not torch.equal(seen, env.channels["joint_pos"])
            return
    pytest.fail("no episode ended")


def test_a_curriculum_is_called_when_episodes_end_and_logged(small):
    plain = small(6)
    calls = []

    def curriculum(env, log):
        calls.append(dict(log))
        env.task.goal.joint_noise = 0.01 * len(calls)
        return {"curriculum/joint_noise": env.task.goal.joint_noise}

    env = Env(replace(plain.task, curriculum={"noise": curriculum}), plain.world)
    for action in actions(env, 80, 3.0):
        called = len(calls)
        step = env.step(action)
        assert len(calls) - called == bool(len(step.final_ids))
        assert ("curriculum/joint_noise" in step.log) == bool(len(step.final_ids))
    assert calls and "episode/length" in calls[0] and env.task.goal.joint_noise > 0


def test_the_policy_reads_nothing_but_measured_and_goal_channels(small):
    for settings in ({}, {"sensor_noise": True}, {"randomize": {}}):
        env = small(2, **settings)
        offered = {c.name for c in (*env.task.measured, *env.task.goal.channels)}
        assert {c.name for c in env.contract.inputs} <= offered
        assert {c.name for c in env.contract.state} == {c.name for c in env.task.action.state}
        assert env.contract.rate_hz == pytest.approx(60)
    assert env.observation_dims["critic"] == env.observation_dims["policy"]
    assert small(2).observation_dims["critic"] == env.observation_dims["policy"] + 2


def test_a_policy_that_reads_privileged_channels_is_refused(small):
    env = small(2)
    spying = ObservationTerm(tracking.channel, {"name": "randomization"})
    groups = {**env.task.observations, "policy": {**env.task.observations["policy"], "spying": spying}}
    with pytest.raises(EnvError, match="randomization"):
        Env(replace(env.task, observations=groups), env.world)


def test_unknown_channels_are_named(small):
    env = small(2)
    with pytest.raises(ChannelError, match="did you mean 'joint_pos'"):
        env.channels["joint_poss"]
    with pytest.raises(ChannelError, match="object_pos"):
        bad = {"policy": {"x": ObservationTerm(tracking.channel, {"name": "object_poze"})}}
        Env(replace(env.task, observations=bad), env.world)


def test_impossible_actions_are_refused_and_nothing_moves(small):
    env = small(4)
    before = copy.deepcopy(env.state_dict())
    for bad, text in (
        (torch.zeros(env.num_actions), "shape"),
        (torch.zeros(3, env.num_actions), "shape"),
        (torch.zeros(4, env.num_actions + 1), "shape"),
        (torch.full((4, env.num_actions), torch.inf), "4 worlds"),
        (torch.zeros(4, env.num_actions).index_fill(0, torch.tensor(2), torch.nan), "world 2"),
    ):
        with pytest.raises(RobolearnError, match=text):
            env.step(bad)
    after = env.state_dict()
    assert torch.equal(before["world"]["0"]["state"], after["world"]["0"]["state"])
    assert torch.equal(before["episode_steps"], after["episode_steps"])
    env.step(torch.zeros(4, env.num_actions))


def test_an_environment_that_was_judged_can_be_used_on(small):
    """Judging runs in inference mode; what it leaves behind must still be writable."""
    env = small(3, command_delay=[0, 2], sensor_noise=True)
    judge(env, zero_action)
    env.reset()
    for action in actions(env, 100, 3.0):
        env.step(action)
    env.load_state_dict(env.state_dict())
    assert len(judge(env, zero_action).episodes["tight"]) == 3
    assert torch.isfinite(env.step(actions(env, 1)[0]).obs["policy"]).all()
