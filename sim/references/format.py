"""A reference motion in memory and on disk: what the hand and the object did, frame by frame.

The file is a NumPy ``.npz`` archive without pickled objects; ``docs/references.md`` documents every field.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.errors import RobolearnError, unknown
from robolearn.files import write_atomic

FORMAT_VERSION = 1
MIN_RATE_HZ, MAX_RATE_HZ = 30.0, 120.0
SIDES = ("right", "left")
HUMAN = "human"
"""``Reference.robot`` of a recorded human hand, which has keypoints instead of joints."""

KEYPOINT_NAMES = ("wrist",) + tuple(
    f"{finger}_{joint}"
    for finger, joints in {
        "thumb": ("cmc", "mcp", "ip", "tip"),
        "index": ("mcp", "pip", "dip", "tip"),
        "middle": ("mcp", "pip", "dip", "tip"),
        "ring": ("mcp", "pip", "dip", "tip"),
        "pinky": ("mcp", "pip", "dip", "tip"),
    }.items()
    for joint in joints
)
"""The 21 human keypoints in the order of MediaPipe Hands: wrist, then each finger from root to tip."""


class ReferenceError(RobolearnError):
    """A reference, or its file, that cannot be used: names the field, the given and the expected value."""


@dataclass(frozen=True, eq=False)
class Reference:
    """One clip: T frames of a hand and an object, at a constant rate, in the world frame (z up, SI units).

    At least one of ``joint_pos`` and ``keypoints`` is given. Construction checks types and shapes and raises
    :class:`ReferenceError`; whether the *numbers* make sense is the business of ``sim.references.check``.
    Frames may be missing: NaN values, or False in ``valid``.
    """

    name: str
    """name of the clip"""
    robot: str
    """robot whose joints ``joint_pos`` moves, or ``"human"``"""
    side: str
    """``"right"`` or ``"left"``"""
    rate_hz: float
    """frames per second"""
    object: str
    """name of the object (``sim.objects``)"""
    wrist_pose: np.ndarray
    """(T, 7) palm frame in the world: position (m) and unit quaternion wxyz"""
    object_pose: np.ndarray
    """(T, 7) object frame in the world: position (m) and unit quaternion wxyz"""
    joint_names: tuple[str, ...] = ()
    """J finger joints, in the order of ``joint_pos``"""
    joint_pos: np.ndarray | None = None
    """(T, J) finger joints, rad"""
    keypoints: np.ndarray | None = None
    """(T, 21, 3) hand keypoints in the world, m, in the order of ``KEYPOINT_NAMES``"""
    valid: np.ndarray | None = None
    """(T,) bool, False where a frame is missing; None: no frame is"""
    table_height: float | None = None
    """height of the table top in the world, m; None: unknown or no table"""
    split: str = ""
    """``"train"``, ``"heldout"``, or empty"""
    source: str = ""
    """where the clip comes from: recording, licence, generator and seed"""
    repaired: str = ""
    """what was repaired, one line; empty: nothing"""

    def __post_init__(self) -> None:
        put = lambda key, value: object.__setattr__(self, key, value)  # noqa: E731 - frozen dataclass
        for key in _TEXT:
            if not isinstance(getattr(self, key), str):
                raise ReferenceError(f"field {key!r} must be text, got {type(getattr(self, key)).__name__}")
        if self.side not in SIDES:
            raise ReferenceError(unknown("side", self.side, SIDES))
        put("rate_hz", _number("rate_hz", self.rate_hz))
        if not self.rate_hz > 0:
            raise ReferenceError(f"field 'rate_hz' must be positive, got {self.rate_hz:g}")
        if self.table_height is not None:
            put("table_height", _number("table_height", self.table_height))
        put("wrist_pose", _array("wrist_pose", self.wrist_pose, (None, 7)))
        frames = len(self.wrist_pose)
        if frames == 0:
            raise ReferenceError("field 'wrist_pose' has shape (0, 7): the clip has no frames")
        put("object_pose", _array("object_pose", self.object_pose, (frames, 7)))
        put("joint_names", tuple(str(name) for name in self.joint_names))
        if self.joint_pos is None and self.keypoints is None:
            raise ReferenceError("neither 'joint_pos' (T, J) nor 'keypoints' (T, 21, 3) is given; one is needed")
        if self.joint_pos is not None:
            if not self.joint_names:
                raise ReferenceError("field 'joint_names' is empty; it names the columns of 'joint_pos'")
            put("joint_pos", _array("joint_pos", self.joint_pos, (frames, len(self.joint_names))))
        if self.keypoints is not None:
            put("keypoints", _array("keypoints", self.keypoints, (frames, len(KEYPOINT_NAMES), 3)))
        if self.valid is not None:
            mask = np.asarray(self.valid)
            if mask.shape != (frames,) or mask.dtype != np.bool_:
                raise ReferenceError(_expected("valid", mask, f"({frames},) of bool"))
            put("valid", mask)

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.wrist_pose)

    @property
    def duration(self) -> float:
        """Seconds from the first to the last frame."""
        return (self.num_frames - 1) / self.rate_hz

    def joints(self, names: Sequence[str]) -> np.ndarray:
        """Finger joints (T, len(names)), rad, in the order of ``names``; raises for one that is missing."""
        if self.joint_pos is None:
            raise ReferenceError(f"reference {self.name!r} has keypoints but no joints; retarget it to a robot first")
        for name in names:
            if name not in self.joint_names:
                raise ReferenceError(f"reference {self.name!r}: {unknown('joint', name, self.joint_names)}")
        return self.joint_pos[:, [self.joint_names.index(name) for name in names]]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the clip to ``path`` (``.npz``) at once or not at all: a reader never sees half a file."""
        path = Path(path)
        entries: dict[str, Any] = {"format_version": FORMAT_VERSION}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                entries[field.name] = np.asarray(value, dtype=str) if field.name == "joint_names" else value
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **entries)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, buffer.getvalue())
        except OSError as error:
            raise ReferenceError(f"cannot write reference {path}: {error.strerror or error}") from error
        return path


