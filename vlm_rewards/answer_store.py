"""Answers on disk, shared by runs and processes."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlm_rewards.errors import CriticError

_FORMAT = 1
_ENTRY = struct.Struct("<ddI")
_AT_ONCE = 500


class AnswerStore:
    """Value and confidence by key, in one SQLite file.

    Each answer is written in a transaction, so that a killed process leaves a file that can be read; several processes
    may use one folder. Each entry has a checksum over its key and content: one that fails it is not used, counted, and
    replaced when the question is next answered. A file that is no database any more is set aside, counted and begun
    anew. It grows without bound, by some 60 bytes an answer; delete the folder whenever no process uses it.

    Args:
        folder: made if it is not there.

    Attributes:
        damaged: entries, or whole files, that could not be used.
        refused: entries that the disk did not take; answers do not depend on it.

    Raises:
        CriticError: the folder cannot be used, or a newer version of robolearn wrote it.
    """

    def __init__(self, folder: Path) -> None:
        self.damaged = 0
        self.refused = 0
        self._file = folder / "answers.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = self._opened()
        except (OSError, sqlite3.Error) as error:
            raise CriticError(f"cannot keep answers in {folder}: {error}") from error

    def get(self, keys: Sequence[bytes]) -> dict[bytes, tuple[float, float]]:
        """Value and confidence of those keys that are there."""
        found: dict[bytes, tuple[float, float]] = {}
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            try:
                rows = self._connection.execute(
                    f"SELECT key, entry FROM answers WHERE key IN ({marks})", some
                ).fetchall()
            except sqlite3.OperationalError:  # locked for long, or the disk fails: asked again instead
                continue
            except sqlite3.DatabaseError as error:
                self._begin_anew(error)
                return found
            for key, entry in rows:
                answer = _unpacked(key, entry)
                if answer is None:
                    self.damaged += 1
                else:
                    found[key] = answer
        return found

    def put(self, answers: Mapping[bytes, tuple[float, float]]) -> None:
        """Keep ``answers``, all or none of them."""
        rows = [(key, _packed(key, *answer)) for key, answer in answers.items()]
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
        except sqlite3.OperationalError:
            self.refused += len(rows)
        except sqlite3.DatabaseError as error:
            self.refused += len(rows)
            self._begin_anew(error)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _opened(self) -> sqlite3.Connection:
        try:
            return self._connected()
        except sqlite3.DatabaseError as error:
            _require_damage(error)
            self._set_aside()
            return self._connected()

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, timeout=10.0, check_same_thread=False)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, _FORMAT):
                raise CriticError(f"{self._file} is of format {version}, this version of robolearn reads {_FORMAT}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            with connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, entry BLOB) WITHOUT ROWID"
                )
                connection.execute(f"PRAGMA user_version = {_FORMAT}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin_anew(self, error: sqlite3.DatabaseError) -> None:
        """Go on with an empty file; what is left of the old one stays beside it."""
        _require_damage(error)
        self._connection.close()
        self._set_aside()
        self._connection = self._connected()

    def _set_aside(self) -> None:
        self.damaged += 1
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            self._file.replace(self._file.with_suffix(".damaged"))
        for suffix in ("-wal", "-shm"):
            self._file.with_name(self._file.name + suffix).unlink(missing_ok=True)


def _require_damage(error: sqlite3.DatabaseError) -> None:
    """Raise again what does not say that the file is damaged; SQLite says that by the bare class alone."""
    if type(error) is not sqlite3.DatabaseError:
        raise error


def _packed(key: bytes, value: float, confidence: float) -> bytes:
    numbers = struct.pack("<dd", value, confidence)
    return numbers + struct.pack("<I", zlib.crc32(key + numbers))


def _unpacked(key: bytes, entry: object) -> tuple[float, float] | None:
    """Value and confidence, or None where the entry is damaged."""
    if not isinstance(entry, bytes) or len(entry) != _ENTRY.size:
        return None
    value, confidence, check = _ENTRY.unpack(entry)
    return (value, confidence) if zlib.crc32(key + entry[:16]) == check else None
