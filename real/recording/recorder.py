"""What is written to disk, and when: one file an episode, what came just before and just after it included."""

from __future__ import annotations

import re
import shutil
import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from real.msgs import MessageStore
from real.recording.labels import Labels
from real.recording.mcap_writer import EpisodeFile, RecordingError
from real.recording.reading import END, START
from real.transport.handle import QoS

MB = 1024 * 1024
_NUMBER = re.compile(r"episode_(\d{6,})\.mcap")


@dataclass(frozen=True)
class Topic:
    """One that is recorded.

    Attributes:
        name: relative or absolute; type: such as sensor_msgs/msg/JointState; qos: of the subscription.
    """

    name: str
    type: str
    qos: QoS


@dataclass(frozen=True)
class RecorderSettings:
    """How episodes are written.

    Attributes:
        folder: where to.
        topics: what.
        chunk_bytes, compression: of the MCAP file; see `real.recording.mcap_writer.EpisodeFile`.
        flush_s: a chunk is written after so long even if it is small; with ``chunk_bytes`` what a kill can lose.
        pre_roll_s: how much from before an episode is recorded with it, s; also covers the settling of its events.
        post_roll_s: how long after its end recording goes on, for answers of a critic that are late, s.
        min_free_mb: with less space on the disk no episode is begun, and a running one is ended.
        info: texts kept with every episode, such as task, bundle_hash, operator.
    """

    folder: Path
    topics: tuple[Topic, ...]
    chunk_bytes: int = 16 * 1024
    compression: str = "lz4"
    flush_s: float = 0.1
    pre_roll_s: float = 1.0
    post_roll_s: float = 0.5
    min_free_mb: float = 500.0
    info: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Held:
    topic: str
    monotonic: float
    cdr: bytes


