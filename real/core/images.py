"""Pictures of cameras as a policy's channel takes them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from real.errors import RealError

Picture = NDArray[np.uint8]

_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
MAX_PIXELS = 4096 * 4096
"""Of a compressed picture: a few bytes must not make a node allocate gigabytes."""
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class ImageError(RealError):
    """A picture whose bytes are not what its message says."""


def decode(message: Any) -> Picture:
    """The picture (H, W, 3) uint8 RGB of a sensor_msgs Image (rgb8, bgr8, rgba8, bgra8, mono8).

    Raises:
        ImageError: another encoding, or data of another size.
    """
    channels = _CHANNELS.get(message.encoding)
    if channels is None:
        raise ImageError(f"encoding {str(message.encoding)[:20]!r} is none of {', '.join(_CHANNELS)}")
    height, width, step = int(message.height), int(message.width), int(message.step)
    data = np.asarray(message.data, dtype=np.uint8)
    if height < 1 or width < 1 or step < width * channels or data.size != height * step:
        raise ImageError(f"{data.size} bytes are no {width}x{height} picture of {message.encoding} with step {step}")
    picture = data.reshape(height, step)[:, : width * channels].reshape(height, width, channels)
    if channels == 1:
        return np.repeat(picture, 3, axis=2)
    return picture[..., 2::-1] if message.encoding.startswith("bgr") else picture[..., :3]


def decompress(message: Any) -> Picture:
    """The picture (H, W, 3) uint8 RGB of a sensor_msgs CompressedImage (JPEG or PNG).

    Raises:
        ImageError: bytes of another format, damaged ones, or more than `MAX_PIXELS`.
    """
    data = np.ascontiguousarray(message.data, dtype=np.uint8)
    width, height = _size(data[:65536].tobytes())
    if not 0 < width * height <= MAX_PIXELS:
        raise ImageError(f"a compressed picture of {width}x{height} is refused; at most {MAX_PIXELS} pixels")
    try:
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise ImageError("the compressed picture cannot be decoded") from error
    if picture is None:
        raise ImageError("the compressed picture cannot be decoded")
    return np.asarray(picture, dtype=np.uint8)


def fit(picture: Picture, height: int, width: int, how: str) -> Picture:
    """Scale a picture (H, W, 3) down to (height, width, 3), averaging areas.

    Args:
        picture: RGB.
        height, width: pixels wanted.
        how: ``crop`` keeps the middle of the right aspect ratio, ``stretch`` all of it.

    Raises:
        ImageError: the picture has fewer pixels than wanted.
    """
    rows, columns = picture.shape[:2]
    if how == "crop":
        keep_rows = min(rows, round(columns * height / width))
        keep_columns = min(columns, round(rows * width / height))
        top, left = (rows - keep_rows) // 2, (columns - keep_columns) // 2
        picture = picture[top : top + keep_rows, left : left + keep_columns]
    if picture.shape[0] < height or picture.shape[1] < width:
        raise ImageError(f"a picture of {columns}x{rows} is too small for a channel of {width}x{height}")
    if picture.shape[:2] == (height, width):
        return np.ascontiguousarray(picture)
    smaller = cv2.resize(np.ascontiguousarray(picture), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(smaller, dtype=np.uint8)


def _size(head: bytes) -> tuple[int, int]:
    """Width and height that a compressed picture's header states, before anything is allocated for them."""
    if head.startswith(_PNG) and len(head) >= 24:
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if not head.startswith(_JPEG):
        raise ImageError("the compressed picture is neither JPEG nor PNG")
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker in _JPEG_FRAMES:
            return int.from_bytes(head[at + 7 : at + 9], "big"), int.from_bytes(head[at + 5 : at + 7], "big")
        length = int.from_bytes(head[at + 2 : at + 4], "big")
        at += 1 if marker == 0xFF else 2 + max(length, 2)
    raise ImageError("the JPEG states no size")
