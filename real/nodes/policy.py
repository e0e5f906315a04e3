"""The policy node: a bundle, run at its own rate on what the robot's drivers say.

    python -m real.nodes.policy --ros-args -p stack:=panda_twin -p bundle:=runs/reach/bundle

It publishes action chunks only while the safety node's mode is POLICY, and begins an episode (recurrent state zero, a
new session) each time that mode is entered. Between episodes its heartbeat tells the session that would be next. It
commands nothing: chunks are proposals. ``policy/candidate`` names the folder of a bundle with new weights: it takes
over when no episode runs, if nothing is wrong with it, else the last good one goes on. Needs numpy, onnxruntime and
MuJoCo, no torch.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from real.core.assembler import Assembled, Assembler, Missing
from real.core.kinematics import ToolKinematics
from real.core.weights import refuse
from real.errors import StackError
from real.msgs import MessageStore, store
from real.nodes.diagnostics import OK, WARN, Diagnostics
from real.nodes.run import run_node
from real.stack import Stack
from real.stack_robot import StackRobot, open_robot
from real.transport.handle import BEST_EFFORT, LATCHED, RELIABLE, NodeHandle, QoS, Received, Timer
from robolearn.bundle import Bundle
from robolearn.contract import Channel
from robolearn.errors import RobolearnError

POSITION = "target/joint/position"
"""Kind of command that this node can pass on."""
HEARTBEAT_S = 0.2
_SENSORS = QoS(depth=10, reliable=False)
_MODE = "POLICY"
_LATENCIES = 1000
_CANARIES = 8
"""Observations that new weights are tried on."""


class PolicyNode:
    """See above.

    Args:
        handle: the open node.
        stack: its sections ``policy``, ``robot`` and ``channels``.

    Attributes:
        bundle: the policy.
        chunks: published so far; skipped: steps without one.
        swaps, refused: new weights taken, and refused.

    Raises:
        StackError: no bundle, or one whose commands are not positions of the stack's joints.
        BundleError: a bundle that cannot be loaded, or for another robot.
        SourceError: a channel that the stack does not say how to fill.
    """

    def __init__(self, handle: NodeHandle, stack: Stack, messages: MessageStore | None = None) -> None:
        if not stack.policy.bundle:
            raise StackError("the policy node needs policy.bundle, the folder of an exported policy")
        self._handle, self._clock, self._stack = handle, handle.clock, stack
        self._store = messages or store(stack.distro)
        robot = open_robot(stack)
        self.bundle = load_bundle(stack.policy.bundle, robot, stack.policy.threads)
        self._command = _command(self.bundle, robot)
        contract = self.bundle.contract
        self._rate = contract.rate_hz or _no_rate(self.bundle)
        tool = ToolKinematics(robot.mjcf, robot.joints, robot.tool_site) if robot.tool_site else None
        sources = stack.sources(contract)
        self._assembler = Assembler(contract, sources, tool)
        self._timed = {name for name, source in sources.items() if source.timed}
        self._robot, self._candidate = robot, ""
        self._canaries: deque[dict[str, np.ndarray]] = deque(maxlen=_CANARIES)
        self._session, self._sequence, self._mode = _new_session(), 0, ""
        self.chunks, self.skipped, self.swaps, self.refused = 0, 0, 0, 0
        self._why = ""
        self._latency: deque[float] = deque(maxlen=_LATENCIES)
        self._timer: Timer | None = None
        self._chunk = handle.publisher("policy/action_chunk", "trajectory_msgs/msg/JointTrajectory", QoS(depth=1))
        self._heartbeat = handle.publisher("policy/heartbeat", "std_msgs/msg/String", BEST_EFFORT)
        self._diagnostics = Diagnostics(handle, self._store)
        latched = {topic for source in sources.values() if source.latched for topic in source.topics}
        for topic, kind in self._assembler.topics.items():
            handle.subscribe(topic, kind, self._feeder(topic), LATCHED if topic in latched else _SENSORS)
        handle.subscribe("safety/mode", "std_msgs/msg/String", self._on_mode, LATCHED)
        handle.subscribe("policy/candidate", "std_msgs/msg/String", self._on_candidate, RELIABLE)
        handle.timer(HEARTBEAT_S, self._beat)
        handle.timer(1.0, self._diagnose)

    def _feeder(self, topic: str) -> Any:
        return lambda message, received: self._assembler.feed(topic, message, received.monotonic)

    def _on_mode(self, message: Any, received: Received) -> None:
        entered = message.data == _MODE and self._mode not in ("", _MODE)
        left = message.data != _MODE and self._mode == _MODE
        self._mode = message.data
        if left:
            self._stop()
        if entered:  # a mode that was POLICY before this node heard of it belongs to another session
            self._begin()

    def _begin(self) -> None:
        self.bundle.reset()
        self._sequence = 0
        self._timer = self._handle.timer(1.0 / self._rate, self._step)
        self._step()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._session = _new_session()
        self._beat()
        self._consider()

    def _on_candidate(self, message: Any, received: Received) -> None:
        self._candidate = message.data
        self._consider()

    def _consider(self) -> None:
        """Between episodes: new weights, where some wait, take over if nothing is wrong with them."""
        folder = self._candidate
        if not folder or self._mode == _MODE:
            return
        self._candidate = ""
        canaries = list(self._canaries)
        now = self._assembler.assemble(self._clock.monotonic())
        if isinstance(now, Assembled):
            canaries.append(now.channels)
        try:
            bundle = load_bundle(folder, self._robot, self._stack.policy.threads)
            why = refuse(bundle, self.bundle.contract, canaries, self._stack.safety.max_jump)
        except (RobolearnError, OSError, ValueError) as error:
            why = str(error)
        if why:
            self.refused += 1
            self._why = f"new weights refused: {why}"
        else:
            self.bundle, self.swaps, self._why = bundle, self.swaps + 1, ""
        print(f"[policy] {self._why or f'new weights: {folder[:200]}'}", file=sys.stderr, flush=True)
        self._diagnose()

    def _step(self) -> None:
        """One step of the policy, if all of its channels are fresh."""
        started = time.perf_counter()
        now = self._clock.monotonic()
        inputs = self._assembler.assemble(now)
        if isinstance(inputs, Missing):
            return self._skip(str(inputs))
        old = [name for name, age in inputs.ages.items() if name in self._timed and age > self._stack.policy.max_age_s]
        if old:
            return self._skip(f"older than policy.max_age_s: {', '.join(old)}")
        try:
            commands = self.bundle.step(inputs.channels)
        except RobolearnError as error:  # the inputs are not the contract's, or what the policy made of them is not
            return self._skip(str(error))
        self._canaries.append(inputs.channels)
        self._publish(np.asarray(commands[self._command.name], dtype=np.float64), inputs)
        self._latency.append(time.perf_counter() - started)

    def _skip(self, why: str) -> None:
        self.skipped += 1
        self._why = why

    def _publish(self, command: np.ndarray, inputs: Assembled) -> None:
        """A chunk: each point is where the joints are to be when the next step is made, and the ones after it.

        So the line to a point lasts until the next chunk comes, and the arm need not stop between them.
        """
        points = np.atleast_2d(command)[: self._stack.policy.chunk_steps]
        dt, now = 1.0 / self._rate, self._clock.now()
        stamp = inputs.stamp_ns or now
        age = min(max(1e-9 * (now - stamp), 0.0), self._stack.policy.max_age_s)
        made = [
            self._store.new(
                "trajectory_msgs/msg/JointTrajectoryPoint",
                positions=point,
                time_from_start=self._store.duration(age + (k + 1) * dt),
            )
            for k, point in enumerate(points)
        ]
        header = self._store.new(
            "std_msgs/msg/Header", stamp=self._store.time(stamp), frame_id=f"{self._session}/{self._sequence}"
        )
        self._chunk.publish(
            self._store.new(
                "trajectory_msgs/msg/JointTrajectory",
                header=header,
                joint_names=list(self._command.elements),
                points=made,
            )
        )
        self._sequence += 1
        self.chunks += 1
        self._why = ""

    def _beat(self) -> None:
        self._heartbeat.publish(self._store.new("std_msgs/msg/String", data=self._session))

    def _diagnose(self) -> None:
        latency = np.percentile(self._latency, [50, 99]) if self._latency else np.full(2, np.nan)
        missing = self._assembler.preflight(self._clock.monotonic())
        values = {
            "bundle": str(self.bundle.path),
            "task": self.bundle.contract.task,
            "rate, Hz": f"{self._rate:g}",
            "chunks": self.chunks,
            "skipped": self.skipped,
            "new weights, refused": f"{self.swaps}, {self.refused}",
            "missing": "; ".join(missing),
            "step p50, p99, ms": f"{1e3 * latency[0]:.2f}, {1e3 * latency[1]:.2f}",
        }
        self._diagnostics.publish(
            WARN if missing or self._why else OK,
            self._why or (f"waiting: {missing[0]}" if missing else "ready"),
            values,
        )


def load_bundle(path: str | Path, robot: StackRobot, threads: int = 1) -> Bundle:
    """A bundle for a robot; one of another maker that names none is taken at its word.

    Raises:
        BundleError: a bundle that cannot be loaded, or for another robot.
    """
    bundle = Bundle.load(path, threads=threads)
    contract = bundle.contract
    if contract.robot_hash:
        contract.check_robot(robot.mjcf)
    elif contract.robot:
        contract.check_robot(robot.name)
    return bundle


def _command(bundle: Bundle, robot: StackRobot) -> Channel:
    """The one command of a bundle that this node passes on."""
    commands = [c for c in bundle.contract.commands if c.kind == POSITION]
    if len(commands) != 1 or len(bundle.contract.commands) != 1:
        kinds = ", ".join(f"{c.name} ({c.kind or 'no kind'})" for c in bundle.contract.commands)
        raise StackError(f"{bundle.path}: the policy node passes on one command of kind {POSITION}, not {kinds}")
    command = commands[0]
    if sorted(command.elements) != sorted(robot.joints):
        raise StackError(
            f"{bundle.path} commands {', '.join(command.elements) or 'unnamed joints'}; "
            f"the stack's robot has {', '.join(robot.joints)}"
        )
    return command


def _no_rate(bundle: Bundle) -> float:
    raise StackError(f"{bundle.path} states no rate; a policy on a robot needs one (frequency in its description)")


def _new_session() -> str:
    return secrets.token_hex(4)


def main() -> int:
    """Entry point."""
    return run_node("policy", PolicyNode)


if __name__ == "__main__":
    sys.exit(main())
