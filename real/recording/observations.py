"""What was observed beside the joints, by row: object poses, goals, joint speeds, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from real.msgs import MessageStore
from real.recording.mcap_writer import RecordingError
from real.recording.reading import Recorded, Summary, messages
from robolearn.errors import unknown

POSE, ARRAY, JOINTS = "geometry_msgs/msg/PoseStamped", "std_msgs/msg/Float64MultiArray", "sensor_msgs/msg/JointState"
IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
ENCODINGS = {"rgb8": 3, "bgr8": 3, "mono8": 1, "rgba8": 4, "bgra8": 4}
_TO_RGB = {
    "bgr8": cv2.COLOR_BGR2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
}


def object_topics(summary: Summary) -> list[str]:
    """Topics with poses, sorted."""
    return sorted(topic for topic, kind in summary.types.items() if kind == POSE and summary.counts[topic])


def goal_topics(summary: Summary) -> list[str]:
    """Topics with goals, sorted."""
    found = (topic for topic, kind in summary.types.items() if kind == ARRAY and summary.counts[topic])
    return sorted(topic for topic in found if "/episode/goal/" in topic)


def camera_topics(summary: Summary) -> dict[str, str]:
    """Camera → topic of its pictures: the part of the name after ``camera``, else the one before ``image_raw``."""
    found: dict[str, str] = {}
    for topic, kind in sorted(summary.types.items()):
        if kind in IMAGES and summary.counts[topic]:
            parts = topic.strip("/").removesuffix("/compressed").split("/")
            at = parts.index("camera") + 1 if "camera" in parts[:-1] else max(0, len(parts) - 2)
            found.setdefault(parts[at], topic)
    return found


def object_name(topic: str) -> str:
    """``first`` of ``/objects/first/pose``."""
    parts = topic.strip("/").split("/")
    return parts[-2] if len(parts) > 1 and parts[-1] == "pose" else parts[-1]


def poses(path: Path, store: MessageStore, topics: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """(T, 7 K): position m and rotation wxyz of each topic's newest pose at ``rows`` (ns); NaN before the first."""

    def values(message: Any) -> list[float]:
        at, turn = message.pose.position, message.pose.orientation
        return [at.x, at.y, at.z, turn.w, turn.x, turn.y, turn.z]

    return _newest(path, store, topics, rows, values, 7)


def goals(path: Path, store: MessageStore, topic: str, rows: np.ndarray) -> np.ndarray:
    """(T, K): the newest values of a goal at ``rows``."""
    width = max((len(_read(one, store).data) for one in messages(path, {topic})), default=0)
    return _newest(path, store, [topic], rows, lambda message: message.data, width)


def speeds(path: Path, store: MessageStore, joints: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """(T, J) rad/s or m/s: what ``joint_states`` said last; NaN for joints that it does not name."""
    topic = next((one.topic for one in messages(path) if one.type == JOINTS and one.topic.endswith("joint_states")), "")

    def values(message: Any) -> list[float]:
        known = dict(zip(message.name, message.velocity, strict=False))
        return [float(known.get(name, np.nan)) for name in joints]

    return _newest(path, store, [topic], rows, values, len(joints))


def pictures(path: Path, store: MessageStore, topic: str, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The newest picture at each of ``rows`` (ns), (H, W, 3) uint8 RGB; before the first: the first. One at a time.

    Raises:
        RecordingError: there is none, it cannot be decoded, or its size changes.
    """
    times = [one.log_ns for one in messages(path, {topic})]
    if not times:
        raise RecordingError(f"{path}: no picture on {topic}")
    index = np.maximum(np.searchsorted(np.array(times), rows, side="right") - 1, 0)
    stream = enumerate(messages(path, {topic}))
    at, message = next(stream)
    decoded, shown = picture(_read(message, store)), 0
    shape = decoded.shape
    for wanted in index:
        while at < wanted:
            at, message = next(stream)
        if shown != wanted:
            decoded, shown = picture(_read(message, store)), int(wanted)
        if decoded.shape != shape:
            raise RecordingError(f"{path}: pictures on {topic} change from {shape} to {decoded.shape}")
        yield decoded


def picture(message: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a sensor_msgs Image or CompressedImage.

    Raises:
        RecordingError: an encoding that is not known, or bytes that do not fit.
    """
    if hasattr(message, "format"):
        decoded = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
        if decoded is None:
            raise RecordingError(f"a {message.format!r} picture of {len(message.data)} bytes cannot be decoded")
        return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))
    if message.encoding not in ENCODINGS:
        raise RecordingError(unknown("encoding", message.encoding, ENCODINGS))
    colours = ENCODINGS[message.encoding]
    width = message.width * colours
    if message.step < width or len(message.data) != message.step * message.height or not width * message.height:
        size = f"{message.width}x{message.height}"
        raise RecordingError(f"a {size} {message.encoding} picture has {len(message.data)} bytes, {message.step} a row")
    rows = np.asarray(message.data, np.uint8).reshape(message.height, message.step)[:, :width]
    pixels = np.ascontiguousarray(rows).reshape(message.height, message.width, colours)
    code = _TO_RGB.get(message.encoding)
    return pixels if code is None else np.asarray(cv2.cvtColor(pixels, code))


def _newest(
    path: Path, store: MessageStore, topics: Sequence[str], rows: np.ndarray, values: Any, width: int
) -> np.ndarray:
    found = np.full((len(rows), len(topics) * width), np.nan)
    times: dict[str, list[int]] = {topic: [] for topic in topics}
    said: dict[str, list[Any]] = {topic: [] for topic in topics}
    for message in messages(path, set(topics)):
        row = values(_read(message, store))
        if len(row) == width:
            times[message.topic].append(message.log_ns)
            said[message.topic].append(row)
    for k, topic in enumerate(topics):
        if times[topic]:
            index = np.searchsorted(np.array(times[topic]), rows, side="right") - 1
            newest = np.array(said[topic], np.float64)[index]
            found[:, k * width : (k + 1) * width] = np.where((index >= 0)[:, None], newest, np.nan)
    return found


def _read(message: Recorded, store: MessageStore) -> Any:
    return store.deserialize(message.data, message.type)
