"""Recordings of a robot at work, from several cameras, at the rate and in the size that a critic looks at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vlm_rewards.critic import Window
from vlm_rewards.fitting import fitted, kept
from vlm_rewards.frames import Frames
from vlm_rewards.streams import DamagedVideo, Picture, VideoError, pictures

_EARLY_S = 1e-3
"""Time stamps are rounded by containers: a picture this much late still counts as taken at a moment."""
_SPARE_FRAMES = 5
"""By how many frames the views of a recording may differ in length; cameras are stopped one after the other."""


@dataclass(frozen=True)
class View:
    """One camera of a recording.

    Attributes:
        camera: its name.
        path: the video or the folder of pictures.
        taken: (n,) float64, s: when each picture of it was taken; up to the end that was asked for.
        size: height and width, pixels.
    """

    camera: str
    path: Path
    taken: np.ndarray
    size: tuple[int, int]

    @property
    def interval_s(self) -> float:
        """Between two pictures, the median."""
        return float(np.median(np.diff(self.taken))) if len(self.taken) > 1 else 1.0

    @property
    def fps(self) -> float:
        """Pictures per second."""
        return 1.0 / self.interval_s

    @property
    def length_s(self) -> float:
        """From the first picture to the end of the last."""
        return float(self.taken[-1]) + self.interval_s


@dataclass(frozen=True)
class Recording:
    """T moments of a recording, seen by V cameras.

    Attributes:
        frames: (T, V, H, W, 3) uint8.
        cameras: names of the V cameras.
        times: (T,) float64, s since the start of the recording: equally spaced. A moment shows the latest picture that
            each camera had taken by then.
        sources: the V cameras as they were read.
        notes: what was changed to make it fit, for people: cut off, trimmed, damaged.
    """

    frames: torch.Tensor
    cameras: tuple[str, ...]
    times: torch.Tensor
    sources: tuple[View, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """T."""
        return int(self.frames.shape[0])

    def moments(self, index: torch.Tensor, window: Window | None = None) -> Frames:
        """The moments ``index`` (B,) with the history that a critic wants.

        Before the start of the recording its first picture stands in.
        """
        window = window or Window()
        back = torch.arange(window.frames - 1, -1, -1, dtype=torch.float64) * window.stride_s
        rows = torch.searchsorted(self.times, self.times[index, None] - back + _EARLY_S, right=True) - 1
        return Frames(self.frames[rows.clamp(min=0)], self.cameras, self.times[index])


def read_videos(
    paths: Mapping[str, str | Path] | Sequence[str | Path],
    *,
    rate_hz: float = 5.0,
    size: tuple[int, int] | None = None,
    fit: str = "crop",
    start_s: float = 0.0,
    end_s: float | None = None,
    max_frames: int | None = None,
    fps: float | None = None,
    trim: bool = False,
) -> Recording:
    """Read a recording at a critic's rate and size; one decoded picture at a time is held beside the result.

    Args:
        paths: camera → video file or folder of pictures; without names, the stems of the files are the cameras.
        rate_hz: moments per second.
        size: height and width, pixels; pictures are shrunk by area averaging. None: that of the first camera.
        fit: one of `vlm_rewards.fitting.FITS`.
        start_s, end_s: the part to read, s.
        max_frames: more moments than this are refused.
        fps: pictures per second of folders.
        trim: read the part that all views share when one is damaged or shorter than another.

    Raises:
        VideoError: a missing, undecodable, empty or damaged video, views of different lengths, or nothing to read.
    """
    views = named(paths)
    if not rate_hz > 0.0:
        raise VideoError(f"rate_hz must be above 0, got {rate_hz:g}")
    columns: list[np.ndarray] = []
    sources: list[View] = []
    notes: list[str] = []
    for camera, path in views.items():
        reader = ViewReader(camera, path, rate_hz, start_s, end_s, fps)
        taken = []
        for picture in reader.moments(trim):
            size = size or picture.rgb.shape[:2]
            taken.append(fitted(picture.rgb, size, fit))
            if max_frames is not None and len(taken) > max_frames:
                raise VideoError(
                    f"{path} has more than {max_frames} moments at {rate_hz:g} Hz; lower rate_hz, or set end_s"
                )
        columns.append(np.stack(taken))
        sources.append(reader.view)
        notes += reader.notes
    count, trimmed = _shared_length(sources, [len(column) for column in columns], rate_hz, trim)
    frames = torch.from_numpy(np.stack([column[:count] for column in columns], axis=1))
    times = start_s + torch.arange(count, dtype=torch.float64) / rate_hz
    return Recording(
        frames, tuple(views), times, tuple(sources), (*notes, *_cut_off(sources, columns[0].shape[1:3], fit), *trimmed)
    )


def named(paths: Mapping[str, str | Path] | Sequence[str | Path]) -> dict[str, Path]:
    """Camera → path; without names, the stem of each file is its camera.

    Raises:
        VideoError: none, or two cameras of one name.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    given = list(paths.items()) if isinstance(paths, Mapping) else [(Path(path).stem, path) for path in paths]
    if not given:
        raise VideoError("a recording needs at least one video")
    made: dict[str, Path] = {}
    for camera, path in given:
        if camera in made:
            raise VideoError(f"two views are named {camera!r}: {made[camera]} and {path}; name them: name=path")
        made[camera] = Path(path)
    return made


