"""Faults that come as messages: lost, late, doubled, wrong, malformed; all on a whole stack with a recorder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from real.recording.reading import episode_files, summarize
from real.recording.steps import read_steps
from real.transport.handle import SENSOR, QoS
from tests.real.stack_on_bus import ARM, RATE, StackOnBus, write_bundle

CHUNK = "/policy/action_chunk"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
JOINTS = tuple(f"joint{i}" for i in range(1, 8)) + ("finger_joint1",)
HOME = (0.0, 0.0, 0.0, -1.57079, 0.0, 1.57079, -0.7853, 0.04)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "swing")


@pytest.fixture
def stack(bundle: Path, tmp_path: Path) -> Any:
    made = StackOnBus(bundle, tmp_path)
    yield made
    made.check_limits()


def finish(stack: StackOnBus, folder: Path, steps: int) -> Any:
    """End the episode; everything from its start on is in its file."""
    stack.judge("failure")
    stack.bus.run(1.0)
    (path,) = episode_files(folder)
    assert summarize(path).state == "complete"
    table = read_steps(path, stack.store)
    assert len(table) >= steps
    ours = np.array([step["limited"] for step in stack.steps])
    first = int(np.argmin(np.abs(1e-9 * stack.column("stamp") - table.stamp[0])))
    np.testing.assert_array_equal(table.limited, ours[first : first + len(table)])
    return table


def chunk(stack: StackOnBus, sequence: int, target: Any, names: Any = JOINTS, session: str = "") -> Any:
    """As the policy would send it."""
    point = stack.store.new(
        "trajectory_msgs/msg/JointTrajectoryPoint",
        positions=np.array(target, dtype=np.float64),
        time_from_start=stack.store.duration(0.05),
    )
    frame = f"{session or stack.policy._session}/{sequence}"
    header = stack.store.new("std_msgs/msg/Header", stamp=stack.store.time(stack.bus.clock.now()), frame_id=frame)
    return {"header": header, "joint_names": list(names), "points": [point]}


def test_lost_doubled_and_reordered_chunks_never_play_an_older_one(stack, tmp_path):
    stack.running(0.5)
    faults = stack.bus.faults
    faults.drop(CHUNK, 0.2)
    faults.duplicate(CHUNK, 0.5, delay_s=0.03)
    faults.reorder(CHUNK, 0.3, by_s=0.08)
    followed = []
    for _ in range(300):
        stack.bus.run(0.01)
        followed.append(stack.safety._sequence)
        if stack.mode != "POLICY":
            stack.ask("arm")
            stack.bus.run(0.05)
            followed.append(-1)
    assert all(faults.counts[kind, CHUNK] > 3 for kind in ("drop", "duplicate", "reorder"))
    rising = np.array(followed)
    steps = np.diff(rising)
    assert ((steps >= 0) | (rising[1:] <= 0)).all(), "a sequence went back without a new session"
    assert stack.safety._buffer.counters["older"] > 3
    faults.clear()
    finish(stack, tmp_path, 300)


@pytest.mark.parametrize("topic", ["/joint_states", "/objects/first/pose"])
def test_a_stale_observation_gives_no_chunk_and_holds(stack, tmp_path, topic):
    stack.running()
    stack.bus.faults.cut(topic)
    stack.bus.run(0.25)
    chunks = stack.policy.chunks
    stack.until("HOLD", 1.0)
    assert "stale" in stack.why if "joint" in topic else "late" in stack.why
    stack.bus.run(0.3)
    assert stack.policy.chunks == chunks
    assert not stack.steps[-1]["valid"] and stack.steps[-1]["source"] == 0
    stack.bus.faults.heal(topic)
    if "joint" in topic:
        stack.bus.run(0.2)
        assert stack.mode == "HOLD", "nothing moves before somebody says so"
    table = finish(stack, tmp_path, 100)
    assert not table.valid[-1] and table.valid[:50].all()


BROKEN = {
    "NaN": lambda: ([np.nan] * 8, JOINTS),
    "one NaN": lambda: ([*HOME[:7], np.nan], JOINTS),
    "infinite": lambda: ([*HOME[:7], np.inf], JOINTS),
    "short": lambda: (HOME[:7], JOINTS),
    "other names": lambda: (HOME, (*JOINTS[:7], "finger_joint9")),
    "a joint twice": lambda: (HOME, (*JOINTS[:7], "joint1")),
    "no joints": lambda: ([], []),
    "a jump": lambda: ([2.0, *HOME[1:]], JOINTS),
    "huge": lambda: ([1e300, *HOME[1:]], JOINTS),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_chunk_is_refused_whole_and_some_of_them_are_a_fault(stack, kind):
    stack.arm()
    stack.bus.run(0.3)
    stack.bus.faults.cut(CHUNK, "/policy")
    target, names = BROKEN[kind]()
    before = stack.safety._buffer.accepted
    for k in range(stack.stack.safety.latch_after):
        assert stack.mode != "FAULT", f"after {k}"
        stack.say("policy/action_chunk", TRAJECTORY, QoS(depth=1), **chunk(stack, 1000 + k, target, names))
        stack.bus.run(0.02)
    assert stack.mode == "FAULT" and "bad commands" in stack.why
    assert stack.safety._buffer.accepted == before
    stack.bus.run(0.5)
    still = stack.safety.commanded
    stack.say("policy/action_chunk", TRAJECTORY, QoS(depth=1), **chunk(stack, 2000, HOME))
    stack.ask("arm")
    stack.bus.run(0.3)
    assert stack.mode == "FAULT"
    np.testing.assert_array_equal(stack.safety.commanded, still)
    stack.ask("clear")
    stack.until("HOLD", 0.1)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e308, 150.0])
def test_a_twist_that_is_none_moves_nothing(stack, value):
    stack.until("HOLD")
    stack.bus.run(0.3)
    still = stack.safety.commanded
    stack.take_over(value, 0, 0, 0, 0, 0)
    stack.until("FAULT", 1.0)
    np.testing.assert_array_equal(stack.safety.commanded, still)


WRONG_JOINTS = {
    "NaN": lambda q: (JOINTS, [np.nan, *q[1:]]),
    "short": lambda q: (JOINTS, q[:7]),
    "a joint is missing": lambda q: (JOINTS[:7], q[:7]),
    "other names": lambda q: (tuple(f"panda_{name}" for name in JOINTS), q),
    "a joint twice": lambda q: ((*JOINTS[:7], "joint1"), q),
    "degrees": lambda q: (JOINTS, np.rad2deg(q)),
}


@pytest.mark.parametrize("kind", WRONG_JOINTS)
def test_wrong_joint_states_are_no_joint_states(stack, kind):
    stack.running(0.5)
    stack.bus.faults.cut("/joint_states", "/twin")
    names, values = WRONG_JOINTS[kind](np.array(HOME))

    def lie() -> None:
        stack.say(
            "joint_states", "sensor_msgs/msg/JointState", name=list(names), position=np.array(values, dtype=float)
        )

    timer = stack.operator.timer(0.01, lie)
    stack.until("HOLD", 0.5)
    stack.until("FAULT", 2.0)
    assert "no joint states" in stack.why and stack.safety._joints.refused > 50
    timer.cancel()


@pytest.mark.parametrize("kind", WRONG_JOINTS)
def test_the_robot_is_not_commanded_from_wrong_joint_states(bundle, tmp_path, kind):
    stack = StackOnBus(bundle, tmp_path, "twin")
    stack.bus.faults.cut("/joint_states", "/twin")
    stack.start_safety()
    names, values = WRONG_JOINTS[kind](np.array(HOME))
    fields = {"name": list(names), "position": np.array(values, dtype=float)}
    stack.operator.timer(0.01, lambda: stack.say("joint_states", "sensor_msgs/msg/JointState", **fields))
    stack.bus.run(1.0)
    stack.estop()
    stack.bus.run(0.5)
    assert stack.mode == "ESTOP" and stack.twin.cell.driver.commands == 0


def test_targets_beyond_a_limit_are_limited_and_told(stack):
    """By less than the jump that is refused: the limiter's part."""
    stack.arm()
    stack.bus.run(0.2)
    stack.bus.faults.cut(CHUNK, "/policy")
    upper = 0.04
    for k in range(20):
        at = [*stack.safety.commanded[:7] + 0.4, upper + 0.3]
        stack.say("policy/action_chunk", TRAJECTORY, QoS(depth=1), **chunk(stack, 5000 + k, at))
        stack.bus.run(0.05)
    last = stack.steps[-1]
    assert last["executed"][7] == pytest.approx(upper + 0.3) and last["limited"][7] <= upper
    assert last["clamp_position"] == 1.0 and max(stack.column("clamp_acceleration")) == 1.0
    np.testing.assert_array_equal(last["proposed"], last["executed"])


