"""One episode as an MCAP file that is whole after every flush.

The file grows by whole chunks, each by one write. Where a write fails, the file is cut back to the last whole one, so
that a reader of streams gets every message up to there; a killed process leaves such a file, too.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from mcap.data_stream import RecordBuilder
from mcap.records import DataEnd, Footer, Metadata
from mcap.writer import MCAP0_MAGIC, CompressionType, IndexType, Writer

from real.errors import RealError
from robolearn.errors import unknown
from robolearn.files import sync_folder

ACTIVE = ".active"
"""Ends the name of a file that is being written, or whose writer died."""
COMPRESSIONS = {"none": CompressionType.NONE, "lz4": CompressionType.LZ4, "zstd": CompressionType.ZSTD}
LIBRARY = "robolearn"


class RecordingError(RealError):
    """An episode that cannot be written, read or recovered."""


class _Whole:
    """A stream that holds back what it is given until `commit` puts it in the file with one write."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # tells `recover` that somebody is writing
        self._held: list[bytes] = []
        self._size = 0
        self.committed = 0

    def write(self, data: bytes) -> int:
        self._held.append(data)
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.committed + self._size

    def flush(self) -> None:
        """Nothing yet: see `commit`."""

    def commit(self) -> None:
        """Raises OSError with the file cut back to where it was."""
        data = memoryview(b"".join(self._held))
        self._held, self._size = [], 0
        at = self.committed
        try:
            while data:
                written = os.pwrite(self._descriptor, data, at)
                if not written:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                at, data = at + written, data[written:]
        except OSError:
            os.ftruncate(self._descriptor, self.committed)
            raise
        self.committed = at

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class EpisodeFile:
    """Writes ``<path>.active`` and renames it to ``path`` at `finish`.

    Args:
        path: such as ``episodes/episode_000012.mcap``; must not exist.
        chunk_bytes: a chunk is written once it is larger; what a kill can lose.
        compression: of chunks: none, lz4 or zstd.

    Attributes:
        messages: written so far, those still held in memory included.

    Raises:
        RecordingError: the file exists, or the folder or the disk does not take it.
    """

    def __init__(self, path: Path, chunk_bytes: int = 16 * 1024, compression: str = "lz4") -> None:
        if compression not in COMPRESSIONS:
            raise RecordingError(unknown("compression", compression, COMPRESSIONS))
        self.path = path
        self.active = path.with_name(path.name + ACTIVE)
        self.messages = 0
        self._sequences: dict[int, int] = {}
        self._schemas: dict[str, int] = {}
        self._broken = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            self._stream = _Whole(self.active)
        except OSError as error:
            raise RecordingError(f"cannot record to {path}: {error.strerror}") from error
        self._writer = Writer(
            self._stream,  # type: ignore[arg-type]  # it needs write, tell and flush only
            chunk_size=chunk_bytes,
            compression=COMPRESSIONS[compression],
            index_types=IndexType.ALL,
        )
        self._writer.start("ros2", LIBRARY)
        self.flush()

    def channel(self, topic: str, type: str, definition: str, qos: str = "") -> int:
        """A topic of the file: its type, the type's ``ros2msg`` text, and YAML of the QoS that it was offered with."""
        schema = self._schemas.get(type)
        if schema is None:
            schema = self._schemas[type] = self._writer.register_schema(type, "ros2msg", definition.encode())
        channel = self._writer.register_channel(topic, "cdr", schema, {"offered_qos_profiles": qos})
        self._sequences[channel] = 0
        return channel

    def write(self, channel: int, log_ns: int, publish_ns: int, cdr: bytes) -> None:
        """Add a message. Raises RecordingError where the disk takes no more; everything before it stays."""
        self._writer.add_message(channel, log_ns, cdr, publish_ns, self._sequences[channel])
        self._sequences[channel] += 1
        self.messages += 1
        self._commit()

    def metadata(self, name: str, values: Mapping[str, object]) -> None:
        """Add a record of texts. Raises RecordingError where the disk takes no more."""
        self._writer.add_metadata(name, {key: str(value) for key, value in values.items()})
        self._commit()

    def flush(self) -> None:
        """Put everything in the file. Raises RecordingError where the disk takes no more."""
        self._writer.flush()
        self._commit()

    def finish(self, name: str, values: Mapping[str, object]) -> Path:
        """End the file with a record of metadata and give it its name.

        After a failed write the index is left out, which takes little space and is allowed by the format. Where even
        that does not fit, the name keeps ``.active`` and `real.recording.recovery` can end it later.

        Returns:
            The file.
        """
        try:
            if not self._broken:
                self._writer.flush()
                self._writer.add_metadata(name, {key: str(value) for key, value in values.items()})
                self._writer.finish()
                self._commit()
        except RecordingError:
            self._broken = True  # the file is whole up to the last chunk, and ends below
        if self._broken and not self._end_short(name, values):
            self._stream.close()
            return self.active
        self._stream.sync()
        self._stream.close()
        os.rename(self.active, self.path)
        sync_folder(self.path.parent)
        return self.path

    def abandon(self) -> None:
        """Close without an end, as a killed process would."""
        self._stream.close()

    def _commit(self) -> None:
        if self._broken:
            raise RecordingError(f"{self.active} had a failed write before")
        try:
            self._stream.commit()
        except OSError as error:
            self._broken = True
            raise RecordingError(f"cannot write {self.active}: {error.strerror}") from error

    def _end_short(self, name: str, values: Mapping[str, object]) -> bool:
        for texts in ({key: str(value) for key, value in values.items()}, None):
            records = RecordBuilder()
            if texts is not None:
                Metadata(name, texts).write(records)
            DataEnd(0).write(records)
            Footer(0, 0, 0).write(records)
            self._stream.write(records.end() + MCAP0_MAGIC)
            try:
                self._stream.commit()
            except OSError:
                continue
            return True
        return False
