"""Small messages that several nodes read."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np


def json_of(message: Any) -> dict[str, Any]:
    """The JSON object in a String; empty where it holds none."""
    return json_object(message.data)


def json_object(text: str) -> dict[str, Any]:
    """The JSON object in a text; empty where it holds none, nests too deeply, or has text that UTF-8 cannot encode."""
    try:
        data = json.loads(text)
        json.dumps(data, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def whole(value: Any, otherwise: int = -1) -> int:
    """A whole number out of JSON; ``otherwise`` for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def scene_of(message: Any) -> dict[str, Any]:
    """What a twin tells of its scene, without entries that are not what they should be.

    ``named_one_hot`` is a list of numbers, ``start`` has a number for each joint; all numbers are finite.
    """
    scene = json_of(message)
    named, start = scene.get("named_one_hot"), scene.get("start")
    if not (isinstance(named, list) and all(_finite(value) for value in named)):
        scene.pop("named_one_hot", None)
    if not (isinstance(start, dict) and start and all(_finite(value) for value in start.values())):
        scene.pop("start", None)
    return scene


def _finite(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def interfaces(message: Any, joint: str) -> dict[str, float]:
    """Values of one joint of a DynamicJointState by interface; empty where it is not in it, or is malformed."""
    if joint not in message.joint_names or len(message.joint_names) != len(message.interface_values):
        return {}
    row = message.interface_values[list(message.joint_names).index(joint)]
    values = np.asarray(row.values, dtype=np.float64).tolist()
    return dict(zip(row.interface_names, values, strict=True)) if len(values) == len(row.interface_names) else {}
