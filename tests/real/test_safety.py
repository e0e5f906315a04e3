"""What the safety node takes for true, source by source, and where it begins to command the robot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from real.msgs import store
from real.nodes.pictures import picture
from real.nodes.safety_inputs import JointFeed, TeleopFeed
from real.stack import load
from real.stack_robot import open_robot
from real.transport.handle import Received
from tests.real.stack_on_bus import StackOnBus

MESSAGES = store()
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


def image(height: int = 4, width: int = 5) -> bytes:
    header = MESSAGES.new("std_msgs/msg/Header", stamp=MESSAGES.time(5_000_000_007), frame_id="a camera")
    fields = {"height": height, "width": width, "encoding": "rgb8", "step": 3 * width, "header": header}
    return bytes(MESSAGES.serialize(MESSAGES.new(IMAGE, data=np.arange(3 * height * width, dtype=np.uint8), **fields)))


def test_a_picture_is_read_without_decoding_it():
    stamp, data = picture(image(), False)
    assert stamp == 5_000_000_007 and bytes(data) == bytes(range(60))
    assert picture(image() + b"\0\0\0", False) is not None, "padded by a transport"
    header = MESSAGES.new("std_msgs/msg/Header", stamp=MESSAGES.time(3), frame_id="x")
    jpeg = MESSAGES.new(COMPRESSED, header=header, format="jpeg", data=np.arange(9, dtype=np.uint8))
    stamp, data = picture(bytes(MESSAGES.serialize(jpeg)), True)
    assert stamp == 3 and bytes(data) == bytes(range(9))


@pytest.mark.parametrize("length", range(0, 130, 3))
def test_a_picture_that_is_cut_is_none(length):
    whole = image()
    assert picture(whole[: min(length, len(whole) - 1)], False) is None


def test_a_picture_of_another_kind_or_size_is_none():
    assert picture(image(0, 0), False) is None
    assert picture(image() + bytes(4), False) is None
    assert picture(image(), True) is None
    random = np.random.default_rng(0)
    for _ in range(300):
        assert picture(random.bytes(int(random.integers(0, 300))), False) is None


def joint_feed() -> JointFeed:
    robot = open_robot(load("panda_twin"))
    return JointFeed(robot.joints, robot.limits, np.array([True] * 7 + [False]), 0.1)


def told(feed: JointFeed, position: np.ndarray, at: float, stamp: int = 0) -> None:
    robot = open_robot(load("panda_twin"))
    message = MESSAGES.new("sensor_msgs/msg/JointState", name=list(robot.joints), position=position)
    message.header.stamp = MESSAGES.time(stamp)
    feed.take(message, Received("/joint_states", at, "", 0))


def test_joints_are_at_rest_only_when_they_have_not_moved_for_a_while():
    feed, home = joint_feed(), open_robot(load("panda_twin")).home
    assert feed.resting_s(1e9) < 0 and feed.within() is None
    told(feed, home, 10.0)
    assert feed.resting_s(10.5) == 0.5
    told(feed, home + 0.002, 11.0)
    assert feed.resting_s(11.5) == 1.5
    told(feed, home + np.array([0.02] * 7 + [0]), 12.0)
    assert feed.resting_s(12.1) == pytest.approx(0.1)


def test_joints_hardly_beyond_a_limit_are_at_it_and_further_ones_nowhere():
    feed, robot = joint_feed(), open_robot(load("panda_twin"))
    told(feed, np.where(np.arange(8) == 3, robot.limits.upper + 0.004, robot.home), 1.0)
    assert feed.within()[3] == robot.limits.upper[3]
    told(feed, np.where(np.arange(8) == 3, robot.limits.upper + 0.01, robot.home), 1.0)
    assert feed.within() is None


def test_the_age_of_an_observation_does_not_depend_on_this_machines_wall_clock():
    feed, home = joint_feed(), open_robot(load("panda_twin")).home
    assert feed.age_of(5, 1.0) is None
    told(feed, home, 10.0, stamp=7_000_000_000)
    assert feed.age_of(6_900_000_000, 10.02) == pytest.approx(0.12)
    assert feed.age_of(0, 10.02) is None


def test_buttons_and_twists():
    feed = TeleopFeed(0.1)
    joy = MESSAGES.new("sensor_msgs/msg/Joy", buttons=np.array([1, 0, 1, 1], np.int32))
    feed.take_deadman(joy, Received("", 1.0, "", 0))
    assert feed.held and feed.gripper == 1 and feed.take_estop() and not feed.take_estop()
    assert not feed.fresh(1.0), "no twist yet"
    feed.take_twist(MESSAGES.new("geometry_msgs/msg/TwistStamped"), Received("", 1.0, "", 0))
    assert feed.fresh(1.05) and not feed.fresh(1.2)
    feed.take_deadman(MESSAGES.new("sensor_msgs/msg/Joy"), Received("", 1.0, "", 0))
    assert feed.take_bad() == 1 and feed.take_bad() == 0


def test_nothing_is_commanded_while_the_robot_moves_by_itself_or_is_outside_its_limits(tmp_path):
    stack = StackOnBus(Path(), tmp_path, "twin", **{"limits.margin": 0.0})
    joints = stack.twin.cell.driver.joint_names
    stack.bus.faults.cut("/joint_states", "/twin")
    robot = open_robot(stack.stack)
    position = robot.home.copy()
    drift = [0.5]

    def tell() -> None:
        position[0] += drift[0] * 0.01
        fields = {"name": list(joints), "position": position.copy()}
        stack.say("joint_states", "sensor_msgs/msg/JointState", **fields)

    stack.operator.timer(0.01, tell)
    stack.start_safety()
    stack.bus.run(0.5)
    assert stack.mode == "INIT" and "moves by itself" in stack.safety._unplaced
    drift[0], position[0] = 0.0, robot.limits.upper[0] + 0.1
    stack.bus.run(0.5)
    assert stack.mode == "INIT" and "move it inside by hand" in stack.safety._unplaced
    assert stack.twin.cell.driver.commands == 0
    position[0] = robot.home[0]
    stack.until("HOLD", 0.5)
    stack.bus.run(0.5)
    stack.check_limits()
