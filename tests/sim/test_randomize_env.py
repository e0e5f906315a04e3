"""Randomisers in an environment: pushes and kicks, draws at intervals, latency, sensors, and a continuation."""

from __future__ import annotations

import copy
from collections.abc import Callable

import mujoco
import numpy as np
import pytest
import torch

from robolearn.errors import RobolearnError
from robolearn.judge import judge, zero_action
from sim.camera import BatchCameras
from sim.env import Env
from sim.mujoco_cpu import MujocoCpu
from sim.opengl import RenderError
from sim.randomize import RandomizeError, Target, available, make_randomizers
from sim.tasks import list_tasks, targets
from sim.world import Shard, World
from tests.sim.randomize_scene import ALL, N, generator, masked, one, world

Small = Callable[..., Env]
WHOLE = {"start_fraction": 1.0, "terminate_distance": 1e9, "terminate_angle": 1e9}
DT = 0.02


def drive(w: World, draw: object, steps: int, seed: int = 0) -> torch.Tensor:
    """What acts on the object in each of ``steps`` control steps of 20 ms, (steps, N, 3)."""
    g, forces = generator(seed), []
    draw.apply(w, ALL, g)
    for _ in range(steps):
        draw.advance(w, DT, g)
        forces.append(w.shards[0].physics.bind("xfrc_applied")[:, 1, :3].clone())
        w.step(5)
    return torch.stack(forces)


def test_pushes_come_at_intervals_last_their_time_and_stay_within_their_range():
    w, draw = world("cube"), one("object_push", range=[0.2, 0.5], interval_s=[0.3, 0.6], duration_s=0.1)
    forces = drive(w, draw, 300)
    acts = forces.norm(dim=2) > 0
    lengths = forces.norm(dim=2)[acts]
    assert 0.2 <= lengths.min() < 0.25 and 0.45 < lengths.max() <= 0.5
    assert torch.equal(draw.factor, forces[-1])
    for i in range(N):
        begins = [t for t in range(1, 300) if acts[t, i] and not acts[t - 1, i]]
        gaps = np.diff(begins) * DT
        assert 0.3 - 1e-9 <= gaps.min() and gaps.max() <= 0.6 + DT and len(set(begins)) > 8
        for t in begins[:-1]:
            assert acts[t : t + 5, i].all() and not acts[t + 5, i]  # 0.1 s
            assert (forces[t : t + 5, i] == forces[t, i]).all()
    begins = [(acts[1:, i] & ~acts[:-1, i]).nonzero()[0].item() for i in range(N)]
    assert len(set(begins)) > 1  # worlds have intervals of their own


def test_a_push_accelerates_as_a_force_does_and_ends_with_its_episode():
    w, draw = world("cube"), one("object_push", range=[0.5, 0.5], interval_s=[0.1, 0.1], duration_s=0.1)
    physics = w.shards[0].physics
    physics.bind("qpos")[:, 2] = 1.0
    g = generator()
    draw.apply(w, ALL, g)
    while not draw.factor.any():
        before = physics.bind("qvel")[:, :3].clone()
        draw.advance(w, DT, g)
        w.step(5)
    falling = torch.tensor([0, 0, -9.81 * DT])
    gained = physics.bind("qvel")[:, :3] - before - falling
    torch.testing.assert_close(gained, draw.factor * DT / physics.model.body_mass[1], rtol=1e-6, atol=1e-9)
    select = masked(1, 3)
    draw.apply(w, select, g)
    w.reset(select)
    assert torch.nonzero(draw.factor.norm(dim=1) == 0).squeeze(1).tolist() == [1, 3]
    draw.advance(w, DT, g)
    assert torch.nonzero(physics.bind("xfrc_applied")[:, 1].norm(dim=1) == 0).squeeze(1).tolist() == [1, 3]


def test_a_kick_adds_to_the_velocity_at_once_and_once():
    w, draw = world("cube", "ball"), one("object_kick", range=[0.3, 0.4], interval_s=[0.1, 0.2], horizontal=True)
    g = generator()
    draw.apply(w, ALL, g)
    kicks = torch.zeros(N)
    for _ in range(40):
        before = torch.cat([shard.physics.bind("qvel").clone() for shard in w.shards])
        draw.advance(w, DT, g)
        added = torch.cat([shard.physics.bind("qvel").clone() for shard in w.shards]) - before
        kicked = added.norm(dim=1) > 0
        torch.testing.assert_close(added[kicked, :3], draw.drawn[kicked, 0])
        assert not added[:, 2:].any()
        assert ((added[kicked].norm(dim=1) - 0.35).abs() <= 0.05 + 1e-9).all()
        kicks += kicked
    assert (kicks >= 3).all() and (kicks <= 8).all()


