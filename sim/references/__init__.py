"""Reference motions: the file format, its check and repair, and the retargeter from human to robot hands."""

from sim.references.format import (
    FORMAT_VERSION,
    HUMAN,
    KEYPOINT_NAMES,
    Reference,
    ReferenceError,
    load,
    load_folder,
    palm_pose,
)

__all__ = [
    "FORMAT_VERSION",
    "HUMAN",
    "KEYPOINT_NAMES",
    "Reference",
    "ReferenceError",
    "load",
    "load_folder",
    "palm_pose",
]
