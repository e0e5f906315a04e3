"""A recording with known progress that a model is shown before it is asked about another: one-shot, in context.

VLAC (arXiv 2509.15937) shows up to 11 frames of one demonstration with their percentages, and the first frame of the
judged episode; it reports that this raises rank correlation with time on robots that the model was not trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlm_rewards.clips import Clip, ClipSet
from vlm_rewards.errors import CriticError

MOST = 11


@dataclass(frozen=True)
class Reference:
    """K moments of one recording by V cameras.

    Attributes:
        rgb: (K, V, H, W, 3) uint8, the first moment first.
        percent: (K,) float32, how much of the task is done.
        cameras: names of the V cameras.
        instruction: what the robot was asked to do.
    """

    rgb: torch.Tensor
    percent: torch.Tensor
    cameras: tuple[str, ...]
    instruction: str

    @classmethod
    def read(cls, given: Any, views: Sequence[str] | None, most: int = MOST) -> Reference | None:
        """A reference from what a user names.

        Args:
            given: a `Clip`; the folder of a `ClipSet`, of which the first expert's success is taken; pairs of a picture
                ((V, H, W, 3) or (H, W, 3) uint8) and a percentage; or None for no reference.
            views: the cameras to show, in this order; all where None.
            most: of the frames, at most so many are shown, evenly spread, the first and the last among them.

        Raises:
            CriticError: it cannot be read, lacks a camera, or does not show the task done.
        """
        if given is None:
            return None
        if isinstance(given, (str, Path)):
            given = _demonstration(Path(given))
        if isinstance(given, Clip):
            if not given.success:
                raise CriticError("a reference is a recording of success, but the clip's last frame is not done")
            return _seen_by(_of_clip(given, most), views)
        if isinstance(given, Sequence) and given:
            return _of_pairs(given, views, most)
        raise CriticError(
            f"reference is a clip, the folder of a set of clips, or pairs of picture and percentage, got {given!r:.80}"
        )


def _demonstration(folder: Path) -> Clip:
    clips = ClipSet.load(folder)
    found = [clips[e] for e in clips.of_mode("expert") if clips[e].success]
    if not found:
        raise CriticError(f"the clips in {folder} hold no expert that succeeds; a reference is one")
    return found[0]


def _of_clip(clip: Clip, most: int) -> Reference:
    """Frames of a clip; where its progress is unknown, the share of its time stands in, as in VLAC's labels."""
    rows = _spread(len(clip), most)
    known = bool(torch.isfinite(clip.progress).all())
    share = clip.progress if known else torch.linspace(0.0, 1.0, len(clip))
    return Reference(clip.rgb[rows], 100.0 * share[rows].float(), clip.cameras, clip.instruction)


def _of_pairs(pairs: Sequence[Any], views: Sequence[str] | None, most: int) -> Reference:
    if views is None:
        raise CriticError("a reference of single pictures needs views=[...], the cameras that made them")
    try:
        pictures = [torch.as_tensor(picture) for picture, _ in pairs]
        percent = torch.tensor([float(percentage) for _, percentage in pairs])
        rgb = torch.stack([picture if picture.ndim == 4 else picture.unsqueeze(0) for picture in pictures])
    except (TypeError, ValueError, RuntimeError) as error:
        raise CriticError(f"a reference's pairs of picture and percentage cannot be read: {error}") from error
    if rgb.ndim != 5 or rgb.dtype != torch.uint8 or rgb.shape[1] != len(views) or rgb.shape[-1] != 3:
        raise CriticError(
            f"a reference's pictures are ({len(views)} cameras, height, width, 3) uint8, "
            f"got {tuple(rgb.shape[1:])} {str(rgb.dtype).removeprefix('torch.')}"
        )
    if not bool(((percent >= 0) & (percent <= 100)).all()):
        raise CriticError(f"a reference's percentages lie in [0, 100], got {percent.tolist()}")
    rows = _spread(len(pairs), most)
    return Reference(rgb[rows], percent[rows], tuple(views), "the same task")


def _spread(count: int, most: int) -> torch.Tensor:
    """At most ``most`` of ``count`` rows, evenly spread, both ends included."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()


def _seen_by(reference: Reference, views: Sequence[str] | None) -> Reference:
    if views is None:
        return reference
    missing = [name for name in views if name not in reference.cameras]
    if missing:
        raise CriticError(
            f"the reference lacks camera {', '.join(missing)}; it was seen by {', '.join(reference.cameras)}"
        )
    rows = [reference.cameras.index(name) for name in views]
    return Reference(reference.rgb[:, rows], reference.percent, tuple(views), reference.instruction)
