"""The critic node: which pictures it judges, and that nothing waits for it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from real.nodes.critic import CriticNode
from real.stack import load
from real.transport.handle import SENSOR, QoS
from real.transport.local import LocalBus

IMAGE, STRING = "sensor_msgs/msg/Image", "std_msgs/msg/String"


class Room:
    """A critic, a camera of 10 Hz, and somebody who starts episodes."""

    def __init__(self, critic: str = "elapsed_time") -> None:
        self.bus = LocalBus()
        settings = {"critic.rate_hz": 5.0, "critic.cameras": ["front"], "instruction": "reach it"}
        self.stack = load("panda_twin", {"critic": critic, **settings})
        self.node = CriticNode(self.bus.node("critic"), self.stack)
        self.peer = self.bus.node("peer")
        self.camera = self.peer.publisher("camera/front/image_raw", IMAGE, SENSOR)
        self.events = self.peer.publisher("episode/event", STRING, QoS(depth=10, transient_local=True))
        self.answers: list[tuple[int, dict[str, float]]] = []
        self.peer.subscribe("critic/value", "control_msgs/msg/DynamicJointState", self._hear, QoS(depth=50))
        self.frozen, self.size, self.stamp = False, 48 * 64 * 3, 0
        self.peer.timer(0.1, self._look)

    def event(self, **told: Any) -> None:
        self.events.publish(self.bus.store.new(STRING, data=json.dumps(told)))
        self.bus.run(0.01)

    def _look(self) -> None:
        self.stamp = self.stamp if self.frozen else self.bus.clock.now()
        header = self.bus.store.new("std_msgs/msg/Header", stamp=self.bus.store.time(self.stamp))
        fields = {"height": 48, "width": 64, "encoding": "rgb8", "step": 192, "header": header}
        self.camera.publish(self.bus.store.new(IMAGE, data=np.zeros(self.size, np.uint8), **fields))

    def _hear(self, message: Any, received: Any) -> None:
        row = message.interface_values[0]
        values = dict(zip(row.interface_names, row.values, strict=True))
        self.answers.append((self.bus.store.ns(message.header.stamp), values))


@pytest.fixture
def room() -> Room:
    return Room()


def test_it_judges_while_an_episode_runs_each_picture_once(room):
    room.bus.run(1.0)
    assert not room.answers
    room.event(event="started", episode=0)
    begin = room.bus.clock.now()
    room.bus.run(2.0)
    assert 8 <= len(room.answers) <= 10
    stamps = [stamp for stamp, _ in room.answers]
    assert stamps == sorted(set(stamps)) and stamps[0] >= begin - 20_000_000
    assert all(values["valid"] == 1.0 and np.isfinite(values["progress"]) for _, values in room.answers)
    room.event(event="ended", episode=0)
    number = len(room.answers)
    room.bus.run(1.0)
    assert len(room.answers) == number


def test_a_frozen_camera_is_not_judged_again(room):
    room.event(event="started", episode=0)
    room.bus.run(1.0)
    room.frozen = True
    room.bus.run(0.5)
    number = len(room.answers)
    room.bus.run(2.0)
    assert len(room.answers) == number


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_jumps_does_not_stop_it(room, hours):
    room.event(event="started", episode=0)
    room.bus.run(1.0)
    number = len(room.answers)
    room.bus.clock.jump(3600.0 * hours)
    room.bus.run(1.0)
    assert len(room.answers) - number >= 4


def test_bad_pictures_and_events_are_refused_and_it_lives(room):
    room.event(event="started", episode="x")
    room.event(event="started", episode=[])
    room.size = 17
    room.bus.run(1.0)
    assert not room.answers and room.node._bad_pictures > 3
    room.size = 48 * 64 * 3
    room.bus.run(1.0)
    assert len(room.answers) > 3
