"""Where the clips of a tracking task come from: a folder of recordings, or the generator."""

from __future__ import annotations

from dataclasses import dataclass, replace

from robolearn.errors import RobolearnError, unknown
from sim.objects import list_objects
from sim.references.format import Reference, load_folder
from sim.references.generate import Noise, generate
from sim.robots import Robot

SPLITS = ("train", "heldout", "heldout_objects")


class ClipError(RobolearnError):
    """A choice of clips that cannot be served."""


@dataclass
class ClipConfig:
    """Which clips a task tracks.

    Attributes:
        folder: folder of ``.npz`` references; empty: generate them.
        kind: kind of generated clips.
        clips: generated clips in each split.
        seed: of the generator; held-out splits use other streams of it.
        noise: scale of the generator's noise on the hand's reference; 1 is 5 mm, 0.04 rad wrist, 0.08 rad fingers.
        objects: names of objects to use; empty: the split's own.
    """

    folder: str = ""
    kind: str = "grasp_lift"
    clips: int = 48
    seed: int = 0
    noise: float = 1.0
    objects: tuple[str, ...] = ()


def clips_for(config: ClipConfig, robot: Robot, split: str, rate_hz: float) -> list[Reference]:
    """The clips of one split, at ``rate_hz`` and for ``robot``.

    Raises:
        ClipError: an unknown split, or fewer than one clip; ReferenceError and others name their own.
    """
    if split not in SPLITS:
        raise ClipError(unknown("split", split, SPLITS))
    if config.folder:
        return load_folder(config.folder, split)
    if config.clips < 1:
        raise ClipError(f"number of clips must be at least 1, got {config.clips}")
    names = list(config.objects) or list_objects(split="heldout" if split == "heldout_objects" else "train")
    return generate(
        objects=names,
        clips=config.clips,
        seed=config.seed,
        kind=config.kind,
        robot=robot,
        rate_hz=rate_hz,
        noise=_scaled(config.noise),
        split="train" if split == "train" else "heldout",
    )


def _scaled(factor: float) -> Noise:
    if factor < 0:
        raise ClipError(f"noise must be at least 0, got {factor}")
    base = Noise()
    return replace(base, **{name: factor * getattr(base, name) for name in ("wrist_pos", "wrist_rot", "fingers")})