class EpisodeRecorder:
    """Keeps the last moments in memory and writes episodes.

    Times given to it are monotonic, s. A file's times are those plus the offset to the wall clock when it was begun,
    so that a clock that jumps does not tear an episode apart.

    Attributes:
        file: the episode being written, or None.
        trouble: why nothing is recorded though something should be, or ``""``.
        dropped: messages that no file took because of it.
        free: tells the bytes left for a folder.
    """

    def __init__(
        self,
        settings: RecorderSettings,
        store: MessageStore,
        types: Mapping[str, Topic],
    ) -> None:
        """``types``: full topic names → topics."""
        self._settings, self._store, self._topics = settings, store, types
        self.free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free
        self._headed = {name: _has_header(store, topic.type) for name, topic in types.items()}
        self._held: deque[_Held] = deque()
        self._latched: dict[str, _Held] = {}
        self._channels: dict[str, int] = {}
        self._offset_ns = 0
        self._flushed = 0.0
        self.labels = Labels(settings.folder)
        self.file: EpisodeFile | None = None
        self.trouble = ""
        self.dropped = 0

    def message(self, topic: str, monotonic: float, cdr: bytes) -> None:
        """A message has come: it is written if an episode is, else kept for a while."""
        held = _Held(topic, monotonic, cdr)
        if self._topics[topic].qos.transient_local:
            self._latched[topic] = held
        if self.file is not None:
            self._write(held)
            return
        self.dropped += bool(self.trouble)
        self._held.append(held)
        while self._held[0].monotonic < monotonic - self._settings.pre_roll_s:
            self._held.popleft()

    def begin(self, episode: int, monotonic: float, wall_ns: int, info: Mapping[str, object]) -> None:
        """Begin an episode; a running one is ended as partial before. Failure is told by `trouble`, not raised.

        Args:
            episode: its number as announced; the file's number is higher where that one exists already.
            monotonic: when it began, s.
            wall_ns: the wall clock now, ns.
            info: texts to keep with it, beside those of the settings.
        """
        if self.file is not None:
            self.end({"outcome": "", "reason": "another episode began"}, complete=False)
        self.trouble, self.dropped = "", 0
        try:
            self._settings.folder.mkdir(parents=True, exist_ok=True)
            self._demand_space()
            file = EpisodeFile(self._free_path(episode), self._settings.chunk_bytes, self._settings.compression)
        except (RecordingError, OSError) as error:
            self._fail(error)
            return
        self.file = file
        self._channels = {}
        self._offset_ns = wall_ns - int(monotonic * 1e9)
        self._flushed = monotonic
        started = {"episode": episode, "started_ns": wall_ns, **self._settings.info, **info}
        self._guard(lambda: file.metadata(START, started))
        earlier = sorted([*self._before(), *self._held], key=lambda held: held.monotonic)
        self._held.clear()
        for held in earlier:
            self._write(held)

    def tick(self, monotonic: float) -> None:
        """Flush what is old and watch the disk; call it a few times a second."""
        file = self.file
        if file is None or monotonic - self._flushed < self._settings.flush_s:
            return
        self._flushed = monotonic
        self._guard(file.flush)
        try:
            self._demand_space()
        except (RecordingError, OSError) as error:
            self._fail(error)

    def end(self, result: Mapping[str, object], complete: bool = True) -> Path | None:
        """End the episode; ``result`` are texts such as outcome and reason.

        Returns:
            Its file, or None where none was being written.
        """
        file, self.file = self.file, None
        if file is None:
            return None
        try:
            return file.finish(END, {**result, "state": "complete" if complete else "partial"})
        except OSError as error:
            self.trouble = f"cannot end {file.path}: {error.strerror}"
            file.abandon()
            return file.active

    def _write(self, held: _Held) -> None:
        file = self.file
        if file is None:
            self.dropped += 1
            return
        channel = self._channels.get(held.topic)
        if channel is None:
            topic = self._topics[held.topic]
            definition = self._store.definition(topic.type)
            channel = self._channels[held.topic] = file.channel(held.topic, topic.type, definition, _qos(topic.qos))
        log_ns = int(held.monotonic * 1e9) + self._offset_ns
        publish_ns = (_stamp(held.cdr) if self._headed[held.topic] else 0) or log_ns
        self._guard(lambda: file.write(channel, log_ns, publish_ns, held.cdr))

    def _before(self) -> list[_Held]:
        """What latched topics said before the pre-roll began, told at its begin."""
        recent = {held.topic for held in self._held}
        begin = self._held[0].monotonic if self._held else self._flushed
        old = [held for topic, held in self._latched.items() if topic not in recent]
        return [_Held(held.topic, max(begin, held.monotonic), held.cdr) for held in old]

    def _demand_space(self) -> None:
        free = self.free(self._settings.folder) / MB
        if free < self._settings.min_free_mb:
            wanted = self._settings.min_free_mb
            raise RecordingError(f"only {free:.0f} MB are free at {self._settings.folder}, less than {wanted:g} MB")

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except RecordingError as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        reason = str(error)
        if isinstance(error, OSError):
            reason = f"cannot record to {self._settings.folder}: {error.strerror}"
        self.end({"outcome": "", "reason": reason}, complete=False)
        self.trouble = reason

    def _free_path(self, episode: int) -> Path:
        """Nothing that exists is written over, recovered and killed episodes included."""
        names = [_NUMBER.match(path.name) for path in self._settings.folder.iterdir()]
        taken = [int(match.group(1)) for match in names if match]
        number = episode if episode not in taken else max(taken) + 1
        return self._settings.folder / f"episode_{max(number, 0):06d}.mcap"


def _has_header(store: MessageStore, type: str) -> bool:
    """Whether a std_msgs/Header comes first."""
    first = next(iter(vars(store.new(type)).values()), None)
    return getattr(first, "__msgtype__", "") == "std_msgs/msg/Header"


def _stamp(cdr: bytes) -> int:
    """Stamp of the header that a message begins with, ns."""
    if len(cdr) < 12:
        return 0
    seconds, nanoseconds = struct.unpack_from("<iI" if cdr[1] & 1 else ">iI", cdr, 4)
    return max(0, int(seconds) * 1_000_000_000 + int(nanoseconds))


def _qos(qos: QoS) -> str:
    """As rosbag2 writes it for the offered profile of a topic."""
    never = "{sec: 9223372036, nsec: 854775807}"
    fields = {
        "history": "keep_last",
        "depth": qos.depth,
        "reliability": "reliable" if qos.reliable else "best_effort",
        "durability": "transient_local" if qos.transient_local else "volatile",
        "deadline": never,
        "lifespan": never,
        "liveliness": "automatic",
        "liveliness_lease_duration": never,
        "avoid_ros_namespace_conventions": "false",
    }
    return "- " + "\n  ".join(f"{key}: {value}" for key, value in fields.items())
