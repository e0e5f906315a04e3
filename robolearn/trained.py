"""A trained policy, read back from its run folder, and environments to judge or show it in."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from policies.ppo import PPO
from robolearn.config import TrainConfig, resumed, to_train_config
from robolearn.errors import RobolearnError
from robolearn.judge import Controller
from robolearn.runs import Run
from robolearn.train import make_learner
from sim.engines import Engine
from sim.env import Env
from sim.tasks import make_env

log = logging.getLogger(__name__)


class TrainedError(RobolearnError):
    """A run whose policy cannot be used."""


@dataclass
class Trained:
    """A run's policy.

    Attributes:
        run: its folder, opened for reading.
        config: what it was trained with.
        learner: with the checkpoint's weights and normaliser.
        checkpoint: which checkpoint, such as ``last (iteration 430)``.
        engine: what steps the worlds that `env` makes.
    """

    run: Run
    config: TrainConfig
    learner: PPO
    checkpoint: str
    engine: Engine

    @classmethod
    def load(cls, path: str | Path, checkpoint: str = "last", engine: Engine | None = None) -> Trained:
        """Read the policy of a run.

        Args:
            path: the run's folder.
            checkpoint: last, best, or an iteration.
            engine: what steps worlds; the policy is where they are. By default the run's own, where it can be had.

        Raises:
            RobolearnError: not a run, no such checkpoint, or one that does not fit the run's configuration.
        """
        run = Run.open(path)
        config = to_train_config(resumed(run.config, ()))
        found = run.load(checkpoint)
        engine = engine or _engine_here(config)
        learner = learner_for(config, evaluation_env(config, split="train", num_envs=1, engine=engine))
        try:
            learner.load_state_dict(found.state["ranks"][0]["learner"])
        except (KeyError, IndexError, TypeError) as error:
            raise TrainedError(f"checkpoint {found.path} does not hold a policy: {error!r}") from error
        return cls(run, config, learner, f"{checkpoint} (iteration {found.iteration})", engine)

    def controller(self) -> Controller:
        """The deterministic policy, with memories of its own."""
        return policy_controller(self.learner)

    def env(self, split: str = "heldout", num_envs: int = 0, seed: int = 1000, **settings: Any) -> Env:
        """An evaluation environment of the run's task; ``settings`` replace the task's own."""
        return evaluation_env(self.config, split, num_envs, seed, self.engine, **settings)


def policy_controller(learner: PPO) -> Controller:
    """The learner's mean action as a controller."""
    players: WeakKeyDictionary[Env, Any] = WeakKeyDictionary()

    def act(env: Env, obs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        player = players.get(env)
        if player is None:
            player = players[env] = learner.player(env.num_envs)
        player.reset(env.episode_steps == 0)
        return player.act(obs["policy"])

    return act


def learner_for(config: TrainConfig, env: Env) -> PPO:
    """A fresh learner of ``config`` on the device of ``env``, which fits any environment of its task."""
    sized = _Sizes(env.observation_dims, env.num_actions, config.num_envs, env.device)
    learner = make_learner(replace(config, device="auto"), sized)
    assert isinstance(learner, PPO)
    return learner


def evaluation_env(
    config: TrainConfig,
    split: str = "heldout",
    num_envs: int = 0,
    seed: int = 1000,
    engine: Engine | None = None,
    **settings: Any,
) -> Env:
    """Whole episodes of ``config``'s task: one world per clip where ``num_envs`` is 0, assists and early ends off."""
    task = {key: value for key, value in config.task.items() if key != "name"} | settings
    name = str(config.task["name"])
    engine = engine or _engine_here(config)
    return make_env(name, num_envs, seed=seed, engine=engine, split=split, evaluation=True, **task)


def _engine_here(config: TrainConfig) -> Engine:
    """The engine that the run was trained on; where it needs a GPU and there is none, the CPU."""
    engine = config.world.engine()
    if engine.name == "gpu" and engine.device != "cpu" and not torch.cuda.is_available():
        log.info("trained on a GPU, of which there is none here: the CPU steps the worlds")
        return Engine("cpu", engine.threads)
    return engine


@dataclass(frozen=True)
class _Sizes:
    """What a learner asks of an environment when it is made."""

    observation_dims: Mapping[str, int]
    num_actions: int
    num_envs: int
    device: torch.device
