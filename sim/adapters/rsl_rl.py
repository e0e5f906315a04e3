"""`sim.env.Env` as rsl_rl's ``VecEnv`` (5.x): structurally compatible, with the terminal observation added."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict

from sim.env import Env


class RslRlEnv:
    """rsl_rl's ``VecEnv`` over an environment.

    Attributes:
        num_envs, num_actions, max_episode_length, device: the environment's.
        episode_length_buf: (N,) steps since the last reset.
        cfg: empty; rsl_rl only logs it.
    """

    def __init__(self, env: Env) -> None:
        self.env = env
        self.num_envs = env.num_envs
        self.num_actions = env.num_actions
        self.max_episode_length = env.max_episode_length
        self.device = env.device
        self.cfg: dict[str, Any] = {}
        self._obs = env.reset()

    @property
    def episode_length_buf(self) -> torch.Tensor:
        return self.env.episode_steps

    @episode_length_buf.setter
    def episode_length_buf(self, value: torch.Tensor) -> None:
        self.env.episode_steps.copy_(value)

    def get_observations(self) -> TensorDict:
        """Current observations, groups ``policy`` and ``critic`` (N, d)."""
        return TensorDict(dict(self._obs), batch_size=[self.num_envs])

    def step(self, actions: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """Apply actions (N, A); ``extras`` has ``time_outs`` (N,), ``log``, and ``final_ids``/``final_obs``."""
        result = self.env.step(actions).ended()
        self._obs = result.obs
        extras = {
            "time_outs": result.truncated,
            "log": {f"/{name}": value for name, value in result.summary().items()},
            "final_ids": result.final_ids,
            "final_obs": result.final_obs,
        }
        return self.get_observations(), result.reward, result.terminated | result.truncated, extras
