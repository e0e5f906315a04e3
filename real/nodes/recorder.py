"""Records every episode of the stack, images included, as the bytes that were on the wire."""

from __future__ import annotations

import getpass
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from real.errors import MessageError
from real.msgs import MessageStore, store
from real.nodes.messages import json_object
from real.nodes.run import run_node
from real.recording.recorder import EpisodeRecorder, RecorderSettings
from real.recording.topics import stack_topics
from real.stack import Stack
from real.transport.handle import NodeHandle, Received
from robolearn.bundle import DESCRIPTION
from robolearn.pipeline import sha256

_LOG = logging.getLogger(__name__)
_TICK_S = 0.05
_SETTLE_S = 0.2
"""How long a start is held back: a late recorder is told of past episodes, begun and ended at once."""
_AT_ONCE_S = 0.02
"""A start and an end further apart than that are no past episode's, but a short one's."""
_OK, _ERROR = 0, 2


class RecorderNode:
    """Writes one file an episode, as ``episode/event`` tells; reports on ``/diagnostics``.

    Args:
        handle: the node.
        settings: what is recorded, and where.
        messages: message types, None: those of the environment's distribution.

    Attributes:
        recorder: what it has on disk.
        received: full topic → messages so far.
    """

    def __init__(self, handle: NodeHandle, settings: RecorderSettings, messages: MessageStore | None = None) -> None:
        self._handle, self._settings = handle, settings
        self._store = messages or store()
        topics = {handle.resolve(topic.name): topic for topic in settings.topics}
        self.recorder = EpisodeRecorder(settings, self._store, topics)
        self.received = dict.fromkeys(topics, 0)
        self._event_topic = handle.resolve("episode/event")
        self._instruction_topic = handle.resolve("episode/instruction")
        self._instruction = ""
        self._pending: tuple[int, float] | None = None
        self._result: dict[str, Any] = {}
        self._ends_at: float | None = None
        self._last: tuple[int, Path] | None = None
        self._told = ("", 0.0)
        self._diagnostics = handle.publisher("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")
        for name, topic in topics.items():
            handle.subscribe(topic.name, topic.type, self._callback(name), topic.qos, raw=True)
        handle.timer(_TICK_S, self._tick)

    def close(self) -> None:
        """End the running episode as partial."""
        self._finish(complete=bool(self._result))

    def _callback(self, name: str) -> Any:
        def received(cdr: bytes, how: Received) -> None:
            self.received[name] += 1
            self.recorder.message(name, how.monotonic, cdr)
            if name == self._event_topic:
                self._event(self._text(cdr))
            elif name == self._instruction_topic:
                self._instruction = self._text(cdr)

        return received

    def _text(self, cdr: bytes) -> str:
        """Of a String; malformed ones are recorded like all others, and say nothing."""
        try:
            return str(self._store.deserialize(cdr, "std_msgs/msg/String").data)
        except MessageError:
            return ""

    def _event(self, text: str) -> None:
        event = json_object(text)
        kind, episode = event.get("event"), event.get("episode")
        if not isinstance(kind, str) or not isinstance(episode, int):
            _LOG.warning("an event of an episode cannot be read: %.80r", text)
            return
        if kind == "started":
            self._finish(complete=bool(self._result))
            self._pending = (episode, self._handle.clock.monotonic())
        elif kind == "ended":
            if self._pending and self._pending[0] == episode:
                if self._handle.clock.monotonic() - self._pending[1] > _AT_ONCE_S:
                    self._begin(*self._pending)
                self._pending = None
            if self.recorder.file is not None:
                self._result = _result(event)
                self._ends_at = self._handle.clock.monotonic() + self._settings.post_roll_s
        elif kind == "relabelled":
            self._relabel(episode, event)

    def _relabel(self, episode: int, event: dict[str, Any]) -> None:
        if self._ends_at is not None:
            self._result = _result(event)
        elif self._last is not None and self._last[0] == episode:
            try:
                self.recorder.labels.add(self._last[1].name, str(event.get("outcome")), str(event.get("reason", "")))
            except OSError as error:
                _LOG.error("the outcome of %s could not be changed: %s", self._last[1].name, error.strerror)

    def _tick(self) -> None:
        now = self._handle.clock.monotonic()
        if self._pending and now - self._pending[1] >= _SETTLE_S:
            self._begin(*self._pending)
            self._pending = None
        self.recorder.tick(now)
        if self._ends_at is not None and now >= self._ends_at:
            self._finish(complete=True)
        self._report(now)

    def _begin(self, episode: int, began: float) -> None:
        """Open the file of an episode that began at monotonic time ``began``, s."""
        wall = self._handle.clock.now() - int((self._handle.clock.monotonic() - began) * 1e9)
        self.recorder.begin(episode, began, wall, {"instruction": self._instruction})
        if self.recorder.file is not None:
            self._last = (episode, self.recorder.file.path)

    def _finish(self, complete: bool) -> None:
        if self.recorder.file is not None:
            result = self._result or {"outcome": "", "reason": "the recorder was stopped, or another episode began"}
            self.recorder.end(result, complete)
        self._result, self._ends_at = {}, None

    def _report(self, now: float) -> None:
        """Once a second, and at once when there is trouble."""
        trouble = self.recorder.trouble
        new = trouble != self._told[0]
        if not new and now - self._told[1] < 1.0:
            return
        if new and trouble:
            _LOG.error("recording has stopped: %s", trouble)
            print(f"[{self._handle.name}] recording has stopped: {trouble}", file=sys.stderr, flush=True)
        self._told = (trouble, now)
        file = self.recorder.file
        values = {
            "file": file.path.name if file else "",
            "messages": file.messages if file else 0,
            "dropped": self.recorder.dropped,
            "malformed": sum(self._handle.malformed.values()),
        }
        status = self._store.new(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=_ERROR if trouble else _OK,
            name=f"{self._handle.name}: recording",
            message=trouble or ("recording" if file else "waiting"),
            hardware_id="robolearn",
            values=[
                self._store.new("diagnostic_msgs/msg/KeyValue", key=key, value=str(value))
                for key, value in values.items()
            ],
        )
        array = self._store.new("diagnostic_msgs/msg/DiagnosticArray", status=[status])
        array.header.stamp = self._store.time(self._handle.clock.now())
        self._diagnostics.publish(array)


def _result(event: dict[str, Any]) -> dict[str, Any]:
    metrics = event.get("metrics")
    told = {"outcome": event.get("outcome", ""), "reason": event.get("reason", "")}
    return {**told, **(metrics if isinstance(metrics, dict) else {})}


def settings_of(stack: Stack) -> RecorderSettings:
    """A stack's recorder section and topics as settings."""
    section = stack.recorder
    description = Path(stack.policy.bundle) / DESCRIPTION
    return RecorderSettings(
        folder=Path(section.folder),
        topics=stack_topics(stack),
        chunk_bytes=section.chunk_kb * 1024,
        min_free_mb=section.min_free_mb,
        info={
            "task": stack.episode.task,
            "stack": stack.name,
            "bundle": stack.policy.bundle,
            "bundle_hash": sha256(description) if stack.policy.bundle and description.is_file() else "",
            "operator": getpass.getuser(),
        },
    )


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m real.nodes.recorder --ros-args -p stack:=<name or path> -p folder:=<folder>``."""
    return run_node("recorder", lambda handle, stack: RecorderNode(handle, settings_of(stack)), argv)


if __name__ == "__main__":
    sys.exit(main())
