"""Settings of the reward of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from robolearn.errors import RobolearnError
from vlm_rewards.reward_config import RewardConfig

TRUTH = "truth"
"""The simulator's own progress and success, in place of a critic's."""
AUTO = "auto"
"""The critic that `robolearn critic train` made for the task."""


class CriticRewardError(RobolearnError):
    """A critic that cannot reward this task, or settings that make no sense together."""


@dataclass
class RewardSettings:
    """Where the reward of a training run comes from.

    Raises:
        CriticRewardError: a value outside its range, or settings that contradict each other.
    """

    name: str = "task"
    """The preset."""
    critic: str | None = None
    """A critic's folder, model or address; auto: the one made for the task; truth: the simulator's own progress and
    success; null: the task's own reward, untouched."""
    force: bool = False
    """Take a critic without a passed card; the run is marked."""
    every: int = 1
    """Control steps between pictures."""
    share: float = 1.0
    """Share of the worlds that are filmed."""
    distill: bool = False
    """Let a small network learn the critic's answers from the state: it speaks for the critic's potential
    (stage.fallback=distilled) once it is reliable, and says where to ask the critic for its done."""
    rehearsal: int = 0
    """With ``distill``: answers about the task's scripts, experts and failures, that this network learns from before
    the policy begins; beside the budget."""
    cameras: list[str] | None = None
    """For a critic that takes any views: which ones; null: all that the task has."""
    size: int = 64
    """For a critic that takes any pictures: their height and width, pixels."""
    goal: float | None = None
    """For a critic that only scores: the score of an instruction that is carried out."""
    confidence: float = 0.0
    """Answers below this confidence are invalid."""
    threshold: float | None = None
    """Probability from which on a moment counts as done; null: the critic's operating point."""
    debounce: int | None = None
    """Answers in a row that must say done; null: the critic's operating point."""
    stage: RewardConfig = field(default_factory=RewardConfig)
    """How answers become rewards."""
    revision: str = ""
    """Filled in by the program: the critic's; a run goes on with no other."""
    marks: list[str] = field(default_factory=list)
    """Filled in by the program: why the critic should not have been used, where it was forced."""

    def __post_init__(self) -> None:
        if isinstance(self.stage, Mapping):
            self.stage = RewardConfig.from_dict(self.stage)
        for name, good, rule in (
            ("every", self.every >= 1, "1 or more control steps"),
            ("share", 0.0 < self.share <= 1.0, "greater than 0 and at most 1"),
            ("rehearsal", self.rehearsal >= 0, "0 or more answers"),
            ("rehearsal", self.distill or not self.rehearsal, "0 without reward.distill=true"),
            ("size", self.size >= 1, "1 pixel or more"),
            ("cameras", self.cameras is None or len(self.cameras) > 0, "one camera or more, or null"),
            ("confidence", 0.0 <= self.confidence <= 1.0, "between 0 and 1"),
            ("threshold", self.threshold is None or 0.0 < self.threshold <= 1.0, "greater than 0 and at most 1"),
            ("debounce", self.debounce is None or self.debounce >= 1, "1 or more answers"),
        ):
            if not good:
                raise CriticRewardError(f"reward.{name} must be {rule}, got {getattr(self, name)!r}")
        self._check_fallback()

    def _check_fallback(self) -> None:
        fallback = self.stage.fallback
        if fallback == "distilled" and not self.distill:
            raise CriticRewardError("reward.stage.fallback=distilled needs reward.distill=true")
        if self.distill and fallback == "drop":
            raise CriticRewardError("reward.stage.fallback=drop and reward.distill=true contradict each other")
        if self.distill:
            self.stage = replace(self.stage, fallback="distilled")

    @property
    def judges(self) -> bool:
        """Whether anything but the task's own reward is used."""
        return self.critic is not None


def critic_folder(task: str, kind: str = "process") -> Path:
    """Where `robolearn critic train` puts a critic, if nothing else is said."""
    return Path("critics") / f"{task}-{kind}"
