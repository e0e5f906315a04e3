"""Zero-shot text score: how much a picture looks like what a text says, by a pretrained CLIP or SigLIP.

VLM-RM (Rocamonde et al., "Vision-Language Models are Zero-Shot Reward Models for Reinforcement Learning", 2023,
https://arxiv.org/abs/2310.12921): the picture's embedding is moved towards the line from a baseline prompt, which
describes the scene without the task, to the goal prompt, so that what has nothing to do with the task counts less.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from robolearn.files import json_line
from vlm_rewards.critic import Capability, Critic, Judged
from vlm_rewards.dual_encoder import DualEncoder
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.models import local_model, revision_of
from vlm_rewards.settings import settings_of

_LEAST = 1e-6
"""Goal and baseline whose embeddings are nearer than this make no line."""


def goal_baseline_score(image: torch.Tensor, goal: torch.Tensor, baseline: torch.Tensor, alpha: float) -> torch.Tensor:
    """r = 1 - ½‖(s - g) P‖² with P = α d dᵀ / ‖d‖² + (1 - α) I and d = g - b (VLM-RM, definition 1,
    goal-baseline regularisation).

    With α = 0 and one prompt, r is the cosine of picture and goal; with α = 1 it depends on the picture's place along
    the line from baseline to goal only, and is NaN where these are the same.

    Args:
        image: s, (..., D) unit vectors.
        goal: g, (..., D), the mean of unit vectors, not normalised again.
        baseline: b, like ``goal``.
        alpha: α in [0, 1].

    Returns:
        (...).
    """
    rest = image - goal
    if alpha == 0.0:
        return 1.0 - 0.5 * rest.square().sum(-1)
    direction = goal - baseline
    # ‖α (x·u) u + (1 - α) x‖² for the unit vector u along d, without writing P down.
    along = (rest * direction).sum(-1).square() / direction.square().sum(-1)
    return 1.0 - 0.5 * ((1.0 - alpha) ** 2 * rest.square().sum(-1) + alpha * (2.0 - alpha) * along)


@dataclass(frozen=True)
class ZeroShotSettings:
    """Settings of a zero-shot critic.

    Raises:
        CriticError: one that cannot be.
    """

    baseline: str | Sequence[str] = "a robot arm at a table"
    """What the camera sees whatever the robot does; of several prompts, the mean."""
    goals: str | Sequence[str] = "{}"
    """Goal prompts; {} is where the instruction goes; of several, the mean."""
    alpha: float = 0.5
    """Strength of the projection on the line from baseline to goal, 0 to 1."""
    camera: str | None = None
    """The view that is judged; null: the mean score of all views."""
    batch_size: int = 64
    """Pictures embedded at once."""
    device: str = "cpu"
    """Where the model is."""
    dtype: str = "float32"
    """float32, bfloat16 or float16."""
    success_score: float | None = None
    """Score at which success is as likely as not, found on validation; null: the critic does not say what is done."""
    scale: float | None = None
    """Log odds per unit of score; null: the model's own logit scale."""
    download: bool = False
    """Fetch the model if it is not on this machine."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise CriticError(f"alpha is from 0 (no projection) to 1, got {self.alpha}")
        if self.batch_size < 1:
            raise CriticError(f"batch_size is at least 1, got {self.batch_size}")
        if self.scale is not None and not self.scale > 0:
            raise CriticError(f"scale is positive, got {self.scale}")
        if not self.baselines or not all(prompt.strip() for prompt in self.baselines):
            raise CriticError("baseline is a text such as 'a robot arm at a table', or several; got an empty one")
        wrong = [template for template in self.templates if "{}" not in template]
        if wrong or not self.templates:
            raise CriticError(f"goals are templates with {{}} where the instruction goes; got {wrong or 'none'}")

    @property
    def baselines(self) -> list[str]:
        """Baseline prompts."""
        return [self.baseline] if isinstance(self.baseline, str) else [str(prompt) for prompt in self.baseline]

    @property
    def templates(self) -> list[str]:
        """Templates of goal prompts."""
        return [self.goals] if isinstance(self.goals, str) else [str(template) for template in self.goals]


class ZeroShotCritic(Critic):
    """Judges each moment by its newest pictures alone.

    SCORE is `goal_baseline_score`, at most 1, the mean over views.

    PREFER is the logistic function of the score difference times ``scale``. With one view, α = 0 and one goal prompt
    that is exactly the model's own probability that the text belongs to the second picture, given that it belongs to
    one of the two: exp(scale · cosine) are the weights of CLIP's softmax over pictures, and odds of SigLIP's sigmoids.
    Otherwise only its side of ½ means something, until ``scale`` is fitted.

    DONE, where ``success_score`` is given, is the logistic function of (score - success_score) · scale: Platt scaling
    (Platt, 1999), whose two numbers are to be fitted on validation data.
    """

    def __init__(self, encoder: DualEncoder, settings: ZeroShotSettings, name: str, revision: str) -> None:
        self.name = name
        self.revision = f"{revision[:12]}-{_decisive(settings)}"
        self.capabilities = frozenset({Capability.SCORE, Capability.PREFER})
        if settings.success_score is not None:
            self.capabilities |= {Capability.DONE}
        self.cameras = () if settings.camera is None else (settings.camera,)
        self.scale = encoder.scale if settings.scale is None else settings.scale
        self._encoder, self._settings = encoder, settings
        self._threshold = float("nan") if settings.success_score is None else settings.success_score
        self._baseline = encoder.texts(settings.baselines).mean(0)

    def _score(self, now: Frames, instructions: list[str]) -> Judged:
        goals, vague = self._goals(instructions)
        score = self._compared(now, goals)
        reasons = ["goal and baseline mean the same to the model" if bad else "" for bad in vague]
        return Judged(score, reasons=reasons)

    def _prefer(self, first: Frames, second: Frames, instructions: list[str]) -> Judged:
        before, after = self._score(first, instructions), self._score(second, instructions)
        return Judged(torch.sigmoid((after.values - before.values) * self.scale), reasons=before.reasons)

    def _done(self, now: Frames, instructions: list[str]) -> Judged:
        score = self._score(now, instructions)
        return Judged(torch.sigmoid((score.values - self._threshold) * self.scale), reasons=score.reasons)

    def _goals(self, instructions: list[str]) -> tuple[torch.Tensor, list[bool]]:
        """Goal embeddings (B, D), and for each of them whether it makes no line with the baseline."""
        distinct = list(dict.fromkeys(instructions))
        rows = [
            self._encoder.texts([template.replace("{}", text) for template in self._settings.templates]).mean(0)
            for text in distinct
        ]
        which = [distinct.index(text) for text in instructions]
        goals = torch.stack(rows)
        vague = ((goals - self._baseline).norm(dim=-1) < _LEAST).tolist()
        return goals[which], [bool(vague[i]) and self._settings.alpha > 0.0 for i in which]

    def _compared(self, now: Frames, goals: torch.Tensor) -> torch.Tensor:
        """(B,) scores, the mean over views."""
        pictures = now.newest
        seen = self._encoder.images(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])
        return goal_baseline_score(seen, goals.unsqueeze(1), self._baseline, self._settings.alpha).mean(1)


def load(what: str | Path, **settings: Any) -> ZeroShotCritic:
    """A zero-shot critic from a CLIP or SigLIP model.

    Args:
        what: a folder or model id, see `vlm_rewards.models.local_model`.
        settings: of `ZeroShotSettings`.

    Raises:
        CriticError: the model is not there or damaged, or a setting is unknown or cannot be.
    """
    made: ZeroShotSettings = settings_of(ZeroShotSettings, settings, "zero-shot critic")
    folder = local_model(what, made.download)
    encoder = DualEncoder.load(folder, made.device, made.dtype, made.batch_size)
    return ZeroShotCritic(encoder, made, f"zero_shot:{what}", revision_of(folder))


def _decisive(settings: ZeroShotSettings) -> str:
    """Of the settings that change answers."""
    without = ("batch_size", "device", "download")
    said = {name: value for name, value in asdict(settings).items() if name not in without}
    said |= {"baseline": settings.baselines, "goals": settings.templates}
    return hashlib.sha256(json_line(said).encode()).hexdigest()[:8]
