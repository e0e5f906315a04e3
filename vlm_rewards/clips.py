"""Recorded episodes to train and judge critics on, packed frame by frame."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from robolearn.files import write_atomic
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames

_DESCRIPTION = "clips.json"
_ARRAYS = ("rgb", "times", "progress", "done", "starts")
_FORMAT = 1


LAST_TENTH = 0.9
"""Share of an episode after which a time-labelled one counts as done."""


@dataclass(frozen=True)
class Clip:
    """One episode of T frames by V cameras.

    Attributes:
        rgb: (T, V, H, W, 3) uint8.
        cameras: names of the V cameras.
        times: (T,) float64, s.
        instruction: what the robot was asked to do.
        progress: (T,) float32 in [0, 1], exact; NaN where nobody knows.
        done: (T,) bool: the instruction is carried out in this frame.
        mode: how the episode was made: ``expert``, or the name of a failure such as ``miss``.
        others: instructions for the same scene that the episode does not carry out, for swapped prompts.
        facts: name → (T, d) float32: more that a simulation knows, such as ``proprioception``, or where the
            instructed object is in each picture.
    """

    rgb: torch.Tensor
    cameras: tuple[str, ...]
    times: torch.Tensor
    instruction: str
    progress: torch.Tensor
    done: torch.Tensor
    mode: str = "expert"
    others: tuple[str, ...] = ()
    facts: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        """T."""
        return int(self.rgb.shape[0])

    @property
    def success(self) -> bool:
        """Whether the instruction is carried out in the last frame."""
        return bool(self.done[-1])

    def frames(self) -> Frames:
        """Each frame as a moment, without history."""
        return Frames.now(self.rgb, self.cameras, self.times)


class ClipSet:
    """E episodes packed into one tensor each, F frames in all; indexing gives a `Clip` that shares their memory.

    Attributes:
        rgb: (F, V, H, W, 3) uint8.
        cameras: names of the V cameras.
        times, progress, done: (F,).
        starts: (E + 1,) int64; episode e has the frames ``starts[e]`` to ``starts[e + 1]`` (exclusive).
        instructions, modes, others: (E,).
        facts: name → (F, d) float32.

    Raises:
        CriticError: no clips, one of other cameras or size than the first, or one whose parts do not fit together.
    """

    def __init__(self, clips: Sequence[Clip]) -> None:
        if not clips:
            raise CriticError("a set of clips needs at least one")
        first = clips[0]
        for clip in clips:
            _require_whole(clip)
            if clip.cameras != first.cameras or clip.rgb.shape[1:] != first.rgb.shape[1:]:
                raise CriticError(
                    f"clips of cameras {clip.cameras} and size {tuple(clip.rgb.shape[2:4])} do not go with those of "
                    f"{first.cameras} and {tuple(first.rgb.shape[2:4])}"
                )
        self.cameras = first.cameras
        self.rgb = torch.cat([clip.rgb for clip in clips])
        self.times = torch.cat([clip.times.double() for clip in clips])
        self.progress = torch.cat([clip.progress.float() for clip in clips])
        self.done = torch.cat([clip.done.bool() for clip in clips])
        self.starts = torch.tensor([0, *(len(clip) for clip in clips)]).cumsum(0)
        self.instructions = [clip.instruction for clip in clips]
        self.modes = [clip.mode for clip in clips]
        self.others = [tuple(clip.others) for clip in clips]
        names = [name for name in first.facts if all(name in clip.facts for clip in clips)]
        self.facts = {name: torch.cat([clip.facts[name].float() for clip in clips]) for name in names}

    def __len__(self) -> int:
        """E."""
        return len(self.instructions)

    @property
    def num_frames(self) -> int:
        """F."""
        return int(self.rgb.shape[0])

    def __getitem__(self, e: int) -> Clip:
        e = range(len(self))[e]
        rows = slice(int(self.starts[e]), int(self.starts[e + 1]))
        facts = {name: value[rows] for name, value in self.facts.items()}
        return Clip(
            self.rgb[rows],
            self.cameras,
            self.times[rows],
            self.instructions[e],
            self.progress[rows],
            self.done[rows],
            self.modes[e],
            self.others[e],
            facts,
        )

    def episode(self) -> torch.Tensor:
        """(F,) int64, which episode each frame belongs to."""
        return torch.repeat_interleave(torch.arange(len(self)), self.starts.diff())

    def subset(self, episodes: Sequence[int]) -> ClipSet:
        """Some of the episodes, copied."""
        return ClipSet([self[e] for e in episodes])

    def of_mode(self, *modes: str) -> list[int]:
        """Episodes made in one of ``modes``."""
        return [e for e, mode in enumerate(self.modes) if mode in modes]

    def save(self, folder: Path) -> None:
        """Write plain NumPy arrays and one JSON file; that comes last, so that a folder which has it is whole."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _DESCRIPTION).unlink(missing_ok=True)
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name).numpy())
        for name, value in self.facts.items():
            np.save(folder / f"fact_{name}.npy", value.numpy())
        described = {
            "format": _FORMAT,
            "cameras": list(self.cameras),
            "facts": sorted(self.facts),
            "episodes": [
                {"instruction": i, "mode": m, "others": list(o)}
                for i, m, o in zip(self.instructions, self.modes, self.others, strict=True)
            ],
        }
        write_atomic(folder / _DESCRIPTION, json.dumps(described, indent=1).encode())

    @classmethod
    def load(cls, folder: Path) -> ClipSet:
        """Read what `save` wrote; frames stay on disk until they are used.

        Raises:
            CriticError: there is no set of clips, or it is damaged.
        """
        try:
            described = json.loads((folder / _DESCRIPTION).read_text())
            if described["format"] != _FORMAT:
                raise CriticError(f"{folder} holds clips of format {described['format']}, this version reads {_FORMAT}")
            made = cls.__new__(cls)
            for name in _ARRAYS:
                array = np.load(folder / f"{name}.npy", mmap_mode="c" if name == "rgb" else None, allow_pickle=False)
                setattr(made, name, torch.from_numpy(array))
            made.cameras = tuple(described["cameras"])
            made.instructions = [str(e["instruction"]) for e in described["episodes"]]
            made.modes = [str(e["mode"]) for e in described["episodes"]]
            made.others = [tuple(e["others"]) for e in described["episodes"]]
            made.facts = {
                name: torch.from_numpy(np.load(folder / f"fact_{name}.npy", allow_pickle=False))
                for name in described["facts"]
            }
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise CriticError(f"{folder} holds no set of clips that can be read: {reason}") from error
        made._require_whole(folder)
        return made

    def _require_whole(self, folder: Path) -> None:
        """Raise unless the arrays read from ``folder`` fit together."""
        count = self.num_frames
        lengths = {name: len(getattr(self, name)) for name in ("times", "progress", "done")}
        lengths |= {name: len(value) for name, value in self.facts.items()}
        wrong = [f"{name} has {length} rows for {count} frames" for name, length in lengths.items() if length != count]
        if self.rgb.ndim != 5 or self.rgb.dtype != torch.uint8 or self.rgb.shape[1] != len(self.cameras):
            wrong.append(f"rgb is {tuple(self.rgb.shape)} {self.rgb.dtype} for cameras {', '.join(self.cameras)}")
        starts = self.starts.tolist()
        if len(starts) != len(self) + 1 or starts != sorted(set(starts)) or (starts[0], starts[-1]) != (0, count):
            wrong.append(f"starts do not cut {count} frames into {len(self)} episodes")
        if wrong:
            raise CriticError(f"{folder} holds a damaged set of clips: {'; '.join(wrong)}")


