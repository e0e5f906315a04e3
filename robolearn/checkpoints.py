"""Checkpoint files: plain ``torch.save`` archives, written atomically, verified when read."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robolearn.errors import RobolearnError
from robolearn.files import write_atomic

_PLAIN = (type(None), bool, int, float, str, bytes)


class CheckpointError(RobolearnError):
    """A checkpoint is missing, damaged, or holds something that cannot be stored safely."""


@dataclass(frozen=True)
class Checkpoint:
    """What one file holds.

    Attributes:
        path: the file.
        iteration: training iterations completed.
        score: the value that ``best`` is chosen by, or None.
        state: tensors, numbers and text in dicts, lists and tuples.
        skipped: one line for each newer file that was damaged and passed over.
    """

    path: Path
    iteration: int
    score: float | None
    state: dict[str, Any]
    skipped: tuple[str, ...] = ()


def write(path: Path, iteration: int, state: Mapping[str, Any], score: float | None = None) -> None:
    """Write one checkpoint; ``path`` is either untouched or complete.

    Raises:
        CheckpointError: ``state`` holds something other than tensors and plain values, named by its place.
        OSError: it could not be written.
    """
    import torch

    content = {"iteration": int(iteration), "score": score, "state": dict(state)}
    _require_plain(content["state"], "state", torch.Tensor)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def read(path: Path, map_location: str = "cpu") -> Checkpoint:
    """Read one checkpoint. Nothing in the file is ever executed.

    Raises:
        CheckpointError: the file is missing, truncated, corrupt or not a checkpoint.
    """
    import torch

    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {path}: {error.strerror}") from error
    try:
        # The archive's directory stands at its end and every member has a CRC-32: any cut or flip is found.
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"checkpoint {path} is corrupt: {damaged} fails its checksum")
        content = torch.load(io.BytesIO(data), map_location=map_location, weights_only=True)
        return Checkpoint(path, int(content["iteration"]), content["score"], content["state"])
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"checkpoint {path} is truncated or corrupt ({reason})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a robolearn checkpoint") from error


def _require_plain(value: Any, place: str, tensor: type) -> None:
    """Refuse what ``torch.load(weights_only=True)`` would refuse later, when it is too late."""
    if isinstance(value, tensor) or type(value) in _PLAIN:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            if type(key) not in (str, int):
                raise CheckpointError(f"{place} has a key of type {type(key).__name__}; keys are text or integers")
            _require_plain(item, f"{place}[{key!r}]", tensor)
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            _require_plain(item, f"{place}[{index}]", tensor)
    else:
        raise CheckpointError(f"{place} is a {type(value).__name__}; a checkpoint holds tensors, numbers and text only")
