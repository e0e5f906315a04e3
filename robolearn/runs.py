"""Run folders: everything one training run writes, in a form that survives a kill at any moment.

::

    runs/dex_track/2026-03-01T12-00-00-s1/
      run.json               what marks a run folder: format, name, seed, time of creation
      config.yaml            the resolved configuration
      versions.json          software, commit and machine; a new entry each time the run is continued
      metrics.jsonl          one JSON object per iteration
      checkpoints/           iter_00000120.pt ... and best.pt
      tensorboard/           the same metrics as scalars
"""

from __future__ import annotations

import contextlib
import datetime
import difflib
import errno
import io
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from robolearn import checkpoints
from robolearn.checkpoints import Checkpoint, CheckpointError
from robolearn.errors import RobolearnError
from robolearn.files import json_line, sync_folder, to_json, write_atomic
from robolearn.versions import versions

if sys.platform != "win32":
    import fcntl

_FORMAT = 1
_MARK = "run.json"


class RunError(RobolearnError):
    """A run folder cannot be made, found, read or written."""


class Run:
    """One run folder, made by `Run.create` or `Run.open`; a context manager while it is written to.

    Attributes:
        path: the folder.
        config: the resolved configuration, plain dicts and lists.
        seed: the run's seed.
    """

    def __init__(self, path: Path, config: dict[str, Any], seed: int, lock: io.IOBase | None) -> None:
        self.path, self.config, self.seed = path, config, seed
        self._lock = lock
        self._scalars: Any = None
        self._best: float | None = None

    @classmethod
    def create(cls, root: str | Path, name: str, config: Mapping[str, Any], seed: int) -> Run:
        """Make the folder ``root/name`` and lock it for this process.

        Raises:
            RunError: something is there already, or the place cannot be written.
        """
        path = Path(root) / name
        with _writing(path):
            if path.is_dir() and any(path.iterdir()):
                raise RunError(f"{path} exists and is not empty; continue it with resume={path} or name another folder")
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            lock = _lock(path)
            plain = to_json(config)
            write_atomic(path / "config.yaml", yaml.safe_dump(plain, sort_keys=False, width=110).encode())
            write_atomic(path / "versions.json", json.dumps([versions()], indent=2).encode())
            (path / "metrics.jsonl").touch()
            mark = {"format": _FORMAT, "name": name, "seed": int(seed), "created": _now()}
            write_atomic(path / _MARK, json.dumps(mark, indent=2).encode())
        return cls(path, plain, int(seed), lock)

    @classmethod
    def open(cls, path: str | Path, *, write: bool = False) -> Run:
        """Open a run folder, to read it or (``write=True``) to continue it.

        Raises:
            RunError: not a run folder (near matches are named), damaged, or in use by another process.
        """
        path = Path(path)
        mark = path / _MARK
        if not mark.is_file():
            raise RunError(_not_a_run(path))
        try:
            described = json.loads(mark.read_text())
            config = yaml.safe_load((path / "config.yaml").read_text())
            seed, version = int(described["seed"]), int(described["format"])
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise RunError(f"run {path} is damaged: {error}") from error
        if version != _FORMAT or not isinstance(config, dict):
            raise RunError(f"run {path} has format {version}; this version of robolearn reads format {_FORMAT}")
        lock = None
        if write:
            with _writing(path):
                lock = _lock(path)
                entries = cls._read_versions(path)
                write_atomic(path / "versions.json", json.dumps([*entries, versions()], indent=2).encode())
        return cls(path, config, seed, lock)

    def close(self) -> None:
        """Flush the scalars and release the lock; safe to call twice."""
        scalars, self._scalars = self._scalars, None
        try:
            if scalars is not None:
                with _writing(self.path):
                    scalars.close()
        finally:
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _read_versions(path: Path) -> list[dict[str, Any]]:
        try:
            entries = json.loads((path / "versions.json").read_text())
        except (OSError, ValueError) as error:
            raise RunError(f"run {path} is damaged: versions.json: {error}") from error
        return list(entries)

    @property
    def versions(self) -> list[dict[str, Any]]:
        """Software, commit and machine of the start and of each continuation, oldest first."""
        return self._read_versions(self.path)

    def drift(self) -> list[str]:
        """What changed between the last two entries of `versions`: a continuation may then not be exact."""
        if len(entries := self.versions) < 2:
            return []
        before, now = entries[-2:]
        names = ("robolearn", "python", "torch", "mujoco", "numpy", "commit", "machine")
        return [
            f"{name} was {before.get(name)} and is {now[name]}: the continuation may not be exact"
            for name in names
            if before.get(name) != now[name]
        ]

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    def record(self, iteration: int, metrics: Mapping[str, float]) -> list[str]:
        """Append one iteration's metrics; return the names whose value is not finite, which become null.

        Raises:
            RunError: the folder cannot be written; the file keeps the lines it had.
        """
        row = {"iteration": int(iteration), **{name: float(value) for name, value in metrics.items()}}
        bad = [name for name, value in row.items() if not math.isfinite(value)]
        line = (json_line({**row, "nonfinite": bad} if bad else row) + "\n").encode()
        with _writing(self.path):
            with open(self.metrics_path, "ab", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                try:
                    if file.write(line) != len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.metrics_path))
                except OSError:
                    file.truncate(size)
                    raise
            scalars = self._tensorboard(purge_step=None)
            for name, value in metrics.items():
                if name not in bad:
                    scalars.add_scalar(name, value, iteration)
        return bad

    def metrics(self) -> list[dict[str, Any]]:
        """All recorded iterations, oldest first; a line that a kill cut short is left out."""
        return list(self._rows())

    def _rows(self) -> Iterator[dict[str, Any]]:
        try:
            lines = self.metrics_path.read_bytes().split(b"\n")
        except OSError as error:
            raise RunError(f"cannot read {self.metrics_path}: {error.strerror}") from error
        for number, line in enumerate(lines[:-1], start=1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise RunError(f"{self.metrics_path} line {number} is damaged: {error}") from error

    def rewind(self, iteration: int) -> None:
        """Forget metrics and checkpoints after ``iteration``, before training continues from there."""
        kept = [json_line(row) + "\n" for row in self._rows() if row["iteration"] <= iteration]
        with _writing(self.path):
            for leftover in (self.path / "checkpoints").glob(".*.tmp"):
                leftover.unlink()
            for path in self.checkpoint_paths():
                if _iteration_of(path) > iteration:
                    path.unlink()
            write_atomic(self.metrics_path, "".join(kept).encode())
            self._tensorboard(purge_step=iteration + 1)

    def _tensorboard(self, purge_step: int | None) -> Any:
        if self._scalars is None:
            from torch.utils.tensorboard import SummaryWriter

            self._scalars = SummaryWriter(str(self.path / "tensorboard"), purge_step=purge_step, flush_secs=10)
        return self._scalars

    def checkpoint_paths(self) -> list[Path]:
        """Files of the regular checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob("iter_*.pt"), key=_iteration_of)

    def save(self, iteration: int, state: Mapping[str, Any], *, score: float | None = None, keep: int = 2) -> Path:
        """Write the checkpoint of ``iteration`` and drop all but the newest ``keep``.

        With a finite ``score`` higher than that of every checkpoint before, the file becomes ``best`` too.

        Raises:
            RunError: it could not be written; earlier checkpoints are as they were.
            CheckpointError: ``state`` cannot be stored safely.
        """
        if keep < 1:
            raise RunError(f"a run keeps at least one checkpoint, not {keep}")
        score = None if score is None or not math.isfinite(score) else float(score)
        path = self.path / "checkpoints" / f"iter_{iteration:08d}.pt"
        with _writing(path):
            checkpoints.write(path, iteration, state, score)
            if score is not None and score > self.best_score():
                self._make_best(path, score)
            for old in self.checkpoint_paths()[:-keep]:
                if old != path:
                    old.unlink()
        return path

    def best_score(self) -> float:
        """Score of ``best``, or minus infinity before there is one."""
        if self._best is None:
            self._best = -math.inf
            with contextlib.suppress(CheckpointError):
                score = self.load("best").score
                self._best = -math.inf if score is None else score
        return self._best

    def _make_best(self, path: Path, score: float) -> None:
        best = path.with_name("best.pt")
        temporary = path.with_name(f".best.pt.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary)
        os.replace(temporary, best)
        sync_folder(best.parent)
        self._best = score

    def load(self, which: str = "last", map_location: str = "cpu") -> Checkpoint:
        """Read a checkpoint: ``"last"``, ``"best"``, or an iteration's number as text.

        ``last`` passes over damaged files to the newest whole one and lists them in `Checkpoint.skipped`.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        paths = self.checkpoint_paths()
        if which == "last":
            skipped: list[str] = []
            for path in reversed(paths):
                try:
                    found = checkpoints.read(path, map_location)
                except CheckpointError as error:
                    skipped.append(str(error))
                    continue
                return Checkpoint(found.path, found.iteration, found.score, found.state, tuple(skipped))
            raise CheckpointError("; ".join(skipped) or f"run {self.path} has no checkpoint yet")
        named = {str(_iteration_of(path)): path for path in paths}
        best = self.path / "checkpoints" / "best.pt"
        if best.exists():
            named["best"] = best
        if which not in named:
            raise CheckpointError(
                f"run {self.path} has no checkpoint {which!r}; there are: {', '.join(['last', *named])}"
            )
        return checkpoints.read(named[which], map_location)


def _iteration_of(path: Path) -> int:
    return int(path.stem.removeprefix("iter_"))


def default_name(seed: int) -> str:
    """Name of a run that starts now: local date and time to the second, and the seed."""
    return f"{datetime.datetime.now():%Y-%m-%dT%H-%M-%S}-s{seed}"


def find_runs(root: str | Path, depth: int = 3) -> list[Path]:
    """Run folders at most ``depth`` levels below ``root``, by path."""
    found: list[Path] = []
    for level in range(1, depth + 1):
        found += [mark.parent for mark in Path(root).glob("/".join(["*"] * level + [_MARK]))]
    return sorted(found)


def _not_a_run(path: Path) -> str:
    what = "is not a run folder" if path.exists() else "does not exist"
    around = find_runs(path if path.is_dir() else path.parent, depth=2) or find_runs("runs")
    runs = {str(run): run for run in around}
    close = difflib.get_close_matches(path.name, [run.name for run in runs.values()], n=3, cutoff=0.5)
    near = [text for text, run in runs.items() if run.name in close] or sorted(runs)[-3:]
    return f"{path} {what}; runs near it: {', '.join(near) or 'none'}"


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _lock(path: Path) -> io.IOBase:
    """Hold ``path`` for this process; the system releases the lock when the process ends, however it ends."""
    file = open(path / ".lock", "a+")
    try:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise RunError(f"run {path} is in use by another process (id {holder})") from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn a failed write into one clear line."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise RunError(f"cannot write {where}: {error.strerror or error}") from error