def test_a_kick_needs_a_free_joint():
    targets = {"arm": Target(bodies=("arm",), free=True)}
    with pytest.raises(RandomizeError, match="arm_kick: body 'arm' has no free joint"):
        make_randomizers({"arm_kick": [0, 1]}, targets)["arm_kick"].prepare(world())


def test_fields_are_drawn_again_at_intervals_each_world_by_its_own_clock():
    w, draw = world("mug", "ball"), one("gravity", at="interval", interval_s=[0.1, 0.3])
    g, changes = generator(), torch.zeros(N)
    draw.apply(w, ALL, g)
    for _ in range(100):
        before = draw.drawn.clone()
        draw.advance(w, DT, g)
        changed = (draw.drawn != before).flatten(1).any(1)
        live = torch.cat([shard.physics.expand("opt.gravity")[:, 2] for shard in w.shards])
        torch.testing.assert_close(live, -9.81 * draw.factor[:, 0])
        changes += changed
    assert (changes >= 100 * DT / 0.3 - 1).all() and (changes <= 100 * DT / 0.1 + 1).all()


def test_a_mask_and_ids_push_alike():
    """With intervals and forces of one number, no draw decides anything but directions."""
    sparse, dense = world("cube"), world("cube")
    dense.dense = True
    setting = {"range": [0.5, 0.5], "interval_s": [0.1, 0.1]}
    a, b = (drive(w, one("object_push", **setting), 30).norm(dim=2) for w in (sparse, dense))
    torch.testing.assert_close(a, b)
    assert (a > 0).any()


def ctrl(env: Env) -> torch.Tensor:
    return torch.cat([shard.physics.bind("ctrl") for shard in env.world.shards]).float()


