"""Run folders: what is written survives kills, full disks and damage."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robolearn.checkpoints import CheckpointError
from robolearn.runs import Run, RunError, default_name, find_runs

CONFIG = {"task": {"name": "dex_track"}, "seed": 3, "budget": {"minutes": None}}


def make(tmp_path: Path, name: str = "a") -> Run:
    return Run.create(tmp_path, name, CONFIG, seed=3)


def state(value: float) -> dict:
    return {
        "weights": torch.full((200, 50), value),
        "nested": [{"count": 3, "text": "x", "none": None}, (1.5, True)],
    }


def python(code: str, *arguments: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_a_run_reads_back_what_was_written(tmp_path):
    with make(tmp_path) as run:
        assert run.record(1, {"reward/a": 0.5, "loss/b": 2.0}) == []
        run.save(1, state(1.0), score=0.25)
    read = Run.open(tmp_path / "a")
    assert read.config == CONFIG and read.seed == 3
    assert read.metrics() == [{"iteration": 1, "reward/a": 0.5, "loss/b": 2.0}]
    assert {"python", "torch", "mujoco", "robolearn", "commit", "machine"} <= read.versions[0].keys()
    found = read.load()
    assert (found.iteration, found.score, found.skipped) == (1, 0.25, ())
    assert torch.equal(found.state["weights"], state(1.0)["weights"])
    assert found.state["nested"] == state(1.0)["nested"]
    scalars = EventAccumulator(str(tmp_path / "a" / "tensorboard")).Reload()
    assert [event.value for event in scalars.Scalars("reward/a")] == [0.5]


def test_nonfinite_metrics_become_null_and_are_reported(tmp_path):
    with make(tmp_path) as run:
        assert run.record(1, {"loss/a": math.nan, "loss/b": math.inf, "loss/c": 1.0}) == ["loss/a", "loss/b"]
    line = (tmp_path / "a" / "metrics.jsonl").read_text()
    row = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert row["loss/a"] is None and row["loss/c"] == 1.0 and row["nonfinite"] == ["loss/a", "loss/b"]


def test_keeps_the_newest_and_the_best(tmp_path):
    with make(tmp_path) as run:
        for iteration, score in ((1, 0.1), (2, 0.9), (3, math.nan), (4, 0.5)):
            run.save(iteration, state(iteration), score=score, keep=2)
    run = Run.open(tmp_path / "a")
    assert [path.name for path in run.checkpoint_paths()] == ["iter_00000003.pt", "iter_00000004.pt"]
    assert run.load("best").iteration == 2
    assert run.load("3").iteration == 3
    with pytest.raises(CheckpointError, match="no checkpoint '7'; there are: last, 3, 4, best"):
        run.load("7")


def test_best_is_remembered_when_a_run_is_continued(tmp_path):
    with make(tmp_path) as run:
        run.save(1, state(1.0), score=0.0)
    with Run.open(tmp_path / "a", write=True) as run:
        run.save(2, state(2.0), score=-1.0)
        assert run.load("best").iteration == 1
        run.save(3, state(3.0), score=1.0)
    assert Run.open(tmp_path / "a").load("best").iteration == 3


@pytest.mark.parametrize("damage", ["truncate", "empty", "flip", "garbage"])
def test_a_damaged_checkpoint_is_found_and_the_one_before_is_used(tmp_path, damage):
    with make(tmp_path) as run:
        run.save(1, state(1.0))
        last = run.save(2, state(2.0))
    data = last.read_bytes()
    middle = data.index(b"\x00\x00\x00\x40" * 8)  # inside the weights, 2.0 as float32
    damaged = {
        "truncate": data[: len(data) // 2],
        "empty": b"",
        "flip": data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :],
        "garbage": os.urandom(1000),
    }[damage]
    last.write_bytes(damaged)
    run = Run.open(tmp_path / "a")
    with pytest.raises(CheckpointError, match="iter_00000002.pt.* corrupt"):
        run.load("2")
    found = run.load("last")
    assert found.iteration == 1 and len(found.skipped) == 1 and "iter_00000002.pt" in found.skipped[0]


def test_a_checkpoint_never_runs_code(tmp_path):
    with make(tmp_path) as run:
        path = run.save(1, state(1.0))
    torch.save({"iteration": 1, "score": None, "state": {"run": Run}}, path)
    with pytest.raises(CheckpointError, match="corrupt"):
        Run.open(tmp_path / "a").load()


def test_state_that_could_not_be_read_back_is_refused(tmp_path):
    with make(tmp_path) as run:
        with pytest.raises(CheckpointError, match=r"state\['env'\]\[1\] is a ndarray"):
            run.save(1, {"env": [1, torch.zeros(2).numpy()]})
        assert run.checkpoint_paths() == []


def test_rewind_forgets_what_came_after(tmp_path):
    with make(tmp_path) as run:
        for iteration in range(1, 6):
            run.record(iteration, {"reward/a": float(iteration)})
            run.save(iteration, state(iteration), keep=3)
    with open(tmp_path / "a" / "metrics.jsonl", "a") as file:
        file.write('{"iteration": 6, "rew')  # cut short by a kill
    with Run.open(tmp_path / "a", write=True) as run:
        assert len(run.metrics()) == 5
        run.rewind(3)
        run.record(4, {"reward/a": -4.0})
    run = Run.open(tmp_path / "a")
    assert [row["reward/a"] for row in run.metrics()] == [1.0, 2.0, 3.0, -4.0]
    assert run.load().iteration == 3
    scalars = EventAccumulator(str(tmp_path / "a" / "tensorboard")).Reload()
    assert [event.value for event in scalars.Scalars("reward/a")] == [1.0, 2.0, 3.0, -4.0]


def test_continuing_adds_versions_and_tells_what_changed(tmp_path):
    make(tmp_path).close()
    path = tmp_path / "a" / "versions.json"
    entries = json.loads(path.read_text())
    entries[0]["torch"] = "1.0.0"
    path.write_text(json.dumps(entries))
    with Run.open(tmp_path / "a", write=True) as run:
        assert len(run.versions) == 2
        assert any(line.startswith("torch was 1.0.0 and is ") for line in run.drift())


def test_two_processes_cannot_write_one_run(tmp_path):
    with make(tmp_path):
        with pytest.raises(RunError, match=f"in use by another process .id {os.getpid()}"):
            Run.open(tmp_path / "a", write=True)
        Run.open(tmp_path / "a")  # reading is free
    Run.open(tmp_path / "a", write=True).close()


def test_existing_folders_are_left_alone(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match="exists and is not empty"):
        make(tmp_path)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["thesis.txt"]


def test_a_missing_run_names_near_ones(tmp_path):
    make(tmp_path, "2026-01-01T00-00-00-s1").close()
    with pytest.raises(RunError, match="does not exist; runs near it: .*2026-01-01T00-00-00-s1"):
        Run.open(tmp_path / "2026-01-01T00-00-00-s2")
    with pytest.raises(RunError, match="is not a run folder; runs near it: .*s1"):
        Run.open(tmp_path)
    assert find_runs(tmp_path) == [tmp_path / "2026-01-01T00-00-00-s1"]


@pytest.mark.parametrize("name", ["run.json", "config.yaml"])
def test_a_damaged_run_is_one_clear_error(tmp_path, name):
    make(tmp_path).close()
    (tmp_path / "a" / name).write_text("{")
    with pytest.raises(RunError, match="damaged"):
        Run.open(tmp_path / "a")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(RunError, match="cannot write .*file"):
        Run.create(tmp_path / "file", "a", CONFIG, seed=0)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_a_read_only_folder(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(RunError, match="cannot write .*Permission denied"):
        Run.create(tmp_path / "locked", "a", CONFIG, seed=0)


def test_a_full_disk_is_one_clear_error_and_damages_nothing(tmp_path):
    """A limit on file sizes fails writes as a full disk does, half-way through a file."""
    with make(tmp_path) as run:
        run.record(1, {"reward/a": 1.0})
        run.save(1, state(1.0))
    child = python(
        """
        import resource, signal, sys, torch
        from robolearn.runs import Run, RunError
        run = Run.open(sys.argv[1], write=True)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            run.save(2, {"weights": torch.zeros(200, 50)})
        except RunError as error:
            print(error)
        try:
            for iteration in range(2, 2000):
                run.record(iteration, {"reward/a": float(iteration)})
        except RunError as error:
            print(error)
        """,
        tmp_path / "a",
    )
    out, err = child.communicate(timeout=60)
    assert out.count("cannot write") == 2, err
    run = Run.open(tmp_path / "a")
    rows = run.metrics()
    assert [row["iteration"] for row in rows] == list(range(1, len(rows) + 1))
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes().endswith(b"}\n")
    assert run.load().iteration == 1
    assert [path.name for path in (tmp_path / "a" / "checkpoints").iterdir()] == ["iter_00000001.pt"]


def test_a_kill_at_any_moment_leaves_a_run_that_loads(tmp_path):
    make(tmp_path).close()
    code = """
        import sys, torch
        from robolearn.runs import Run
        run = Run.open(sys.argv[1], write=True)
        start = run.load().iteration if run.checkpoint_paths() else 0
        run.rewind(start)
        for iteration in range(start + 1, 100_000):
            run.record(iteration, {"reward/a": float(iteration)})
            run.save(iteration, {"weights": torch.full((300, 300), float(iteration))}, score=float(iteration))
            print(iteration, flush=True)
        """
    reached = 0
    for kill in range(4):
        child = python(code, tmp_path / "a")
        assert child.stdout is not None
        first = int(child.stdout.readline())
        assert first == reached + 1
        for _ in range(5 + 3 * kill):
            reached = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        rest = child.communicate(timeout=60)[0].split()
        assert child.returncode == -signal.SIGKILL
        reached = int(rest[-1]) if rest else reached
        run = Run.open(tmp_path / "a")
        found = run.load()
        # What was announced is on the disk; the next one may have been on its way.
        assert found.iteration in (reached, reached + 1) and found.skipped == ()
        assert torch.equal(found.state["weights"], torch.full((300, 300), float(found.iteration)))
        assert run.load("best").iteration in (found.iteration, found.iteration - 1)
        assert [row["iteration"] for row in run.metrics()][: found.iteration] == list(range(1, found.iteration + 1))
        reached = found.iteration


def test_default_name_carries_the_seed():
    assert default_name(7).endswith("-s7")
