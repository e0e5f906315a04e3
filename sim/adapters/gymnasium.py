"""`sim.env.Env` as ``gymnasium.vector.VectorEnv``, and one world of it as ``gymnasium.Env``."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from robolearn.errors import RobolearnError
from sim.env import Env

ACTION_BOUND = 5.0
"""Actions are about one in size; beyond this they are clipped, so that the declared space is true."""


class GymVectorEnv(gymnasium.vector.VectorEnv):
    """N worlds as a gymnasium vector environment that resets within the step that ends an episode.

    Observations are the ``policy`` group, (N, d) float32; the ``critic`` group is in ``info["critic"]``. Ended worlds
    have their last observation in ``info["final_obs"]`` (an object array, as gymnasium's own vector environments) under
    the mask ``info["_final_obs"]``, and the results of their episode, metric → (N,), in ``info["episodes"]``.
    """

    def __init__(self, env: Env) -> None:
        self.env = env
        self.num_envs = env.num_envs
        self.metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
        self.single_observation_space, self.single_action_space = _spaces(env)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset every world; one seed serves them all (the first, where a list is given)."""
        if isinstance(seed, list):
            seed = seed[0]
        super().reset(seed=seed)
        obs = self.env.reset(seed)
        return _array(obs["policy"]), {"critic": _array(obs["critic"])}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Apply actions (N, A)."""
        result = self.env.step(_action(actions, self.env.device)).ended()
        info: dict[str, Any] = {"critic": _array(result.obs["critic"])}
        if len(result.final_ids):
            ids = result.final_ids.cpu().numpy()
            final = np.full(self.num_envs, None, dtype=object)
            for i, row in zip(ids, _array(result.final_obs["policy"]), strict=True):
                final[i] = row
            ended = np.isin(np.arange(self.num_envs), ids)
            info["final_obs"], info["_final_obs"] = final, ended
            info["episodes"], info["_episodes"] = {}, ended
            for name, values in result.episodes.items():
                info["episodes"][name] = np.full(self.num_envs, np.nan, np.float32)
                info["episodes"][name][ids] = _array(values)
        return (
            _array(result.obs["policy"]),
            _array(result.reward),
            _array(result.terminated),
            _array(result.truncated),
            info,
        )


class GymEnv(gymnasium.Env):
    """A single world as ``gymnasium.Env``; the episode's last observation is returned, as that interface asks.

    Raises:
        RobolearnError: the environment has more than one world.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, env: Env) -> None:
        if env.num_envs != 1:
            raise RobolearnError(f"GymEnv takes an environment of one world, got {env.num_envs}; use GymVectorEnv")
        self.env = env
        self.observation_space, self.action_space = _spaces(env)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        obs = self.env.reset(seed)
        return _array(obs["policy"][0]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        result = self.env.step(_action(action, self.env.device)[None]).ended()
        ended = len(result.final_ids) > 0
        obs = (result.final_obs if ended else result.obs)["policy"][0]
        info = {name: float(values[0]) for name, values in result.episodes.items()} if ended else {}
        return (
            _array(obs),
            float(result.reward[0]),
            bool(result.terminated[0]),
            bool(result.truncated[0]),
            info,
        )


def _spaces(env: Env) -> tuple[spaces.Box, spaces.Box]:
    observation = spaces.Box(-np.inf, np.inf, (env.observation_dims["policy"],), np.float32)
    return observation, spaces.Box(-ACTION_BOUND, ACTION_BOUND, (env.num_actions,), np.float32)


def _action(values: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.clip(np.asarray(values, dtype=np.float32), -ACTION_BOUND, ACTION_BOUND)).to(device)


def _array(values: torch.Tensor) -> np.ndarray:
    return values.detach().cpu().numpy().copy()