def actions(env: Env, steps: int, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(steps, env.num_envs, env.num_actions, generator=generator(seed))


def test_latency_is_drawn_for_each_episode_and_told_to_the_critic(small: Small):
    env = small(64, randomize={"latency": [1, 3]}, **WHOLE)
    sent = []
    for action in actions(env, 8):
        sent.append(env.task.action.decode(env.channels, action)[0])
        env.step(action)
        arrived = torch.stack([(ctrl(env) == s).all(1) for s in reversed(sent)])
    steps = env.channels["randomization"][:, 0].long()
    assert set(steps.tolist()) == {1, 2, 3}
    assert torch.equal(arrived.float().argmax(0), steps) and env.contract.delay_s == pytest.approx(2 / 60)
    env.reset()
    assert not torch.equal(env.channels["randomization"][:, 0].long(), steps)
    with pytest.raises(RobolearnError, match="command_delay and randomize.latency"):
        small(2, randomize={"latency": [1, 3]}, command_delay=[0, 1])


def errors(small: Small, randomize: dict[str, object], num_envs: int = 300) -> tuple[Env, torch.Tensor]:
    """Errors of ``joint_pos`` that the policy sees, in units of the task's noise, (steps, N, J)."""
    env, seen = small(num_envs, randomize=randomize, **WHOLE), []
    for action in actions(env, 6, 0.1):
        step = env.step(action)
        joints = env.num_actions
        seen.append((step.obs["policy"] - step.obs["critic"][:, : step.obs["policy"].shape[1]])[:, :joints] / 0.005)
    return env, torch.stack(seen)


def test_the_strength_of_sensor_noise_differs_between_worlds(small: Small):
    env, error = errors(small, {"sensor_noise": [0.5, 4.0]})
    level = env.channels["randomization"][:, 0]
    assert level.min() < 0.7 and level.max() > 3.8
    spread = (error / level.view(1, -1, 1)).std(dim=(0, 2))
    assert (spread - 1).abs().max() < 0.35 and spread.mean().item() == pytest.approx(1.0, rel=0.02)


def test_a_bias_stays_for_an_episode_and_is_no_noise(small: Small):
    env, error = errors(small, {"sensor_noise": [0.0, 0.0], "sensor_bias": [-3.0, 3.0]})
    torch.testing.assert_close(error[0], error[-1], rtol=1e-3, atol=1e-2)
    assert error.abs().max() <= 3.01 and error.std().item() == pytest.approx(3 / 3**0.5, rel=0.03)
    bias = env.task.randomizers["sensor_bias"].drawn
    joint_pos = bias[:, : env.num_actions, 0].float()
    torch.testing.assert_close(error[-1], joint_pos, rtol=1e-3, atol=1e-2)
    obs = env.reset()["policy"][:, : env.num_actions] - env.channels["joint_pos"]
    assert (obs / 0.005 - joint_pos).abs().max() > 1  # another episode, another bias
    pose = (env._senses.seen["object_pose"] - env.channels["object_pose"]).abs()
    assert pose[:, :3].max() <= 0.0061 and pose[:, :3].max() > 0.004


def test_noise_and_bias_belong_to_the_worlds_that_drew_them(small: Small):
    """Worlds that end are read again alone: they must show their own new biases, and others keep theirs."""
    env = small(12, randomize={"sensor_noise": [0.0, 0.0], "sensor_bias": [-3.0, 3.0]}, start_fraction=0.5)
    bias, ended = env.task.randomizers["sensor_bias"], 0
    for action in actions(env, 60, 3.0):
        before = bias.drawn.clone()
        step = env.step(action)
        ids = step.final_ids
        changed = (bias.drawn != before).flatten(1).any(1)
        assert torch.nonzero(changed).squeeze(1).tolist() == ids.tolist()
        error = (step.obs["policy"][:, : env.num_actions] - env.channels["joint_pos"]) / 0.005
        torch.testing.assert_close(error, bias.drawn[:, : env.num_actions, 0].float(), rtol=1e-3, atol=1e-2)
        ended += len(ids)
    assert ended


def test_an_evaluation_has_noise_only_where_it_is_asked_for(small: Small):
    settings = {"randomize": {"sensor_bias": [-3.0, 3.0], "gravity": [1.0, 1.0]}, "evaluation": True}
    quiet, noisy = small(0, **settings), small(0, sensor_noise=True, **settings)
    assert list(quiet.task.randomizers) == ["gravity"] and not quiet.task.noise
    assert list(noisy.task.randomizers) == ["sensor_bias", "gravity"] and noisy.task.noise


@pytest.mark.parametrize("task", list_tasks())
def test_every_name_of_every_task_works_with_its_typical_range(small: Small, task: str):
    settings = {name: {} for name in available(targets(task))}
    if task == "g1_walk":  # whose motors damp, not its joints
        settings["robot_damping"] = {"operation": "add", "range": [0.0, 0.1]}
    env = small(4, task=task, randomize=settings)
    assert [name for name in env.task.randomizers if name != "assignment"] == list(
        settings
    )  # that is the arm tasks' own
    for action in actions(env, 12, 0.1):
        step = env.step(action)
        assert all(torch.isfinite(value).all() for value in (*step.obs.values(), step.reward))
    assert env.diverged == 0


SEEN = (
    *("camera_position", "camera_rotation", "camera_fovy", "light_direction", "light_diffuse"),
    *("object_color", "object_size"),
)


@pytest.mark.parametrize("name", SEEN)
def test_cameras_see_what_was_randomised(small: Small, name: str):
    """As those of a plain model that was given the same numbers; from all worlds differently."""
    env = small(4, randomize={name: {}}, **WHOLE)
    env.task.goal._num_candidates.fill_(1)  # the same start everywhere
    env.reset()
    try:
        cameras = BatchCameras(env.world, ("front",), 48, 48, threads=1)
    except RenderError as error:
        pytest.skip(f"this machine cannot render: {error}")
    with cameras:
        pictures = cameras.render().rgb.clone()
    for i, shard in ((0, env.world.shards[0]), (3, env.world.shards[1])):
        own = copy.copy(shard.physics.model)
        env.world.write_model(i, own)
        shown = []
        for m in (own, shard.physics.model):
            engine = MujocoCpu(m, 1, 1)
            engine.bind("qpos")[0] = shard.physics.bind("qpos")[i - shard.start]
            with BatchCameras(engine, ("front",), 48, 48, threads=1) as plain:
                shown.append(plain.render().rgb[0].clone())
        assert torch.equal(pictures[i], shown[0]) and not torch.equal(pictures[i], shown[1])
    assert not torch.equal(pictures[0], pictures[1])


EVERYTHING = {
    **{name: {"at": "reset"} for name in ("object_mass", "object_friction", "object_size", "object_com", "gravity")},
    "hand_damping": {"each": True, "at": "interval", "interval_s": [0.1, 0.2], "distribution": "log_uniform"},
    "gravity_tilt": {"at": "interval", "interval_s": [0.05, 0.1], "distribution": "gaussian"},
    "object_push": {"interval_s": [0.1, 0.3]},
    "object_kick": {"interval_s": [0.2, 0.3]},
    **{
        name: {}
        for name in ("hand_mass", "hand_com", "hand_armature", "hand_frictionloss", "actuator_kp", "actuator_kd")
    },
    **{
        name: {}
        for name in ("object_color", "light_direction", "light_diffuse", "latency", "sensor_noise", "sensor_bias")
    },
}


def test_with_everything_randomised_a_state_continues_bit_for_bit(small: Small):
    a, b = (small(5, seed=seed, randomize=EVERYTHING) for seed in (1, 2))
    for action in actions(a, 37):
        a.step(action)
    for action in actions(b, 5):
        b.step(action)
    b.load_state_dict(copy.deepcopy(a.state_dict()))
    ended = 0
    for action in actions(a, 90, seed=1):
        x, y = a.step(action), b.step(action)
        for group in x.obs:
            assert torch.equal(x.obs[group], y.obs[group]), group
        assert torch.equal(x.reward, y.reward) and torch.isfinite(x.obs["critic"]).all()
        ended += len(x.final_ids)
    assert ended


def test_one_seed_is_one_run_with_everything_randomised(small: Small):
    a, b, other = (small(5, seed=seed, randomize=EVERYTHING) for seed in (3, 3, 4))
    for action in actions(a, 60):
        x, y, z = a.step(action), b.step(action), other.step(action)
        assert torch.equal(x.obs["policy"], y.obs["policy"])
    assert not torch.equal(x.obs["policy"], z.obs["policy"])


def test_a_task_can_be_copied_without_its_worlds(small: Small):
    """As an export does, which leaves the worlds behind."""
    env = small(3, randomize=EVERYTHING)
    copied = copy.deepcopy(env.task)
    for name, randomizer in env.task.randomizers.items():
        assert torch.equal(copied.randomizers[name].factor, randomizer.factor)


def test_an_environment_that_was_judged_can_be_used_on(small: Small):
    """Judging runs in inference mode; what it leaves behind must still be writable."""
    env = small(3, randomize=EVERYTHING, evaluation=True, sensor_noise=True)
    judge(env, zero_action)
    env.reset()
    for action in actions(env, 20):
        assert torch.isfinite(env.step(action).reward).all()
    env.load_state_dict(env.state_dict())


def test_the_default_scene_is_compiled_as_before(small: Small):
    """Only a centre of mass that moves asks for another compilation, and then of the object alone."""
    plain, moving = (small(2, randomize=randomize) for randomize in ({}, {"object_com": [0, 0.01]}))
    for shard, other in zip(plain.world.shards, moving.world.shards, strict=True):
        body = shard.physics.model.body("object").id
        assert shard.physics.model.body_simple[body] == 1 and other.physics.model.body_simple[body] == 0
        assert np.array_equal(
            np.delete(shard.physics.model.body_simple, body), np.delete(other.physics.model.body_simple, body)
        )


def test_a_push_owns_one_body_alone():
    w = world("cube")
    push = one("object_push", range=[0.5, 0.5], interval_s=[0.02, 0.02])
    drive(w, push, 5)
    force = w.shards[0].physics.bind("xfrc_applied")
    assert force[:, 1, :3].any() and not force[:, 0].any() and not force[:, 2:].any() and not force[:, :, 3:].any()
    no_object = mujoco.MjSpec()
    no_object.worldbody.add_body(name="thing").add_freejoint()
    no_object.body("thing").add_geom(size=[0.1, 0, 0])
    with pytest.raises(RandomizeError, match="object_push: no bodies named object in the model; bodies: world, thing"):
        one("object_push").prepare(World([Shard(MujocoCpu(no_object.compile(), 1, 1), 0, 1, "x")], {}))
