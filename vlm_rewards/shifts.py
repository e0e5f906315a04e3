"""The same episodes under other circumstances, made from the recordings: what a critic should not mind, or should."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import torch

from vlm_rewards.clips import Clip, ClipSet
from vlm_rewards.critic import Critic, Window
from vlm_rewards.frames import Frames
from vlm_rewards.readings import Alter

SWAPPED = "swapped_instruction"
"""Mode of a success that is judged by an instruction which names another object."""
_HELD = 0.5
"""By how much of its length a clip runs on, its last picture held."""
_OTHER_WORDS = {
    "put": "place",
    "place": "put",
    "move": "bring",
    "push": "slide",
    "slide": "push",
    "pick up": "grasp",
    "grasp": "pick up",
    "reach": "go to",
    "open": "pull open",
    "on": "onto",
    "onto": "on",
}


@dataclass(frozen=True)
class Shift:
    """One change of circumstances.

    Attributes:
        name: what changes.
        clips: the episodes; the truth is theirs.
        alter: what happens to the frames before the critic sees them.
        window: pictures of each moment; the critic's own where None.
    """

    name: str
    clips: ClipSet
    alter: Alter | None = None
    window: Window | None = None


def made_shifts(critic: Critic, clips: ClipSet, wordings: Mapping[str, Sequence[str]] | None = None) -> list[Shift]:
    """Shifts that need no renderer: single views, other windows, clips that run on, other words.

    Args:
        critic: its cameras and its window say what can change.
        clips: the episodes.
        wordings: instruction → other wordings, of which the first is used; `reworded` where there is none.
    """
    shifts = []
    if len(critic.cameras or clips.cameras) > 1:
        shifts += [
            Shift(f"{name} view alone", clips, _Alone(name, bool(critic.cameras)))
            for name in critic.cameras or clips.cameras
        ]
    if critic.window.frames > 1:
        for scale in (0.5, 2.0):
            window = replace(critic.window, stride_s=scale * critic.window.stride_s)
            shifts.append(Shift(f"window x{scale:g}", clips, window=window))
    shifts.append(Shift("runs on", ClipSet([_held(clips[e]) for e in range(len(clips))])))
    return [*shifts, Shift("paraphrase", _with_instructions(clips, wordings or {}))]


def swapped(clips: ClipSet) -> ClipSet | None:
    """Successes judged by the first of the instructions that they do not carry out; None where there is none."""
    chosen = [e for e in range(len(clips)) if clips.others[e] and clips[e].success]
    if not chosen:
        return None
    return ClipSet([_as_other(clips[e]) for e in chosen])


def reversed_clips(clips: ClipSet) -> ClipSet:
    """Each clip played backwards, its clock going forwards."""
    return ClipSet([_reversed(clips[e]) for e in range(len(clips))])


def first_of_each_mode(clips: ClipSet, episodes: int) -> ClipSet:
    """At most so many episodes of each mode, in their order; the same set if that is all of them."""
    seen: dict[str, int] = {}
    chosen = []
    for e, mode in enumerate(clips.modes):
        seen[mode] = seen.get(mode, 0) + 1
        if seen[mode] <= episodes:
            chosen.append(e)
    return clips if len(chosen) == len(clips) else clips.subset(chosen)


def reworded(instruction: str) -> str:
    """The instruction in other words: common verbs and prepositions exchanged, and a "please"."""
    words = "|".join(sorted(_OTHER_WORDS, key=len, reverse=True))
    return "please " + re.sub(rf"\b({words})\b", lambda found: _OTHER_WORDS[found[0]], instruction.lower())


class _Alone:
    """Frames of which one view is left; others are black if the critic cannot do without them."""

    def __init__(self, camera: str, keep_black: bool) -> None:
        self._camera = camera
        self._keep_black = keep_black

    def __call__(self, frames: Frames) -> Frames:
        if not self._keep_black:
            return frames.of((self._camera,))
        rgb = torch.zeros_like(frames.rgb)
        which = frames.cameras.index(self._camera)
        rgb[:, :, which] = frames.rgb[:, :, which]
        return Frames(rgb, frames.cameras, frames.stamps)


def _held(clip: Clip) -> Clip:
    """The clip with its last frame held for half its length more."""
    more = max(1, round(_HELD * len(clip)))
    rows = torch.cat([torch.arange(len(clip)), torch.full((more,), len(clip) - 1)])
    step = (clip.times[-1] - clip.times[0]) / max(1, len(clip) - 1)
    times = torch.cat([clip.times, clip.times[-1] + step * torch.arange(1, more + 1)])
    return replace(_rows(clip, rows), times=times)


def _reversed(clip: Clip) -> Clip:
    times = clip.times[0] + clip.times[-1] - clip.times.flip(0)
    return replace(_rows(clip, torch.arange(len(clip)).flip(0)), times=times)


def _rows(clip: Clip, rows: torch.Tensor) -> Clip:
    return replace(
        clip,
        rgb=clip.rgb[rows],
        times=clip.times[rows],
        progress=clip.progress[rows],
        done=clip.done[rows],
        facts={name: value[rows] for name, value in clip.facts.items()},
    )


def _as_other(clip: Clip) -> Clip:
    """The clip with the other instruction, and the truth about that: not done, progress if the facts tell it."""
    told = clip.facts.get("progress_other")
    return replace(
        clip,
        instruction=clip.others[0],
        others=(clip.instruction,),
        progress=torch.full_like(clip.progress, torch.nan) if told is None else told[:, 0],
        done=torch.zeros_like(clip.done),
        mode=SWAPPED,
    )


def _with_instructions(clips: ClipSet, wordings: Mapping[str, Sequence[str]]) -> ClipSet:
    made = copy(clips)
    made.instructions = [next(iter(wordings.get(old, ())), reworded(old)) for old in clips.instructions]
    return made
