"""Giving an end to episodes whose recorder was killed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mcap.records import Channel, Message, Metadata, Schema

from real.recording.mcap_writer import ACTIVE, EpisodeFile, RecordingError
from real.recording.reading import END, Stream, being_written, episode_files, summarize

KEPT = ".killed"
"""Ends the name of what a recovered episode was made from."""


@dataclass(frozen=True)
class Recovery:
    """What came of one file.

    Attributes:
        source: the file without an end; path: the recovered one, None where there is none.
        messages: how many were found; fault: where the source ends or is damaged, or why nothing was done.
    """

    source: Path
    path: Path | None
    messages: int
    fault: str


def recover(target: Path) -> list[Recovery]:
    """Recover one file, or all files of a folder that have no end.

    Every whole chunk is copied to a file with an index and an end, flagged ``recovered``; only when it is on the disk,
    the source is renamed, to end with ``.killed``. Files that a recorder is still writing are left alone.

    Raises:
        RecordingError: no such file or folder, or one file was named that needs no recovery.
    """
    if target.is_dir():
        return [_recover(path) for path in episode_files(target) if path.name.endswith(ACTIVE)]
    if not target.is_file():
        raise RecordingError(f"no episode at {target}")
    if not target.name.endswith(ACTIVE):
        raise RecordingError(f"{target} has its end; only files that end with {ACTIVE} need recovery")
    return [_recover(target)]


def _recover(source: Path) -> Recovery:
    if being_written(source):
        return Recovery(source, None, 0, "a recorder is writing it")
    path = source.with_name(source.name.removesuffix(ACTIVE))
    if path.exists():
        return Recovery(source, None, 0, f"{path.name} exists already")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.recovering")
    try:
        count, fault = _copy(source, temporary)
        if not count and not summarize(temporary).start:
            return Recovery(source, None, 0, fault or "nothing can be read from it")
        os.rename(temporary, path)
        os.rename(source, source.with_name(path.name + KEPT))
    except (OSError, RecordingError) as error:
        return Recovery(source, None, 0, str(error))
    finally:
        temporary.unlink(missing_ok=True)
        temporary.with_name(temporary.name + ACTIVE).unlink(missing_ok=True)
    return Recovery(source, path, count, fault)


def _copy(source: Path, target: Path) -> tuple[int, str]:
    """Everything whole in ``source``; how many messages, and why there are no more."""
    file = EpisodeFile(target, chunk_bytes=1024 * 1024)
    try:
        return _copy_into(file, source)
    except RecordingError:
        file.abandon()
        raise


def _copy_into(file: EpisodeFile, source: Path) -> tuple[int, str]:
    stream = Stream(source)
    schemas: dict[int, Schema] = {}
    channels: dict[int, int] = {}
    end: dict[str, str] = {}
    count = 0
    for record in stream:
        if isinstance(record, Schema):
            schemas[record.id] = record
        elif isinstance(record, Channel) and record.id not in channels and record.schema_id in schemas:
            schema = schemas[record.schema_id]
            qos = record.metadata.get("offered_qos_profiles", "")
            channels[record.id] = file.channel(record.topic, schema.name, schema.data.decode(), qos)
        elif isinstance(record, Message) and record.channel_id in channels:
            file.write(channels[record.channel_id], record.log_time, record.publish_time, record.data)
            count += 1
        elif isinstance(record, Metadata) and record.name == END:
            end = record.metadata
        elif isinstance(record, Metadata):
            file.metadata(record.name, record.metadata)
    fault = "" if stream.ended else stream.fault
    file.finish(END, {"outcome": "", **end, "state": "partial", "recovered": "true", "recovered_from": fault})
    return count, fault
