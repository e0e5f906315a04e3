"""The teleop node: a person's device -> twist, deadman and requests, 50 times a second.

It commands nothing: the safety node decides whether the person drives, and limits what they ask for.
"""

from __future__ import annotations

import sys
from typing import Any

from real.msgs import MessageStore, store
from real.nodes.diagnostics import OK, WARN, Diagnostics
from real.nodes.run import run_node
from real.stack import Stack
from real.stack_sections import TeleopSection
from real.teleop.device import EPISODE, SAFETY, Device, TeleopState
from real.teleop.gamepad import Gamepad, JoyTopic
from real.transport.handle import BEST_EFFORT, LATCHED, RELIABLE, SENSOR, NodeHandle, Received

_STATUS_S = 1.0


class TeleopNode:
    """Publishes what a person asks for.

    Args:
        handle: the open node.
        settings: the stack's section.
        device: where it comes from; by default the one that ``settings`` name.
        messages: makes messages; by default those of the stack's distribution.

    Attributes:
        finished: the terminal is gone and cannot come back.
    """

    def __init__(
        self, handle: NodeHandle, settings: TeleopSection, device: Device | None = None, messages: Any = None
    ) -> None:
        self._settings = settings
        self._messages: MessageStore = messages or store()
        self._clock = handle.clock
        self.finished = False
        self._mode = ""
        self._last = TeleopState()
        self._reported = -_STATUS_S
        self._twist = handle.publisher("teleop/twist", "geometry_msgs/msg/TwistStamped", BEST_EFFORT)
        self._deadman = handle.publisher("teleop/deadman", "sensor_msgs/msg/Joy", BEST_EFFORT)
        self._estop = handle.publisher("safety/estop", "std_msgs/msg/Bool", RELIABLE)
        self._requests = {
            topic: handle.publisher(topic, "std_msgs/msg/String", RELIABLE) for topic in (SAFETY, EPISODE)
        }
        self._diagnostics = Diagnostics(handle, self._messages)
        handle.subscribe("safety/mode", "std_msgs/msg/String", self._on_mode, LATCHED)
        self._device = device or self._open(handle)  # last: whoever opens a terminal must also give it back
        handle.timer(1.0 / settings.rate_hz, self._tick)
        print(self._device.help, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Let go, and give the device back."""
        self._publish(TeleopState())
        self._device.close()

    def _open(self, handle: NodeHandle) -> Device:
        if self._settings.device == "keyboard":
            from real.teleop.keyboard import Keyboard  # termios: not on every system

            return Keyboard(self._settings.key_hold_s, self._settings.deadman_s)
        if self._settings.device == "gamepad":
            return Gamepad(self._settings.path)
        joy = JoyTopic(self._settings.key_hold_s)

        def on_joy(message: Any, received: Received) -> None:
            joy.feed(message.axes, message.buttons, received.monotonic)

        handle.subscribe(self._settings.joy_topic, "sensor_msgs/msg/Joy", on_joy, SENSOR)
        return joy

    def _tick(self) -> None:
        now = self._clock.monotonic()
        state = self._device.poll(now)
        for topic, text in self._device.requests():
            self._requests[topic].publish(self._messages.new("std_msgs/msg/String", data=text))
        if state.estop and not self._last.estop:
            self._estop.publish(self._messages.new("std_msgs/msg/Bool", data=True))
        self._publish(state)
        if state.deadman != self._last.deadman or state.gone != self._last.gone or now - self._reported >= _STATUS_S:
            self._reported = now
            self._report(state)
        if state.deadman != self._last.deadman:
            self._show(state)
        self._last = state
        if state.gone and self._settings.device == "keyboard":
            self.finished = True

    def _publish(self, state: TeleopState) -> None:
        new, header = self._messages.new, self._header()
        linear, angular = self._settings.speed_linear, self._settings.speed_angular
        x, y, z, roll, pitch, yaw = state.twist
        twist = new(
            "geometry_msgs/msg/Twist",
            linear=new("geometry_msgs/msg/Vector3", x=x * linear, y=y * linear, z=z * linear),
            angular=new("geometry_msgs/msg/Vector3", x=roll * angular, y=pitch * angular, z=yaw * angular),
        )
        self._twist.publish(new("geometry_msgs/msg/TwistStamped", header=header, twist=twist))
        buttons = [int(state.deadman), int(state.close), int(state.open), int(state.estop)]
        self._deadman.publish(new("sensor_msgs/msg/Joy", header=header, buttons=buttons))

    def _header(self) -> Any:
        return self._messages.new("std_msgs/msg/Header", stamp=self._messages.time(self._clock.now()), frame_id="world")

    def _report(self, state: TeleopState) -> None:
        text = "device is gone" if state.gone else "driving" if state.deadman else "not driving"
        self._diagnostics.publish(WARN if state.gone else OK, text, {"device": self._settings.device})

    def _on_mode(self, message: Any, _received: Received) -> None:
        if message.data != self._mode:
            self._mode = message.data
            self._show(self._last)

    def _show(self, state: TeleopState) -> None:
        who = "you ask to drive" if state.deadman else "not driving"
        print(f"robot: {self._mode or 'no safety node'}; {who}\r", file=sys.stderr, flush=True)


def build(handle: NodeHandle, stack: Stack) -> TeleopNode:
    """The node of a stack."""
    return TeleopNode(handle, stack.teleop, messages=store(stack.distro))


def main() -> int:
    """``python -m real.nodes.teleop``."""
    return run_node("teleop", build)


if __name__ == "__main__":
    sys.exit(main())
