"""The episode node: when an episode begins and ends, what the robot is told, and what became of it.

    python -m real.nodes.episode --ros-args -p stack:=panda_twin -p auto_start:=true -p episodes:=10

An operator's words come on ``episode/request``. With ``auto_start`` it goes round by itself: hold, drive home, (on a
twin) draw a scene, drive to the start, arm the policy, wait for the end. It only ever *asks* the safety node.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from real.core.episode import EpisodeMachine, EpisodeSettings, Event, State
from real.core.modes import Mode
from real.msgs import MessageStore, store
from real.nodes.diagnostics import OK, WARN, Diagnostics
from real.nodes.messages import interfaces, scene_of
from real.nodes.rounds import Pose, Rounds
from real.nodes.run import run_node
from real.stack import Stack
from real.stack_robot import open_robot
from real.transport.handle import LATCHED, RELIABLE, SENSOR, NodeHandle, QoS, Received

TICK_S = 0.05
SILENCE_S = 1.0
"""Without a word of the safety node for so long, an episode has failed."""
_THERE = 2e-3
"""rad or m between a pose and what is commanded."""
_EVENTS = QoS(depth=10, transient_local=True)


class EpisodeNode:
    """See above.

    Args:
        handle: the open node.
        stack: its sections ``episode`` and ``critic``.

    Attributes:
        machine: the episodes so far.
        finished: all episodes that were asked for have ended.
    """

    def __init__(self, handle: NodeHandle, stack: Stack, messages: MessageStore | None = None) -> None:
        self._handle, self._clock, self._settings = handle, handle.clock, stack.episode
        self._store = messages or store(stack.distro)
        robot = open_robot(stack)
        self._joints, self._home = robot.joints, robot.home
        debounce = stack.critic.debounce if stack.episode.judge == "critic" and stack.critic.critic else 0
        self.machine = EpisodeMachine(
            EpisodeSettings(
                done_threshold=stack.critic.threshold,
                debounce=debounce,
                time_out_s=stack.episode.time_out_s,
                critic_timeout_s=stack.critic.time_out_s,
            )
        )
        self._mode, self._silent, self._offset_ns = Mode.INIT, 0, 0
        self._executed: dict[str, float] = {}
        self.scene: dict[str, Any] = {}
        self._told: dict[str, list[float]] = {}
        self._instruction = ""
        self._event = handle.publisher("episode/event", "std_msgs/msg/String", _EVENTS)
        self._words = handle.publisher("episode/instruction", "std_msgs/msg/String", LATCHED)
        self._request = handle.publisher("safety/request", "std_msgs/msg/String", RELIABLE)
        self._pose = handle.publisher("safety/reset_pose", "sensor_msgs/msg/JointState", LATCHED)
        self._scene_request = handle.publisher("scene/request", "std_msgs/msg/String", RELIABLE)
        self._goals: dict[str, Any] = {}
        self._diagnostics = Diagnostics(handle, self._store)
        self.tell(stack.episode.instruction, stack.episode.goal)
        handle.subscribe("safety/mode", "std_msgs/msg/String", self._on_mode, LATCHED)
        handle.subscribe("safety/step", "control_msgs/msg/DynamicJointState", self._on_step, QoS(depth=50))
        handle.subscribe("safety/executed", "sensor_msgs/msg/JointState", self._on_executed, SENSOR)
        handle.subscribe("critic/value", "control_msgs/msg/DynamicJointState", self._on_critic, QoS(depth=50))
        handle.subscribe("episode/request", "std_msgs/msg/String", self._on_request, RELIABLE)
        handle.subscribe("scene/state", "std_msgs/msg/String", self._on_scene, LATCHED)
        self._rounds: Rounds | None = None
        if stack.episode.auto_start:
            self._rounds = Rounds(self, stack.episode, twin=stack.twin is not None)
        handle.timer(TICK_S, self._tick)
        handle.timer(1.0, self._diagnose)

    @property
    def finished(self) -> bool:
        """See above."""
        return self._rounds is not None and self._rounds.finished

    @property
    def mode(self) -> Mode:
        """The safety node's, as last heard."""
        return self._mode

    @property
    def now(self) -> float:
        """Monotonic, s."""
        return self._clock.monotonic()

    def ask(self, word: str) -> None:
        """Ask the safety node."""
        self._request.publish(self._store.new("std_msgs/msg/String", data=word))

    def begin(self) -> None:
        """Start an episode."""
        self._silent = 0
        wall = self._clock.now()
        if self.machine.state is not State.RUNNING:
            self._offset_ns = wall - round(1e9 * self.now)
        self._say(self.machine.request("start", self.now, wall))

    def lead(self, pose: Pose) -> None:
        """Where the next reset leads."""
        at = self._named(pose)
        position = np.array(list(at.values()), dtype=np.float64)
        self._pose.publish(self._store.new("sensor_msgs/msg/JointState", name=list(at), position=position))

    def is_at(self, pose: Pose) -> bool:
        """Whether the safety node commands the arm there."""
        return all(abs(self._executed.get(joint, np.inf) - at) < _THERE for joint, at in self._named(pose).items())

    def _named(self, pose: Pose) -> dict[str, float]:
        if isinstance(pose, Mapping):
            return {joint: float(at) for joint, at in pose.items()}
        return dict(zip(self._joints, map(float, self._home if pose is None else pose), strict=True))

    def draw(self, seed: int) -> None:
        """Ask a twin for a scene."""
        self.scene = {}
        request = {"seed": seed, **({"task": self._settings.task} if self._settings.task else {})}
        self._scene_request.publish(self._store.new("std_msgs/msg/String", data=json.dumps(request)))

    def tell(self, instruction: str, goal: Mapping[str, Sequence[float]]) -> None:
        """What the robot is to do, in words and as channels of the policy."""
        if instruction != self._instruction:
            self._instruction = instruction
            self._words.publish(self._store.new("std_msgs/msg/String", data=instruction))
        for channel, values in goal.items():
            numbers = [float(value) for value in values]
            if self._told.get(channel) == numbers:
                continue
            if channel not in self._goals:
                topic = f"episode/goal/{channel}"
                self._goals[channel] = self._handle.publisher(topic, "std_msgs/msg/Float64MultiArray", LATCHED)
            self._told[channel] = numbers
            self._goals[channel].publish(self._store.new("std_msgs/msg/Float64MultiArray", data=np.array(numbers)))

    def _on_mode(self, message: Any, received: Received) -> None:
        if message.data in Mode.__members__:
            self._mode = Mode[message.data]
            self._say(self.machine.mode(self._mode, self.now))

    def _on_step(self, message: Any, received: Received) -> None:
        step = interfaces(message, "step")
        if step.get("mode") in set(Mode):
            self.machine.step(Mode(int(step["mode"])))

    def _as_begun(self, stamp_ns: int) -> int:
        """A stamp by the wall clock as it went when the episode began, so that one that jumps reorders nothing."""
        wall = self._clock.now()
        return min(stamp_ns, wall) - (wall - round(1e9 * self.now) - self._offset_ns)

    def _on_executed(self, message: Any, received: Received) -> None:
        self._silent = 0
        if len(message.name) == len(message.position):
            self._executed = dict(zip(message.name, message.position.tolist(), strict=True))

    def _on_critic(self, message: Any, received: Received) -> None:
        if self._settings.judge != "critic":
            return
        answer = interfaces(message, "critic")
        stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        p_done = answer.get("p_done", float("nan"))
        self._say(self.machine.critic(p_done, answer.get("valid") == 1.0, self._as_begun(stamp), self.now))

    def _on_request(self, message: Any, received: Received) -> None:
        if message.data == "start":
            return self.begin()
        self._say(self.machine.request(message.data, self.now, self._clock.now()))

    def _on_scene(self, message: Any, received: Received) -> None:
        self.scene = scene_of(message)
        if self.scene.get("named_one_hot") is not None:
            self.tell(str(self.scene.get("instruction", "")), {"named": self.scene["named_one_hot"]})
        running = self.machine.state is State.RUNNING
        if running and self._settings.judge == "scene" and self.scene.get("success"):
            self._say([self.machine.end("success", "scene", "the scene's own judge", self.now)])

    def _tick(self) -> None:
        self._silent += 1  # counted in ticks of ours: a pause of this node is none of the safety node's
        if self.machine.state is State.RUNNING and self._silent > SILENCE_S / TICK_S:
            self._say([self.machine.end("fault", "safety", "the safety node is silent", self.now)])
        self._say(self.machine.tick(self.now))
        if self._rounds is not None:
            self._rounds.tick()

    def _say(self, events: Sequence[Event]) -> None:
        for event in events:
            told = event.to_dict()
            if event.event in ("started", "ended"):
                told |= {"task": self._settings.task, "instruction": self._instruction}
            if event.event == "ended" and self.scene:
                metrics = told.setdefault("metrics", {})
                metrics |= {f"true_{name}": self.scene.get(name) for name in ("ever_success", "progress", "seed")}
            self._event.publish(self._store.new("std_msgs/msg/String", data=json.dumps(told)))
            if event.event in ("ended", "refused"):
                print(f"[episode] {json.dumps(told)}", file=sys.stderr, flush=True)

    def _diagnose(self) -> None:
        record = self.machine.record
        totals = self.machine.totals()
        doing = self._rounds.doing if self._rounds is not None else ""
        silent = record is not None and record.reward_pending
        message = f"{self.machine.state.value}{': ' + doing if doing else ''}"
        self._diagnostics.publish(WARN if silent else OK, message, {"instruction": self._instruction, **totals})


def main() -> int:
    """Entry point."""
    return run_node("episode", EpisodeNode)


if __name__ == "__main__":
    sys.exit(main())
