"""What an operator wants to see of a running stack, read off its topics."""

from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from real.transport.handle import BEST_EFFORT, LATCHED, RELIABLE, SENSOR, NodeHandle, QoS, Received

_RATE_WINDOW_S = 2.0
_EVENTS = QoS(depth=10, transient_local=True)


@dataclass
class Outcomes:
    """Episodes so far."""

    ended: dict[int, str] = field(default_factory=dict)
    """Number -> outcome."""
    running: int | None = None


class Monitor:
    """Subscribes, and keeps the newest of everything.

    Attributes:
        mode: of the safety node; "" before it said one.
        episodes: as told by the episode node.
        critic: newest values by name.
    """

    def __init__(self, handle: NodeHandle) -> None:
        self._clock = handle.clock
        self.mode = ""
        self.episodes = Outcomes()
        self.critic: dict[str, float] = {}
        self._chunks: deque[float] = deque(maxlen=1000)
        self._joints: float | None = None
        self._warnings: dict[str, str] = {}
        handle.subscribe("safety/mode", "std_msgs/msg/String", self._on_mode, LATCHED)
        handle.subscribe("policy/action_chunk", "trajectory_msgs/msg/JointTrajectory", self._on_chunk, BEST_EFFORT)
        handle.subscribe("joint_states", "sensor_msgs/msg/JointState", self._on_joints, SENSOR)
        handle.subscribe("critic/value", "control_msgs/msg/DynamicJointState", self._on_critic, RELIABLE)
        handle.subscribe("episode/event", "std_msgs/msg/String", self._on_event, _EVENTS)
        handle.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", self._on_diagnostics, RELIABLE)

    @property
    def policy_hz(self) -> float:
        """Chunks a second, over the last seconds."""
        now = self._clock.monotonic()
        return sum(now - at < _RATE_WINDOW_S for at in self._chunks) / _RATE_WINDOW_S

    @property
    def joint_age_s(self) -> float:
        """Seconds since joint states came; NaN before the first."""
        return math.nan if self._joints is None else self._clock.monotonic() - self._joints

    @property
    def warnings(self) -> list[str]:
        """What nodes report as not well, one line each."""
        return [f"{name}: {text}" for name, text in sorted(self._warnings.items())]

    def summary(self) -> dict[str, Any]:
        """Everything as plain data."""
        outcomes = list(self.episodes.ended.values())
        return {
            "mode": self.mode,
            "policy_hz": self.policy_hz,
            "joint_age_s": self.joint_age_s,
            "critic": self.critic,
            "running": self.episodes.running,
            "episodes": {name: outcomes.count(name) for name in sorted(set(outcomes))},
            "warnings": self.warnings,
        }

    def line(self) -> str:
        """Everything in one line."""
        parts = [self.mode or "no safety node", f"policy {self.policy_hz:.1f} Hz"]
        parts.append("no joint states" if self._joints is None else f"joints {1e3 * self.joint_age_s:.0f} ms")
        if self.critic:
            parts.append("critic " + " ".join(f"{k} {v:.2f}" for k, v in self.critic.items() if math.isfinite(v)))
        running, ended = self.episodes.running, list(self.episodes.ended.values())
        parts.append(f"episode {running}" if running is not None else "no episode")
        if ended:
            parts.append(", ".join(f"{ended.count(name)} {name}" for name in sorted(set(ended))))
        return " | ".join(parts)

    def _on_mode(self, message: Any, _received: Received) -> None:
        self.mode = str(message.data)

    def _on_chunk(self, _message: Any, received: Received) -> None:
        self._chunks.append(received.monotonic)

    def _on_joints(self, _message: Any, received: Received) -> None:
        self._joints = received.monotonic

    def _on_critic(self, message: Any, _received: Received) -> None:
        for values in message.interface_values[:1]:
            self.critic = {
                str(k): float(v)
                for k, v in zip(values.interface_names, values.values, strict=False)
                if k in ("progress", "p_done", "latency_s")
            }

    def _on_event(self, message: Any, _received: Received) -> None:
        try:
            event = json.loads(message.data)
            number, kind = int(event["episode"]), str(event["event"])
        except (ValueError, KeyError, TypeError):
            return  # somebody else's message; the status must go on
        if kind == "started":
            self.episodes.running = number
        elif kind == "ended":
            self.episodes.running = None
            self.episodes.ended[number] = str(event.get("outcome", ""))

    def _on_diagnostics(self, message: Any, _received: Received) -> None:
        for status in message.status:
            if int(status.level) > 0:
                self._warnings[str(status.name)] = str(status.message)
            else:
                self._warnings.pop(str(status.name), None)
