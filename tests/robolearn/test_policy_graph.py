"""The promise of a bundle: from the same channels it gives the command of the training policy, for every task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from policies.networks import ActorCritic, Player
from robolearn.bundle import Bundle, BundleError, export
from robolearn.policy_graph import MEMORY, PolicyGraph, sample_inputs
from sim.env import Env
from sim.tasks import list_tasks


def random_policy(env: Env, kind: str, seed: int = 0) -> ActorCritic:
    """Weights that use the range of actions, and a normaliser that has seen something."""
    network = ActorCritic(
        env.observation_dims,
        env.num_actions,
        kind=kind,
        hidden=(32, 16),
        gru_hidden=24,
        policy_gain=2.0,
        generator=torch.Generator().manual_seed(seed),
    )
    obs = env.reset()["policy"]
    network.norm["policy"].update(obs + 0.3 * torch.randn(obs.shape, generator=torch.Generator().manual_seed(seed)))
    return network.eval()


def write(env: Env, network: ActorCritic, path: Path) -> Bundle:
    graph = PolicyGraph(env, network.policy_module())
    export(
        graph,
        graph.contract,
        path,
        mjcf=env.task.robot_mjcf,
        provenance={"seed": 0, "commit": "", "metrics": {}},
        samples=sample_inputs(env),
    )
    return Bundle.load(path, robot=env.task.robot)


ARMS = {"arm_reach": ("mlp",), "arm_push": ("mlp",), "arm_pick_place": ("gru",)}
"""One kind of policy each: they share a decoder, whose graph takes ten seconds to write."""
POLICIES = [(task, kind) for task in list_tasks() for kind in ARMS.get(task, ("mlp", "gru"))]


@pytest.fixture(scope="module", params=POLICIES, ids="-".join)
def exported(request, small, tmp_path_factory):
    task, kind = request.param
    env = small(3, task=task)
    network = random_policy(env, kind)
    return task, network, write(env, network, tmp_path_factory.mktemp("bundles") / kind)


def inputs(env: Env, channels, world: int) -> dict[str, np.ndarray]:
    return {c.name: channels[c.name][world].numpy().copy() for c in env.contract.inputs}


@pytest.mark.parametrize("settings", [{}, {"sensor_noise": True}], ids=["exact sensors", "noisy sensors"])
def test_the_bundle_commands_what_the_policy_commands_over_whole_episodes(exported, small, settings):
    task, network, bundle = exported
    env = small(3, task=task, **settings)
    player = Player(network.policy_module(), 3)
    command = env.task.action.command.name
    bundle.reset()
    obs = env.reset(5)
    ended, largest, biggest = 0, 0.0, 0.0
    for _ in range(env.max_episode_length + 20):
        seen = env.state_dict()["seen"]
        result = bundle.step(inputs(env, seen, 1))
        assert set(result) == {command}
        step = env.step(player.act(obs["policy"]))
        obs = step.obs
        sent = torch.cat([shard.physics.bind("ctrl") for shard in env.world.shards]).float()[1].numpy()
        if 1 in step.final_ids:  # the reset has replaced what was sent
            bundle.reset()
            ended += 1
        else:
            largest = max(largest, float(np.abs(result[command] - sent).max()))
            biggest = max(biggest, float(step.obs["policy"][1].abs().max()))
        player.reset(step.terminated | step.truncated)
    assert largest <= 1e-5
    assert ended and biggest > 0.1


def test_the_policy_matters_and_so_does_its_memory(exported, small):
    """Guards the test above: another policy, or a forgotten memory, gives another command."""
    task, network, bundle = exported
    env = small(3, task=task)
    samples = sample_inputs(env, 4)
    bundle.reset()
    first = [bundle.step(sample) for sample in samples]
    bundle.reset()
    again = [bundle.step(sample) for sample in samples]
    name = env.task.action.command.name
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a[name], b[name])
    bundle.step(samples[0])
    fresh = dict(bundle.state)
    bundle.reset()
    late = bundle.step(samples[-1])[name]
    assert np.abs(late - first[-1][name]).max() > 1e-4  # residual and memory carry on
    assert {c.name for c in bundle.contract.state} == set(fresh)
    assert (MEMORY in fresh) == network.recurrent
    zero = np.abs(first[0][name] - samples[0]["reference_joint_pos"][1]) if task == "dex_track" else np.ones(1)
    assert zero.max() > 1e-3  # it does more than replay the reference


def test_the_contract_of_the_graph_is_the_environments_plus_memory(exported, small):
    task, network, bundle = exported
    env = small(3, task=task)
    graph = PolicyGraph(env, network.policy_module())
    assert graph.contract.inputs == env.contract.inputs and graph.contract.commands == env.contract.commands
    extra = [c for c in graph.contract.state if c not in env.contract.state]
    assert [c.name for c in extra] == ([MEMORY] if network.recurrent else [])
    assert [c.name for c in bundle.contract.inputs] == [c.name for c in env.contract.inputs]
    assert bundle.contract.rate_hz == pytest.approx(env.contract.rate_hz)
    for channel in env.contract.inputs:
        loaded = next(c for c in bundle.contract.inputs if c.name == channel.name)
        assert loaded.shape == channel.shape and loaded.unit == channel.unit and loaded.elements == channel.elements
    assert "randomization" not in {c.name for c in bundle.contract.inputs}


def test_commands_keep_their_limits_whatever_the_channels_say(exported, small):
    task, _, bundle = exported
    env = small(3, task=task)
    rng = np.random.default_rng(0)
    command = env.task.action.command
    for _ in range(10):
        wild = {c.name: rng.normal(0, 100, c.shape).astype(np.float32) for c in bundle.contract.inputs}
        result = bundle.step(wild)[command.name]
        assert (result >= np.float32(command.lower)).all() and (result <= np.float32(command.upper)).all()
    bundle.reset()


def test_a_policy_with_a_broken_weight_is_not_exported(small, tmp_path):
    env = small(2)
    network = random_policy(env, "mlp")
    with torch.no_grad():
        network.actor.layers[-1].bias[3] = torch.nan
    with pytest.raises(BundleError):
        write(env, network, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_samples_are_those_of_a_running_environment(small):
    env = small(2)
    samples = sample_inputs(env, 3)
    assert len(samples) == 3
    for sample in samples:
        env.contract.check_inputs(sample)
    assert not np.array_equal(samples[0]["joint_pos"], samples[2]["joint_pos"])
