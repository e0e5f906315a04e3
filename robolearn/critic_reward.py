"""A critic as the reward of a training run: who is looked at when, whose word counts, and what a step is worth.

After every step of the environment the judge (a critic through cameras, or the simulator's truth) looks at the worlds
that are filmed, before ended episodes are reset. What it says becomes a potential for shaping, and may end an episode;
`vlm_rewards.stage.RewardStage` makes rewards of it. See docs/critic_rewards.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from robolearn.critic_eyes import Eyes, Judge, Truth
from robolearn.critic_record import Record
from robolearn.critic_rehearsal import rehearse
from robolearn.critic_settings import CriticRewardError, RewardSettings
from sim.env import Env
from sim.selection import Selection
from sim.step import Step
from vlm_rewards.critic import Critic
from vlm_rewards.distill import Student
from vlm_rewards.stage import RewardResult, RewardStage, Transitions

DEBOUNCE, THRESHOLD = 2, 0.9
"""Answers in a row, and the probability in each, that count as done, where nothing else says so."""

_SHARES = ("looked", "asked", "distilled", "held", "absent")
_KEPT = ("_potential", "_held", "_said")


class CriticReward:
    """Watches an environment through a critic's eyes (`sim.env.Watcher`), and rewards its steps.

    Args:
        env: the worlds; `watch` makes it ask.
        critic: None for the simulator's own truth.
        settings: see there.
        gamma: the learner's γ.
        seed: of the choice of worlds that are filmed, and of the distilled network.

    Raises:
        CriticRewardError: a task that does not know when it is done, or the wrong cameras.
        CriticError: a critic that cannot judge while an episode goes on, or not what is asked of it; settings of the
            reward stage that do not fit a task, or step-by-step rewards.
    """

    def __init__(self, env: Env, critic: Critic | None, settings: RewardSettings, gamma: float, seed: int = 0) -> None:
        _check_task(env, settings)
        n, device = env.num_envs, env.device
        self.settings, self._seed = settings, seed
        self.stage = RewardStage(settings.stage, gamma, num_worlds=n)
        _check_stage(settings, gamma, env)
        self._env = env
        self._judge: Judge = Truth(env) if critic is None else Eyes(env, critic, settings)
        self._filmed = _some_worlds(n, settings.share, seed).to(device)
        self._threshold, self._debounce = settings.threshold or THRESHOLD, settings.debounce or DEBOUNCE
        self._student: Student | None = None
        if settings.distill:
            size = env.observation_dims["critic"]
            self._student = Student(size, threshold=self._threshold, seed=seed, device=device)
        self._record = Record()
        self._rehearsal_s: float | None = None
        self._calls = 0
        blank = torch.full((n,), torch.nan, device=device)
        self._potential, self._next, self._start = blank.clone(), blank.clone(), blank.clone()
        self._guess, self._held, self._start_held = blank.clone(), blank.clone(), blank.clone()
        self._looked = torch.zeros(n, dtype=torch.bool, device=device)
        self._asked, self._answered = self._looked.clone(), self._looked.clone()
        self._said = torch.zeros(n, dtype=torch.long, device=device)
        self._stop, self._true = self._looked.clone(), self._looked.clone()

    def watch(self) -> None:
        """Make the environment ask from now on."""
        self._env.watcher = self

    def rehearse(self, say: Callable[[str], None] = lambda text: None) -> dict[str, float]:
        """Prepare the distilled network, if settings ask for that, before the first reset of a training.

        Args:
            say: is told how far it has come, if that takes long.

        Returns:
            How well it agrees with the judge then; nothing without rehearsal.

        Raises:
            CriticRewardError: a task without scripts.
        """
        if self._student is None or not self.settings.rehearsal:
            return {}
        watcher, self._env.watcher = self._env.watcher, None
        started = time.perf_counter()
        rehearse(self._env, self._judge, self._student, self.settings.rehearsal, self._seed, say)
        self._env.watcher = watcher
        self._rehearsal_s = time.perf_counter() - started
        return self._student.agreement.figures()

    def judge(self) -> torch.Tensor | None:
        """See `sim.env.Watcher`: look at the worlds, and say where the critic takes its task for done."""
        env, failed = self._env, self._env.failed
        self._calls += 1
        due = self._calls % self.settings.every == 0
        self._looked = self._filmed if due else torch.zeros_like(self._filmed)
        self._true = env.channels["done"] > 0.5
        if failed is not None:  # what the pictures of a broken world show is nobody's progress
            self._looked, self._true = self._looked & ~failed, self._true & ~failed
        self._next, done = self._judge.look(self._looked)
        self._answered = torch.isfinite(self._next)
        if self._student is not None:
            done = self._consult(self._student, done)
        known = torch.isfinite(done)
        again = torch.where(done >= self._threshold, self._said + 1, 0)
        self._said = torch.where(known, again, self._said.masked_fill(self._looked | self._asked, 0))
        self._stop = self._said >= self._debounce
        if failed is not None:
            self._stop = self._stop & ~failed
        return self._stop if self.settings.stage.success == "critic" else None

    def _consult(self, student: Student, done: torch.Tensor) -> torch.Tensor:
        """Let the distilled network speak and learn; the critic's done (N,), also where the network suspects it."""
        obs = self._env.task.observe("critic", self._env.channels)
        self._guess, suspected = student.speak(obs)
        if self.settings.stage.success == "critic":
            self._asked = suspected & ~self._looked
            if self._env.failed is not None:
                self._asked = self._asked & ~self._env.failed
            done = torch.where(self._asked, self._judge.confirm(self._asked), done)
        student.see(obs, self._next, done)
        self._next = self._next.masked_fill(torch.isfinite(self._guess), torch.nan)  # it speaks for all, or for none
        return done

    def begun(self, worlds: Selection, reset: bool) -> None:
        """See `sim.env.Watcher`: look at how episodes begin."""
        mask = torch.zeros_like(self._filmed)
        mask[worlds.chosen()] = True
        start = self._judge.begin(mask & self._filmed)
        held = torch.where(torch.isfinite(start), start, 0.0)  # the progress that an episode starts with
        if self._student is not None:
            guess, _ = self._student.speak(self._env.task.observe("critic", self._env.channels))
            held = torch.where(torch.isfinite(guess), guess, held)
            start = start.masked_fill(torch.isfinite(guess), torch.nan)
        self._start, self._start_held = torch.where(mask, start, self._start), torch.where(mask, held, self._start_held)
        self._said = self._said.masked_fill(mask, 0)
        if reset:
            self.stage.reset()
            self._potential, self._held = self._start.clone(), self._start_held.clone()

    def __call__(self, step: Step) -> torch.Tensor:
        """The reward (N,) of a step that `judge` has seen, where the step's tensors are."""
        device = self._env.device
        terminated, truncated = step.terminated.to(device), step.truncated.to(device)
        following = torch.where(torch.isfinite(self._guess), self._guess, self._held)
        result = self.stage(
            Transitions(
                terminated,
                truncated,
                potential=self._potential,
                next_potential=self._next,
                distilled=self._held,
                next_distilled=following,
                success=self._stop if self.settings.stage.success == "critic" else self._true,
                terms={name: term.to(device) for name, term in step.rewards.items()},
            )
        )
        self._note(step, result)
        ended = terminated | truncated
        self._potential = torch.where(ended, self._start, self._next)
        used = following if result.next_potential is None else result.next_potential
        self._held = torch.where(ended, self._start_held, used)
        return result.reward.float().to(step.terminated.device)

    def _note(self, step: Step, result: RewardResult) -> None:
        """Count what happened, and add what the critic said to the results of episodes."""
        counts = {f"parts/{name}": part for name, part in result.parts.items()}
        counts |= {"rows": result.counts["rows"], "looked": self._looked, "answered": self._answered}
        counts["held"] = ~(torch.isfinite(self._next) | torch.isfinite(self._guess))
        if self._student is not None:
            counts |= {"distilled": torch.isfinite(self._guess), "asked": self._asked}
        if self.settings.stage.fallback == "drop" and "absent" in result.counts:
            counts["absent"] = result.counts["absent"]
            del counts["held"]
        if self.settings.stage.success == "critic":
            false = self._stop & ~self._true
            counts |= {"said": self._stop, "false": false}
            if step.episodes:
                ids, there = step.final_ids.to(self._env.device), step.final_ids.device
                step.episodes["critic_done"] = self._stop[ids].float().to(there)
                step.episodes["false_done"] = false[ids].float().to(there)
        self._record.add(counts)

    def report(self) -> dict[str, float]:
        """Metrics since the last report; see docs/critic_rewards.md."""
        sums = self._record.take()
        if not sums:
            return {}
        rows = sums["rows"]
        found = {f"critic/reward_{n.removeprefix('parts/')}": s / rows for n, s in sums.items() if "parts/" in n}
        found |= {f"critic/{name}": sums[name] / rows for name in _SHARES if name in sums}
        if sums["looked"]:
            found["critic/abstained"] = 1.0 - sums["answered"] / sums["looked"]
        if sums.get("said"):
            found["critic/done_precision"] = 1.0 - sums["false"] / sums["said"]
        if self._student is not None:
            found |= {f"critic/student_{name}": value for name, value in self._student.agreement.figures().items()}
        if self._rehearsal_s is not None:
            found["time/rehearsal"], self._rehearsal_s = self._rehearsal_s, None
        return found | self._judge.report()

    def close(self) -> None:
        """Free the cameras, and leave the environment alone."""
        self._judge.close()
        if self._env.watcher is self:
            self._env.watcher = None

    def state_dict(self) -> dict[str, Any]:
        """What a bit-exact continuation needs, between two rollouts."""
        return {
            "stage": self.stage.state_dict(),
            "student": None if self._student is None else self._student.state_dict(),
            "judge": self._judge.state_dict(),
            "calls": self._calls,
            **{name: getattr(self, name).clone() for name in _KEPT},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, wherever its tensors are."""
        self.stage.load_state_dict(state["stage"])
        if self._student is not None:
            self._student.load_state_dict(state["student"])
        self._judge.load_state_dict(state["judge"])
        self._calls = int(state["calls"])
        for name in _KEPT:
            getattr(self, name).copy_(state[name])


def _some_worlds(num_worlds: int, share: float, seed: int) -> torch.Tensor:
    """(N,) bool: a random share of the worlds, at least one."""
    filmed = torch.zeros(num_worlds, dtype=torch.bool)
    order = torch.randperm(num_worlds, generator=torch.Generator().manual_seed(seed))
    filmed[order[: max(1, round(share * num_worlds))]] = True
    return filmed


def _check_task(env: Env, settings: RewardSettings) -> None:
    """Raise unless the simulator knows progress and success where the truth about them is needed."""
    known = {*env.channels, *env.channels.derived}
    missing = [name for name in ("done", "progress") if name not in known]
    if settings.critic != "truth":
        missing = [name for name in missing if name == "done"]
    if missing:
        raise CriticRewardError(
            f"task {env.task.name!r} has no channel {' and '.join(missing)}, by which reward.critic={settings.critic} "
            "is judged; use reward=task"
        )


def _check_stage(settings: RewardSettings, gamma: float, env: Env) -> None:
    """Raise now what the stage would raise at the first step: terms the task does not have, and the like."""
    none = torch.zeros(env.num_envs, dtype=torch.bool)
    zero = torch.zeros(env.num_envs)
    terms = dict.fromkeys(env.task.rewards, zero)
    phi = {name: zero for name in ("potential", "next_potential", "distilled", "next_distilled")}
    RewardStage(settings.stage, gamma, env.num_envs)(Transitions(none, none, success=none, terms=terms, **phi))
