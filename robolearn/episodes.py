"""The episode store: data sets in the format LeRobotDataset v3.0, written and read without `lerobot`.

    with open_dataset(folder, features, fps=10) as writer:          # new, or episodes added to one that is there
        writer.add(columns, task="push the cube", images={"observation.images.front": frames})
    dataset = Dataset(folder)
    dataset.frames(0)["action"]                                     # (T, K)

A data set changes all at once: everything is written to a folder beside it, which then takes its place. Files of
episodes that were there are linked, never rewritten.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.episode_format import (
    DTYPES,
    INDEX,
    INFO,
    STATS,
    TASKS,
    VERSION,
    EpisodeStoreError,
    Features,
    parquet,
    place_of,
    read_rows,
)
from robolearn.episode_stats import Stats
from robolearn.episode_swap import NEW, link, locked, restore, take_place
from robolearn.episode_video import read_frames
from robolearn.episode_writer import DatasetWriter
from robolearn.errors import unknown

__all__ = ["Dataset", "DatasetWriter", "EpisodeStoreError", "exists", "open_dataset"]


class Dataset:
    """A data set on disk.

    Attributes:
        root: its folder; info: ``meta/info.json``; tasks: by index; fps; features.
        episodes: one dictionary an episode: ``episode_index``, ``length``, ``tasks``, where its rows and films are, and
            what was added to it, such as ``outcome``; without its statistics.

    Raises:
        EpisodeStoreError: no data set of version v3.0 at ``root``.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        restore(self.root)
        try:
            self.info: dict[str, Any] = json.loads((self.root / INFO).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EpisodeStoreError(f"no LeRobotDataset at {root}: {INFO} cannot be read ({error})") from error
        if self.info.get("codebase_version") != VERSION:
            raise EpisodeStoreError(f"{root} is of version {self.info.get('codebase_version')!r}, not {VERSION}")
        self.fps = int(self.info["fps"])
        self.features: dict[str, dict[str, Any]] = self.info["features"]
        table = parquet().read_table(self.root / TASKS).to_pydict()
        label = next(name for name in table if name != "task_index")
        self.tasks = [task for _, task in sorted(zip(table["task_index"], table[label], strict=True))]
        self._rows = [row for file in sorted(self.root.glob("meta/episodes/*/*.parquet")) for row in read_rows(file)]
        self.episodes = [{k: v for k, v in row.items() if not k.startswith("stats/")} for row in self._rows]

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def video_keys(self) -> list[str]:
        """Features that are films."""
        return [key for key, feature in self.features.items() if feature["dtype"] == "video"]

    def frames(self, episode: int) -> dict[str, np.ndarray]:
        """Rows of an episode: feature → (T, K), or (T,) for features of shape (1,); films are left out."""
        row = self._episode(episode)
        path = self.root / self.info["data_path"].format(**place_of(row, "data"))
        table = parquet().read_table(path, filters=[("episode_index", "=", row["episode_index"])])
        return {name: np.array(table[name].to_pylist(), self.features[name]["dtype"]) for name in table.column_names}

    def images(self, episode: int, key: str) -> np.ndarray:
        """Film ``key`` of an episode: (T, H, W, 3) uint8 RGB."""
        if key not in self.video_keys:
            raise EpisodeStoreError(unknown("film", key, self.video_keys))
        row = self._episode(episode)
        path = self.root / self.info["video_path"].format(video_key=key, **place_of(row, f"videos/{key}"))
        height, width, colours = self.features[key]["shape"]
        return read_frames(path, row[f"videos/{key}/from_timestamp"], row["length"], (height, width, colours))

    def stats(self, episode: int) -> dict[str, Stats]:
        """Feature → statistics of an episode."""
        found: dict[str, Stats] = {}
        for name, value in self._rows[self._index(episode)].items():
            if name.startswith("stats/"):
                _, key, kind = name.split("/")
                found.setdefault(key, {})[kind] = np.array(value)
        return found

    def _index(self, episode: int) -> int:
        if not 0 <= episode < len(self.episodes):
            raise EpisodeStoreError(f"no episode {episode} in {self.root}: it has {len(self.episodes)}")
        return episode

    def _episode(self, episode: int) -> dict[str, Any]:
        return self.episodes[self._index(episode)]


@contextlib.contextmanager
def open_dataset(root: Path, features: Features, fps: int, robot: str = "") -> Iterator[DatasetWriter]:
    """Write a new data set, or add to the one at ``root``; it is there, or grown, when the block ends without an error.

    Args:
        root: its folder; features: name → {dtype, shape, names}, without those of `INDEX`; films have dtype "video"
            and shape (H, W, 3).
        fps: rows per second; robot: its name.

    Raises:
        EpisodeStoreError: ``root`` is something else, or a data set with other features, fps or robot.
    """
    root = Path(root)
    _check_features(features)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with locked(root.parent) as alone:
            if not alone:
                raise EpisodeStoreError(f"another process is writing a data set in {root.parent}")
            yield from _replacing(root, features, fps, robot)
    except OSError as error:
        raise EpisodeStoreError(f"cannot write data set {root}: {error.strerror or error}") from error


def exists(root: Path) -> bool:
    """Whether there is something at ``root``, an empty folder aside."""
    restore(root)
    return root.exists() and (not root.is_dir() or any(root.iterdir()))


def _replacing(root: Path, features: Features, fps: int, robot: str) -> Iterator[DatasetWriter]:
    for stale in root.parent.glob(NEW.format(glob.escape(root.name), "*")):
        shutil.rmtree(stale, ignore_errors=True)  # of a process that was killed
    before = None
    if exists(root):
        before = Dataset(root)
        _check_same(before, features, fps, robot)
    folder = root.with_name(NEW.format(root.name, os.getpid()))
    writer = None
    try:
        (folder / "meta").mkdir(parents=True)
        if before is not None:
            shutil.copytree(root, folder, copy_function=link, dirs_exist_ok=True, ignore=_described)
        writer = DatasetWriter(root, folder, features, fps, robot, before)
        yield writer
        writer.finish()
        take_place(folder, root)
    finally:
        if writer is not None:
            writer.abort()
        shutil.rmtree(folder, ignore_errors=True)


def _described(folder: str, names: list[str]) -> list[str]:
    """What is written anew each time must not be linked."""
    fresh = {Path(path).name for path in (INFO, STATS, TASKS)}
    return [name for name in names if Path(folder).name == "meta" and name in fresh]


def _check_features(features: Features) -> None:
    for key, feature in features.items():
        if "/" in key or key in INDEX:
            raise EpisodeStoreError(f"a feature cannot be called {key!r}")
        if feature["dtype"] not in DTYPES:
            raise EpisodeStoreError(f"feature {key!r}: {unknown('dtype', feature['dtype'], DTYPES)}")


def _check_same(before: Dataset, features: Features, fps: int, robot: str) -> None:
    if (before.fps, before.info.get("robot_type") or "") != (fps, robot):
        had = f"{before.fps} fps of robot {before.info.get('robot_type')!r}"
        raise EpisodeStoreError(f"{before.root} has {had}, these episodes {fps} fps of robot {robot!r}")
    for key in {**features, **before.features}:
        if key in INDEX:
            continue
        had, has = (_kind(known.get(key)) for known in (before.features, features))
        if had != has:
            raise EpisodeStoreError(f"{before.root}: feature {key!r} is {had} there, {has} in these episodes")


def _kind(feature: Mapping[str, Any] | None) -> str:
    return f"{feature['dtype']} {list(feature['shape'])}" if feature else "absent"
