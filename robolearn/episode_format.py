"""The files of a LeRobotDataset v3.0: their names, the tables in them, and what a feature may be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.episode_stats import Stats
from robolearn.errors import RobolearnError

VERSION = "v3.0"
FILES_PER_CHUNK = 1000
DATA_MB, VIDEO_MB = 100, 200
"""Size from which a file takes no further episode."""
CHUNK = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = "data/" + CHUNK + ".parquet"
VIDEO_PATH = "videos/{video_key}/" + CHUNK + ".mp4"
EPISODES_PATH = "meta/episodes/" + CHUNK + ".parquet"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
DTYPES = ("float32", "float64", "int64", "bool", "video")
INDEX = {
    "timestamp": {"dtype": "float32", "shape": (1,), "names": None},
    "frame_index": {"dtype": "int64", "shape": (1,), "names": None},
    "episode_index": {"dtype": "int64", "shape": (1,), "names": None},
    "index": {"dtype": "int64", "shape": (1,), "names": None},
    "task_index": {"dtype": "int64", "shape": (1,), "names": None},
}
"""Features of every data set."""
Features = Mapping[str, Mapping[str, Any]]


class EpisodeStoreError(RobolearnError):
    """A data set that cannot be read, written or added to."""


def place_of(row: Mapping[str, Any], prefix: str) -> dict[str, int]:
    return {name: row[f"{prefix}/{name}"] for name in ("chunk_index", "file_index")}


def stats_of(row: Mapping[str, Any]) -> dict[str, Stats]:
    found: dict[str, Stats] = {}
    for name, value in row.items():
        if name.startswith("stats/"):
            _, key, kind = name.split("/")
            found.setdefault(key, {})[kind] = value
    return found


def parquet() -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise EpisodeStoreError("data sets need pyarrow: pip install 'robolearn[real]'") from error
    return parquet


def column(values: np.ndarray, feature: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    kind = pa.bool_() if feature["dtype"] == "bool" else pa.type_for_alias(feature["dtype"])
    if values.ndim == 1:
        return pa.array(values, kind)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), kind), values.shape[1])


def read_rows(file: Path) -> list[dict[str, Any]]:
    return list(parquet().read_table(file).to_pylist())


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    path.parent.mkdir(parents=True, exist_ok=True)
    lists = [{k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in row.items()} for row in rows]
    parquet().write_table(pa.Table.from_pylist(lists), path, compression="snappy")


def write_tasks(path: Path, tasks: list[str]) -> None:
    """``task`` is the index of the data frame that pandas reads from it."""
    import pyarrow as pa

    def column(name: str, pandas: str, numpy: str) -> dict[str, Any]:
        return {"name": name, "field_name": name, "pandas_type": pandas, "numpy_type": numpy, "metadata": None}

    about = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
        "pandas_version": "2.2.0",
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    parquet().write_table(table.replace_schema_metadata({"pandas": json.dumps(about)}), path)
