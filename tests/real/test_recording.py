"""What the recorder writes, and what it does about full disks, in one process."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import SeekingReader
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader

from real.errors import StackError
from real.msgs import store
from real.nodes.recorder import RecorderNode
from real.recording.inspection import overview
from real.recording.labels import FILE as LABELS
from real.recording.mcap_writer import EpisodeFile, RecordingError
from real.recording.reading import episode_files, summarize
from real.recording.recovery import recover
from real.recording.steps import read_steps
from real.recording.topics import stack_topics
from real.stack import load
from real.transport.local import LocalBus
from tests.real.episode_script import STEP_HZ, Script, play, q, record, settings

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


def test_every_message_of_an_episode_is_in_its_file(recorded):
    for number, path in enumerate(episode_files(recorded)):
        found = summarize(path)
        assert (path.name, found.state) == (f"episode_{number:06d}.mcap", "complete")
        assert found.counts["/safety/step"] == found.counts["/joint_states"] == STEPS
        assert found.counts["/camera/front/image_raw"] == found.counts["/critic/value"] == STEPS // 10
        assert found.start["bundle_hash"] == "ab" * 32 and found.start["operator"] == "somebody"
        assert found.start["instruction"] == "push the cube" and found.start["episode"] == str(number)
        assert found.end["outcome"] == "success" and found.end["interventions"] == "1"
        # Said once, before the first episode, and needed to understand every one.
        assert all(
            found.counts[topic] == 1 for topic in ("/safety/mode", "/episode/instruction", "/episode/goal/named")
        )


def test_the_readers_of_ros_open_it(recorded):
    path = episode_files(recorded)[0]
    with Reader(path) as reader:
        types = {connection.topic: connection.msgtype for connection in reader.connections}
        assert reader.message_count == summarize(path).messages
    assert types["/safety/step"] == "control_msgs/msg/DynamicJointState"
    with AnyReader([path]) as reader:  # its types are those of the schemas in the file
        wanted = [connection for connection in reader.connections if connection.topic == "/safety/step"]
        steps = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(connections=wanted)]
        assert reader.connections[0].ext.offered_qos_profiles
    assert len(steps) == STEPS and steps[7].joint_names[-1] == "step"
    np.testing.assert_allclose(steps[7].interface_values[2].values[-1], q(7)[2])
    with path.open("rb") as file:
        reader = SeekingReader(file, validate_crcs=True)
        assert reader.get_header().profile == "ros2"
        logs = [message.log_time for _, _, message in reader.iter_messages()]
        schema, _, step = next(reader.iter_messages(topics="/safety/step"))
        index = reader.get_summary()
    assert logs == sorted(logs) and schema.encoding == "ros2msg"
    stamp = store().deserialize(step.data, schema.name).header.stamp
    assert step.publish_time == store().ns(stamp) and step.log_time - step.publish_time < 1_000_000
    assert len(index.chunk_indexes) > 5 and max(c.uncompressed_size for c in index.chunk_indexes) < 40_000


def test_nothing_is_recorded_between_episodes_but_the_pre_roll(tmp_path):
    bus, script, recorder = record(tmp_path, 1)
    size = {path: path.stat().st_size for path in tmp_path.iterdir()}
    for k in range(300):
        script.step(k)
        bus.run(1 / STEP_HZ)
    assert {path: path.stat().st_size for path in tmp_path.iterdir()} == size
    play(bus, script, 1, 20)
    counts = summarize(tmp_path / "episode_000001.mcap").counts
    assert 20 + 0.9 * STEP_HZ < counts["/safety/step"] < 20 + 1.1 * STEP_HZ
    assert len(read_steps(tmp_path / "episode_000001.mcap", bus.store)) == 20


def test_no_episode_is_written_over(tmp_path):
    record(tmp_path)
    before = (tmp_path / "episode_000000.mcap").read_bytes()
    record(tmp_path)  # a stack that counts from 0 again
    assert (tmp_path / "episode_000000.mcap").read_bytes() == before
    assert summarize(tmp_path / "episode_000001.mcap").start["episode"] == "0"
    with pytest.raises(RecordingError, match="File exists"):
        EpisodeFile(tmp_path / "episode_000000.mcap")


def test_a_late_recorder_learns_what_runs_and_not_what_is_over(tmp_path):
    bus = LocalBus()
    script = Script(bus.node("stack"), bus.store)
    for episode in range(3):
        script.event("started", episode)
        script.event("ended", episode, outcome="failure")
    script.event("started", 3)
    bus.run(0.5)
    recorder = RecorderNode(bus.node("recorder"), settings(tmp_path), bus.store)
    bus.run(0.5)
    recorder.close()
    (path,) = episode_files(tmp_path)
    assert path.name == "episode_000003.mcap" and summarize(path).state == "partial"


def test_a_clock_that_jumps_does_not_tear_an_episode(tmp_path):
    bus = LocalBus()
    script = Script(bus.node("stack"), bus.store)
    RecorderNode(bus.node("recorder"), settings(tmp_path), bus.store)
    bus.after(0.8, lambda: bus.clock.jump(3600))
    bus.after(1.1, lambda: bus.clock.jump(-7200))
    play(bus, script, 0)
    steps = read_steps(tmp_path / "episode_000000.mcap", bus.store)
    np.testing.assert_allclose(np.diff(steps.time), 1 / STEP_HZ, atol=1e-6)
    assert np.ptp(steps.stamp) > 3600
    # The critic's answer belongs to the picture that it was made from, whatever its stamp.
    np.testing.assert_allclose(steps.critic["progress"][5:], np.floor(np.arange(5, STEPS) / 10) / 10, atol=1e-6)


def test_relabelling_after_the_end_is_kept_beside_the_file(tmp_path):
    bus, script, _ = record(tmp_path)
    bus.run(2.0)
    before = (tmp_path / "episode_000000.mcap").read_bytes()
    script.event("relabelled", 0, outcome="failure", reason="it fell later")
    bus.run(0.2)
    assert overview(tmp_path)[0]["outcome"] == "failure" and (tmp_path / LABELS).is_file()
    assert (tmp_path / "episode_000000.mcap").read_bytes() == before


def test_events_that_are_none_do_no_harm(tmp_path):
    bus = LocalBus()
    script = Script(bus.node("stack"), bus.store)
    recorder = RecorderNode(bus.node("recorder"), settings(tmp_path), bus.store)
    bus.run(0.3)
    for text in ("", "{", "[]", "3", '{"event": "started"}', '{"event": "started", "episode": "x"}'):
        script._text(script.events, text)
    bus.run(0.5)
    assert recorder.recorder.file is None and not list(tmp_path.iterdir())
    play(bus, script, 0, 5)
    assert summarize(tmp_path / "episode_000000.mcap").state == "complete"


def test_a_recorder_that_hears_malformed_bytes_keeps_them_out_of_trouble(tmp_path):
    bus, script, recorder = record(tmp_path)
    publisher = bus.node("broken").publisher("episode/event", "std_msgs/msg/String")
    publisher.publish_raw(b"\x00\x01\x00\x00\xff\xff\xff\xff")
    bus.run(0.2)
    play(bus, script, 1, 5)
    assert summarize(tmp_path / "episode_000001.mcap").state == "complete"


def test_topics_of_a_stack():
    every = {topic.name: topic for topic in stack_topics(load("panda_twin"))}
    assert every["camera/wrist/image_raw"].type == "sensor_msgs/msg/Image"
    kinds = {"joint_trajectory": "trajectory_msgs/msg/JointTrajectory"}
    for controller in load("panda_twin").controllers:
        assert every[controller.topic].type == kinds.get(controller.type, "std_msgs/msg/Float64MultiArray")
    assert every["objects/goal/pose"].type == "geometry_msgs/msg/PoseStamped"
    assert every["episode/goal/named"].qos.transient_local
    few = stack_topics(load("panda_twin", {"recorder.topics": ["safety/step"]}))
    assert [topic.name for topic in few] == ["episode/event", "safety/step"]
    with pytest.raises(StackError, match=r"'safety/stap'.*did you mean 'safety/step'"):
        stack_topics(load("panda_twin", {"recorder.topics": ["safety/stap"]}))


# Faults


def test_a_disk_that_takes_nothing_at_all_leaves_what_was_recorded(tmp_path, monkeypatch):
    file = EpisodeFile(tmp_path / "episode_000000.mcap", chunk_bytes=100)
    channel = file.channel("/text", "std_msgs/msg/String", store().definition("std_msgs/msg/String"))
    cdr = store().serialize(store().new("std_msgs/msg/String", data="x" * 50))
    for i in range(20):
        file.write(channel, i, i, cdr)
    file.flush()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, file._stream._descriptor)
    os.close(full)
    monkeypatch.setattr(os, "ftruncate", lambda *_: None)  # a device has no length
    with pytest.raises(RecordingError, match="No space left"):
        for i in range(20):
            file.write(channel, i, i, cdr)
    assert file.finish("outcome", {"outcome": ""}) == tmp_path / "episode_000000.mcap.active"
    monkeypatch.undo()
    (done,) = recover(tmp_path)
    assert done.messages == 20 and summarize(done.path).state == "recovered"


def test_too_little_space_is_told_before_an_episode_begins_and_ends_one_that_runs(tmp_path):
    bus, script, recorder = record(tmp_path, 0, min_free_mb=1e12)
    script.event("started", 0)
    bus.run(0.5)
    assert recorder.recorder.file is None and "MB are free" in recorder.recorder.trouble
    assert not list(tmp_path.iterdir())

    space = [10**9]
    roomy = tmp_path / "roomy"
    bus, script, recorder = record(roomy, 0, min_free_mb=100.0)
    recorder.recorder.free = lambda folder: space[0]
    script.event("started", 0)
    bus.run(0.4)
    for k in range(50):
        script.step(k)
        bus.run(0.01)
    space[0] = 10**7
    bus.run(0.3)
    assert "10 MB are free" in recorder.recorder.trouble
    (path,) = episode_files(roomy)
    assert summarize(path).counts["/safety/step"] == 50 and summarize(path).end["state"] == "partial"


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    bus, script, recorder = record(tmp_path / "file", 1)
    assert recorder.recorder.trouble == f"cannot record to {tmp_path / 'file'}: {os.strerror(errno.EEXIST)}"
