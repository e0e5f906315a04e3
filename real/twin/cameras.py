"""The twin's cameras: what they see, and how a pixel follows from a place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import mujoco
import numpy as np

from real.errors import StackError
from real.twin.settings import TwinSettings
from robolearn.errors import unknown
from sim.camera import BatchCameras
from sim.mujoco_cpu import MujocoCpu


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera without distortion. Pixel (u, v) has its centre at whole numbers, (0, 0) at the top left.

    Attributes:
        width, height: pixels.
        focal: pixels, the same along both axes.
        center: (u, v) of the optical axis.
    """

    width: int
    height: int
    focal: float
    center: tuple[float, float]

    @classmethod
    def of(cls, fovy_deg: float, width: int, height: int) -> Intrinsics:
        """Of an MJCF camera with this vertical field of view."""
        focal = 0.5 * height / math.tan(0.5 * math.radians(fovy_deg))
        return cls(width, height, focal, (0.5 * (width - 1), 0.5 * (height - 1)))

    def fields(self) -> dict[str, Any]:
        """Fields of a sensor_msgs/CameraInfo but its header, by their names (of ROS 2)."""
        f, (u, v) = self.focal, self.center
        return {
            "width": self.width,
            "height": self.height,
            "distortion_model": "plumb_bob",
            "d": np.zeros(5),
            "k": np.array([f, 0.0, u, 0.0, f, v, 0.0, 0.0, 1.0]),
            "r": np.eye(3).ravel(),
            "p": np.array([f, 0.0, u, 0.0, 0.0, f, v, 0.0, 0.0, 0.0, 1.0, 0.0]),
        }


def check_cameras(model: mujoco.MjModel, names: Sequence[str]) -> None:
    """Raise StackError where the scene lacks one of these cameras."""
    known = [model.camera(i).name for i in range(model.ncam)]
    for name in names:
        if name not in known:
            raise StackError(f"twin.cameras: {unknown('camera', name, known)}")


class Grain:
    """Noise of image sensors, without end: windows of one long drawn sequence, at places drawn anew.

    Args:
        size: values of one picture.
        deviation: grey levels.
        seed: of all draws.
    """

    def __init__(self, size: int, deviation: float, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 3])
        self._size = size
        drawn = self._rng.standard_normal(2 * size if deviation else 0, dtype=np.float32) * np.float32(deviation)
        self._drawn = np.clip(np.rint(drawn), -128, 127).astype(np.int8)

    def on(self, picture: np.ndarray) -> np.ndarray:
        """The picture (H, W, 3) uint8 with noise; values stay between 0 and 255."""
        if not self._drawn.size:
            return picture
        start = int(self._rng.integers(len(self._drawn) - self._size))
        noise = self._drawn[start : start + self._size].reshape(picture.shape[0], -1)
        noisy = cv2.add(picture.reshape(noise.shape), noise, dtype=cv2.CV_8U)
        return np.asarray(noisy).reshape(picture.shape)


class Painter:
    """Draws one scene's cameras from a state.

    Args:
        model: the scene, compiled.
        settings: cameras, size, and the width that is drawn before it is scaled up.

    Attributes:
        intrinsics: camera → how it projects.

    Raises:
        StackError: an unknown camera.
        RenderError: no OpenGL on this machine.
    """

    def __init__(self, model: mujoco.MjModel, settings: TwinSettings) -> None:
        check_cameras(model, settings.cameras)
        self._size = settings.width, settings.height
        drawn = min(settings.render_width or settings.width, settings.width)
        self._engine = MujocoCpu(model, 1, nthread=1)
        self._qpos = self._engine.bind("qpos")
        self._cameras = BatchCameras(
            self._engine, settings.cameras, max(8, round(drawn * settings.height / settings.width)), drawn, threads=1
        )
        self._grain = Grain(3 * settings.width * settings.height, settings.image_noise, settings.seed)
        self.intrinsics = {
            name: Intrinsics.of(float(model.camera(name).fovy[0]), settings.width, settings.height)
            for name in settings.cameras
        }

    def paint(self, qpos: np.ndarray) -> dict[str, np.ndarray]:
        """Camera → picture (H, W, 3) uint8 RGB of the state ``qpos`` (nq,)."""
        self._qpos.numpy()[0] = qpos
        frames = self._cameras.refresh()
        assert frames.rgb is not None
        pictures = frames.rgb[0].numpy()
        return {
            name: self._grain.on(self._scaled(picture)) for name, picture in zip(frames.names, pictures, strict=True)
        }

    def close(self) -> None:
        """Free the OpenGL context."""
        self._cameras.close()

    def _scaled(self, picture: np.ndarray) -> np.ndarray:
        if picture.shape[1::-1] == self._size:
            return picture.copy()
        return np.asarray(cv2.resize(picture, self._size, interpolation=cv2.INTER_LINEAR))
