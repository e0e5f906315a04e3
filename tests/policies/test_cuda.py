"""The learner on a GPU, where there is one: against the CPU, captured, compiled, and without waiting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch

from policies.fetch import fetch
from policies.ppo import PPO, PPOConfig
from policies.toy import PointMass

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


def make(env: PointMass, **settings: Any) -> PPO:
    config = PPOConfig(**{"hidden": (32, 32), "gru_hidden": 32, **settings})
    return PPO(env.observation_dims, env.num_actions, env.num_envs, config, seed=1, device=env.device)


def untimed(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if "time/" not in name}


@pytest.mark.parametrize("network", ["mlp", "gru"])
def test_an_update_agrees_with_the_cpu(network: str) -> None:
    """One rollout and network, each minibatch of an update on both devices: losses, rate, parameters."""
    gpu_env, cpu_env = PointMass(64, seed=2, device="cuda"), PointMass(64, seed=2)
    gpu, cpu = make(gpu_env, network=network), make(cpu_env, network=network)
    gpu.iterate(gpu_env)
    state = {name: value.cpu() for name, value in gpu.network.state_dict().items()}
    cpu.network.load_state_dict(state)
    cpu.optimizer.load_state_dict(gpu.optimizer.state_dict())
    for network in (gpu, cpu):
        network._update._old_log_std.copy_(network.network.log_std.detach())
    for batch in gpu.rollout.shuffle(4, gpu.network.recurrent, gpu.generator):
        gpu._update.minibatch(batch)
        cpu._update.minibatch({name: value.cpu() for name, value in batch.items()})
        assert torch.allclose(gpu._update._figures.cpu(), cpu._update._figures, rtol=1e-3, atol=1e-4)
    assert gpu.optimizer.lr == pytest.approx(cpu.optimizer.lr, rel=1e-5)
    assert torch.allclose(gpu.optimizer.flat.cpu(), cpu.optimizer.flat, atol=1e-4)


@pytest.mark.parametrize("settings", [{"minibatches": 3}, {"network": "gru"}, {"precision": "bf16"}])
def test_captured_updates_are_the_updates(settings: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    results = []
    for captured in (False, True):
        env = PointMass(125, seed=5, device="cuda")
        ppo = make(env, cuda_graph=captured, num_steps=5, **settings)
        results.append(([untimed(ppo.iterate(env)) for _ in range(5)], ppo.optimizer.flat.detach().clone()))
    assert not caplog.records, "the capture failed"
    assert any(size.replay is not None for size in ppo._update._captured._sizes.values())
    for plain, replayed in zip(results[0][0], results[1][0], strict=True):
        assert replayed == pytest.approx(plain, rel=1e-2, abs=1e-4)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-3)


@pytest.mark.parametrize("captured", [False, True])
def test_compiled_and_plain_agree(captured: bool) -> None:
    results = []
    for how in ("none", "default"):
        env = PointMass(128, seed=5, device="cuda")
        ppo = make(env, cuda_graph=captured, compile=how)
        results.append([untimed(ppo.iterate(env)) for _ in range(3)])
    for plain, fast in zip(*results, strict=True):
        assert fast == pytest.approx(plain, rel=2e-2, abs=1e-3)


@pytest.mark.parametrize("settings", [{}, {"network": "gru"}, {"cuda_graph": False}, {"precision": "bf16"}])
def test_the_host_waits_three_times_an_iteration(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """torch raises where anything else makes it wait."""
    reads = []

    def allowed(tensors: Mapping[str, torch.Tensor]) -> dict[str, list[float]]:
        torch.cuda.set_sync_debug_mode("default")
        reads.append(fetch(tensors))
        torch.cuda.set_sync_debug_mode("error")
        return reads[-1]

    env = PointMass(128, seed=5, device="cuda")
    ppo = make(env, **settings)
    for _ in range(2):  # captures are made, and the first rollout's statistics
        ppo.iterate(env)
    for module in ("checks", "tally", "update"):
        monkeypatch.setattr(f"policies.{module}.fetch", allowed)
    torch.cuda.set_sync_debug_mode("error")
    for _ in range(2):
        ppo.iterate(env)
    assert len(reads) == 6


def test_states_travel_between_devices() -> None:
    envs = {device: PointMass(32, seed=5, device=device) for device in ("cpu", "cuda")}
    for here, there in (("cpu", "cuda"), ("cuda", "cpu")):
        ppo, other = make(envs[here]), make(envs[there])
        for _ in range(2):
            ppo.iterate(envs[here])
        other.load_state_dict(ppo.state_dict())
        other.iterate(envs[there])
        assert other.iteration == 3


def test_it_learns() -> None:
    env = PointMass(128, seed=1, device="cuda")
    ppo = make(env)
    rewards = [ppo.iterate(env)["rollout/reward"] for _ in range(30)]
    assert rewards[-1] > 0.75


def test_worlds_on_the_cpu_serve_a_learner_on_the_gpu() -> None:
    env = PointMass(64, seed=1)
    config = PPOConfig(hidden=(32, 32))
    ppo = PPO(env.observation_dims, env.num_actions, 64, config, device="cuda")
    rewards = [ppo.iterate(env)["rollout/reward"] for _ in range(15)]
    assert rewards[-1] > rewards[0] + 0.2
