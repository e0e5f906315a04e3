"""Who judges the worlds of a training run: a critic through cameras, or the simulator's own truth."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Protocol

import torch

from robolearn.critic_settings import CriticRewardError, RewardSettings
from sim.camera import BatchCameras
from sim.env import Env
from vlm_rewards.answer import Answer
from vlm_rewards.critic import Capability, Critic
from vlm_rewards.frames import Frames
from vlm_rewards.potential import as_potential

log = logging.getLogger(__name__)

_TOLD = 5
"""Different reasons for missing answers that are told, at most."""


class Judge(Protocol):
    """Says how far N worlds have come. Potentials and probabilities are (N,), NaN where it was not asked, or does not
    know."""

    def begin(self, mask: torch.Tensor) -> torch.Tensor:
        """Episodes have begun in the worlds ``mask`` (N,) bool: their potential."""

    def look(self, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Potential, and probability of done, of the worlds ``mask`` (N,) bool as they stand."""

    def confirm(self, mask: torch.Tensor) -> torch.Tensor:
        """Probability of done alone, of the worlds ``mask`` (N,) bool, which may never have been looked at."""

    def report(self) -> dict[str, float]:
        """What it cost since the last report."""

    def close(self) -> None:
        """Free what has to be freed."""

    def state_dict(self) -> dict[str, Any]:
        """What a bit-exact continuation needs."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class Truth:
    """The channels ``progress`` and ``done`` of a task, as if a critic had answered."""

    def __init__(self, env: Env) -> None:
        self._env = env

    def begin(self, mask: torch.Tensor) -> torch.Tensor:
        """See `Judge`."""
        return self._env.channels["progress"].masked_fill(~mask, torch.nan)

    def look(self, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Judge`."""
        return self.begin(mask), self.confirm(mask)

    def confirm(self, mask: torch.Tensor) -> torch.Tensor:
        """See `Judge`."""
        return self._env.channels["done"].masked_fill(~mask, torch.nan)

    def report(self) -> dict[str, float]:
        """See `Judge`."""
        return {}

    def close(self) -> None:
        """See `Judge`."""

    def state_dict(self) -> dict[str, Any]:
        """See `Judge`."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Judge`."""


