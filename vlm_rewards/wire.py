"""Questions to a critic, and its answers, as JSON: what `vlm_rewards.server` and `vlm_rewards.endpoint` speak.

A question, its moments named as in `ROLES`::

    {"capability": "delta", "instructions": [...], "moments": {"before": FRAMES, "after": FRAMES}}

FRAMES, with all pictures in one text of base64::

    {"cameras": [...], "stamps": [...], "encoding": "raw", "shape": [B, W, V, H, W', 3], "data": "..."}

or with B·W·V pictures of base64 each, as ``png`` or ``jpeg``::

    {"cameras": [...], "stamps": [...], "encoding": "png", "shape": [B, W, V], "data": ["...", ...]}

Stamps may be left out; so may the shape of encoded pictures, if there is one for each moment and camera. An answer, in
which a value that cannot be used is null, and its reason says why::

    {"answers": {"delta": {"values": [...], "confidence": [...], "reasons": [...], "stamps": [...],
                           "latency_s": ..., "revision": ...}}}
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from robolearn.errors import unknown
from vlm_rewards.answer import Answer
from vlm_rewards.critic import Judged
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.limits import RequestFailed

PROTOCOL = "robolearn-critic/1"
VALUE_AND_DONE = "value_and_done"
ROLES = {
    "score": ("now",),
    "delta": ("before", "after"),
    "prefer": ("first", "second"),
    "done": ("now",),
    "value": ("now", "start"),
    VALUE_AND_DONE: ("now", "start"),
}
"""What can be asked → names of the moments that belong to it, in the order of `Critic`'s methods."""

_MOST_PIXELS = 1 << 26

ENCODINGS = ("raw", "png", "jpeg")

UNFIT = 422
"""Status of a question that the critic refuses: what is said with it is the `CriticError` of the local critic."""


def encoded(picture: np.ndarray, encoding: str) -> str:
    """A picture (H, W, 3) uint8 as PNG (exact) or JPEG (quality 95) in base64."""
    suffix, options = (".png", []) if encoding == "png" else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95])
    _, data = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    return base64.b64encode(data.tobytes()).decode()


def frames_to_json(frames: Frames, encoding: str) -> dict[str, Any]:
    """`Frames` as JSON in one of `ENCODINGS`; raw and png are exact."""
    rgb = frames.rgb.cpu().contiguous().numpy()
    told = {"cameras": list(frames.cameras), "stamps": frames.stamps.tolist(), "encoding": encoding}
    if encoding == "raw":
        return {**told, "shape": list(rgb.shape), "data": base64.b64encode(rgb.tobytes()).decode()}
    pictures = rgb.reshape(-1, *rgb.shape[3:])
    return {**told, "shape": list(rgb.shape[:3]), "data": [encoded(picture, encoding) for picture in pictures]}


def frames_from_json(told: Any, role: str) -> Frames:
    """The inverse of `frames_to_json`.

    Raises:
        CriticError: naming ``role`` and what is wrong.
    """
    try:
        if not isinstance(told, Mapping):
            raise CriticError("is not an object")
        cameras = _cameras(told.get("cameras"))
        encoding = told.get("encoding", "raw" if isinstance(told.get("data"), str) else "png")
        if encoding not in ENCODINGS:
            raise CriticError(unknown("encoding", str(encoding), ENCODINGS))
        rgb = _raw(told) if encoding == "raw" else _pictures(told, len(cameras))
        return Frames(rgb, cameras, _stamps(told.get("stamps"), len(rgb)))
    except CriticError as error:
        raise CriticError(f"{role}: {error}") from error


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """An `Answer` as JSON."""
    return {
        "values": answer.values.cpu(),
        "confidence": answer.confidence.cpu(),
        "reasons": list(answer.reasons),
        "stamps": answer.stamps.cpu(),
        "latency_s": answer.latency_s,
        "revision": answer.revision,
    }


def judged_from_json(told: Any, rows: int) -> Judged:
    """What a server answered about ``rows`` moments.

    Raises:
        RequestFailed: it is no answer, or one about another number of moments.
    """
    told = told if isinstance(told, Mapping) else {}
    lists = [told.get(name) for name in ("values", "confidence", "reasons")]
    for name, found in zip(("values", "confidence", "reasons"), lists, strict=True):
        if not isinstance(found, list):
            raise RequestFailed(f"the server's answer lacks {name}")
        if len(found) != rows:
            raise RequestFailed(f"the server answered with {len(found)} {name} for {rows} moments")
    values, confidence = ([_number(item) for item in found] for found in lists[:2])
    reasons = ["" if reason is None else str(reason) for reason in lists[2]]
    trust = torch.tensor(confidence).nan_to_num(0.0)
    return Judged(torch.tensor(values), trust, reasons)


