"""Reading recorded episodes, those without an end included."""

from __future__ import annotations

import fcntl
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mcap.exceptions import McapError
from mcap.reader import SeekingReader
from mcap.records import Channel, Footer, McapRecord, Message, Metadata, Schema
from mcap.stream_reader import CRCValidationError, StreamReader

from real.recording.mcap_writer import ACTIVE, RecordingError

RECORD_LIMIT = 256 * 2**20
"""Bytes of the largest record that is read; a damaged length must not fill the memory."""
START, END = "episode", "outcome"
"""Names of the metadata records at an episode's start and end."""
BROKEN = (
    McapError,
    CRCValidationError,
    struct.error,
    zlib.error,
    UnicodeDecodeError,
    ValueError,
    RuntimeError,
    KeyError,
)
"""What the MCAP reader raises for bytes that are damaged or end too early."""


@dataclass(frozen=True)
class Recorded:
    """A message of an episode.

    Attributes:
        topic, type: full name, and such as sensor_msgs/msg/JointState.
        log_ns: when it was recorded, ns since 1970; in one episode this time never jumps.
        publish_ns: stamp of its header, or ``log_ns`` where it has none.
        data: CDR.
    """

    topic: str
    type: str
    log_ns: int
    publish_ns: int
    data: bytes


@dataclass
class Summary:
    """What an episode's file holds.

    Attributes:
        path: the file; size: its bytes.
        state: complete, partial (cut short, or without an end), recovered, or recording (its writer is alive).
        start: metadata from the episode's start; end: from its end, empty where there is none.
        counts: topic → messages; types: topic → type.
        begin_ns, end_ns: times of the first and last message, ns; 0 where there is none.
        fault: why nothing could be read beyond what is told, or ``""``.
    """

    path: Path
    size: int = 0
    state: str = "partial"
    start: dict[str, str] = field(default_factory=dict)
    end: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    begin_ns: int = 0
    end_ns: int = 0
    fault: str = ""

    @property
    def messages(self) -> int:
        """Of all topics."""
        return sum(self.counts.values())

    @property
    def duration_s(self) -> float:
        """From the first to the last message, s."""
        return (self.end_ns - self.begin_ns) / 1e9


def episode_files(folder: Path) -> list[Path]:
    """Episodes of a folder by name, those without an end included.

    Raises:
        RecordingError: there is no such folder.
    """
    if not folder.is_dir():
        raise RecordingError(f"no folder of episodes at {folder}")
    found = [*folder.glob("*.mcap"), *folder.glob(f"*.mcap{ACTIVE}")]
    return sorted(path for path in found if not path.name.startswith("."))


def being_written(path: Path) -> bool:
    """Whether a recorder has the file open."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class Stream:
    """The records of a file from its begin to its end, or to where it is damaged.

    Attributes:
        ended: whether the file's end was reached.
        fault: why not, in words.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ended = False
        self.fault = ""

    def __iter__(self) -> Iterator[McapRecord]:
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise RecordingError(f"cannot read {self.path}: {error.strerror}") from error
        with file:
            reader = StreamReader(file, validate_crcs=True, record_size_limit=RECORD_LIMIT)
            try:
                for record in reader.records:
                    if isinstance(record, Footer):
                        self.ended = True
                    yield record
            except BROKEN as error:
                self.ended = False
                self.fault = f"{type(error).__name__} {error}".strip()


def messages(path: Path, topics: Collection[str] | None = None) -> Iterator[Recorded]:
    """Messages in the order of the file, of some topics or of all; ends where the file is damaged.

    Raises:
        RecordingError: the file cannot be opened.
    """
    types: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}
    for record in Stream(path):
        if isinstance(record, Schema):
            types[record.id] = record.name
        elif isinstance(record, Channel):
            channels[record.id] = (record.topic, types.get(record.schema_id, ""))
        elif isinstance(record, Message) and record.channel_id in channels:
            topic, kind = channels[record.channel_id]
            if topics is None or topic in topics:
                yield Recorded(topic, kind, record.log_time, record.publish_time, record.data)


def summarize(path: Path) -> Summary:
    """What a file holds, from its index where it has one.

    Raises:
        RecordingError: the file cannot be opened.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from error
    return _indexed(path, size) or _streamed(path, size)


def _indexed(path: Path, size: int) -> Summary | None:
    with path.open("rb") as file:
        reader = SeekingReader(file, record_size_limit=RECORD_LIMIT)
        try:
            index = reader.get_summary()
            if index is None or index.statistics is None:
                return None
            found = Summary(path, size)
            for record in reader.iter_metadata():
                _note(found, record)
        except BROKEN:
            return None
    for id, channel in index.channels.items():
        schema = index.schemas.get(channel.schema_id)
        found.types[channel.topic] = schema.name if schema else ""
        found.counts[channel.topic] = index.statistics.channel_message_counts.get(id, 0)
    if index.statistics.message_count:
        found.begin_ns, found.end_ns = index.statistics.message_start_time, index.statistics.message_end_time
    return _judged(found, ended=True)


def _streamed(path: Path, size: int) -> Summary:
    found = Summary(path, size)
    stream = Stream(path)
    schemas: dict[int, str] = {}
    channels: dict[int, str] = {}
    for record in stream:
        if isinstance(record, Schema):
            schemas[record.id] = record.name
        elif isinstance(record, Channel) and record.id not in channels:
            channels[record.id] = record.topic
            found.types[record.topic] = schemas.get(record.schema_id, "")
            found.counts[record.topic] = 0
        elif isinstance(record, Message) and record.channel_id in channels:
            found.counts[channels[record.channel_id]] += 1
            found.begin_ns = min(found.begin_ns or record.log_time, record.log_time)
            found.end_ns = max(found.end_ns, record.log_time)
        elif isinstance(record, Metadata):
            _note(found, record)
    found.fault = stream.fault
    return _judged(found, stream.ended)


def _note(found: Summary, record: Metadata) -> None:
    if record.name == START:
        found.start = record.metadata
    elif record.name == END:
        found.end = record.metadata


def _judged(found: Summary, ended: bool) -> Summary:
    if found.path.name.endswith(ACTIVE):
        found.state = "recording" if being_written(found.path) else "partial"
    elif found.end.get("recovered") == "true":
        found.state = "recovered"
    elif ended and found.end.get("state", "") == "complete":
        found.state = "complete"
    return found
