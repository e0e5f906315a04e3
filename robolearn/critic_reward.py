"""A critic as the reward of a training run: its cameras, its potential, its done, and what stands in for it.

After every step of the environment the critic looks at the worlds that are filmed, before ended episodes are reset.
What it says becomes a potential for shaping, and may end an episode; `vlm_rewards.stage.RewardStage` makes rewards of
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from robolearn.critic_settings import AUTO, TRUTH, RewardSettings, critic_folder
from sim.camera import BatchCameras
from sim.env import Env
from sim.selection import Selection
from sim.step import Step
from vlm_rewards.answer import Answer
from vlm_rewards.critic import Capability, Critic
from vlm_rewards.distill import Student
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.stage import RewardStage, Transitions

DEBOUNCE, THRESHOLD = 2, 0.9
"""Answers in a row, and the probability in each, that count as done, where the critic has no operating point."""


class CriticReward:
    """Watches an environment through a critic's eyes (`sim.env.Watcher`), and rewards its steps.

    Args:
        env: the worlds; `watch` makes it ask.
        critic: None for the simulator's own truth.
        settings: see there.
        gamma: the learner's γ.
        seed: of the distilled network.

    Raises:
        CriticError: a critic that cannot judge while an episode goes on, or not what is asked of it.
    """

    def __init__(self, env: Env, critic: Critic | None, settings: RewardSettings, gamma: float, seed: int = 0) -> None:
        self.settings = settings
        self._env, self._critic = env, critic
        n, device = env.num_envs, env.device
        self.stage = RewardStage(settings.stage, gamma, num_worlds=n)
        self._filmed = torch.zeros(n, dtype=torch.bool, device=device)
        chosen = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[: max(1, round(settings.share * n))]
        self._filmed[chosen] = True
        self._eyes = None if critic is None else Eyes(env, critic, settings.confidence)
        point = getattr(critic, "operating_point", None)
        self._threshold = settings.threshold or (THRESHOLD if point is None else point.threshold)
        self._debounce = settings.debounce or (DEBOUNCE if point is None else point.debounce)
        if critic is None:
            self._threshold, self._debounce = 0.5, 1
        size = env.observation_dims["critic"]
        self._student = Student(size, seed=seed, device=device) if settings.distill else None
        nothing = torch.full((n,), torch.nan, device=device)
        self._potential, self._next, self._start = nothing.clone(), nothing.clone(), nothing.clone()
        self._guess, self._next_guess, self._start_guess = nothing.clone(), nothing.clone(), nothing.clone()
        self._said = torch.zeros(n, dtype=torch.long, device=device)
        self._stop = torch.zeros(n, dtype=torch.bool, device=device)
        self._true = torch.zeros(n, dtype=torch.bool, device=device)
        self._calls = 0
        self._lessons: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def judge(self) -> torch.Tensor | None:
        """See `sim.env.Watcher`: look at the worlds, and say where the critic takes its task for done."""
        env = self._env
        self._calls += 1
        self._true = env.channels["done"] > 0.5
        due = self._calls % self.settings.every == 0
        potential, done = self._look(self._filmed if due else None)
        self._next = potential
        if self._student is not None:
            obs = env.task.observe("critic", env.channels)
            self._note(obs, potential, done)
            self._next_guess, guessed = self._believed(obs)
            done = torch.where(torch.isfinite(done), done, guessed)
        says = done >= self._threshold
        self._said = torch.where(torch.isfinite(done), torch.where(says, self._said + 1, 0), self._said)
        self._stop = self._said >= self._debounce
        return self._stop if self.settings.stage.success == "critic" else None

    def begun(self, worlds: Selection) -> None:
        """See `sim.env.Watcher`: episodes have begun."""
        mask = torch.zeros_like(self._filmed)
        mask[worlds.chosen()] = True
        self._start = torch.where(mask, self._first_look(mask & self._filmed), self._start)
        if self._student is not None:
            guess, _ = self._believed(self._env.task.observe("critic", self._env.channels))
            self._start_guess = torch.where(mask, guess, self._start_guess)
        self._said = self._said.masked_fill(mask, 0)
        if bool(mask.all()):
            self.stage.reset()
            self._potential, self._guess = self._start.clone(), self._start_guess.clone()

    def __call__(self, step: Step) -> torch.Tensor:
        """The reward (N,) of a step that `judge` has seen."""
        ended = step.terminated | step.truncated
        success = self._stop if self.settings.stage.success == "critic" else self._true
        guesses = {} if self._student is None else {"distilled": self._guess, "next_distilled": self._next_guess}
        result = self.stage(
            Transitions(
                step.terminated,
                step.truncated,
                potential=self._potential,
                next_potential=self._next,
                success=success,
                terms=step.rewards,
                **guesses,
            )
        )
        self._report(step, result.summary())
        self._potential = torch.where(ended, self._start, self._next)
        self._guess = torch.where(ended, self._start_guess, self._next_guess)
        return result.reward.float()

    def watch(self) -> None:
        """Make the environment ask from now on."""
        self._env.watcher = self

    def close(self) -> None:
        """Free the cameras."""
        if self._eyes is not None:
            self._eyes.close()

    def state_dict(self) -> dict[str, Any]:
        """What a bit-exact continuation needs."""
        return {
            "stage": self.stage.state_dict(),
            "student": None if self._student is None else self._student.state_dict(),
            "eyes": None if self._eyes is None else self._eyes.state_dict(),
            "calls": self._calls,
            "tensors": {name: getattr(self, name).clone() for name in _KEPT},
            "lessons": [[part.clone() for part in lesson] for lesson in self._lessons],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.stage.load_state_dict(state["stage"])
        if self._student is not None and state["student"] is not None:
            self._student.load_state_dict(state["student"])
        if self._eyes is not None and state["eyes"] is not None:
            self._eyes.load_state_dict(state["eyes"])
        self._calls = int(state["calls"])
        for name, value in state["tensors"].items():
            setattr(self, name, value.clone())
        self._lessons = [(lesson[0], lesson[1], lesson[2]) for lesson in state["lessons"]]

    def _look(self, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Potential and probability of done (N,), NaN where nobody looks (``mask``; None: nowhere) or knows."""
        potential = torch.full_like(self._next, torch.nan)
        done = potential.clone()
        if self._eyes is None:
            c = self._env.channels
            return c["progress"].clone(), c["done"].clone()
        if mask is not None and bool(mask.any()):
            ids = torch.nonzero(mask).flatten()
            value, over = self._eyes.judge(ids, mask)
            potential[ids], done[ids] = value.values.to(potential), over.values.to(done)
        return potential, done

    def _first_look(self, mask: torch.Tensor) -> torch.Tensor:
        """Potential (N,) of the worlds ``mask``, whose episodes begin; NaN elsewhere."""
        if self._eyes is None:
            return self._env.channels["progress"].clone()
        potential = torch.full_like(self._next, torch.nan)
        if bool(mask.any()):
            ids = torch.nonzero(mask).flatten()
            potential[ids] = self._eyes.begin(ids, mask).values.to(potential)
        return potential

    def _note(self, obs: torch.Tensor, potential: torch.Tensor, done: torch.Tensor) -> None:
        """Keep the answers to learn from, and learn now and then."""
        assert self._student is not None
        known = torch.isfinite(potential) & torch.isfinite(done)
        if bool(known.any()):
            self._lessons.append((obs[known].clone(), potential[known], done[known]))
        if self._calls % LESSON == 0 and self._lessons:
            self._student.learn(*(torch.cat(parts) for parts in zip(*self._lessons, strict=True)))
            self._lessons = []

    def _believed(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The distilled potential and done (N,); NaN as long as the student is not reliable."""
        assert self._student is not None
        if not self._student.reliable:
            nothing = torch.full_like(self._next, torch.nan)
            return nothing, nothing
        return self._student.read(obs)

    def _report(self, step: Step, summary: Mapping[str, float]) -> None:
        """Add what the critic did to what the step reports."""
        step.log.update({name: value for name, value in summary.items() if name.startswith("critic/")})
        if self._student is not None:
            for name in ("correlation", "error"):
                value = getattr(self._student, name)
                if value == value:
                    step.log[f"critic/student_{name}"] = value
        if self.settings.stage.success == "critic" and step.episodes:
            said, true = self._stop[step.final_ids], self._true[step.final_ids]
            step.episodes["critic_done"] = said.float()
            step.episodes["false_done"] = (said & ~true).float()


LESSON = 16
"""Control steps between lessons of the distilled network."""
_KEPT = ("_potential", "_next", "_start", "_guess", "_next_guess", "_start_guess", "_said", "_stop", "_true")


class Eyes:
    """A critic's cameras in the worlds, and what it saw when each episode began.

    Args:
        env: the worlds.
        critic: it must judge progress and success from the pictures so far.
        confidence: answers below it are invalid.
    """

    def __init__(self, env: Env, critic: Critic, confidence: float) -> None:
        critic.require_online()
        critic.require(Capability.VALUE, Capability.DONE)
        height, width = critic.picture or (64, 64)
        self._env, self._critic, self._confidence = env, critic, confidence
        self._names = critic.cameras or ("front", "wrist")
        self._cameras = BatchCameras(env.world, self._names, height, width)
        shape = (env.num_envs, len(self._names), height, width, 3)
        self._first = torch.zeros(shape, dtype=torch.uint8, device=env.device)

    def begin(self, ids: torch.Tensor, mask: torch.Tensor) -> Answer:
        """Episodes have begun in the worlds ``ids`` (K,), which ``mask`` (N,) marks: remember how they look, and judge
        their progress."""
        rgb = self._cameras.refresh(mask).rgb
        assert rgb is not None
        self._first[ids] = rgb[ids]
        first = self._frames(self._first, ids)
        return self._critic.value(first, first, self._asked(ids)).sure(self._confidence)

    def judge(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[Answer, Answer]:
        """Progress and done of the worlds ``ids`` (K,), which ``mask`` (N,) marks."""
        rgb = self._cameras.refresh(mask).rgb
        assert rgb is not None
        now, first = self._frames(rgb, ids, moved=True), self._frames(self._first, ids)
        value, done = self._critic.value_and_done(now, first, self._asked(ids))
        return value.sure(self._confidence), done.sure(self._confidence)

    def _frames(self, rgb: torch.Tensor, ids: torch.Tensor, moved: bool = False) -> Frames:
        """Pictures of some worlds, stamped with the time since the start of their episodes."""
        seconds = self._env.episode_steps[ids].double() * self._env.step_dt * moved
        return Frames.now(rgb[ids], self._names, seconds)

    def _asked(self, ids: torch.Tensor) -> list[str]:
        asked = self._env.instructions()
        return [asked[i] for i in ids.tolist()]

    def close(self) -> None:
        """Free the cameras."""
        self._cameras.close()

    def state_dict(self) -> dict[str, Any]:
        """The first pictures of the episodes that go on."""
        return {"first": self._first.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._first.copy_(state["first"])


def open_critic(settings: RewardSettings, task: str) -> tuple[Critic | None, RewardSettings]:
    """The critic that the settings name, and the settings with its place and, where it was forced, the marks.

    Raises:
        CriticError: there is none, or it has no passed card and is not forced.
    """
    name = settings.critic
    assert name is not None
    if name == TRUTH:
        return None, settings
    from vlm_rewards.card import require_card
    from vlm_rewards.registry import BASELINES, DESCRIPTION, load_critic

    if name == AUTO:
        folder = critic_folder(task)
        if not (folder / DESCRIPTION).is_file():
            raise CriticError(
                f"there is no critic for {task} in {folder}; make one with: robolearn critic train critic=process "
                f"task={task}, judge it with: robolearn critic card critic={folder} task={task}, "
                "or name another one with reward.critic=<folder>"
            )
        name = str(folder.resolve())
    critic = load_critic(name)
    if name in BASELINES:  # controls: they are there to fail
        return critic, settings
    mark = require_card(name, force=settings.force, critic=critic)
    return critic, replace(settings, critic=name, marks=list(mark.failures))