class ViewReader:
    """Pictures of one camera at equally spaced moments.

    Attributes:
        notes: what was wrong with it, for people.
    """

    def __init__(
        self,
        camera: str,
        path: Path,
        rate_hz: float,
        start_s: float = 0.0,
        end_s: float | None = None,
        fps: float | None = None,
    ) -> None:
        if end_s is not None and end_s <= start_s:
            raise VideoError(f"end_s must be after start_s, got {start_s:g} to {end_s:g} s")
        self.camera, self.path, self.notes = camera, path, list[str]()
        self._rate_hz, self._start_s, self._end_s, self._fps = rate_hz, start_s, end_s, fps
        self._taken: list[float] = []
        self._size = (0, 0)

    def moments(self, trim: bool = False) -> Iterator[Picture]:
        """At ``start_s + k / rate_hz``, the latest picture taken by then.

        Args:
            trim: end where a damaged video does, with a note, instead of raising.

        Raises:
            VideoError: see `vlm_rewards.streams.pictures`; or the start lies behind the end.
        """
        due, last = 0, None
        for picture in self._pictures(trim):
            while last is not None and self._moment(due) < picture.time_s - _EARLY_S:
                if self._over(due):
                    return
                yield last
                due += 1
            last = picture
        while last is not None and self._moment(due) < self.view.length_s - _EARLY_S and not self._over(due):
            yield last
            due += 1
        if due == 0:
            raise VideoError(
                f"{self.path} is {self.view.length_s:.2f} s long, there is nothing from {self._start_s:g} s"
            )

    @property
    def view(self) -> View:
        """What was read so far."""
        return View(self.camera, self.path, np.array(self._taken), self._size)

    def _pictures(self, trim: bool) -> Iterator[Picture]:
        try:
            for picture in pictures(self.path, self._fps):
                self._taken.append(picture.time_s)
                self._size = picture.rgb.shape[:2]
                yield picture
        except DamagedVideo as error:
            if not trim:
                raise DamagedVideo(f"{error}; trim=true reads what there is") from error
            self.notes.append(str(error))

    def _moment(self, k: int) -> float:
        return self._start_s + k / self._rate_hz

    def _over(self, k: int) -> bool:
        return self._end_s is not None and self._moment(k) >= self._end_s - _EARLY_S


def _cut_off(views: Sequence[View], size: tuple[int, ...], fit: str) -> list[str]:
    """What a crop loses, once for all the cameras that lose the same."""
    lost: dict[str, list[str]] = {}
    for view in views if fit == "crop" else ():
        rows, columns = kept(view.size, size)
        share = 1.0 - rows * columns / (view.size[0] * view.size[1])
        if share > 0.02:
            side = "width" if columns < view.size[1] else "height"
            lost.setdefault(f"{share:.0%} of the {side}", []).append(view.camera)
    return [
        f"{what} of {', '.join(cameras)} is cut off; fit=letterbox or fit=stretch shows it all"
        for what, cameras in lost.items()
    ]


def _shared_length(
    views: Sequence[View], counts: Sequence[int], rate_hz: float, trim: bool
) -> tuple[int, tuple[str, ...]]:
    """Moments that all views have, and what to say about the rest.

    Raises:
        VideoError: they differ by more than a few frames.
    """
    count = min(counts)
    if max(counts) == count:
        return count, ()
    lengths = ", ".join(f"{view.camera} {view.length_s:.2f} s" for view in views)
    spare = _SPARE_FRAMES / min(view.fps for view in views)
    apart = max(view.length_s for view in views) - min(view.length_s for view in views)
    if apart > spare + _EARLY_S and not trim:
        raise VideoError(f"the views differ in length: {lengths}; trim=true reads the part that all of them have")
    return count, (f"views differ in length ({lengths}): trimmed to {count / rate_hz:.2f} s",)
