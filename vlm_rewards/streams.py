"""Pictures of one camera in the order they were taken: a video that ffmpeg decodes, or a folder of pictures."""

from __future__ import annotations

import queue
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from vlm_rewards.errors import CriticError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Files that make a folder of pictures."""

_TICK = re.compile(r"config in time_base: (\d+)/(\d+)")
_SHOWN = re.compile(r" pts: *(?P<pts>-?\d+) .* s:(?P<width>\d+)x(?P<height>\d+) ")
_DURATION = re.compile(r"Duration: (\d+):(\d+):([\d.]+)")
_FAULT = re.compile(r"\[(?:error|fatal)\] (.+)")


class VideoError(CriticError):
    """A recording that cannot be used."""


class DamagedVideo(VideoError):
    """A video that could only be decoded in part; raised after its last decodable picture."""


@dataclass(frozen=True)
class Picture:
    """One picture of a camera.

    Attributes:
        index: its number in the video, from 0.
        time_s: since the first picture of the video.
        rgb: (H, W, 3) uint8.
    """

    index: int
    time_s: float
    rgb: np.ndarray


def pictures(path: Path, fps: float | None = None) -> Iterator[Picture]:
    """Every picture of a video or a folder, one at a time.

    Args:
        path: a video file, with the time stamps that it carries (so a variable frame rate is kept), or a folder of
            png or jpg files, in the natural order of their names.
        fps: pictures per second of a folder; videos know their own.

    Raises:
        VideoError: nothing there, nothing that can be decoded, or a folder without ``fps``.
        DamagedVideo: after the last picture that could be decoded.
    """
    if path.is_dir():
        yield from _of_folder(path, fps)
    elif path.is_file():
        yield from _of_video(path)
    else:
        raise VideoError(f"there is no video or folder of pictures {path}")


def _of_folder(folder: Path, fps: float | None) -> Iterator[Picture]:
    import cv2

    files = [file for file in folder.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES]
    if not files:
        raise VideoError(f"folder {folder} holds no pictures ({', '.join(PICTURE_SUFFIXES)})")
    if fps is None or not fps > 0.0:
        raise VideoError(f"folder {folder} does not say how fast its {len(files)} pictures were taken; set fps=...")
    size = None
    for index, file in enumerate(sorted(files, key=_natural)):
        bgr = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR) if file.stat().st_size else None
        if bgr is None:
            raise VideoError(f"picture {file} cannot be decoded")
        size = size or bgr.shape
        if bgr.shape != size:
            raise VideoError(f"picture {file} is {_size(bgr.shape)}, those before it are {_size(size)}")
        yield Picture(index, index / fps, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def _natural(file: Path) -> list[tuple[int, str]]:
    """Sorts frame_2 before frame_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name)]


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _of_video(path: Path) -> Iterator[Picture]:
    process = _decoder(path)
    report = _Report(process)
    count, first, size = 0, 0.0, None
    try:
        for time_s, shape in report:
            rgb = np.empty(shape, np.uint8)
            if not _fill(process.stdout, rgb):
                break
            size = size or shape
            if shape != size:
                raise VideoError(f"{path} changes from {_size(size)} to {_size(shape)} at picture {count}")
            first = time_s if count == 0 else first
            yield Picture(count, time_s - first, rgb)
            count += 1
    finally:
        process.kill()
        process.wait()
        report.join()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    if count == 0:
        raise VideoError(f"{path} cannot be decoded: {report.fault or 'it has no pictures'}")
    if report.fault:
        of = f" of about {round(report.duration_s, 1):g} s" if report.duration_s else ""
        raise DamagedVideo(f"{path} is damaged: {count} pictures ({time_s - first:.1f} s{of}) decoded; {report.fault}")


def _decoder(path: Path) -> subprocess.Popen[bytes]:
    """ffmpeg writing raw pictures to a pipe, and the time and size of each to its log.

    OpenCV's own decoder knows neither AV1, the usual codec of LeRobot data sets, nor damage.
    """
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info"]
    # A file may be a playlist in disguise: nothing but files is opened.
    command += ["-protocol_whitelist", "file,pipe", "-i", f"file:{path}", "-map", "0:v:0", "-fps_mode", "passthrough"]
    command += ["-vf", "showinfo=checksum=0", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise VideoError(f"cannot start ffmpeg to decode {path}: {error}") from error


def _fill(pipe: IO[bytes] | None, into: np.ndarray) -> bool:
    """Whether a whole picture came."""
    assert pipe is not None
    return bool(pipe.readinto(into.data.cast("B")) == into.nbytes)  # type: ignore[attr-defined]


class _Report:
    """What ffmpeg logs: iterating gives time and shape of each picture as it is decoded.

    Attributes:
        duration_s: what the file claims; 0 where it does not.
        fault: the first complaint, empty where there is none.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.duration_s, self.fault = 0.0, ""
        self._shown: queue.SimpleQueue[tuple[float, tuple[int, int, int]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen, args=(process.stderr,), daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[tuple[float, tuple[int, int, int]]]:
        while (shown := self._shown.get()) is not None:
            yield shown

    def join(self) -> None:
        """Wait for the end of the log."""
        self._thread.join()

    def _listen(self, log: IO[bytes]) -> None:
        tick_s = 0.0
        for raw in log:
            line = raw.decode("utf-8", "replace")
            if (shown := _SHOWN.search(line)) is not None:
                self._shown.put((int(shown["pts"]) * tick_s, (int(shown["height"]), int(shown["width"]), 3)))
            elif (tick := _TICK.search(line)) is not None:
                tick_s = int(tick[1]) / int(tick[2])
            elif (claimed := _DURATION.search(line)) is not None:
                hours, minutes, seconds = claimed.groups()
                self.duration_s = 3600.0 * int(hours) + 60.0 * int(minutes) + float(seconds)
            elif not self.fault and "matches no streams" in line:
                self.fault = "it holds no video"
            elif not self.fault and (fault := _FAULT.search(line)) is not None:
                self.fault = fault[1].strip().rstrip(".")
        self._shown.put(None)
