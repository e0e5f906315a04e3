"""The task ``dex_track``: its worlds, its decoder and baselines, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from robolearn.errors import RobolearnError
from sim.engines import Engine
from sim.tasks import TaskError, config_class, list_tasks, make_env
from sim.terms.actions import ResidualTracking


def test_every_task_is_listed_makes_an_environment_and_steps(small):
    assert "dex_track" in list_tasks()
    for name in list_tasks():
        env = small(3, task=name)
        step = env.step(torch.zeros(3, env.num_actions))
        assert {group: value.shape[1] for group, value in step.obs.items()} == env.observation_dims
        assert env.task.name == name and config_class(name)().name == name
        assert torch.isfinite(step.obs["policy"]).all() and torch.isfinite(step.reward).all()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"reward": "dextrak"}, "unknown reward 'dextrak'; did you mean 'dextrack'"),
        ({"randomize": {"object_mas": [0.5, 1]}}, "unknown randomizer 'object_mas'; did you mean 'object_mass'"),
        (
            {"randomize": {"object_mass": [0.5]}},
            r"randomize.object_mass must be two numbers, \[low, high\], got \[0.5\]",
        ),
        ({"randomize": {"object_mass": [2.0, 1.0]}}, "0 < low <= high"),
        ({"lookaheads": [1]}, "unknown setting 'dex_track.lookaheads'; did you mean 'dex_track.lookahead'"),
        ({"motions": {"clip": 2}}, "unknown setting 'dex_track.motions.clip'; did you mean 'dex_track.motions.clips'"),
        ({"lookahead": []}, "lookahead must increase from 1"),
        ({"lookahead": [2, 4]}, "lookahead must increase from 1"),
        ({"lookahead": [1, 4, 4]}, "lookahead must increase from 1"),
        ({"lookahead": [1, 8, 4]}, "lookahead must increase from 1"),
        ({"rate_hz": 50.0}, "50 with 2 substeps does not fit"),
        ({"substeps": 0}, "0 substeps"),
        ({"substeps": 3}, "3 substeps"),
        ({"command_delay": [2, 1]}, "command_delay"),
        ({"command_delay": [-1, 1]}, "command_delay"),
        ({"command_delay": [1]}, "command_delay"),
        ({"robot": "alegro"}, "did you mean 'allegro'"),
        ({"side": "middle"}, "middle"),
        ({"side": "left"}, "retarget"),  # the clips are a right hand's
        ({"split": "test"}, "unknown split 'test'"),
        ({"motions": {"clips": 0}}, "at least 1, got 0"),
        ({"motions": {"clips": 2, "noise": -1.0}}, "noise must be at least 0"),
        ({"motions": {"clips": 2, "kind": "juggle"}}, "unknown kind 'juggle'"),
        ({"motions": {"clips": 2, "objects": ("cubes",)}}, "did you mean 'cube'"),
        ({"motions": {"folder": "/nowhere"}}, "/nowhere"),
    ],
)
def test_mistakes_are_one_clear_line(small, settings, message):
    with pytest.raises(RobolearnError, match=message) as error:
        small(2, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("num_envs", [0, -3])
def test_no_worlds(num_envs):
    with pytest.raises(TaskError, match=f"at least 1, got {num_envs}"):
        make_env("dex_track", num_envs)
    with pytest.raises(TaskError, match="did you mean 'dex_track'"):
        make_env("dex_trak", 2)
    with pytest.raises(TaskError, match="at least 0, got -1"):
        make_env("dex_track", -1, evaluation=True)


@pytest.mark.parametrize("num_envs", [1, 2, 5])
def test_worlds_are_shared_out_over_the_objects(small, num_envs):
    env = small(num_envs)
    counts = [shard.physics.nworld for shard in env.world.shards]
    assert sum(counts) == env.num_envs == num_envs and max(counts) - min(counts) <= 1
    assert len(counts) == min(num_envs, 2)
    goal = env.task.goal
    for _ in range(5):
        env.reset()
        for shard in env.world.shards:
            for i in range(shard.start, shard.stop):
                assert goal.motions.object_names[goal.clip[i]] == shard.label


@pytest.mark.parametrize("num_envs, drawn", [(0, [0, 2, 1]), (2, [0, 1]), (7, [0, 0, 0, 2, 2, 1, 1])])
def test_evaluation_has_one_world_for_each_clip(small, num_envs, drawn):
    env = small(num_envs, evaluation=True, split="heldout")
    names = env.task.goal.motions.names
    assert names == ("heldout_000_cube", "heldout_001_ball", "heldout_002_cube")
    assert sorted(env.task.goal.clip.tolist()) == sorted(drawn)
    assert not env.task.terminations
    for _ in range(3):
        before = env.task.goal.clip.clone()
        env.reset()
        assert torch.equal(env.task.goal.clip, before) and (env.task.goal.frame == 0).all()
    for _ in range(env.max_episode_length - 1):
        step = env.step(torch.zeros(env.num_envs, env.num_actions))
        assert not step.terminated.any()
    assert step.truncated.all()


def test_rates_that_fit():
    clips = {"clips": 1, "objects": ("cube",), "noise": 0.0}
    env = make_env("dex_track", 1, rate_hz=30.0, substeps=4, engine=Engine(threads=1), motions=clips)
    assert env.step_dt == pytest.approx(1 / 30) and env.contract.rate_hz == pytest.approx(30)
    left = make_env("dex_track", 1, side="left", engine=Engine(threads=1), motions=clips)
    assert left.contract.robot == "allegro_left"


def test_residuals_leak_and_are_capped(small):
    env = small(2, start_fraction=1.0, terminate_distance=1e9, terminate_angle=1e9)
    decoder = env.task.action
    assert isinstance(decoder, ResidualTracking)
    residual = torch.zeros(2, env.num_actions)
    generator = torch.Generator().manual_seed(0)
    for k in range(40):
        action = torch.randn(2, env.num_actions, generator=generator) * (50.0 if k % 10 == 9 else 1.0)
        env.step(action)
        for i in range(2):
            for j in range(env.num_actions):
                pushed = decoder.scale[j].item() * env.step_dt * action[i, j].item()
                moved = decoder.leak * residual[i, j].item() + pushed
                cap = decoder.cap[j].item()
                residual[i, j] = max(-cap, min(cap, moved))
        assert torch.allclose(env.channels["residual"], residual, atol=1e-5)
        assert torch.equal(env.channels["last_action"], action)


def test_baselines_reach_what_they_promise(small):
    env = small(0, evaluation=True)
    assert set(env.task.baselines) == {"kinematic replay", "constant flexion"}
    replay = env.task.baselines["kinematic replay"][""](env)
    assert not replay.any() and replay.shape == (3, env.num_actions)
    flex = env.task.baselines["constant flexion"]["0.2 rad"]
    for _ in range(5):
        env.step(flex(env))
        bent = env.channels["residual"]
        names = env.task.action.command.elements
        for j, name in enumerate(names):
            flexes = not name.startswith("wrist") and name.rsplit("_", 1)[1] in ("mcp", "pip", "dip", "ip")
            assert torch.allclose(bent[:, j], torch.full((3,), 0.2 if flexes else 0.0), atol=1e-6), name


def test_following_a_clean_clip_without_an_object_in_the_way_stays_close(small):
    """The hand's drives are good enough that the reference, replayed, moves the hand as it says."""
    env = small(0, evaluation=True)
    errors = []
    for _ in range(30):  # the approach, before contact
        env.step(torch.zeros(3, env.num_actions))
        errors.append(env.channels["joint_error"].abs().mean(0))
    assert torch.stack(errors).mean(0)[:3].max() < 0.01
    assert torch.stack(errors).mean() < 0.05