def test_malformed_bytes_on_every_input_are_dropped(stack, tmp_path):
    stack.running(0.5)
    types = {
        "joint_states": "sensor_msgs/msg/JointState",
        "policy/action_chunk": TRAJECTORY,
        "policy/heartbeat": "std_msgs/msg/String",
        "policy/candidate": "std_msgs/msg/String",
        "teleop/twist": "geometry_msgs/msg/TwistStamped",
        "teleop/deadman": "sensor_msgs/msg/Joy",
        "safety/request": "std_msgs/msg/String",
        "safety/estop": "std_msgs/msg/Bool",
        "safety/reset_pose": "sensor_msgs/msg/JointState",
        "safety/mode": "std_msgs/msg/String",
        "episode/request": "std_msgs/msg/String",
        "critic/value": "control_msgs/msg/DynamicJointState",
        "objects/first/pose": "geometry_msgs/msg/PoseStamped",
        ARM: TRAJECTORY,
    }
    latched = ("safety/mode", "safety/reset_pose")
    random = np.random.default_rng(0)
    for topic, kind in types.items():
        if topic == ARM:
            continue  # a second publisher of commands is a fault of its own
        qos = QoS(depth=10, transient_local=topic in latched)
        good = stack.store.serialize(stack.store.new(kind))
        for data in (b"", b"\0", good[:3], good[: len(good) // 2], random.bytes(200), b"\0\1\0\0" + b"\xff" * 60):
            stack.raw(topic, kind, data, qos)
            stack.bus.run(0.01)
    assert stack.mode == "POLICY", stack.why
    heard = set(stack.safety._handle.malformed)
    assert heard == {f"/{t}" for t in types if t.split("/")[0] in ("joint_states", "policy", "teleop", "safety")} - {
        "/policy/candidate",
        "/safety/mode",
    }
    stack.judge("failure")
    stack.bus.run(1.0)
    (path,) = episode_files(tmp_path)
    assert summarize(path).state == "complete" and summarize(path).counts["/safety/step"] >= 130
    assert len(read_steps(path, stack.store)) >= 120, "what is malformed in a file is left out of its table"


@pytest.mark.parametrize("hours", [1, -1])
def test_a_wall_clock_that_jumps_changes_nothing(stack, tmp_path, hours):
    stack.running()
    begin, chunks = stack.bus.clock.monotonic(), stack.policy.chunks
    stack.bus.clock.jump(3600.0 * hours)
    stack.bus.run(1.5)
    assert stack.mode == "POLICY", stack.why
    assert stack.policy.chunks - chunks >= 0.9 * RATE * (stack.bus.clock.monotonic() - begin)
    table = finish(stack, tmp_path, 240)
    assert table.valid.all()
    assert (np.diff(table.time) > 0).all() and table.time[-1] < 5.0, "the recording does not jump"
    assert (np.abs(table.observation_age[50:90]) < 0.2).all() and (np.abs(table.observation_age[-50:]) < 0.2).all()


def test_the_robots_clock_is_an_hour_off(stack):
    """Stamps of the driver are joined with each other, and decide nothing else."""
    stack.running(0.5)
    handle = stack.twin._handle
    for hours in (1, -1):
        stack.twin._handle = Shifted(handle, 3600.0 * hours)
        stack.bus.run(1.0)
        assert stack.mode == "POLICY", stack.why
        assert abs(stack.steps[-1]["observation_stamp"] - 1e-9 * stack.bus.clock.now() - 3600.0 * hours) < 0.2


class Shifted:
    """A node's handle whose wall clock is off."""

    def __init__(self, handle: Any, seconds: float) -> None:
        self._handle, self._ns, self.clock = handle, int(seconds * 1e9), self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)

    def monotonic(self) -> float:
        return float(self._handle.clock.monotonic())

    def now(self) -> int:
        return int(self._handle.clock.now()) + self._ns


def image(stack: StackOnBus, value: int, stamp: int) -> bytes:
    header = stack.store.new("std_msgs/msg/Header", stamp=stack.store.time(stamp), frame_id="front")
    data = np.full(48 * 64 * 3, value % 256, np.uint8)
    fields = {"height": 48, "width": 64, "encoding": "rgb8", "step": 192, "data": data, "header": header}
    return bytes(stack.store.serialize(stack.store.new("sensor_msgs/msg/Image", **fields)))


@pytest.mark.parametrize("fault", ["gone", "frozen", "frozen with new stamps", "malformed"])
def test_a_camera_that_fails_holds_the_robot_and_leaves_it_powered(bundle, tmp_path, fault):
    stack = StackOnBus(bundle, tmp_path, **{"safety.require_cameras": ["front"], "recorder.topics": ["safety/step"]})
    count, broken = [0], [False]

    def look() -> None:
        count[0] += not (broken[0] and fault.startswith("frozen"))
        now = stack.bus.clock.now()
        if broken[0] and fault == "gone":
            return
        stamp = now if not broken[0] or fault == "frozen with new stamps" else 1_700_000_000_000_000_000
        data = image(stack, count[0], stamp)
        if broken[0] and fault == "malformed":
            data = data[:-100]
        stack.raw("camera/front/image_raw", "sensor_msgs/msg/Image", data, SENSOR)

    stack.operator.timer(1 / 30, look)
    stack.running()
    broken[0] = True
    stack.until("HOLD", 1.0)
    assert "camera" in stack.why
    stack.ask("arm")
    commands = stack.twin.cell.driver.commands
    stack.bus.run(0.5)
    assert stack.mode == "HOLD" and stack.twin.cell.driver.commands - commands >= 190, "it is held, not let go"
    broken[0] = False
    stack.bus.run(0.2)
    assert stack.mode == "HOLD"
    stack.ask("arm")
    stack.until("POLICY", 0.1)
    table = finish(stack, tmp_path, 100)
    assert not table.valid.all() and table.valid[:50].all()
    stack.check_limits()
