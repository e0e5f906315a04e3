"""Actor-critic networks: MLP or GRU, each with its running observation normaliser."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from policies.normalize import RunningNorm

ACTIVATIONS = ("elu", "relu", "tanh")


def activate_(x: torch.Tensor, name: str) -> torch.Tensor:
    """Apply the activation ``name`` to ``x`` in place; autograd then keeps the output alone."""
    if name == "elu":
        return F.elu_(x)
    return F.relu_(x) if name == "relu" else torch.tanh_(x)


class MLP(nn.Module):
    """Linear layers with an activation between them: (…, inputs) -> (…, outputs).

    Weights and biases start uniform within ±1/√inputs of their layer, the last layer's within ``last_gain``
    times that. (Orthogonal weights of gain √2 start less smooth: the KL-adaptive learning rate then stays
    lower, and a point mass of 10 axes took about 10 more iterations of 16 steps to reach the same reward.)

    Args:
        sizes: inputs, hidden sizes, outputs.
        activation: one of `ACTIVATIONS`.
        last_gain: scale of the last layer; small values start a policy near zero.
        generator: source of the initial weights.
    """

    def __init__(self, sizes: Sequence[int], activation: str, last_gain: float, generator: torch.Generator) -> None:
        super().__init__()
        self.activation = activation
        layers = nn.ModuleList(skip_init(nn.Linear, i, o) for i, o in itertools.pairwise(sizes))
        self.layers = cast("Sequence[nn.Linear]", layers)
        for k, layer in enumerate(self.layers):
            bound = (last_gain if k == len(self.layers) - 1 else 1.0) / math.sqrt(layer.in_features)
            for p in layer.parameters():
                nn.init.uniform_(p, -bound, bound, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (…, inputs) to (…, outputs)."""
        return self.output(self.hidden(x))

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` (…, inputs) to the activations before the last layer."""
        for layer in self.layers[:-1]:
            x = activate_(layer(x), self.activation)
        return x

    def output(self, x: torch.Tensor) -> torch.Tensor:
        """The last layer: activations to outputs."""
        return self.layers[-1](x)


class GRU(nn.Module):
    """One gated recurrent layer (Cho et al. 2014, in the form of ``torch.nn.GRUCell``) over resetting worlds.

    r, z = σ(W x + U h + b),  n = tanh(Wₙ x + bₙ + r (Uₙ h + cₙ)),  h' = n + z (h - n).
    """

    def __init__(self, inputs: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = hidden
        self.input = skip_init(nn.Linear, inputs, 3 * hidden)
        self.state = skip_init(nn.Linear, hidden, 3 * hidden)
        bound = 1.0 / math.sqrt(hidden)
        for p in self.parameters():
            nn.init.uniform_(p, -bound, bound, generator=generator)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """One step: ``x`` (B, inputs), ``h`` (B, hidden) -> next hidden state (B, hidden)."""
        return self._cell(self.input(x), h)

    def sequence(self, x: torch.Tensor, h: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Run T steps, forgetting where an episode began.

        Args:
            x: inputs (T, B, inputs).
            h: hidden state before the first step (B, hidden).
            keep: (T, B); multiplies the state before step t: 0 where step t starts an episode, else 1.

        Returns:
            Hidden states after each step (T, B, hidden).
        """
        states = []
        for gates, k in zip(self.input(x).unbind(0), keep.unsqueeze(-1).unbind(0), strict=True):
            h = self._cell(gates, h * k)
            states.append(h)
        return torch.stack(states)

    def _cell(self, gates: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        H = self.hidden
        # Products may come in a lower precision; the state itself keeps its own.
        gates, state = gates.to(h.dtype), self.state(h).to(h.dtype)
        rz = torch.sigmoid(gates[:, : 2 * H] + state[:, : 2 * H])
        n = torch.tanh(gates[:, 2 * H :] + rz[:, :H] * state[:, 2 * H :])
        return torch.lerp(n, h, rz[:, H:])


class ActorCritic(nn.Module):
    """A Gaussian policy on the ``policy`` observations and a value function on the ``critic`` observations.

    The two share nothing, so the critic may see privileged observations. The standard deviation does not
    depend on the observation. `norm` holds the normalisers, `memory` the GRUs, `actor` and `critic` the MLPs.

    Args:
        dims: observation sizes ``{"policy": d, "critic": d}``.
        num_actions: action size A.
        kind: ``"mlp"`` or ``"gru"`` (a GRU in front of each MLP).
        hidden: hidden sizes of both MLPs.
        gru_hidden: size H of each GRU.
        activation: one of `ACTIVATIONS`.
        init_std: initial standard deviation of every action.
        policy_gain: scale of the policy's last layer.
        obs_clip: bound of normalised observations.
        generator: source of the initial weights.
    """

    def __init__(
        self,
        dims: dict[str, int],
        num_actions: int,
        *,
        kind: str = "mlp",
        hidden: Sequence[int] = (256, 128),
        gru_hidden: int = 128,
        activation: str = "elu",
        init_std: float = 1.0,
        policy_gain: float = 0.01,
        obs_clip: float = 10.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        g = generator if generator is not None else torch.Generator().manual_seed(0)
        self.recurrent = kind == "gru"
        groups = ("policy", "critic")
        norm = nn.ModuleDict({group: RunningNorm(dims[group], clip=obs_clip) for group in groups})
        # Typed as what they hold; torch registers them as modules all the same.
        self.norm = cast("dict[str, RunningNorm]", norm)
        self.value_norm = RunningNorm(1, eps=1e-5, clip=None)
        self.memory = cast("dict[str, GRU]", nn.ModuleDict())
        inputs = dims
        if self.recurrent:
            for group in groups:
                self.memory[group] = GRU(dims[group], gru_hidden, g)
            inputs = {"policy": gru_hidden, "critic": gru_hidden}
        self.actor = MLP((inputs["policy"], *hidden, num_actions), activation, policy_gain, g)
        self.critic = MLP((inputs["critic"], *hidden, 1), activation, 1.0, g)
        self.log_std = nn.Parameter(torch.full((num_actions,), math.log(init_std)))

    def initial_hidden(self, num_envs: int) -> dict[str, torch.Tensor]:
        """Zero hidden states ``{"policy": (N, H), "critic": (N, H)}``; empty for an MLP."""
        return {g: self.log_std.new_zeros(num_envs, gru.hidden) for g, gru in self.memory.items()}

    def actor_parameters(self) -> list[nn.Parameter]:
        """The policy's parameters: memory, MLP, log standard deviation."""
        memory = list(self.memory["policy"].parameters()) if self.recurrent else []
        return [*memory, *self.actor.parameters(), self.log_std]

    def critic_parameters(self) -> list[nn.Parameter]:
        """The value function's parameters: memory, MLP."""
        memory = list(self.memory["critic"].parameters()) if self.recurrent else []
        return [*memory, *self.critic.parameters()]

    def policy_module(self) -> PolicyModule:
        """The deterministic policy with its normaliser inside, sharing this network's parameters."""
        return PolicyModule(self)


class PolicyModule(nn.Module):
    """The deterministic policy: raw ``policy`` observations -> mean action, for evaluation and export.

    An MLP maps ``(B, d) -> (B, A)``; a GRU maps ``(B, d), (B, H) -> (B, A), (B, H)``.
    """

    def __init__(self, network: ActorCritic) -> None:
        super().__init__()
        self.norm = network.norm["policy"]
        self.memory = network.memory["policy"] if network.recurrent else None
        self.actor = network.actor

    @property
    def hidden_size(self) -> int:
        """Size H of the hidden state; 0 for an MLP."""
        return 0 if self.memory is None else self.memory.hidden

    def forward(
        self, obs: torch.Tensor, hidden: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Mean action (B, A) of ``obs`` (B, d), and the next hidden state where there is one."""
        z = self.norm(obs)
        if self.memory is None:
            return self.actor(z)
        h = self.memory(z, obs.new_zeros(obs.shape[0], self.hidden_size) if hidden is None else hidden)
        return self.actor(h), h


class Player:
    """Plays the deterministic policy in N worlds and keeps each world's memory.

    Args:
        module: the policy to play.
        num_envs: number of worlds N.
    """

    def __init__(self, module: PolicyModule, num_envs: int) -> None:
        self.module = module
        self.num_envs = num_envs
        self.hidden = module.norm.mean.new_zeros(num_envs, module.hidden_size)

    def reset(self, ended: torch.Tensor | None = None) -> None:
        """Forget, in the worlds ``ended`` (N,) bool or in all of them."""
        self.hidden = torch.zeros_like(self.hidden) if ended is None else self.hidden * ~ended.unsqueeze(-1)

    @torch.no_grad()
    def act(self, obs: torch.Tensor) -> torch.Tensor:
        """Mean actions (N, A) for raw ``policy`` observations (N, d)."""
        if self.module.hidden_size == 0:
            return self.module(obs)
        mean, self.hidden = self.module(obs, self.hidden)
        return mean
