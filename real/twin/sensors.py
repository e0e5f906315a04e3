"""What encoders and an object tracker make of the true state: noise, and names in the driver's own order."""

from __future__ import annotations

import numpy as np

from real.twin.arm import Joints
from real.twin.settings import TwinSettings

_SLIDES = 0.1
"""Noise of a slide in m as a share of that of a hinge in rad."""


class Sensors:
    """Noisy measurements.

    Args:
        settings: how noisy they are; its seed is that of the noise.
        slides: (J,) bool, which of the measured joints are slides.
    """

    def __init__(self, settings: TwinSettings, slides: np.ndarray) -> None:
        self._settings = settings
        self._rng = np.random.default_rng([settings.seed, 2])
        self._scale = np.where(slides, _SLIDES, 1.0)

    def joints(self, true: Joints) -> Joints:
        """Noisy positions and velocities (J,)."""
        noise = self._rng.standard_normal((2, len(self._scale))) * self._scale
        return Joints(
            true.position + self._settings.joint_pos_noise * noise[0],
            true.velocity + self._settings.joint_vel_noise * noise[1],
            true.effort,
        )

    def pose(self, true: np.ndarray) -> np.ndarray:
        """A noisy pose (7,), m + wxyz of unit length."""
        place, turn = self._rng.standard_normal((2, 3))
        angle = 0.5 * self._settings.object_rot_noise * turn
        w, x, y, z = true[3:]
        # a small turn, to first order, about the world's axes
        change = np.array([-angle @ [x, y, z], *(w * angle + np.cross(angle, [x, y, z]))])
        quat = true[3:] + change
        return np.concatenate([true[:3] + self._settings.object_pos_noise * place, quat / np.linalg.norm(quat)])
