"""Writing files so that a crash, a kill or a full disk never leaves half of one."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_atomic(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``: readers see the old bytes or all the new ones, also after a power cut.

    Raises:
        OSError: nothing was replaced and nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_json(value: Any) -> Any:
    """``value`` as JSON types: arrays and tensors become lists, paths text, non-finite numbers ``None``."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (Sequence, set, frozenset)):
        return [to_json(item) for item in value]
    return str(value)


def json_line(value: Any) -> str:
    """``value`` as one line of strict JSON."""
    return json.dumps(to_json(value), allow_nan=False, separators=(", ", ": "))
