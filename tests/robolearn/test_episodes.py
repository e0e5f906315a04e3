"""The episode store, and `robolearn episodes`."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from robolearn import episodes_verb
from robolearn.episode_stats import combine, feature_stats
from robolearn.episode_video import VideoError, VideoWriter, read_frames
from robolearn.episodes import Dataset, EpisodeStoreError, open_dataset
from robolearn.errors import RobolearnError
from tests.real.episode_script import record

FRONT = "observation.images.front"
FEATURES = {
    FRONT: {"dtype": "video", "shape": (48, 64, 3), "names": ["height", "width", "channels"]},
    "observation.state": {"dtype": "float32", "shape": (3,), "names": ["a", "b", "c"]},
    "action": {"dtype": "float32", "shape": (3,), "names": ["a", "b", "c"]},
    "step.mode": {"dtype": "int64", "shape": (1,), "names": None},
    "step.valid": {"dtype": "bool", "shape": (1,), "names": None},
    "step.stamp": {"dtype": "float64", "shape": (1,), "names": None},
}


def columns(length: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "observation.state": rng.normal(size=(length, 3)),
        "action": rng.normal(size=(length, 3)),
        "step.mode": rng.integers(0, 7, length),
        "step.valid": rng.random(length) > 0.5,
        "step.stamp": 1.8e9 + np.arange(length) / 10,
    }


def film(length: int, red: int) -> np.ndarray:
    """(length, 48, 64, 3): every frame in another colour."""
    frames = np.zeros((length, 48, 64, 3), np.uint8)
    frames[..., 0] = red
    frames[..., 2] = (np.arange(length) * 20 + 40)[:, None, None]
    return frames


def add(root: Path, lengths: list[int], seed: int = 0, tasks: tuple[str, ...] = ("push",)) -> None:
    with open_dataset(root, FEATURES, fps=10, robot="panda") as writer:
        for i, length in enumerate(lengths):
            images = {FRONT: film(length, 30 * (seed + i + 1))}
            writer.add(columns(length, seed + i), tasks[i % len(tasks)], images, {"outcome": "success", "number": i})


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_what_is_written_is_read_back(tmp_path):
    add(tmp_path / "set", [5, 9, 1], tasks=("push", "pull"))
    dataset = Dataset(tmp_path / "set")
    assert len(dataset) == 3 and dataset.tasks == ["push", "pull"] and dataset.fps == 10
    for episode, length in enumerate((5, 9, 1)):
        rows = dataset.frames(episode)
        for name, values in columns(length, episode).items():
            np.testing.assert_array_equal(rows[name], values.astype(FEATURES[name]["dtype"]))
        np.testing.assert_allclose(rows["timestamp"], np.arange(length) / 10, rtol=1e-6)
        np.testing.assert_array_equal(rows["task_index"], episode % 2)
        np.testing.assert_allclose(dataset.images(episode, FRONT), film(length, 30 * (episode + 1)), atol=6)
        assert dataset.episodes[episode]["outcome"] == "success" and dataset.episodes[episode]["number"] == episode
    np.testing.assert_array_equal(np.concatenate([dataset.frames(i)["index"] for i in range(3)]), np.arange(15))
    with pytest.raises(EpisodeStoreError, match="no episode 3"):
        dataset.frames(3)
    with pytest.raises(EpisodeStoreError, match=f"unknown film 'front'.*{FRONT}"):
        dataset.images(0, "front")


def test_the_format_is_that_of_lerobot_3(tmp_path):
    root = tmp_path / "set"
    add(root, [5, 9])
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["splits"] == {"train": "0:2"}
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (2, 14, 1)
    assert info["features"][FRONT]["info"]["video.fps"] == 10
    assert info["features"]["frame_index"] == {"dtype": "int64", "shape": [1], "names": None}
    assert (root / info["video_path"].format(video_key=FRONT, chunk_index=0, file_index=0)).is_file()
    rows = parquet.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert rows[1]["dataset_from_index"] == 5 and rows[1]["dataset_to_index"] == 14 and rows[1]["tasks"] == ["push"]
    assert rows[1][f"videos/{FRONT}/from_timestamp"] == 0.5 and rows[1][f"videos/{FRONT}/to_timestamp"] == 1.4
    assert len(rows[0][f"stats/{FRONT}/mean"]) == 3 and rows[0]["stats/action/count"] == [5]
    schema = parquet.read_schema(root / "data/chunk-000/file-000.parquet")
    assert schema.field("action").type.list_size == 3 and str(schema.field("action").type.value_type) == "float"
    assert str(schema.field("step.valid").type) == "bool"
    pandas = json.loads(parquet.read_schema(root / "meta/tasks.parquet").metadata[b"pandas"])
    assert pandas["index_columns"] == ["task"]


def test_lerobot_itself_loads_it(tmp_path):
    pytest.importorskip("lerobot.datasets.lerobot_dataset", reason="lerobot is not installed")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    add(tmp_path / "set", [5, 9])
    add(tmp_path / "set", [4], seed=5)
    loaded = LeRobotDataset("local/robolearn", root=tmp_path / "set", video_backend="pyav")
    assert len(loaded) == 18 and loaded.meta.total_episodes == 3
    item = loaded[15]
    assert item["task"] == "push" and item["episode_index"].item() == 2
    np.testing.assert_allclose(item["action"].numpy(), columns(4, 5)["action"][1], rtol=1e-6)
    picture = item[FRONT].numpy().transpose(1, 2, 0) * 255
    np.testing.assert_allclose(picture, film(4, 180)[1], atol=6)


def test_statistics_are_those_of_all_rows(tmp_path):
    add(tmp_path / "set", [50])
    add(tmp_path / "set", [70], seed=1)
    values = np.concatenate([columns(50, 0)["action"], columns(70, 1)["action"]])
    stats = json.loads((tmp_path / "set/meta/stats.json").read_text())["action"]
    np.testing.assert_allclose(stats["mean"], values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["std"], values.std(0), rtol=1e-5)
    np.testing.assert_allclose(stats["max"], values.max(0), rtol=1e-6)
    assert stats["count"] == [120]


def test_statistics_leave_out_what_was_not_there():
    values = np.array([[1.0, np.nan, np.nan], [3.0, np.nan, 5.0]])
    found = feature_stats(values)
    assert found["mean"].tolist() == [2.0, 0.0, 5.0] and found["std"].tolist() == [1.0, 0.0, 0.0]
    nothing = feature_stats(np.full((4, 3), np.nan))
    assert nothing["count"] == [0]
    both = combine([{"x": nothing}, {"x": found}])["x"]
    assert both["mean"].tolist() == [2.0, 0.0, 5.0] and both["count"] == [2]


def test_adding_leaves_earlier_files_as_they_are(tmp_path):
    root = tmp_path / "set"
    add(root, [5, 9])
    before = tree(root)
    add(root, [4], seed=7, tasks=("pull",))
    after = tree(root)
    kept = {name for name in before if name.startswith(("data", "videos", "meta/episodes"))}
    assert len(kept) == 3 and all(after[name] == before[name] for name in kept)
    dataset = Dataset(root)
    assert [row["length"] for row in dataset.episodes] == [5, 9, 4] and dataset.tasks == ["push", "pull"]
    np.testing.assert_array_equal(dataset.frames(2)["index"], np.arange(14, 18))
    np.testing.assert_allclose(dataset.images(2, FRONT), film(4, 240), atol=6)
    assert not [path for path in tmp_path.iterdir() if path != root]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"fps": 20}, "has 10 fps of robot 'panda', these episodes 20 fps"),
        ({"robot": "ur5"}, "these episodes 10 fps of robot 'ur5'"),
        ({"drop": "action"}, "feature 'action' is float32 .3. there, absent in these"),
        ({"shape": (4,)}, "feature 'action' is float32 .3. there, float32 .4. in these"),
    ],
)
def test_episodes_of_another_kind_are_refused(tmp_path, change, message):
    root = tmp_path / "set"
    add(root, [5])
    before = tree(root)
    features = {name: dict(feature) for name, feature in FEATURES.items() if name != change.get("drop")}
    if "shape" in change:
        features["action"]["shape"] = change["shape"]
    with pytest.raises(EpisodeStoreError, match=message):
        with open_dataset(root, features, fps=change.get("fps", 10), robot=change.get("robot", "panda")):
            pass
    assert tree(root) == before


@pytest.mark.parametrize(
    "change, message",
    [
        ({"action": None}, "no feature 'action'"),
        ({"acton": np.zeros((5, 3))}, "unknown feature 'acton'; did you mean 'action'"),
        ({"action": np.zeros((4, 3))}, r"'action' has shape \(4, 3\), not \(5, 3\)"),
        ({"step.mode": np.zeros((5, 1))}, r"'step.mode' has shape \(5, 1\), not \(5,\)"),
        ({FRONT: None}, f"no film '{FRONT}'"),
        ({FRONT: film(4, 0)}, "has 4 frames, the episode 5"),
        ({FRONT: np.zeros((5, 48, 60, 3), np.uint8)}, "not uint8 .48, 64, 3."),
    ],
)
def test_an_episode_that_does_not_fit_leaves_everything_as_it_was(tmp_path, change, message):
    root = tmp_path / "set"
    add(root, [5])
    before = tree(root)
    given = {**columns(5), FRONT: film(5, 0), **change}
    given = {name: values for name, values in given.items() if values is not None}
    images = {FRONT: given.pop(FRONT)} if FRONT in given else {}
    with pytest.raises(RobolearnError, match=message):
        with open_dataset(root, FEATURES, fps=10, robot="panda") as writer:
            writer.add(columns(3), "push", {FRONT: film(3, 0)}, {"outcome": "", "number": 0})
            writer.add(given, "push", images)
    assert tree(root) == before
    assert not [path for path in tmp_path.iterdir() if path != root]


def test_impossible_features_and_other_folders_are_refused(tmp_path):
    for name, feature, message in (
        ("a/b", {"dtype": "float32", "shape": (1,)}, "cannot be called 'a/b'"),
        ("index", {"dtype": "int64", "shape": (1,)}, "cannot be called 'index'"),
        ("a", {"dtype": "float16", "shape": (1,)}, "unknown dtype 'float16'"),
    ):
        with pytest.raises(EpisodeStoreError, match=message), open_dataset(tmp_path / "set", {name: feature}, fps=10):
            pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(EpisodeStoreError, match="no LeRobotDataset"), open_dataset(tmp_path / "other", FEATURES, 10):
        pass
    assert (tmp_path / "other" / "file").read_text() == "mine"
    with pytest.raises(EpisodeStoreError, match="no episode"), open_dataset(tmp_path / "set", FEATURES, fps=10):
        pass
    assert not (tmp_path / "set").exists()
    add(tmp_path / "old", [3])
    info = tmp_path / "old/meta/info.json"
    info.write_text(info.read_text().replace("v3.0", "v2.1"))
    with pytest.raises(EpisodeStoreError, match="version 'v2.1', not v3.0"):
        Dataset(tmp_path / "old")


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.robolearn.test_episodes import FEATURES, FRONT, columns, film
from robolearn.episodes import open_dataset
rename, moment = os.rename, sys.argv[2]
def killing(a, b):
    if moment == "between" and str(b) == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(a, b)
os.rename = killing
with open_dataset(Path(sys.argv[1]), FEATURES, 10, "panda") as writer:
    writer.add(columns(6, 3), "push", {FRONT: film(6, 90)}, {"outcome": "success", "number": 0})
    if moment == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moment", ["writing", "between"])
def test_a_conversion_that_is_killed_damages_nothing(tmp_path, moment):
    root = tmp_path / "set"
    add(root, [5])
    before = tree(root)
    command = [sys.executable, "-c", KILLED, str(root), moment]
    done = subprocess.run(command, cwd=Path(__file__).resolve().parents[2], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert root.exists() == (moment == "writing")
    assert len(Dataset(root)) == 1 and tree(root) == before
    add(root, [4], seed=1)
    assert len(Dataset(root)) == 2
    assert not [path for path in tmp_path.iterdir() if path != root]


def test_two_writers_do_not_undo_each_other(tmp_path):
    with pytest.raises(EpisodeStoreError, match="another process is writing"):
        with open_dataset(tmp_path / "set", FEATURES, 10):
            with open_dataset(tmp_path / "set", FEATURES, 10):
                pass


@pytest.mark.parametrize("size", [(48, 64), (33, 47)])
def test_films_of_even_and_odd_sizes(tmp_path, size):
    frames = np.random.default_rng(0).integers(0, 255, (7, 1, 1, 3), np.uint8) * np.ones((1, *size, 1), np.uint8)
    writer = VideoWriter(tmp_path / "film.mp4", *size, fps=30)
    for frame in frames:
        writer.add(frame)
    writer.close()
    np.testing.assert_allclose(read_frames(tmp_path / "film.mp4", 2 / 30, 4, (*size, 3)), frames[2:6], atol=8)
    with pytest.raises(VideoError, match="1 of 4 frames"):
        read_frames(tmp_path / "film.mp4", 6 / 30, 4, (*size, 3))


def test_a_film_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "film.mp4").mkdir()
    writer = VideoWriter(tmp_path / "film.mp4", 48, 64, fps=10)
    with pytest.raises(VideoError, match="cannot write .*film.mp4"):
        for frame in film(200, 0)[:1].repeat(200, 0):
            writer.add(frame)
        writer.close()
    writer.abort()


# The verb


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    record(folder, 2)
    return folder


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    episodes_verb.add_arguments(parser)
    return episodes_verb.main(parser.parse_args([str(argument) for argument in arguments]))


def last(text: str) -> dict:
    return json.loads(text.splitlines()[-1])


def test_list(recorded, capsys):
    assert run("list", recorded, "--json") == 0
    rows = last(capsys.readouterr().out)["episodes"]
    assert [row["file"] for row in rows] == ["episode_000000.mcap", "episode_000001.mcap"]
    wanted = {"state": "complete", "task": "arm_push", "outcome": "success", "duration_s": 1.0, "interventions": 1}
    assert {key: rows[0][key] for key in wanted} == wanted
    assert rows[0]["autonomous"] is False and rows[0]["steps"] == 100 and 0.01 < rows[0]["mb"] < 1
    run("list", recorded)
    text = capsys.readouterr().out
    assert "interventions" in text and "episode_000001.mcap" in text and "2 episodes" in text


def test_show(recorded, tmp_path, capsys):
    assert run("show", recorded / "episode_000000.mcap", "--plot", tmp_path / "a.png") == 0
    text = capsys.readouterr().out
    assert "/safety/step" in text and "HUMAN" in text and "operator" in text and (tmp_path / "a.png").is_file()
    run("show", recorded / "episode_000000.mcap", "--json")
    assert last(capsys.readouterr().out)["modes"][1]["mode"] == "HUMAN"


def test_export_and_recover(recorded, tmp_path, capsys):
    folder = Path(shutil.copytree(recorded, tmp_path / "recorded"))
    (folder / "episode_000001.mcap").rename(folder / "episode_000001.mcap.active")
    assert run("export", folder, "--to", tmp_path / "set", "--fps", 20, "--cameras", "none") == 0
    text = capsys.readouterr().out
    assert "skipped episode_000001.mcap.active" in text and "1 episodes, 20 frames" in text
    run("list", folder)
    assert f"robolearn episodes recover {folder}" in capsys.readouterr().out
    assert run("recover", folder, "--json") == 0
    assert last(capsys.readouterr().out)["files"][0]["recovered"] == "episode_000001.mcap"
    assert run("export", folder, "--to", tmp_path / "set", "--fps", 20, "--cameras", "none", "--json") == 0
    assert last(capsys.readouterr().out)["added"] == {"episode_000001.mcap": 1}
    with pytest.raises(RobolearnError, match="no episode to export.*already"):
        run("export", folder / "episode_000001.mcap", "--to", tmp_path / "set", "--fps", 5, "--cameras", "none")
