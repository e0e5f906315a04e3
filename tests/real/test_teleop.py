"""Teleoperation: a real terminal (pty), gamepad bytes, Joy messages, and the node on a graph."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest

from real.errors import RealError
from real.msgs import store
from real.stack_sections import TeleopSection
from real.teleop.device import TeleopState
from real.teleop.gamepad import EVENT, Gamepad, JoyTopic
from real.teleop.keyboard import MOVES, REQUESTS, Keyboard, KeyboardLogic, Keys
from real.transport.handle import BEST_EFFORT, RELIABLE
from real.transport.local import LocalBus

STILL = (0.0,) * 6


@pytest.fixture
def terminal():
    """Master end and name-giving slave end of a pseudo terminal."""
    master, slave = pty.openpty()
    yield master, slave
    for end in (master, slave):
        try:
            os.close(end)
        except OSError:
            pass


def typed(logic: KeyboardLogic, text: str, now: float) -> TeleopState:
    for key in text:
        logic.key(key, now)
    return logic.state(now)


def test_a_key_moves_only_while_its_repeats_come():
    logic = KeyboardLogic()
    typed(logic, " ", 0.0)
    assert typed(logic, "w", 0.1).twist == (1, 0, 0, 0, 0, 0)
    for tick in range(1, 20):
        assert typed(logic, "w", 0.1 + 0.03 * tick).twist[0] == 1
    assert logic.state(0.67 + 0.24).twist[0] == 1
    assert logic.state(0.67 + 0.26).twist == STILL


def test_nothing_moves_without_a_takeover():
    assert typed(KeyboardLogic(), "wdq", 0.0) == TeleopState()


def test_a_takeover_ends_by_itself_without_keys_and_every_driving_key_keeps_it():
    logic = KeyboardLogic()
    assert typed(logic, " ", 0.0).deadman
    assert logic.state(0.99).deadman
    assert typed(logic, "w", 0.99).deadman
    assert logic.state(1.98).deadman
    assert not logic.state(2.0).deadman
    assert typed(logic, "w", 2.0) == TeleopState(), "a movement key must not take over again"


def test_holding_space_keeps_the_takeover_and_never_toggles_it():
    logic = KeyboardLogic()
    times = [0.0, 0.5, *(0.5 + 0.03 * i for i in range(1, 40))]  # how a terminal repeats a held key
    assert all(typed(logic, " ", now).deadman for now in times)


@pytest.mark.parametrize("key", ["\n", "\r", "escape", "z", "h", "p", "r", "x", "\x1b[Z", "\ufffd"])
def test_every_other_key_gives_back_at_once(key):
    logic = KeyboardLogic()
    typed(logic, " w", 0.0)
    logic.key(key, 0.05)
    state = logic.state(0.05)
    assert not state.deadman and state.twist == STILL


def test_the_newest_key_of_an_axis_counts_and_axes_combine():
    logic = KeyboardLogic()
    typed(logic, " wd", 0.0)
    assert logic.state(0.0).twist[:2] == (1, -1)
    assert typed(logic, "s", 0.1).twist[:2] == (-1, -1)


def test_every_movement_key_moves_its_axis():
    for key, (axis, direction) in MOVES.items():
        logic = KeyboardLogic()
        logic.key(" ", 0.0)
        logic.key(key, 0.0)
        twist = logic.state(0.0).twist
        assert twist[axis] == direction and sum(map(abs, twist)) == 1, key


def test_the_gripper_closes_or_opens_never_both():
    logic = KeyboardLogic()
    state = typed(logic, " c", 0.0)
    assert state.close and not state.open
    state = typed(logic, "v", 0.1)
    assert state.open and not state.close


def test_the_e_stop_works_without_a_takeover_and_with_caps_lock():
    keys, logic = Keys(), KeyboardLogic()
    for key in keys.feed(b"X", 0.0):
        logic.key(key, 0.0)
    assert logic.state(0.0).estop


def test_every_request_key():
    logic = KeyboardLogic()
    for key in REQUESTS:
        logic.key(key, 0.0)
    assert logic.requests() == list(REQUESTS.values())
    assert logic.requests() == []


def test_arrow_keys_may_come_apart_and_a_lone_escape_is_a_key():
    keys = Keys()
    assert list(keys.feed(b"\x1b[A\x1b[", 0.0)) == ["up"]
    assert list(keys.feed(b"D", 0.01)) == ["left"]
    assert list(keys.feed(b"\x1b", 1.0)) == []
    assert list(keys.feed(b"", 1.02)) == []
    assert list(keys.feed(b"", 1.06)) == ["escape"]
    assert list(keys.feed(bytes(range(256)), 2.0)), "no byte is an error"


def test_a_terminal_is_read_without_waiting_and_given_back_as_it_was(terminal):
    master, slave = terminal
    before = termios.tcgetattr(slave)
    keyboard = Keyboard(fd=slave)
    assert not termios.tcgetattr(slave)[3] & (termios.ECHO | termios.ICANON)
    assert termios.tcgetattr(slave)[3] & termios.ISIG, "Ctrl-C still works"
    assert keyboard.poll(0.0) == TeleopState()
    os.write(master, b" w")
    state = keyboard.poll(0.02)
    assert state.deadman and state.twist[0] == 1
    assert keyboard.poll(0.1).twist[0] == 1
    keyboard.close()
    assert termios.tcgetattr(slave) == before


def test_keys_that_waited_while_the_process_stood_still_do_not_move_but_stop(terminal):
    master, slave = terminal
    keyboard = Keyboard(fd=slave)
    os.write(master, b" w")
    assert keyboard.poll(0.0).deadman
    os.write(master, b" wwww")
    assert keyboard.poll(0.8) == TeleopState()
    os.write(master, b" ")
    assert keyboard.poll(0.82).deadman
    os.write(master, b"wwx")
    state = keyboard.poll(2.0)
    assert state.estop and not state.deadman


def test_a_terminal_that_goes_lets_go(terminal):
    master, slave = terminal
    keyboard = Keyboard(fd=slave)
    os.write(master, b" w")
    assert keyboard.poll(0.0).deadman
    os.close(master)
    assert keyboard.poll(0.02) == TeleopState(gone=True)
    keyboard.close()


def test_standard_input_that_is_no_terminal_is_refused():
    read, write = os.pipe()
    with pytest.raises(RealError, match="needs a terminal"):
        Keyboard(fd=read)
    os.close(read)
    os.close(write)


class Stick:
    """The writing end of a joystick device, here a named pipe."""

    def __init__(self, path):
        os.mkfifo(path)
        self.keep = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self.path = str(path)

    def send(self, kind, number, value):
        os.write(self.keep, EVENT.pack(0, value, kind, number))

    def unplug(self):
        os.close(self.keep)


def test_gamepad_events_move_only_while_the_deadman_is_held(tmp_path):
    stick = Stick(tmp_path / "js0")
    pad = Gamepad(stick.path)
    stick.send(2 | 0x80, 1, 0)
    stick.send(2, 1, -32767)  # left stick up
    assert pad.poll(0.0) == TeleopState()
    stick.send(1, 5, 1)
    state = pad.poll(0.02)
    assert state.deadman and state.twist == (1, 0, 0, 0, 0, 0)
    stick.send(1, 4, 1)
    assert pad.poll(0.04).twist == (0, 0, 0, 0, 1, 0)
    stick.send(1, 5, 0)
    assert pad.poll(0.06) == TeleopState()
    stick.send(1, 1, 1)
    stick.send(1, 5, 1)
    state = pad.poll(0.08)
    assert state.estop and not state.deadman
    pad.close()
    stick.unplug()


def test_a_stick_near_its_middle_is_at_rest_and_requests_come_once(tmp_path):
    stick = Stick(tmp_path / "js0")
    pad = Gamepad(stick.path)
    stick.send(1, 5, 1)
    stick.send(2, 0, 3000)
    assert pad.poll(0.0).twist == STILL
    stick.send(1, 7, 1)
    pad.poll(0.02)
    pad.poll(0.04)
    assert pad.requests() == [("safety/request", "arm")]
    pad.close()
    stick.unplug()


def test_an_unplugged_gamepad_lets_go_and_comes_back_at_rest(tmp_path):
    stick = Stick(tmp_path / "js0")
    pad = Gamepad(stick.path)
    stick.send(1, 5, 1)
    stick.send(2, 1, -32767)
    assert pad.poll(0.0).deadman
    stick.unplug()
    os.unlink(stick.path)
    assert pad.poll(0.02) == TeleopState(gone=True)
    assert pad.poll(2.0).gone
    again = Stick(tmp_path / "js0")
    assert pad.poll(2.5).gone, "it is not looked for in every tick"
    assert pad.poll(3.1) == TeleopState(), "held buttons are not remembered"
    pad.close()
    again.unplug()


def test_no_gamepad_is_one_line():
    with pytest.raises(RealError, match="no gamepad at /dev/input/js77"):
        Gamepad("/dev/input/js77")


def test_joy_messages_grow_stale_and_bad_numbers_let_go():
    joy = JoyTopic(max_age_s=0.25)
    assert joy.poll(0.0).gone
    buttons = [0, 0, 0, 0, 0, 1]
    joy.feed([0.0, 1.0], buttons, 1.0)
    assert joy.poll(1.2).twist[0] == 1
    assert joy.poll(1.25) == TeleopState(gone=True)
    joy.feed([0.0, 1.0], buttons, 2.0)
    joy.feed([0.0, float("nan")], buttons, 2.05)
    assert joy.poll(2.05) == TeleopState(gone=True) and joy.refused == 1
    joy.feed([], [], 2.1)
    assert joy.poll(2.1) == TeleopState()


def test_the_node_publishes_what_is_asked_for_at_its_rate(terminal):
    from real.nodes.teleop import TeleopNode

    master, slave = terminal
    messages = store()
    bus = LocalBus(store=messages)
    handle, ear = bus.node("teleop"), bus.node("safety")
    heard: dict[str, list] = {}
    for topic, type_, qos in (
        ("teleop/twist", "geometry_msgs/msg/TwistStamped", BEST_EFFORT),
        ("teleop/deadman", "sensor_msgs/msg/Joy", BEST_EFFORT),
        ("safety/request", "std_msgs/msg/String", RELIABLE),
        ("safety/estop", "std_msgs/msg/Bool", RELIABLE),
        ("episode/request", "std_msgs/msg/String", RELIABLE),
        ("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", RELIABLE),
    ):
        heard[topic] = []
        ear.subscribe(topic, type_, lambda message, _, topic=topic: heard[topic].append(message), qos)
    settings = TeleopSection(speed_linear=0.2, speed_angular=0.4)
    node = TeleopNode(handle, settings, device=Keyboard(fd=slave), messages=messages)

    bus.run(1.0)
    assert 48 <= len(heard["teleop/deadman"]) <= 51
    assert not any(message.buttons[0] for message in heard["teleop/deadman"])
    os.write(master, b" wl")
    bus.run(0.1)
    assert list(heard["teleop/deadman"][-1].buttons) == [1, 0, 0, 0]
    twist = heard["teleop/twist"][-1]
    assert twist.header.frame_id == "world" and messages.ns(twist.header.stamp) > 0
    assert (twist.twist.linear.x, twist.twist.angular.z) == (0.2, -0.4)
    bus.run(1.2)
    assert list(heard["teleop/deadman"][-1].buttons) == [0, 0, 0, 0]
    assert heard["teleop/twist"][-1].twist.linear.x == 0
    os.write(master, b"hn")
    bus.run(0.1)
    assert [m.data for m in heard["safety/request"]] == ["hold"]
    assert [m.data for m in heard["episode/request"]] == ["start"]
    os.write(master, b"x")
    bus.run(0.5)
    assert [bool(m.data) for m in heard["safety/estop"]] == [True]
    assert any(m.buttons[3] for m in heard["teleop/deadman"])
    assert heard["/diagnostics"][-1].status[0].name == "/teleop"
    os.close(master)
    bus.run(0.1)
    assert node.finished
    assert not heard["teleop/deadman"][-1].buttons[0]
    node.close()


def test_the_joy_topic_drives_the_node():
    from real.nodes.teleop import build
    from real.stack import load

    bus = LocalBus(store=store())
    handle, hand, ear = bus.node("teleop"), bus.node("joy_node"), bus.node("safety")
    heard = []
    ear.subscribe("teleop/deadman", "sensor_msgs/msg/Joy", lambda message, _: heard.append(message), BEST_EFFORT)
    joy = hand.publisher("joy", "sensor_msgs/msg/Joy", BEST_EFFORT)
    build(handle, load("panda_twin", {"teleop.device": "joy"}))
    hand.timer(0.05, lambda: joy.publish(store().new("sensor_msgs/msg/Joy", axes=[0.0, 1.0], buttons=[0] * 5 + [1])))
    bus.run(0.5)
    assert heard[-1].buttons[0] == 1
    bus.kill(hand)
    bus.run(0.3)
    assert heard[-1].buttons[0] == 0, "its deadman ends with it"


def test_the_process_in_a_terminal_over_dds(terminal):
    """The command line as a person runs it: keys in, messages on the wire, Ctrl-C out."""
    from real.transport.open import open_node

    master, slave = terminal
    domain = 100 + os.getpid() % 100
    env = {**os.environ, "ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    os.environ.update({key: env[key] for key in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE")})
    ear = open_node("ear", transport="dds")
    heard = []
    ear.subscribe("teleop/deadman", "sensor_msgs/msg/Joy", lambda message, _: heard.append(message), BEST_EFFORT)
    command = [sys.executable, "-m", "real.nodes.teleop", "--ros-args", "-p", "stack:=panda_twin"]
    process = subprocess.Popen(
        [*command, "-p", "transport:=dds", "-p", "speed_linear:=0.05"],
        stdin=slave, stderr=subprocess.PIPE, text=True, env=env,
    )  # fmt: skip
    try:
        wait(ear, lambda: bool(heard), 20)
        assert not heard[-1].buttons[0]
        # A process that stood still drops what was typed meanwhile: on a busy machine a person presses again.
        wait(ear, lambda: bool(heard[-1].buttons[0]) or not os.write(master, b" "), 20)
        wait(ear, lambda: not heard[-1].buttons[0], 20)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 0
        assert "[teleop] ready" in errors
        assert termios.tcgetattr(slave)[3] & termios.ECHO, "the terminal is as it was"
    finally:
        process.kill()
        ear.close()
        for key in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
            os.environ.pop(key, None)


def wait(handle, done, seconds):
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "it did not happen in time"
        handle.spin_once(0.05)
