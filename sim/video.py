"""Pictures and films for people: a free camera over one compiled model, captions, and an mp4 writer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import mujoco
import numpy as np

from sim.opengl import RenderError, cannot_render
from sim.physics import quiet_mujoco

_TEXT, _MARGIN = 0.45, 8
"""Size of captions, and pixels beside them."""


class SceneRenderer:
    """Renders states of one model from a free camera.

    Args:
        model: the scene.
        height, width: of the pictures, pixels.
        lookat: (3,) m, world; distance: m; azimuth, elevation: degrees.

    Raises:
        RenderError: the machine offers no offscreen OpenGL.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        height: int = 360,
        width: int = 480,
        lookat: Sequence[float] = (0.0, 0.0, 0.12),
        distance: float = 0.75,
        azimuth: float = 130.0,
        elevation: float = -22.0,
    ) -> None:
        quiet_mujoco()
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, height)
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:  # each GL backend raises a type of its own
            raise cannot_render(error) from error
        self._model = model
        self._data = mujoco.MjData(model)
        self.camera = mujoco.MjvCamera()
        self.camera.lookat[:] = lookat
        self.camera.distance, self.camera.azimuth, self.camera.elevation = distance, azimuth, elevation
        self._options = mujoco.MjvOption()
        self._options.sitegroup[:] = 0
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = 0  # software rendering is several times slower with them

    def render(self, qpos: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB of the positions ``qpos`` (nq,)."""
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        self._renderer.update_scene(self._data, self.camera, self._options)
        return self._renderer.render()

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()

    def __enter__(self) -> SceneRenderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def caption(image: np.ndarray, text: str) -> np.ndarray:
    """A copy of the picture (H, W, 3) with a line of text over a darkened strip at its top, smaller if it is long."""
    image = np.array(image, order="C")
    image[:24] //= 3
    wide = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _TEXT, 1)[0][0]
    scale = _TEXT * min(1.0, (image.shape[1] - 2 * _MARGIN) / max(wide, 1))
    cv2.putText(image, text, (_MARGIN, 17), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return image


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> Path:
    """Write (H, W, 3) uint8 frames as H.264 mp4, complete or not at all.

    Raises:
        RenderError: no frames, frames that are not pictures of one size, or the file cannot be written.
    """
    import imageio_ffmpeg

    temporary = path.with_name(f".{path.stem}.partial.mp4")
    try:
        temporary.touch()  # says what is wrong with the folder better than the encoder would
    except OSError as error:
        raise RenderError(f"cannot write video {path}: {error.strerror}") from error
    writer = None
    count = 0
    try:
        for frame in frames:
            if writer is None:
                shape = frame.shape
                writer = imageio_ffmpeg.write_frames(
                    str(temporary),
                    (shape[1], shape[0]),
                    fps=fps,
                    macro_block_size=8,
                    quality=6,
                    ffmpeg_log_level="error",
                    ffmpeg_timeout=0,  # on a busy machine the last frames take their time
                )
                writer.send(None)
            if frame.shape != (*shape[:2], 3) or frame.dtype != np.uint8:
                wanted = (*shape[:2], 3)
                raise RenderError(f"frame {count} of {path} is {frame.dtype} {frame.shape}, not uint8 {wanted}")
            writer.send(np.ascontiguousarray(frame))
            count += 1
        if writer is None:
            raise RenderError(f"no frames to write to {path}")
        writer.close()
        _check_complete(temporary, count, path)
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error).partition("\n")[0]
        raise RenderError(f"cannot write video {path}: {reason}") from error
    finally:
        if writer is not None:
            writer.close()
        temporary.unlink(missing_ok=True)
    return path


def _check_complete(file: Path, count: int, path: Path) -> None:
    """The encoder does not say that it failed: ask the file."""
    import imageio_ffmpeg

    try:
        written = imageio_ffmpeg.count_frames_and_secs(str(file))[0]
    except RuntimeError:
        written = 0
    if written != count:
        raise RenderError(f"cannot write video {path}: {written} of {count} frames arrived; is the disk full?")