def _cameras(told: Any) -> tuple[str, ...]:
    if not isinstance(told, list) or not told or not all(isinstance(name, str) for name in told):
        raise CriticError('cameras is a list of names, such as ["front", "wrist"]')
    if len(set(told)) < len(told):
        raise CriticError(f"a camera is named twice: {', '.join(told)}")
    return tuple(told)


def _stamps(told: Any, rows: int) -> torch.Tensor:
    if told is None:
        return torch.zeros(rows, dtype=torch.float64)
    if not isinstance(told, list) or not all(math.isfinite(_number(item)) for item in told):
        raise CriticError("stamps is a list of seconds, one for each moment")
    return torch.tensor(told, dtype=torch.float64)


def _raw(told: Mapping[str, Any]) -> torch.Tensor:
    shape = _shape(told.get("shape"), 6)
    data = _bytes(told.get("data"))
    if told.get("dtype", "uint8") != "uint8":
        raise CriticError(f"raw frames are uint8, got {told['dtype']}")
    if len(data) != math.prod(shape):
        raise CriticError(f"{len(data)} bytes do not fill a shape of {shape}, which takes {math.prod(shape)}")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(shape) if data else torch.zeros(shape).byte()


def _pictures(told: Mapping[str, Any], cameras: int) -> torch.Tensor:
    data = told.get("data")
    if not isinstance(data, list) or not data:
        raise CriticError("data is a list of pictures in base64")
    given = told.get("shape")
    shape = [len(data) // cameras, 1, cameras] if given is None else _shape(given, 3)
    if len(data) != math.prod(shape):
        raise CriticError(f"{len(data)} pictures do not fill a shape of {shape} (moments, window, cameras)")
    pictures = [_decoded(item) for item in data]
    sizes = sorted({picture.shape[:2] for picture in pictures})
    if len(sizes) > 1:
        raise CriticError(f"pictures differ in size: {', '.join(f'{h}x{w}' for h, w in sizes)}")
    return torch.from_numpy(np.stack(pictures)).unflatten(0, shape)


def _decoded(item: Any) -> np.ndarray:
    data = _bytes(item.partition(",")[2] if isinstance(item, str) and item.startswith("data:") else item)
    pixels = _pixels(data)
    if pixels > _MOST_PIXELS:
        raise CriticError(f"a picture of {pixels} pixels is larger than the {_MOST_PIXELS} that are read")
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if pixels else None
    except cv2.error:
        picture = None
    if picture is None:
        raise CriticError(f"a picture of {len(data)} bytes is neither PNG nor JPEG")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _pixels(data: bytes) -> int:
    """Size of a PNG or JPEG by its header, 0 for anything else: a small file can unfold to gigabytes."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big")
    at = 2 if data.startswith(b"\xff\xd8\xff") else len(data)
    while at + 9 < len(data) and data[at] == 0xFF:
        if 0xC0 <= data[at + 1] <= 0xCF and data[at + 1] not in (0xC4, 0xC8, 0xCC):  # a start of frame
            return int.from_bytes(data[at + 5 : at + 7], "big") * int.from_bytes(data[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def _shape(told: Any, dims: int) -> list[int]:
    whole = isinstance(told, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in told)
    if not whole or len(told) != dims:
        names = "moments, window, cameras, height, width, 3" if dims == 6 else "moments, window, cameras"
        raise CriticError(f"shape is a list of {dims} whole numbers ({names}), got {told!r:.60}")
    return list(told)


def _bytes(told: Any) -> bytes:
    if not isinstance(told, str):
        raise CriticError("data is text in base64")
    try:
        return base64.b64decode(told, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CriticError(f"data is no base64: {error}") from error


def _number(item: Any) -> float:
    """A number, or NaN where it is none."""
    return float(item) if isinstance(item, (int, float)) and not isinstance(item, bool) else math.nan


def instructions_from_json(told: Any) -> Sequence[str]:
    """Instructions of the moments.

    Raises:
        CriticError: they are no texts.
    """
    if not isinstance(told, list) or not all(isinstance(item, str) for item in told):
        raise CriticError("instructions is a list of texts, one for each moment")
    return told
