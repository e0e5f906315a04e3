"""Pictures of another shape than a critic's."""

from __future__ import annotations

import numpy as np

from robolearn.errors import unknown
from vlm_rewards.errors import CriticError

FITS = ("crop", "stretch", "letterbox")
"""How a picture of another shape is fitted: its centre is cut out, it is distorted, or it gets black bars."""


def fitted(rgb: np.ndarray, size: tuple[int, int], fit: str = "crop") -> np.ndarray:
    """A picture (H, W, 3) in another size, by area averaging where it shrinks.

    Raises:
        CriticError: an unknown ``fit``.
    """
    import cv2

    if fit not in FITS:
        raise CriticError(unknown("fit", fit, FITS))
    height, width = size
    if rgb.shape[:2] == (height, width):
        return rgb
    if fit == "crop":
        rows, columns = kept(rgb.shape[:2], size)
        top, left = (rgb.shape[0] - rows) // 2, (rgb.shape[1] - columns) // 2
        rgb = rgb[top : top + rows, left : left + columns]
    inside = (height, width)
    if fit == "letterbox":
        scale = min(height / rgb.shape[0], width / rgb.shape[1])
        inside = (max(1, round(rgb.shape[0] * scale)), max(1, round(rgb.shape[1] * scale)))
    shrinks = inside[0] <= rgb.shape[0] and inside[1] <= rgb.shape[1]
    small = cv2.resize(rgb, inside[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if inside == (height, width):
        return np.asarray(small)
    made = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inside[0]) // 2, (width - inside[1]) // 2
    made[top : top + inside[0], left : left + inside[1]] = small
    return made


def kept(given: tuple[int, ...], size: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of the largest centre with the shape of ``size``."""
    rows = min(given[0], round(given[1] * size[0] / size[1]))
    columns = min(given[1], round(given[0] * size[1] / size[0]))
    return max(1, rows), max(1, columns)
