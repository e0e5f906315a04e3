"""The twin as processes on a real DDS domain: driver and cameras apart, moved by commands, ended by a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from real.msgs import store
from real.transport.handle import SENSOR, NodeHandle
from real.transport.open import open_node

ARM = "arm_controller/joint_trajectory"
PATIENCE_S = 60.0


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return 100 + os.getpid() % 100


@pytest.fixture
def twin(domain: int) -> Iterator[subprocess.Popen[bytes]]:
    settings = {"domain": domain, "transport": "dds", "twin.seed": 2, "twin.camera_rate_hz": 10}
    given = [text for key, value in settings.items() for text in ("-p", f"{key}:={value}")]
    process = subprocess.Popen([sys.executable, "-m", "real.nodes.twin", "--ros-args", *given])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def probe(domain: int) -> Iterator[NodeHandle]:
    handle = open_node("probe", transport="dds", domain=domain)
    yield handle
    handle.close()


def wait_for(probe: NodeHandle, ready: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    probe.spin(until=lambda: ready() or time.monotonic() > end)
    assert ready(), f"no {what} within {PATIENCE_S:g} s"


def test_driver_and_cameras_are_there_and_follow_commands(twin: subprocess.Popen[bytes], probe: NodeHandle) -> None:
    joints: list[Any] = []
    images: dict[str, Any] = {}
    probe.subscribe("joint_states", "sensor_msgs/msg/JointState", lambda m, _: joints.append(m), SENSOR)
    for camera in ("front", "wrist"):
        probe.subscribe(
            f"camera/{camera}/image_raw", "sensor_msgs/msg/Image", lambda m, r: images.update({r.topic: m}), SENSOR
        )
    wait_for(probe, lambda: len(joints) > 10 and len(images) == 2, "joint states and pictures")
    front = np.asarray(images["/camera/front/image_raw"].data).reshape(480, 640, 3)
    assert np.ptp(front) > 100
    assert {"/twin", "/twin_cameras"} <= set(probe.nodes())

    start = dict(zip(joints[-1].name, joints[-1].position, strict=True))
    names = [f"joint{i}" for i in range(1, 8)]
    goal = [start[name] + (0.05 if name == "joint1" else 0.0) for name in names]
    messages = store()
    command = messages.new(
        "trajectory_msgs/msg/JointTrajectory",
        joint_names=names,
        points=[
            messages.new(
                "trajectory_msgs/msg/JointTrajectoryPoint",
                positions=np.array(goal),
                time_from_start=messages.duration(0.3),
            )
        ],
    )
    publisher = probe.publisher(ARM, "trajectory_msgs/msg/JointTrajectory")
    probe.timer(0.03, lambda: publisher.publish(command))

    def moved() -> bool:
        now = dict(zip(joints[-1].name, joints[-1].position, strict=True))
        return abs(now["joint1"] - goal[0]) < 0.01

    wait_for(probe, moved, "motion")
    twin.send_signal(signal.SIGTERM)
    assert twin.wait(PATIENCE_S) == 0
