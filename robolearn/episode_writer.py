"""Writing the files of a data set, those of one more episode at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn.episode_format import (
    DATA_MB,
    DATA_PATH,
    EPISODES_PATH,
    FILES_PER_CHUNK,
    INDEX,
    INFO,
    STATS,
    TASKS,
    VERSION,
    VIDEO_MB,
    VIDEO_PATH,
    EpisodeStoreError,
    Features,
    column,
    parquet,
    place_of,
    stats_of,
    write_table,
    write_tasks,
)
from robolearn.episode_stats import Stats, combine, feature_stats, image_stats, sample
from robolearn.episode_video import VideoWriter
from robolearn.errors import unknown
from robolearn.files import to_json

if TYPE_CHECKING:
    from robolearn.episodes import Dataset


class DatasetWriter:
    """Adds episodes to a copy of a data set; see `open_dataset`."""

    def __init__(self, target: Path, folder: Path, features: Features, fps: int, robot: str, before: Dataset | None):
        self.target, self._folder, self._fps = target, folder, fps
        self._features = {**features, **INDEX}
        self._before = before
        self._tasks = list(before.tasks) if before else []
        self._rows: list[dict[str, Any]] = []
        self._first = len(before) if before else 0
        self._frames = self._start = before.info["total_frames"] if before else 0
        self._robot = robot
        self._data: Any = None
        self._bytes = 0
        self._films: dict[str, VideoWriter] = {}
        self._next = {name: self._free(name) for name in ("data", *self._video_keys())}
        self._at: dict[str, dict[str, int]] = {}
        self._video_info: dict[str, Any] = {}

    def add(
        self,
        columns: Mapping[str, np.ndarray],
        task: str,
        images: Mapping[str, Iterable[np.ndarray]] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> int:
        """Add an episode.

        Args:
            columns: every feature that is no film → (T, K), or (T,) for features of shape (1,).
            task: what was asked for.
            images: every film → T frames (H, W, 3) uint8 RGB; they are taken one at a time.
            extra: more about the episode, for ``meta/episodes``: texts and numbers, the same keys every time.

        Returns:
            Its index.

        Raises:
            EpisodeStoreError: features are missing or of another shape, or lengths differ.
        """
        arrays = self._checked(columns, images or {})
        length = len(next(iter(arrays.values())))
        index = self._first + len(self._rows)
        if task not in self._tasks:
            self._tasks.append(task)
        row: dict[str, Any] = {"episode_index": index, "tasks": [task], "length": length}
        stats = {key: feature_stats(values) for key, values in arrays.items()}
        for key, frames in (images or {}).items():
            place, stats[key] = self._film(key, frames, length)
            row |= {f"videos/{key}/{name}": value for name, value in place.items()}
        arrays |= {
            "timestamp": (np.arange(length) / self._fps).astype(np.float32),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, index),
            "index": np.arange(self._frames, self._frames + length),
            "task_index": np.full(length, self._tasks.index(task)),
        }
        stats |= {key: feature_stats(arrays[key]) for key in INDEX}
        place = self._write_rows(arrays)
        row |= {f"data/{name}": value for name, value in place.items()}
        row |= {"dataset_from_index": self._frames, "dataset_to_index": self._frames + length, **(extra or {})}
        self._frames += length
        self._rows.append(row | {f"stats/{k}/{name}": v for k, one in stats.items() for name, v in one.items()})
        return index

    def finish(self) -> None:
        """Write what describes the data. Raises EpisodeStoreError where no episode was added."""
        if not self._rows:
            raise EpisodeStoreError(f"no episode to write to {self.target}")
        self._close_files()
        self._write_meta()

    def abort(self) -> None:
        """Let go of all files."""
        for film in self._films.values():
            film.abort()
        if self._data is not None:
            self._data.close()

    def _video_keys(self) -> list[str]:
        return [key for key, feature in self._features.items() if feature["dtype"] == "video"]

    def _checked(self, columns: Mapping[str, np.ndarray], images: Mapping[str, Any]) -> dict[str, np.ndarray]:
        wanted = [key for key in self._features if key not in INDEX and key not in self._video_keys()]
        for kind, given, needed in (("feature", columns, wanted), ("film", images, self._video_keys())):
            for key in given:
                if key not in needed:
                    raise EpisodeStoreError(unknown(kind, key, needed))
            missing = [key for key in needed if key not in given]
            if missing:
                raise EpisodeStoreError(f"the episode has no {kind} {missing[0]!r}")
        found = {}
        length = len(next(iter(columns.values())))
        for key in wanted:
            values = np.asarray(columns[key], self._features[key]["dtype"])
            shape = tuple(self._features[key]["shape"])
            expected = (length,) if shape == (1,) else (length, *shape)
            if values.shape != expected:
                raise EpisodeStoreError(f"feature {key!r} has shape {values.shape}, not {expected}")
            found[key] = values
        if not length:
            raise EpisodeStoreError("an episode needs at least one frame")
        return found

    def _film(self, key: str, frames: Iterable[np.ndarray], length: int) -> tuple[dict[str, Any], Stats]:
        film = self._films.get(key)
        if film is not None and film.path.exists() and film.path.stat().st_size > VIDEO_MB * 2**20:
            film.close()
            film = None
        if film is None:
            height, width, _ = self._features[key]["shape"]
            self._at[key] = self._take(key)
            path = self._folder / VIDEO_PATH.format(video_key=key, **self._at[key])
            film = self._films[key] = VideoWriter(path, height, width, self._fps)
            self._video_info[key] = film.info(self._fps)
        begin, looked_at, kept = film.frames, set(sample(length).tolist()), []
        for i, frame in enumerate(frames):
            film.add(frame)
            if i in looked_at:
                kept.append(np.array(frame))
        if film.frames - begin != length:
            raise EpisodeStoreError(f"film {key!r} has {film.frames - begin} frames, the episode {length}")
        span = {"from_timestamp": begin / self._fps, "to_timestamp": film.frames / self._fps}
        return {**self._at[key], **span}, image_stats(np.stack(kept))

    def _write_rows(self, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        import pyarrow as pa

        table = pa.table({key: column(arrays[key], self._features[key]) for key in self._features if key in arrays})
        if self._data is not None and self._bytes > DATA_MB * 2**20:
            self._data.close()
            self._data = None
        if self._data is None:
            self._at["data"], self._bytes = self._take("data"), 0
            path = self._folder / DATA_PATH.format(**self._at["data"])
            path.parent.mkdir(parents=True, exist_ok=True)
            self._data = parquet().ParquetWriter(path, table.schema, compression="snappy")
        self._data.write_table(table)
        self._bytes += table.nbytes
        return dict(self._at["data"])

    def _free(self, name: str) -> int:
        """Number of the first file that no episode of before is in, chunks counted through."""
        prefix = "data" if name == "data" else f"videos/{name}"
        rows = self._before.episodes if self._before else []
        used = [row[f"{prefix}/chunk_index"] * FILES_PER_CHUNK + row[f"{prefix}/file_index"] for row in rows]
        return max(used, default=-1) + 1

    def _take(self, name: str) -> dict[str, int]:
        chunk, file = divmod(self._next[name], FILES_PER_CHUNK)
        self._next[name] += 1
        return {"chunk_index": chunk, "file_index": file}

    def _close_files(self) -> None:
        films, self._films = self._films, {}
        data, self._data = self._data, None
        data.close()
        for film in films.values():
            film.close()

    def _write_meta(self) -> None:
        before = [self._before.stats(i) for i in range(self._first)] if self._before else []
        place = {"chunk_index": 0, "file_index": 0}
        if self._before is not None:
            chunk, file = divmod(1 + _last(self._before, "meta/episodes"), FILES_PER_CHUNK)
            place = {"chunk_index": chunk, "file_index": file}
        for row in self._rows:
            row |= {f"meta/episodes/{name}": value for name, value in place.items()}
        write_table(self._folder / EPISODES_PATH.format(**place), self._rows)
        now = [stats_of(row) for row in self._rows]
        (self._folder / STATS).write_text(json.dumps(to_json(combine([*before, *now])), indent=4), encoding="utf-8")
        write_tasks(self._folder / TASKS, self._tasks)
        features = {key: dict(feature) for key, feature in self._features.items()}
        for key, info in self._video_info.items():
            features[key]["info"] = info
        episodes = self._first + len(self._rows)
        info = {
            "codebase_version": VERSION,
            "robot_type": self._robot,
            "total_episodes": episodes,
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": self._fps,
            "splits": {"train": f"0:{episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._video_keys() else None,
            "features": features,
        }
        (self._folder / INFO).write_text(json.dumps(to_json(info), indent=4), encoding="utf-8")


def _last(dataset: Dataset, prefix: str) -> int:
    places = (place_of(row, prefix) for row in dataset.episodes)
    return max(place["chunk_index"] * FILES_PER_CHUNK + place["file_index"] for place in places)
