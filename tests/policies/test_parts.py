"""The parts of the learner against slow or independent references."""

import pytest
import torch

from policies.fused import Workspace
from policies.loss import gaussian_kl, standardize_
from policies.networks import GRU, MLP, ActorCritic, Player
from policies.normalize import RunningNorm
from policies.rollout import gae


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_gae_agrees_with_its_definition() -> None:
    T, N, gamma, lam = 7, 5, 0.9, 0.8
    g = generator()
    reward, value = torch.randn(T, N, generator=g), torch.randn(T + 1, N, generator=g)
    done = (torch.rand(T, N, generator=g) < 0.3).float()
    expected = torch.zeros(T, N)
    for n in range(N):
        for t in range(T):
            weight = 1.0
            for k in range(t, T):
                following = 0.0 if done[k, n] else float(value[k + 1, n])
                expected[t, n] += weight * (float(reward[k, n]) + gamma * following - float(value[k, n]))
                if done[k, n]:
                    break
                weight *= gamma * lam
    assert torch.allclose(gae(reward, value, done, gamma, lam), expected, atol=1e-5)


def test_running_norm_agrees_with_the_whole_stream_and_freezes() -> None:
    x = torch.randn(10, 30, 3, generator=generator()) * torch.tensor([0.1, 1.0, 50.0]) + torch.tensor([1e3, 0.0, -5.0])
    norm = RunningNorm(3)
    for chunk in x.split([1, 4, 5]):
        norm.update(chunk)
    flat = x.reshape(-1, 3).double()
    assert float(norm.count) == 300
    assert torch.allclose(norm.mean.double(), flat.mean(0), rtol=1e-5, atol=1e-4)
    assert torch.allclose(norm.var.double(), flat.var(0, unbiased=False), rtol=1e-3)
    assert torch.equal(norm(x[0]), norm.into(x[0], torch.empty_like(x[0])))
    assert torch.allclose(norm.undo(norm(x[0])), x[0], rtol=1e-4, atol=1e-4)
    mean = norm.mean.clone()
    norm.eval()
    norm.update(x + 100.0)
    assert torch.equal(norm.mean, mean)
    assert float(norm(torch.full((1, 3), 1e9)).max()) == 10.0


@pytest.mark.parametrize("activation", ["elu", "relu", "tanh"])
def test_workspace_has_the_values_and_gradients_of_the_module(activation: str) -> None:
    mlp = MLP((6, 16, 8, 3), activation, 1.0, generator())
    work = Workspace(mlp, rows=50)
    for rows in (50, 20):
        x = (torch.randn(rows, 6, generator=generator()) * 5).requires_grad_()
        grads = []
        for run in (mlp, work):
            y = run(x)
            grads.append([y.detach(), *torch.autograd.grad(y.square().sum() + y.sum(), [x, *mlp.parameters()])])
        for a, b in zip(*grads, strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_gru_agrees_with_torch_and_forgets_at_ends() -> None:
    gru = GRU(4, 5, generator())
    cell = torch.nn.GRUCell(4, 5)
    cell.load_state_dict(
        {
            "weight_ih": gru.input.weight,
            "weight_hh": gru.state.weight,
            "bias_ih": gru.input.bias,
            "bias_hh": gru.state.bias,
        }
    )
    x, h = torch.randn(6, 3, 4), torch.randn(3, 5)
    keep = torch.ones(6, 3)
    keep[2, 1] = 0.0
    states = gru.sequence(x, h, keep)
    for t in range(6):
        h = cell(x[t], h * keep[t].unsqueeze(-1))
        assert torch.allclose(states[t], h, atol=1e-6)


def test_kl_agrees_with_torch() -> None:
    mean, new = torch.randn(20, 3), torch.randn(20, 3)
    log_std, new_log_std = torch.randn(3), torch.randn(3)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, log_std.exp()), normal(new, new_log_std.exp()))
    assert torch.allclose(gaussian_kl(mean, log_std, new, new_log_std), expected.sum(-1).mean(), rtol=1e-5)


def test_standardize() -> None:
    x = standardize_(torch.randn(4, 100, generator=generator()) * 3 + 7)
    assert abs(float(x.mean())) < 1e-5
    assert abs(float(x.std()) - 1.0) < 1e-4


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_policy_module_takes_raw_observations(kind: str) -> None:
    network = ActorCritic({"policy": 4, "critic": 6}, 2, kind=kind, hidden=(8,), gru_hidden=5, policy_gain=1.0)
    network.norm["policy"].update(torch.randn(100, 4) * 3 + 10)
    module = network.policy_module()
    obs = torch.randn(2, 3, 4) * 3 + 10
    z = network.norm["policy"](obs)
    player = Player(module, 3)
    if kind == "mlp":
        assert torch.allclose(player.act(obs[0]), network.actor(z[0]))
        return
    states = network.memory["policy"].sequence(z, torch.zeros(3, 5), torch.ones(2, 3))
    mean, hidden = module(obs[0], torch.zeros(3, 5))
    assert torch.allclose(mean, network.actor(states[0]), atol=1e-6)
    assert torch.allclose(module(obs[1], hidden)[0], network.actor(states[1]), atol=1e-6)
    player.act(obs[0])
    player.reset(torch.tensor([False, True, False]))
    second = player.act(obs[1])
    assert torch.allclose(second[0], network.actor(states[1])[0], atol=1e-6)
    assert not torch.allclose(second[1], network.actor(states[1])[1], atol=1e-4)
