"""Where the clips of a tracking task come from: a folder of recordings, or the generator."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from robolearn.errors import RobolearnError, unknown
from sim.objects import list_objects
from sim.references.check import missing_frames
from sim.references.format import Reference, load_folder
from sim.references.generate import Noise, generate
from sim.references.repair import repair
from sim.references.retarget import retarget
from sim.robots import Robot

log = logging.getLogger(__name__)

HOLD_OUT = 5
"""Of recordings that name no split, one in this many is held out."""

SPLITS = ("train", "heldout", "heldout_objects")


class ClipError(RobolearnError):
    """A choice of clips that cannot be served."""


@dataclass
class ClipConfig:
    """Which clips a task tracks.

    Attributes:
        folder: folder of ``.npz`` references; empty: generate them. Clips that name no split are shared out: every
            fifth is held out.
        kind: kind of generated clips.
        clips: generated clips to train on.
        heldout_clips: generated clips in each held-out split.
        seed: of the generator; held-out splits use other streams of it.
        noise: scale of the generator's noise on the hand's reference; 1 is 5 mm, 0.04 rad wrist, 0.08 rad fingers.
        objects: names of objects of the train and heldout splits; empty: all training objects. The split
            ``heldout_objects`` has objects of its own.
    """

    folder: str = ""
    kind: str = "grasp_lift"
    clips: int = 320
    heldout_clips: int = 96
    seed: int = 0
    noise: float = 1.0
    objects: list[str] = field(default_factory=list)


def clips_for(config: ClipConfig, robot: Robot, split: str, rate_hz: float) -> list[Reference]:
    """The clips of one split, at ``rate_hz`` and for ``robot``.

    Raises:
        ClipError: an unknown split, or fewer than one clip; ReferenceError and others name their own.
    """
    if split not in SPLITS:
        raise ClipError(unknown("split", split, SPLITS))
    if config.folder:
        return [prepare(clip, robot, rate_hz) for clip in _recorded(config.folder, split)]
    count = config.clips if split == "train" else config.heldout_clips
    if count < 1:
        raise ClipError(f"number of {split} clips must be at least 1, got {count}")
    if split == "heldout_objects":
        names = tuple(list_objects(split="heldout"))
    else:
        names = tuple(config.objects) or tuple(list_objects(split="train"))
    stream = "train" if split == "train" else "heldout"
    return list(_generated(names, count, config.seed, config.kind, robot, rate_hz, config.noise, stream))


def prepare(clip: Reference, robot: Robot, rate_hz: float) -> Reference:
    """A recording made ready to track: on a table at z = 0, at ``rate_hz``, gaps filled, moved by ``robot``'s joints.

    What was repaired, and how well a human hand could be retargeted, is logged.

    Raises:
        ReferenceError, RepairError, RetargetError: naming what cannot be repaired or retargeted.
    """
    clip = _on_table(clip)
    if abs(clip.rate_hz - rate_hz) > 1e-6 or missing_frames(clip).any():
        clip, repairs = repair(clip, rate_hz)
        log.info("clip %s: %s", clip.name, repairs)
    if clip.joint_pos is None:
        clip, residual = retarget(clip, robot)
        log.info("clip %s: %s", clip.name, residual)
    return clip


def _on_table(clip: Reference) -> Reference:
    """The clip moved vertically so that its table, where it names one, is at z = 0."""
    if not clip.table_height:
        return clip
    down = np.array([0.0, 0.0, clip.table_height])
    shift = np.concatenate([down, np.zeros(4)])
    keypoints = None if clip.keypoints is None else clip.keypoints - down
    moved = {"wrist_pose": clip.wrist_pose - shift, "object_pose": clip.object_pose - shift, "keypoints": keypoints}
    return replace(clip, table_height=0.0, **moved)


def _recorded(folder: str, split: str) -> list[Reference]:
    clips = load_folder(folder)
    if any(clip.split for clip in clips):
        chosen = [clip for clip in clips if clip.split == split]
    elif split == "train":
        chosen = [clip for k, clip in enumerate(clips) if k % HOLD_OUT != HOLD_OUT - 1]
    else:
        chosen = clips[HOLD_OUT - 1 :: HOLD_OUT] if split == "heldout" else []
    if not chosen:
        splits = ", ".join(sorted({clip.split or "none" for clip in clips}))
        raise ClipError(
            f"folder {folder} has no clips of split {split!r}: its {len(clips)} clips name: {splits} "
            f"(where none is named, every {HOLD_OUT}th is held out)"
        )
    return chosen


@lru_cache(maxsize=8)
def _generated(
    objects: tuple[str, ...],
    clips: int,
    seed: int,
    kind: str,
    robot: Robot,
    rate_hz: float,
    noise: float,
    split: str,
) -> tuple[Reference, ...]:
    """Generated clips; kept, since an evaluation makes several environments of the same ones."""
    made = generate(objects, clips, seed, kind, robot, rate_hz, _scaled(noise), split)
    return tuple(made)


def _scaled(factor: float) -> Noise:
    if factor < 0:
        raise ClipError(f"noise must be at least 0, got {factor}")
    base = Noise()
    return replace(base, **{name: factor * getattr(base, name) for name in ("wrist_pos", "wrist_rot", "fingers")})