_TEXT = ("name", "robot", "side", "object", "split", "source", "repaired")
_OPTIONAL = (
    "joint_names",
    "joint_pos",
    "keypoints",
    "valid",
    "table_height",
    "split",
    "source",
    "repaired",
    "wrist_pose",
)
_FIELDS = ("format_version",) + tuple(field.name for field in fields(Reference))


def load(path: str | os.PathLike[str]) -> Reference:
    """Read one clip; types and shapes are checked, numbers are not (see ``sim.references.check``).

    A keypoint clip may come without ``wrist_pose``: it is then their palm frame, :func:`palm_pose`.
    Raises :class:`ReferenceError` naming the file and what is wrong with it.
    """
    path = Path(path)
    try:
        entries = _read(path)
        version = int(_number("format_version", entries.pop("format_version")))
        if version != FORMAT_VERSION:
            raise ReferenceError(
                f"format version {version} is not supported; this program reads version {FORMAT_VERSION}"
            )
        for key in _TEXT:
            if key in entries:
                if entries[key].ndim != 0 or entries[key].dtype.kind != "U":
                    raise ReferenceError(_expected(key, entries[key], "() of unicode text"))
                entries[key] = str(entries[key])
        if "joint_names" in entries:
            if entries["joint_names"].ndim != 1 or entries["joint_names"].dtype.kind not in "U":
                if entries["joint_names"].size:
                    raise ReferenceError(_expected("joint_names", entries["joint_names"], "(J,) of unicode text"))
            entries["joint_names"] = tuple(str(name) for name in entries["joint_names"])
        if "wrist_pose" not in entries:
            if "keypoints" not in entries:
                raise ReferenceError("required field 'wrist_pose' (T, 7) is missing")
            keypoints = _array("keypoints", entries["keypoints"], (None, len(KEYPOINT_NAMES), 3))
            entries["wrist_pose"] = palm_pose(keypoints, entries["side"])
        return Reference(**entries)
    except ReferenceError as error:
        raise ReferenceError(f"{path}: {error}") from error


