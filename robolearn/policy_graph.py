"""The deployable policy: raw channels in physical units → commands in physical units, everything between inside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from policies.networks import PolicyModule
from robolearn.contract import Channel, Contract
from sim.channels import Channels
from sim.env import Env
from sim.task import concatenated

MEMORY = "memory"
"""Name of the channel that carries a recurrent policy's hidden state."""


class PolicyGraph(nn.Module):
    """Observation terms, normaliser, network and action decoder of a task as one module.

    ``forward(**channels, **state)`` takes and returns tensors (B, ...) by channel name, as `robolearn.bundle.export`
    wants them; `contract` lists them.

    Args:
        env: the environment that the policy was trained in; its task gives terms and decoder.
        policy: the deterministic policy, normaliser inside.
    """

    def __init__(self, env: Env, policy: PolicyModule) -> None:
        super().__init__()
        self.policy = policy
        self._terms = tuple(env.task.observations["policy"].values())
        self._derived, self._action = env.task.derived, env.task.action
        self.contract = _with_memory(env.contract, policy.hidden_size)

    def forward(self, **values: torch.Tensor) -> dict[str, torch.Tensor]:
        c = Channels(values, self._derived)
        obs = concatenated(c, self._terms)
        memory: dict[str, torch.Tensor] = {}
        if self.policy.hidden_size:
            action, memory[MEMORY] = self.policy(obs, values[MEMORY])
        else:
            action = self.policy(obs)
        command, state = self._action.decode(c, action)
        return {self._action.command.name: command, **state, **memory}


def _with_memory(contract: Contract, size: int) -> Contract:
    if not size:
        return contract
    return replace(contract, state=(*contract.state, Channel(MEMORY, (size,), "1")))


def sample_inputs(env: Env, steps: int = 8) -> list[dict[str, np.ndarray]]:
    """Input channels of world 0 over a few control steps of the task's baseline, to compare graphs on."""
    env.reset()
    samples = []
    for _ in range(steps):
        env.step(torch.zeros(env.num_envs, env.num_actions))
        samples.append({c.name: env.channels[c.name][0].numpy().copy() for c in env.contract.inputs})
    return samples
