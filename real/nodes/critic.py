"""The critic node: the critic that judged in simulation, on a robot's cameras.

    python -m real.nodes.critic --ros-args -p stack:=panda_twin -p critic:=critics/arm_push

It answers a few times a second while an episode runs, each answer stamped with the observation it is about. Control
does not wait for it: an answer that comes late is joined by its stamp, one that never comes is missing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from real.core.images import ImageError, decode, decompress, fit
from real.core.readers import stamp_ns
from real.errors import StackError
from real.msgs import MessageStore, store
from real.nodes.diagnostics import OK, WARN, Diagnostics
from real.nodes.messages import json_of, whole
from real.nodes.run import run_node
from real.stack import Stack
from real.transport.handle import LATCHED, SENSOR, NodeHandle, QoS, Received
from vlm_rewards.answer import Answer
from vlm_rewards.critic import Capability, Critic
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.potential import Potential, as_potential
from vlm_rewards.registry import load_critic

FIELDS = ("progress", "p_done", "confidence", "latency_s", "valid")
"""Interfaces of ``critic/value``."""
_ONE = torch.zeros(1, dtype=torch.long)
_SIZE = 96
"""Pixels at most of the sides of pictures for a critic that takes any size."""
_EVENTS = QoS(depth=10, transient_local=True)


class CriticNode:
    """See above.

    Args:
        handle: the open node.
        stack: its sections ``critic`` and ``cameras``.
        critic: None loads the one that the stack names.

    Attributes:
        answers: published so far.

    Raises:
        StackError: no critic, or cameras that the stack lacks.
        CriticError: a critic that cannot be loaded, or cannot judge while an episode goes on.
    """

    def __init__(
        self,
        handle: NodeHandle,
        stack: Stack,
        critic: Critic | None = None,
        messages: MessageStore | None = None,
    ) -> None:
        if critic is None and not stack.critic.critic:
            raise StackError("the critic node needs critic.critic: a folder, a model, an address or a baseline")
        self._clock, self._settings = handle.clock, stack.critic
        self._store = messages or store(stack.distro)
        self.critic = critic or load_critic(stack.critic.critic)
        self._potential: Potential = as_potential(self.critic, online=True)
        self._names = _cameras(stack, self.critic)
        self._pictures: dict[str, tuple[float, int, Any]] = {}
        self._judged: dict[str, int] = {}
        self._instruction, self._episode = stack.episode.instruction, -1
        self._running, self._begun, self._since = False, False, 0.0
        self.answers, self._bad_pictures, self._why = 0, 0, ""
        self._value = handle.publisher("critic/value", "control_msgs/msg/DynamicJointState", QoS(depth=50))
        self._diagnostics = Diagnostics(handle, self._store)
        for name in self._names:
            topic = stack.cameras[name].topic
            kind = "CompressedImage" if topic.endswith("/compressed") else "Image"
            handle.subscribe(topic, f"sensor_msgs/msg/{kind}", self._eye(name), SENSOR)
        handle.subscribe("episode/instruction", "std_msgs/msg/String", self._on_instruction, LATCHED)
        handle.subscribe("episode/event", "std_msgs/msg/String", self._on_event, _EVENTS)
        handle.timer(1.0 / stack.critic.rate_hz, self._judge)
        handle.timer(1.0, self._diagnose)

    def _eye(self, name: str) -> Any:
        def see(message: Any, received: Received) -> None:
            taken = stamp_ns(message)
            self._pictures[name] = received.monotonic, taken or self._clock.now(), message

        return see

    def _on_instruction(self, message: Any, received: Received) -> None:
        self._instruction = message.data

    def _on_event(self, message: Any, received: Received) -> None:
        event = json_of(message)
        if event.get("event") == "started":
            self._episode, self._running, self._begun = whole(event.get("episode")), True, False
            self._since = received.monotonic  # pictures from before the episode show another one
        elif event.get("event") == "ended":
            self._running = False

    def _judge(self) -> None:
        """One answer about the newest pictures, if all are new; stamps only tell which, as clocks may jump."""
        new = {name: taken for name, (came, taken, _) in self._pictures.items() if came > self._since}
        if not self._running or len(new) < len(self._names):
            return
        if any(taken == self._judged.get(name) for name, taken in new.items()):
            return
        self._judged, stamp = new, min(new.values())
        try:
            frames = self._frames(1e-9 * stamp)
        except ImageError as error:
            self._bad_pictures += 1
            self._why = str(error)
            return
        started = time.perf_counter()
        progress, done = self.judge(frames)
        self._publish(stamp, progress, done, time.perf_counter() - started)

    def judge(self, frames: Frames) -> tuple[Answer | None, Answer | None]:
        """Potential and probability of done of one moment; None where the critic gives none or failed.

        The first moment of an episode is the start that the others are held against.
        """
        words = [self._instruction]
        try:
            ask = self._potential.read if self._begun else self._potential.begin
            progress = ask(_ONE, frames, words)
            self._begun = True
            done = self.critic.done(frames, words) if Capability.DONE in self.critic.capabilities else None
        except CriticError as error:
            self._why = str(error)
            return None, None
        self._why = next((reason for reason in progress.reasons if reason), "")
        return progress, done

    def _frames(self, stamp_s: float) -> Frames:
        messages = [self._pictures[name][2] for name in self._names]
        seen = [decode(message) if hasattr(message, "encoding") else decompress(message) for message in messages]
        side = min(_SIZE, *(length for picture in seen for length in picture.shape[:2]))
        height, width = self.critic.picture or (side, side)
        rgb = torch.from_numpy(np.stack([fit(picture, height, width, "crop") for picture in seen]))[None]
        return Frames.now(rgb, self._names, torch.tensor([stamp_s], dtype=torch.float64))

    def _publish(self, taken: int, progress: Answer | None, done: Answer | None, latency_s: float) -> None:
        valid = progress is not None and bool(progress.valid[0])
        values = [
            _number(progress),
            _number(done),
            float(progress.confidence[0]) if progress is not None else 0.0,
            latency_s,
            float(valid and latency_s <= self._settings.time_out_s),
        ]
        new = self._store.new
        header = new("std_msgs/msg/Header", stamp=self._store.time(taken), frame_id=str(self._episode))
        row = new("control_msgs/msg/InterfaceValue", interface_names=list(FIELDS), values=np.array(values))
        self._value.publish(
            new("control_msgs/msg/DynamicJointState", header=header, joint_names=["critic"], interface_values=[row])
        )
        self.answers += 1

    def _diagnose(self) -> None:
        values: Mapping[str, Any] = {
            "critic": self.critic.name,
            "revision": self.critic.revision,
            "cameras": ", ".join(self._names),
            "answers": self.answers,
            "pictures refused": self._bad_pictures,
        }
        waiting = [name for name in self._names if name not in self._pictures]
        message = self._why or (f"no picture of {', '.join(waiting)} yet" if waiting else "ready")
        self._diagnostics.publish(WARN if self._why or waiting else OK, message, values)


def _number(answer: Answer | None) -> float:
    return float(answer.values[0]) if answer is not None else float("nan")


def _cameras(stack: Stack, critic: Critic) -> tuple[str, ...]:
    """The cameras that the critic looks through, in its order."""
    wanted = tuple(critic.cameras or stack.critic.cameras or stack.cameras)
    if stack.critic.cameras and set(stack.critic.cameras) != set(wanted):
        raise StackError(
            f"critic {critic.name!r} was made for cameras {', '.join(wanted)}, not for "
            f"critic.cameras: {', '.join(stack.critic.cameras)}"
        )
    missing = [name for name in wanted if name not in stack.cameras]
    if missing or not wanted:
        raise StackError(
            f"critic {critic.name!r} looks through cameras {', '.join(wanted) or 'of any name'}; "
            f"the stack has {', '.join(stack.cameras) or 'none'}"
        )
    return wanted


def main() -> int:
    """Entry point."""
    torch.set_num_threads(1)
    return run_node("critic", CriticNode)


if __name__ == "__main__":
    sys.exit(main())