def time_labelled(clips: ClipSet) -> ClipSet:
    """Successes as recordings that nobody labelled: progress is the time, done is its last tenth, facts there are none.

    Progress of frame t of T is t / (T - 1), as of time-labelled progress models (ReWiND, arXiv 2505.10911).
    """
    made = []
    for clip in (clips[e] for e in range(len(clips))):
        share = torch.linspace(0.0, 1.0, len(clip))
        made.append(replace(clip, progress=share, done=share >= LAST_TENTH, facts={}))
    return ClipSet(made)


def _require_whole(clip: Clip) -> None:
    """Raise unless what a clip says of each frame is there for each frame."""
    if clip.rgb.ndim != 5 or clip.rgb.dtype != torch.uint8 or clip.rgb.shape[1] != len(clip.cameras) or not len(clip):
        raise CriticError(
            f"a clip is (frames, cameras, height, width, 3) uint8 of at least one frame, "
            f"got {tuple(clip.rgb.shape)} {clip.rgb.dtype} of cameras {', '.join(clip.cameras)}"
        )
    parts = {"times": clip.times, "progress": clip.progress, "done": clip.done, **clip.facts}
    for name, value in parts.items():
        if len(value) != len(clip):
            raise CriticError(f"a clip of {len(clip)} frames came with {len(value)} rows of {name}")