def load_folder(path: str | os.PathLike[str], split: str | None = None) -> list[Reference]:
    """Load and check every ``.npz`` clip in a folder, by file name; ``split`` keeps those of one split.

    Raises :class:`ReferenceError` for a folder without (matching) clips and for the first bad clip.
    """
    from sim.references.check import check  # the check knows robots and objects; the format does not

    folder = Path(path)
    if not folder.is_dir():
        raise ReferenceError(f"no folder {folder} with reference clips")
    clips, splits = [], set()
    for file in sorted(folder.glob("*.npz")):
        clip = load(file)
        splits.add(clip.split)
        if split is not None and clip.split != split:
            continue
        try:
            check(clip)
        except ReferenceError as error:
            raise ReferenceError(f"{file}: {error}") from error
        clips.append(clip)
    if not splits:
        raise ReferenceError(f"folder {folder} has no .npz reference clips")
    if not clips:
        raise ReferenceError(f"folder {folder}: {unknown('split', split or '', splits)}")
    return clips


def palm_pose(keypoints: np.ndarray, side: str) -> np.ndarray:
    """Palm frame (T, 7) of keypoints (T, 21, 3): origin wrist, x to the middle knuckle, z out of the back.

    y completes it: from the little finger to the index finger on a right hand, the other way on a left hand.
    Frames with NaN give NaN.
    """
    from scipy.spatial.transform import Rotation

    wrist, index, middle, pinky = (
        keypoints[:, KEYPOINT_NAMES.index(k)] for k in ("wrist", "index_mcp", "middle_mcp", "pinky_mcp")
    )
    forward = middle - wrist
    across = (index - pinky) if side == "right" else (pinky - index)
    up = np.cross(forward, across)
    pose = np.full((len(keypoints), 7), np.nan)
    pose[:, :3] = wrist
    length = np.linalg.norm(forward, axis=1) * np.linalg.norm(up, axis=1)
    good = np.isfinite(length) & (length > 0)
    if good.any():
        x = forward[good] / np.linalg.norm(forward[good], axis=1, keepdims=True)
        z = up[good] / np.linalg.norm(up[good], axis=1, keepdims=True)
        matrix = np.stack([x, np.cross(z, x), z], axis=-1)
        pose[good, 3:] = Rotation.from_matrix(matrix).as_quat(scalar_first=True)
    return pose


def _read(path: Path) -> dict[str, Any]:
    """The arrays of an archive, with the names that the format knows."""
    try:
        with open(path, "rb") as file:
            if file.read(2) != b"PK":
                raise ReferenceError("not an .npz archive")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                entries = {key: archive[key] for key in archive.files}
    except ReferenceError:
        raise
    except FileNotFoundError:
        raise ReferenceError("no such file") from None
    except OSError as error:
        raise ReferenceError(f"cannot be read: {error.strerror or error}") from error
    except Exception as error:  # zip, zlib, NumPy's header parser: damaged bytes fail anywhere, in any way
        if "pickle" in str(error):
            raise ReferenceError("holds pickled objects, which are never loaded") from error
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ReferenceError(f"truncated or corrupt .npz archive ({what})") from error
    for key in entries:
        if key not in _FIELDS:
            raise ReferenceError(unknown("field", key, _FIELDS))
    for key in _FIELDS:
        if key not in entries and key not in _OPTIONAL:
            raise ReferenceError(
                f"required field {key!r} is missing; the file has: {', '.join(sorted(entries)) or 'nothing'}"
            )
    return entries


def _number(field: str, value: Any) -> float:
    array = np.asarray(value)
    if array.shape != () or array.dtype.kind not in "iuf" or not np.isfinite(array):
        raise ReferenceError(f"field {field!r} must be one finite number, got {value!r}")
    return float(array)


def _array(field: str, value: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    array = np.asarray(value)
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if not fits or array.dtype.kind not in "iuf":
        raise ReferenceError(
            _expected(field, array, f"({', '.join('T' if n is None else str(n) for n in shape)}) of numbers")
        )
    return array.astype(np.float64)


def _expected(field: str, array: np.ndarray, expected: str) -> str:
    return f"field {field!r} has shape {array.shape} and type {array.dtype}; expected {expected}"
