"""Recorders in processes of their own: full disks, kills, and what can be recovered."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import SeekingReader
from rosbags.rosbag2 import Reader

from real.msgs import store
from real.recording.inspection import overview
from real.recording.mcap_writer import EpisodeFile, RecordingError
from real.recording.reading import episode_files, messages, summarize
from real.recording.recovery import recover
from real.recording.steps import read_steps
from real.transport.handle import NodeHandle
from real.transport.open import open_node
from tests.real.episode_script import Script, q, record

ROOT = Path(__file__).resolve().parents[2]
STEPS = 100


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two episodes; copy it before changing it."""
    folder = tmp_path_factory.mktemp("episodes")
    record(folder, 2)
    return folder


def own(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "episodes"))


def test_a_full_disk_stops_recording_cleanly_and_the_node_lives_on(tmp_path):
    """A real process whose files cannot grow; the second of three episodes does not fit."""
    command = [sys.executable, "-m", "tests.real.episode_script", str(tmp_path), "0.1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    first, second, third, told = map(json.loads, done.stdout.splitlines())
    assert not first["trouble"] and not third["trouble"]
    assert "File too large" in second["trouble"] and second["dropped"] > 100
    assert "File too large" in told["errors"][0] and told["levels"][-1] == 0
    assert "recording has stopped" in done.stderr
    found = [summarize(path) for path in episode_files(tmp_path)]
    assert [one.state for one in found] == ["complete", "partial", "complete"]
    assert [one.path.suffix for one in found] == [".mcap"] * 3  # each has an end
    assert "File too large" in found[1].end["reason"]
    kept = found[1].counts["/safety/step"]
    assert kept > 100
    recorded_steps = read_steps(found[1].path, store())
    np.testing.assert_allclose(recorded_steps.measured[:, 0], q(0)[0] + 0.01 * np.arange(kept), atol=1e-9)
    with Reader(found[1].path) as reader:
        assert reader.message_count == found[1].messages


KILLED = """
import sys, time
from pathlib import Path
from real.msgs import store
from real.nodes.recorder import RecorderNode
from real.transport.handle import NodeHandle
from real.transport.local import LocalBus
from real.transport.open import open_node
from tests.real.episode_script import Script, play, settings
bus = LocalBus()
script = Script(bus.node("stack"), bus.store)
recorder = RecorderNode(bus.node("recorder"), settings(Path(sys.argv[1])), bus.store)
script.introduce()
bus.run(0.5)
play(bus, script, 0)
script.event("started", 1)
bus.run(0.3)
for k in range(10**6):
    script.step(k)
    bus.run(0.01)
    print(recorder.recorder.file.messages, flush=True)
"""


def test_kill_9_leaves_earlier_episodes_and_loses_less_than_a_chunk(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) > 1000:
                break
        process.send_signal(signal.SIGKILL)
        written = int([line, *process.stdout.read().splitlines(keepends=True)][-1].split()[0])
    first, active = episode_files(tmp_path)
    assert summarize(first).state == "complete" and active.name == "episode_000001.mcap.active"
    assert summarize(active).state == "partial"
    with active.open("rb") as file, pytest.raises(Exception):  # noqa: B017 - whatever the seeking reader says
        SeekingReader(file).get_summary()
    (done,) = recover(tmp_path)
    print(f"{done.messages} of {written} messages survived")
    assert written - done.messages < 40  # 0.1 s of about 300 a second
    found = summarize(done.path)
    assert found.state == "recovered" and found.start["instruction"] == "push the cube"
    with Reader(done.path) as reader:
        assert reader.message_count == done.messages
    steps = read_steps(done.path, store())
    np.testing.assert_allclose(steps.measured[:, 0], 0.01 * np.arange(len(steps)), atol=1e-9)
    assert (tmp_path / "episode_000001.mcap.killed").is_file()
    assert recover(tmp_path) == []


def test_the_recorder_of_a_real_stack_is_killed_and_another_goes_on(tmp_path, monkeypatch):
    """Separate processes over DDS: messages that were received are on the disk after kill -9."""
    domain, rate, seconds = 100 + os.getpid() % 100, 200, 2.0
    command = [sys.executable, "-m", "real.nodes.recorder", "--ros-args", "-p", "stack:=panda_twin", "-p"]
    settings = [f"folder:={tmp_path}", "-p", "min_free_mb:=0", "-p", "transport:=dds", "-p", f"domain:={domain}"]
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")  # inherited by the processes
    node = open_node("stack", transport="dds", domain=domain, args=[])
    try:
        script = Script(node, store())
        with subprocess.Popen([*command, *settings], cwd=ROOT, stderr=subprocess.PIPE) as process:
            try:
                wait_until(node, lambda: node.subscriptions("safety/step") and node.subscriptions("episode/event"))
                script.introduce()
                script.event("started", 4)
                wait_until(node, lambda: list(tmp_path.glob("*.active")))
                begin = time.monotonic()
                for k in range(int(rate * seconds)):
                    script.step(k)
                    while time.monotonic() < begin + k / rate:
                        node.spin_once(0.001)
            finally:
                process.kill()
        (done,) = recover(tmp_path)
        found = summarize(done.path)
        print(f"{found.counts['/safety/step']} of {int(rate * seconds)} steps survived, over DDS")
        assert found.counts["/safety/step"] > rate * seconds - 0.5 * rate
        assert found.start["instruction"] == "push the cube" and found.counts["/camera/front/image_raw"] > 10
        with subprocess.Popen([*command, *settings], cwd=ROOT, stderr=subprocess.PIPE) as process:
            # The event is latched: the new recorder learns that episode 4 still runs.
            wait_until(node, lambda: list(tmp_path.glob("episode_000005.mcap.active")))
            script.event("ended", 4, outcome="success", reason="")
            wait_until(node, lambda: (tmp_path / "episode_000005.mcap").is_file())
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        assert summarize(tmp_path / "episode_000005.mcap").state == "complete"
    finally:
        node.close()


def wait_until(node: NodeHandle, condition: Callable[[], object], seconds: float = 25.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        node.spin_once(0.02)


def test_recovery_leaves_a_running_recording_and_finished_episodes_alone(tmp_path):
    record(tmp_path)
    file = EpisodeFile(tmp_path / "episode_000007.mcap")
    assert [row["state"] for row in overview(tmp_path)] == ["complete", "recording"]
    (done,) = recover(tmp_path)
    assert done.path is None and "a recorder is writing it" in done.fault
    file.abandon()
    with pytest.raises(RecordingError, match="has its end"):
        recover(tmp_path / "episode_000000.mcap")
    with pytest.raises(RecordingError, match="no episode at"):
        recover(tmp_path / "nothing")


@pytest.mark.parametrize("cut", [0, 7, 30, 400, 5000, 20000])
def test_recovery_of_a_file_that_was_cut_anywhere(recorded, tmp_path, cut):
    folder = own(recorded, tmp_path)
    path = folder / "episode_000000.mcap"
    whole = [message.data for message in messages(path)]
    active = folder / "episode_000009.mcap.active"
    active.write_bytes(path.read_bytes()[:cut])
    path.unlink()
    (done,) = recover(folder)
    if cut < 100:
        assert done.path is None and active.is_file() and active.stat().st_size == cut
    else:
        assert [message.data for message in messages(done.path)] == whole[: done.messages]


def test_a_damaged_chunk_ends_the_reading_and_is_told(recorded, tmp_path):
    folder = own(recorded, tmp_path)
    path = folder / "episode_000000.mcap"
    data = bytearray(path.read_bytes())
    data[20_000:20_040] = bytes(40)
    active = folder / "episode_000009.mcap.active"
    active.write_bytes(data)
    (done,) = recover(active)[:1]
    assert 0 < done.messages < summarize(path).messages and done.fault
    assert summarize(done.path).end["recovered_from"] == done.fault
