"""Pictures of episodes as H.264, many episodes in one film, and back."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.errors import RobolearnError

CODEC = "h264"
_GROUP = 2
"""A key frame every so many: any frame is decoded fast."""


class VideoError(RobolearnError):
    """A film that cannot be written or read."""


class VideoWriter:
    """Frames of one size into one mp4.

    Args:
        path: the file; height, width: of frames, pixels; fps: frames per second.

    Attributes:
        frames: written so far.
    """

    def __init__(self, path: Path, height: int, width: int, fps: int) -> None:
        self.path, self.shape, self.frames = path, (height, width, 3), 0
        # 4:2:0 halves the colour planes, which needs even sides.
        self.pixels = "yuv420p" if height % 2 == 0 and width % 2 == 0 else "yuv444p"
        path.parent.mkdir(parents=True, exist_ok=True)
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
        coder = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-g", str(_GROUP), "-bf", "0", "-threads", "1"]
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [_ffmpeg(), "-v", "error", "-y", *source, *coder, "-pix_fmt", self.pixels, "-an", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )

    def add(self, frame: np.ndarray) -> None:
        """One frame: (H, W, 3) uint8 RGB. Raises VideoError for another, or where the file cannot be written."""
        if frame.shape != self.shape or frame.dtype != np.uint8:
            raise VideoError(f"{self.path.name}: a frame is {frame.dtype} {frame.shape}, not uint8 {self.shape}")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(np.ascontiguousarray(frame).data)
        except OSError as error:
            raise VideoError(f"cannot write {self.path}: {self._reason() or error.strerror}") from error
        self.frames += 1

    def close(self) -> None:
        """Wait for the file. Raises VideoError where the encoder failed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # its exit code, below, tells more
        code = self._process.wait()
        reason = self._reason()
        self._errors.close()
        if code:
            raise VideoError(f"cannot write {self.path}: {reason or f'ffmpeg ended with {code}'}")

    def abort(self) -> None:
        """End the encoder; the file is of no use."""
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def info(self, fps: int) -> dict[str, Any]:
        """What a data set tells about its films."""
        return {
            "video.height": self.shape[0],
            "video.width": self.shape[1],
            "video.codec": CODEC,
            "video.pix_fmt": self.pixels,
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
        }

    def _reason(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


def read_frames(path: Path, start: float, count: int, shape: tuple[int, int, int]) -> np.ndarray:
    """``count`` frames from ``start`` seconds on: (count, H, W, 3) uint8 RGB.

    Raises:
        VideoError: the film has fewer, or cannot be decoded.
    """
    # Half a millisecond early, so that rounding cannot pass over the first frame.
    seek = ["-ss", f"{max(0.0, start - 5e-4):.6f}"] if start > 0 else []
    output = ["-frames:v", str(count), "-f", "rawvideo", "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "-"]
    done = subprocess.run([_ffmpeg(), "-v", "error", *seek, "-i", str(path), *output], capture_output=True)
    wanted = count * int(np.prod(shape))
    if done.returncode or len(done.stdout) != wanted:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        found = len(done.stdout) // int(np.prod(shape))
        raise VideoError(f"{path}: {lines[-1] if lines else f'{found} of {count} frames at {start:g} s'}")
    return np.frombuffer(done.stdout, np.uint8).reshape(count, *shape)


def _ffmpeg() -> str:
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())
