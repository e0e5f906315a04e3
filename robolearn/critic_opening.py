"""Which critic rewards a training run, and whether it may."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from robolearn.critic_settings import AUTO, TRUTH, CriticRewardError, RewardSettings, critic_folder

if TYPE_CHECKING:
    from robolearn.config import TrainConfig
    from robolearn.critic_reward import CriticReward
    from vlm_rewards.critic import Critic


def open_reward(config: TrainConfig, say: Callable[[str], None]) -> Critic | None:
    """The critic that is to reward the training, if any; ``config.reward`` becomes what it stands for.

    ``say`` is told the marks of a forced critic.

    Raises:
        CriticRewardError: the task cannot be judged by a critic, there is no such critic, or not the one that the run
            began with.
        CriticError: it may not be used: it has no passed card, and is not forced.
    """
    if not config.reward.judges:
        return None
    check_task(config)
    critic, config.reward = open_critic(config.reward, config.task)
    for mark in config.reward.marks:
        say(f"the critic is forced, and the run is marked: {mark}")
    return critic


def check_task(config: TrainConfig) -> None:
    """Raise unless a critic may say when the task is done, if that is asked of it."""
    from sim.tasks import config_class, list_tasks

    name = str(config.task["name"])
    if config.reward.stage.success == "critic" and "ends" not in config.task:
        able = [n for n in list_tasks() if any(field.name == "ends" for field in dataclasses.fields(config_class(n)))]
        raise CriticRewardError(
            f"task {name!r} cannot leave it to a critic to say when it is done; tasks that can: {', '.join(able)}"
        )


def open_critic(settings: RewardSettings, task: Mapping[str, Any]) -> tuple[Critic | None, RewardSettings]:
    """The critic that the settings name, None for the simulator's truth, and the settings with its place, its operating
    point and its revision, and the marks of a forced one.

    Raises:
        CriticRewardError, CriticError: as of `open_reward`.
    """
    if settings.critic == TRUTH:
        return None, _at_point(settings, 0.5, 1)
    from vlm_rewards.card import require_card
    from vlm_rewards.registry import BASELINES, load_critic

    name = _place(settings, str(task["name"]))
    if name in BASELINES:  # controls: they are there to fail
        horizon = {"horizon_s": float(task["episode_s"])} if name == "elapsed_time" and "episode_s" in task else {}
        critic = load_critic(name, **horizon)
        return critic, replace(settings, revision=_same_revision(settings, critic))
    critic = load_critic(name)
    mark = require_card(name, force=settings.force, critic=critic)
    point = getattr(critic, "operating_point", None) or mark
    settings = replace(settings, critic=name, revision=_same_revision(settings, critic), marks=list(mark.failures))
    return critic, _at_point(settings, point.threshold, point.debounce)


@contextmanager
def rewarding(config: TrainConfig, env: Any, learner: Any, critic: Critic | None) -> Iterator[CriticReward | None]:
    """For the length of a ``with``, reward the learner by the critic, or leave its environment's reward alone.

    Raises:
        CriticError, CriticRewardError: as of `CriticReward`.
    """
    if not config.reward.judges:
        yield None
        return
    from robolearn.critic_reward import CriticReward

    reward = CriticReward(env, critic, config.reward, learner.config.gamma, config.seed)
    reward.watch()
    learner.reward_stage = reward
    try:
        yield reward
    finally:
        reward.close()


def _place(settings: RewardSettings, task: str) -> str:
    """The critic's name, or where the one lies that was made for the task."""
    from vlm_rewards.registry import DESCRIPTION

    assert settings.critic is not None
    if settings.critic != AUTO:
        return settings.critic
    folder = critic_folder(task)
    if not (folder / DESCRIPTION).is_file():
        raise CriticRewardError(
            f"there is no critic for {task} in {folder}; make one with: robolearn critic train critic=process "
            f"task={task}, judge it with: robolearn critic card critic={folder} task={task}, "
            "or name another one with reward.critic=<folder>"
        )
    return str(folder.resolve())


def _same_revision(settings: RewardSettings, critic: Critic) -> str:
    if settings.revision not in ("", critic.revision):
        raise CriticRewardError(
            f"the run was rewarded by revision {settings.revision} of critic {settings.critic}, which is "
            f"{critic.revision} now: a run goes on with the same critic, or a new run is started"
        )
    return critic.revision


def _at_point(settings: RewardSettings, threshold: float | None, debounce: int | None) -> RewardSettings:
    """The settings with an operating point of done where they name none."""
    return replace(settings, threshold=settings.threshold or threshold, debounce=settings.debounce or debounce)
