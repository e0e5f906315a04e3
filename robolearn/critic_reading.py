"""Recordings at the rate and in the size that a critic wants."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from robolearn.critic_inputs import ScoreError, reference_views
from vlm_rewards.clips import Clip
from vlm_rewards.critic import Critic
from vlm_rewards.potential import Reference
from vlm_rewards.streams import pictures
from vlm_rewards.videos import Recording, read_videos

if TYPE_CHECKING:
    from robolearn.critic_score import Options

_RATE_HZ = 5.0
_LONGER_SIDE = 320
"""Pixels, for critics that take pictures of any size."""
_REFERENCE_HZ = 2.0
"""A model that is shown a reference takes a few of its pictures."""


def rate_for(critic: Critic, rate_hz: float | None) -> float:
    """Moments per second that fit the critic's window.

    Raises:
        ScoreError: a rate at which the pictures of the window would not be there.
    """
    stride = critic.window.stride_s if critic.window.frames > 1 else 0.0
    if rate_hz is None:
        return 1.0 / stride if stride > 0.0 else _RATE_HZ
    steps = rate_hz * stride
    if stride > 0.0 and (steps < 0.999 or abs(steps - round(steps)) > 1e-3):
        raise ScoreError(
            f"critic {critic.name!r} looks at pictures {stride:g} s apart: rate_hz must be a multiple of "
            f"{1.0 / stride:g}, got {rate_hz:g}"
        )
    return rate_hz


def size_for(critic: Critic | None, size: Sequence[int] | None, path: Path, fps: float | None) -> tuple[int, int]:
    """Height and width, pixels: as asked, else the critic's, else those of the first picture, at most 320 a side.

    Raises:
        RobolearnError: a size that is none, or a view without a picture.
    """
    if size is not None:
        if len(size) != 2 or min(size) < 1:
            raise ScoreError(f"size is [height, width] in pixels, got {list(size)}")
        return size[0], size[1]
    if critic is not None and critic.picture is not None:
        return critic.picture
    stream = pictures(path, fps)
    height, width = next(stream).rgb.shape[:2]
    stream.close()  # type: ignore[attr-defined]
    scale = min(1.0, _LONGER_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def read_recording(options: Options, critic: Critic, paths: Mapping[str, Path]) -> Recording:
    say(f"reading {', '.join(str(path) for path in paths.values())}")
    recording = read_videos(
        paths,
        rate_hz=rate_for(critic, options.rate_hz),
        size=size_for(critic, options.size, next(iter(paths.values())), options.fps),
        fit=options.fit,
        start_s=options.start_s,
        end_s=options.end_s,
        max_frames=options.max_frames,
        fps=options.fps,
        trim=options.trim,
    )
    for note in recording.notes:
        say(note)
    return recording


def read_reference(options: Options, critic: Critic | None, views: Mapping[str, Path]) -> Recording:
    """The whole reference, by the views' names, as the critic sees recordings."""
    paths = reference_views(Path(str(options.reference)), views)
    return read_videos(
        paths,
        rate_hz=_REFERENCE_HZ if critic is None else rate_for(critic, options.rate_hz),
        size=size_for(critic, options.size, next(iter(paths.values())), options.fps),
        fit=options.fit,
        max_frames=options.max_frames,
        fps=options.fps,
        trim=options.trim,
    )


def reference_goal(
    options: Options, critic: Critic, views: Mapping[str, Path], cameras: Mapping[str, str], instruction: str
) -> Reference:
    """The reference's goal, seen by the critic's cameras."""
    shown = read_reference(options, critic, {view: views[view] for view in cameras.values()})
    return Reference.of(as_success(dataclasses.replace(shown, cameras=tuple(cameras)), instruction), critic.window)


def as_success(recording: Recording, instruction: str) -> Clip:
    """A recording that carries out its instruction in its last moment; its progress on the way is not known."""
    done = torch.zeros(len(recording), dtype=torch.bool)
    done[-1] = True
    unknown = torch.full((len(recording),), torch.nan)
    return Clip(recording.frames, recording.cameras, recording.times, instruction, unknown, done)


def say(text: str) -> None:
    """Tell a person, on standard error."""
    print(text, file=sys.stderr)
