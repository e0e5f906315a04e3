"""Payloads that a broken or hostile peer may put on any topic of the room."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from real.errors import MessageError
from real.msgs import MessageStore
from real.nodes.safety_outputs import STEP_FIELDS
from real.twin.settings import TASKS
from tests.real.message_samples import Sampler
from tests.real.test_msgs_hostile import mutate

FLOATS = (float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 1e39, 5e-324, -1e-310, -0.0, 0.0, 1e19, 180.0, -1.0)
TEXTS = (
    *(
        "",
        "\0",
        "arm ",
        "ARM",
        "arm\n",
        "arm\0",
        "hold;arm",
        "POLICY ",
        "policy",
        "Mode.POLICY",
        "é\u202e\U0001f600",
        "%s%n",
    ),
    *("../../etc/passwd", "\x1b[2J", "null", "NaN", "[]", "{}", "1", "x" * 5000),
    *("INIT", "HOLD", "POLICY", "HUMAN", "RESET", "FAULT", "ESTOP", "start", "success", "failure", "abort"),
)
_DEEP = 100_000
_JSON_VALUES = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1", "0", "2147483648", "9" * 400, "9" * 5000, "1.5", "true", "null"),
    *('""', '"x"', '"\\ud800"', '"\\u0000"', "[]", "{}", "[[]]", '["a", null]', "[1e999, 2]", '{"a": {"b": []}}'),
    *("[" * 500 + "]" * 500, "[" * _DEEP, "[" * _DEEP + "]" * _DEEP, '{"a":' * 2000 + "1" + "}" * 2000),
)
_JSON_KEYS = {
    "event": ("event", "episode", "outcome", "reason", "metrics", "task", "instruction"),
    "request": ("seed", "task", "teleport", "other"),
    "state": ("seed", "named_one_hot", "instruction", "success", "start", "progress", "ever_success", "task"),
}
_EVENTS = ("started", "ended", "relabelled", "intervention", "refused", "")
ASKED = ("arm", "hold", "reset", "clear")


class Hostile(Sampler):
    """Well-formed messages with values that nobody should send."""

    def value(self, kind: Any) -> Any:
        made = super().value(kind)
        if isinstance(made, list) and made and self.random.random() < 0.05:
            return made * int(self.random.integers(2, 200)) if _is_sequence(kind) else made
        return made

    def base(self, name: str, bound: int) -> Any:
        if self.random.random() < 0.4:
            return super().base(name, bound)
        if name == "string":
            return str(self.pick(TEXTS))[: bound or None]
        if name.startswith("float"):
            value = self.pick(FLOATS)
            return float(np.clip(value, -3e38, 3e38)) if name == "float32" and np.isfinite(value) else value
        if name == "bool":
            return bool(self.random.integers(2))
        limits = np.iinfo({"byte": "int8", "char": "uint8"}.get(name, name))
        return int(self.pick((limits.min, limits.max, 0, 1)))

    def pick(self, choices: Sequence[Any]) -> Any:
        return choices[int(self.random.integers(len(choices)))]


class Payloads:
    """Draws payloads for the topics of a room of which the joints are ``joints``.

    Attributes:
        session: gives the session that is armed now.
        skipped: payloads not sent because they ask for something in so many words, as a person or a policy would.
    """

    def __init__(self, messages: MessageStore, joints: Sequence[str], seed: int, session: Callable[[], str]) -> None:
        self.messages, self.joints, self.session = messages, tuple(joints), session
        self.random = np.random.default_rng(seed)
        self.hostile, self.sampler = Hostile(messages, seed), Sampler(messages, seed + 1)
        self.skipped = 0
        self._valid: dict[str, list[bytes]] = {}

    def draw(self, topic: str, type: str, asks: Callable[[str, Any], bool]) -> bytes:
        """One payload of a topic; ``asks(topic, message)`` tells which well-formed ones are not to be sent."""
        while True:
            data = self._any(topic, type)
            try:
                message = self.messages.deserialize(data, type)
            except MessageError:
                return data
            if not asks(topic, message):
                return data
            self.skipped += 1

    def _any(self, topic: str, type: str) -> bytes:
        draw = self.random.random()
        if draw < 0.2:
            head = (b"\0\1\0\0", b"\0\0\0\0", b"")[int(self.random.integers(3))]
            return head + self.random.bytes(int(self.random.integers(0, 200)))
        if draw < 0.55:
            return mutate(self._sample(topic, type), self.random)
        if draw < 0.7:
            return self.messages.serialize(self.hostile.message(type))
        return self._serialized(self._near(topic, type))

    def _sample(self, topic: str, type: str) -> bytes:
        """A message as the room knows it, to be mutated."""
        if self.random.random() < 0.5:
            return self._serialized(self._near(topic, type))[:20_000]
        if type not in self._valid:
            self._valid[type] = [self.messages.serialize(self.sampler.message(type)) for _ in range(8)]
        return self._valid[type][int(self.random.integers(8))]

    def _serialized(self, message: Any) -> bytes:
        return self.messages.serialize(message)

    def _number(self) -> float:
        return float(self.hostile.pick(FLOATS)) if self.random.random() < 0.3 else float(self.random.normal())

    def _numbers(self, size: int) -> np.ndarray:
        return np.array([self._number() for _ in range(size)], dtype=np.float64)

    def _size(self, right: int) -> int:
        return int(self.hostile.pick((right, right, right, right, right - 1, right + 1, 0, 300)))

    def _names(self) -> list[str]:
        names = list(self.joints)
        match int(self.random.integers(8)):
            case 0:
                names[-1] = names[0]
            case 1:
                names = names[:-1]
            case 2:
                names = [*names, "joint99"]
            case 3:
                names = [name.upper() for name in names]
            case 4:
                self.random.shuffle(names)
            case 5:
                names = names * 50
        return names

    def _header(self, frame: str | None = None) -> Any:
        sec = int(self.hostile.pick((0, 1, -1, 2**31 - 1, -(2**31), 1_800_000_000)))
        nanosec = int(self.hostile.pick((0, 1, 999_999_999, 2**32 - 1)))
        stamp = self.messages.new("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
        frame_id = str(self.hostile.pick(TEXTS)) if frame is None else frame
        return self.messages.new("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def _near(self, topic: str, type: str) -> Any:
        """Almost what belongs on the topic."""
        kind = type.rsplit("/", 1)[1]
        made = getattr(self, f"_near_{kind}", None)
        return self.hostile.message(type) if made is None else made(topic)

    def _near_JointState(self, topic: str) -> Any:
        names = self._names()
        n = len(names)
        return self.messages.new(
            "sensor_msgs/msg/JointState",
            header=self._header(),
            name=names,
            position=self._numbers(self._size(n)),
            velocity=self._numbers(self._size(n)),
            effort=self._numbers(self._size(n)),
        )

    def _near_JointTrajectory(self, topic: str) -> Any:
        names = self._names()
        points = [self._point(len(names)) for _ in range(int(self.hostile.pick((0, 1, 2, 5, 1001))))]
        return self.messages.new(
            "trajectory_msgs/msg/JointTrajectory", header=self._header(self._frame()), joint_names=names, points=points
        )

    def _point(self, joints: int) -> Any:
        sec = int(self.hostile.pick((0, 0, 0, 1, -1, 2**31 - 1, -(2**31))))
        nanosec = int(self.hostile.pick((0, 20_000_000, 2**32 - 1)))
        return self.messages.new(
            "trajectory_msgs/msg/JointTrajectoryPoint",
            positions=self._numbers(self._size(joints)),
            velocities=self._numbers(int(self.hostile.pick((0, joints)))),
            time_from_start=self.messages.new("builtin_interfaces/msg/Duration", sec=sec, nanosec=nanosec),
        )

    def _frame(self) -> str:
        now = self.session() or "0" * 8
        near = (now, f"{now}/", f"{now}/-1", f"{now}/1e3", f"{now.upper()}/0", f"{now}/0 ", f"{now}/{'9' * 400}", "/")
        return str(self.hostile.pick((f"{now}/5", f"{now}/999999999999999", "deadbeef/0", *near)))

    def _near_String(self, topic: str) -> Any:
        text = str(self.hostile.pick(TEXTS))
        kind = topic.rsplit("/", 1)[1]
        if kind in _JSON_KEYS and self.random.random() < 0.8:
            text = self._json(kind)
        elif topic.endswith("heartbeat"):
            text = str(self.hostile.pick((*TEXTS, "deadbeef", "DEADBEEF", "deadbee", "deadbeef0")))
        return self.messages.new("std_msgs/msg/String", data=text)

    def _json(self, kind: str) -> str:
        keys = _JSON_KEYS[kind]
        if self.random.random() < 0.15:
            return str(self.hostile.pick(_JSON_VALUES))
        pairs = {key: self.hostile.pick(_JSON_VALUES) for key in keys if self.random.random() < 0.6}
        if kind == "event" and self.random.random() < 0.9:
            pairs["event"] = json.dumps(self.hostile.pick(_EVENTS))
        if kind == "event" and self.random.random() < 0.4:
            pairs["episode"] = str(int(self.random.integers(5)))
        if kind == "request" and "task" in pairs and self.random.random() < 0.7:
            pairs["task"] = json.dumps(TASKS[0])
        return "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in pairs.items()) + "}"

    def _near_Joy(self, topic: str) -> Any:
        buttons = [int(self.hostile.pick((0, 0, 0, 2, -1, 2**31 - 1, -(2**31)))) for _ in range(self._size(8))]
        axes = np.clip(self._numbers(self._size(6)), -3e38, 3e38).astype(np.float32)
        return self.messages.new("sensor_msgs/msg/Joy", header=self._header(), axes=axes, buttons=buttons)

    def _near_Image(self, topic: str) -> Any:
        height, width = int(self.hostile.pick((0, 1, 96, 97, 2**32 - 1))), int(self.hostile.pick((0, 1, 96, 2**31)))
        encoding = str(self.hostile.pick(("rgb8", "bgr8", "mono8", "rgba8", "16UC1", "yuv422", "")))
        size = int(self.hostile.pick((0, 1, 96 * 96, 96 * 96 * 3)))
        return self.messages.new(
            "sensor_msgs/msg/Image",
            header=self._header(),
            height=height,
            width=width,
            encoding=encoding,
            step=int(self.hostile.pick((0, 96, 96 * 3, min(width * 3, 2**32 - 1), 2**32 - 1))),
            data=np.frombuffer(self.random.bytes(size), np.uint8),
        )

    def _near_DynamicJointState(self, topic: str) -> Any:
        step = topic.endswith("step")
        names = [*self.joints, "step"] if step else ["critic"]
        fields = STEP_FIELDS if step else ("progress", "p_done", "confidence", "latency_s", "valid")
        rows = [
            self.messages.new(
                "control_msgs/msg/InterfaceValue",
                interface_names=list(fields),
                values=self._numbers(self._size(len(fields))),
            )
            for _ in range(self._size(len(names)))
        ]
        return self.messages.new(
            "control_msgs/msg/DynamicJointState", header=self._header(), joint_names=names, interface_values=rows
        )

    def _near_Float64MultiArray(self, topic: str) -> Any:
        return self.messages.new("std_msgs/msg/Float64MultiArray", data=self._numbers(self._size(2)))


def _is_sequence(kind: Any) -> bool:
    return len(kind[1]) == 2 and not kind[1][1]
