"""Small messages that several nodes read."""

from __future__ import annotations

import json
from typing import Any

import numpy as np


def json_of(message: Any) -> dict[str, Any]:
    """The JSON object in a String; empty where it holds none."""
    try:
        data = json.loads(message.data)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def interfaces(message: Any, joint: str) -> dict[str, float]:
    """Values of one joint of a DynamicJointState by interface; empty where it is not in it, or is malformed."""
    if joint not in message.joint_names or len(message.joint_names) != len(message.interface_values):
        return {}
    row = message.interface_values[list(message.joint_names).index(joint)]
    values = np.asarray(row.values, dtype=np.float64).tolist()
    return dict(zip(row.interface_names, values, strict=True)) if len(values) == len(row.interface_names) else {}