class Eyes:
    """A critic, its cameras in the worlds, and what they saw when each episode began.

    A critic with VALUE is asked for it, and for DONE in the same question; of another one `as_potential` makes a
    potential. Pictures go to the critic from the host's memory, wherever the worlds are.

    Args:
        env: the worlds.
        critic: it judges progress, if the stage's shaping needs that, and success, if that is the critic's to say.
        settings: see there.

    Raises:
        CriticError: a critic that needs the future, or cannot judge what is asked of it.
        CriticRewardError: one that was made for other cameras or for several pictures of a moment; no such cameras.
    """

    def __init__(self, env: Env, critic: Critic, settings: RewardSettings) -> None:
        critic.require_online()
        if critic.window.frames > 1:
            raise CriticRewardError(
                f"critic {critic.name!r} looks at {critic.window.frames} pictures of each moment; in training it would "
                "see one, which its critic card does not speak of"
            )
        self._needs_potential = settings.stage.uses_critic
        self._needs_done = settings.stage.success == "critic"
        self._values = Capability.VALUE in critic.capabilities
        self._dones = Capability.DONE in critic.capabilities
        if self._needs_done:
            critic.require(Capability.DONE)
        self._potential = None
        if self._needs_potential and not self._values:
            self._potential = as_potential(critic, online=True, goal=settings.goal)
        self._env, self._critic, self._confidence = env, critic, settings.confidence
        self._names = _cameras(env, critic, settings)
        height, width = critic.picture or (settings.size, settings.size)
        self._cameras = BatchCameras(env.world, self._names, height, width)
        shape = (env.num_envs, len(self._names), height, width, 3)
        self._first = torch.zeros(shape, dtype=torch.uint8)
        self._told: set[str] = set()
        self._asked, self._drawing_s, self._judging_s = 0, 0.0, 0.0

    def begin(self, mask: torch.Tensor) -> torch.Tensor:
        """See `Judge`; pictures are made for all of ``mask``, and kept."""
        if not bool(mask.any()):
            return self._nothing()
        ids, now = self._draw(mask)
        self._first[ids] = now.newest
        started, words = time.perf_counter(), self._instructions(ids)
        potential = None
        if self._potential is not None:
            potential = self._potential.begin(ids, now, words)
        elif self._needs_potential:
            potential = self._critic.value(now, now, words)
        self._judging_s += time.perf_counter() - started
        return self._spread(potential, ids)

    def look(self, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Judge`."""
        if not bool(mask.any()):
            return self._nothing(), self._nothing()
        ids, now = self._draw(mask)
        started, words = time.perf_counter(), self._instructions(ids)
        potential, done = self._judged(ids, now, words)
        self._judging_s += time.perf_counter() - started
        self._asked += len(ids)
        return self._spread(potential, ids), self._spread(done, ids)

    def confirm(self, mask: torch.Tensor) -> torch.Tensor:
        """See `Judge`."""
        if not bool(mask.any()):
            return self._nothing()
        ids, now = self._draw(mask)
        started, words = time.perf_counter(), self._instructions(ids)
        done = self._critic.done(now, words)
        self._judging_s += time.perf_counter() - started
        self._asked += len(ids)
        return self._spread(done, ids)

    def _judged(self, ids: torch.Tensor, now: Frames, words: list[str]) -> tuple[Answer | None, Answer | None]:
        """Potential and done of the worlds ``ids`` (K,)."""
        start = Frames.now(self._first[ids], self._names)
        if self._values and self._dones:
            return self._critic.value_and_done(now, start, words)
        potential = None
        if self._potential is not None:
            potential = self._potential.read(ids, now, words)
        elif self._needs_potential:
            potential = self._critic.value(now, start, words)
        return potential, self._critic.done(now, words) if self._needs_done else None

    def _draw(self, mask: torch.Tensor) -> tuple[torch.Tensor, Frames]:
        """Ids (K,) of the worlds ``mask``, and their pictures, stamped with the time since their episodes began."""
        started = time.perf_counter()
        rgb = self._cameras.refresh(mask).rgb
        assert rgb is not None
        ids = torch.nonzero(mask).flatten()
        seconds = self._env.episode_steps[ids].double() * self._env.step_dt
        now = Frames.now(rgb[ids].cpu(), self._names, seconds.cpu())
        self._drawing_s += time.perf_counter() - started
        return ids.cpu(), now

    def _instructions(self, ids: torch.Tensor) -> list[str]:
        asked = self._env.instructions()
        return [asked[i] for i in ids.tolist()]

    def _spread(self, answer: Answer | None, ids: torch.Tensor) -> torch.Tensor:
        """The answer about the worlds ``ids`` (K,) as (N,), NaN where it cannot be used or was not asked for."""
        values, device = self._nothing(), self._env.device
        if answer is None:
            return values
        self._tell(answer)
        values[ids.to(device)] = answer.sure(self._confidence).values.to(device)
        return values

    def _tell(self, answer: Answer) -> None:
        """Say why the critic does not answer, each reason once."""
        for reason in dict.fromkeys(answer.reasons):
            if reason and reason not in self._told and len(self._told) < _TOLD:
                self._told.add(reason)
                count = answer.reasons.count(reason)
                log.warning(
                    "critic %s has no answer about %d of %d moments: %s", self._critic.name, count, len(answer), reason
                )

    def _nothing(self) -> torch.Tensor:
        return torch.full((self._env.num_envs,), torch.nan, device=self._env.device)

    def report(self) -> dict[str, float]:
        """``critic/moments`` that it was asked about while episodes went on; ``time/pictures`` and ``time/critic``, s;
        ``time/critic_ms``, of a moment, pictures included."""
        asked, drawing, judging = self._asked, self._drawing_s, self._judging_s
        self._asked, self._drawing_s, self._judging_s = 0, 0.0, 0.0
        found = {"critic/moments": float(asked), "time/pictures": drawing, "time/critic": judging}
        return found | ({"time/critic_ms": 1e3 * (drawing + judging) / asked} if asked else {})

    def close(self) -> None:
        """Free the cameras."""
        self._cameras.close()

    def state_dict(self) -> dict[str, Any]:
        """The first pictures of the episodes that go on, and what the potential remembers."""
        remembered = None if self._potential is None else self._potential.state_dict()
        return {"first": self._first.clone(), "potential": remembered}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._first.copy_(state["first"])
        if self._potential is not None:
            self._potential.load_state_dict(state["potential"])


def _cameras(env: Env, critic: Critic, settings: RewardSettings) -> tuple[str, ...]:
    """The cameras that the critic looks through."""
    model = env.world.shards[0].physics.model
    there = [model.camera(i).name for i in range(model.ncam)]
    if settings.cameras is not None and critic.cameras and set(settings.cameras) != set(critic.cameras):
        raise CriticRewardError(
            f"critic {critic.name!r} was made for cameras {', '.join(critic.cameras)}, not for "
            f"reward.cameras={', '.join(settings.cameras)}"
        )
    wanted = critic.cameras or tuple(settings.cameras or there)
    if not there or not wanted:
        raise CriticRewardError(f"task {env.task.name!r} has no cameras for a critic to look through")
    if missing := [name for name in wanted if name not in there]:
        raise CriticRewardError(
            f"critic {critic.name!r} looks through cameras {', '.join(wanted)}; task {env.task.name!r} has no "
            f"{', '.join(missing)}; its cameras: {', '.join(there)}"
        )
    return wanted
