"""What a distilled network is shown before a policy trains: the task's own scripts, as the critic judges them.

A policy that knows nothing shows hardly any progress and no success, and a network that was taught by it alone has
nothing to say about either. Experts and failures show both, and cost a few thousand pictures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import cycle, islice

import torch

from robolearn.critic_eyes import Judge
from robolearn.critic_settings import CriticRewardError
from sim.env import Env
from sim.experts.arm import MODES, ExpertError, ScriptedArm
from vlm_rewards.distill import Student

NOISE = 1.0
"""Of the scripts, as a critic is trained with: a policy is less tidy than a script."""
LEAST_ROUNDS = 4
"""Episodes in each filmed world, at least: every world is shown more than one way to fail."""
STUDY = 500
"""Gradient steps when all has been seen."""
_PATIENCE_S = 10.0
"""Between two lines about how far it has come."""


@torch.no_grad()
def rehearse(
    env: Env, judge: Judge, student: Student, answers: int, seed: int, say: Callable[[str], None] = lambda text: None
) -> None:
    """Teach ``student`` about as many answers of ``judge`` as asked for; the worlds have to be reset afterwards.

    Half of the worlds follow the task's expert, the others fail, each in one of the task's ways.

    Raises:
        CriticRewardError: the task has no scripts.
    """
    steps = env.max_episode_length - 1  # a time-out would be reset before it is looked at
    worlds = min(env.num_envs, math.ceil(answers / (LEAST_ROUNDS * steps)))
    filmed = torch.arange(env.num_envs, device=env.device) < worlds
    asked, told = 0, time.monotonic()
    for episode in range(math.ceil(answers / (worlds * steps))):
        arm = _script(env, episode, seed)
        env.reset()
        judge.begin(filmed)
        for _ in range(steps):
            step = env.step(arm.act())
            begun = (step.terminated | step.truncated).to(env.device) & filmed
            judge.begin(begun)
            potential, done = judge.look(filmed & ~begun)
            student.see(env.task.observe("critic", env.channels), potential, done)
            asked += worlds
            if time.monotonic() - told > _PATIENCE_S:
                say(f"rehearsal: about {min(asked, answers)} of {answers} answers")
                told = time.monotonic()
    student.study(STUDY)
    judge.report()  # what this cost is no part of the training's figures


def _script(env: Env, episode: int, seed: int) -> ScriptedArm:
    """The expert in every second world; every failure in turn in the others, the next one in the next episode."""
    try:
        failures = [mode for mode in MODES.get(env.task.name, ()) if mode != "expert"]
        ways = islice(cycle(failures or ["expert"]), episode, None)
        modes = ["expert" if i % 2 == 0 else next(ways) for i in range(env.num_envs)]
        return ScriptedArm(env, modes, seed=seed * 1009 + episode, noise=NOISE)
    except ExpertError as error:
        raise CriticRewardError(f"reward.rehearsal has nothing to show: {error}; set reward.rehearsal=0") from error
