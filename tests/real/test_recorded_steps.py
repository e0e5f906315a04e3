"""The step table of recorded episodes, their pictures, and their conversion to a data set."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from real.msgs import store
from real.recording import observations
from real.recording.convert import export
from real.recording.inspection import details
from real.recording.mcap_writer import EpisodeFile, RecordingError
from real.recording.plot import plot
from real.recording.reading import episode_files
from real.recording.recovery import recover
from real.recording.steps import read_steps, sirius_labels
from robolearn.episodes import Dataset
from tests.real.episode_script import HUMAN, INVALID, SIZE, STEP_HZ, play, record

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


def test_the_step_table_tells_who_did_what(recorded):
    steps = read_steps(episode_files(recorded)[0], store())
    k = np.arange(STEPS)
    human = np.isin(k, HUMAN)
    assert len(steps) == STEPS and steps.joints[-1] == "finger_joint1"
    np.testing.assert_allclose(steps.limited[:, 0], 0.01 * k + 0.05)
    np.testing.assert_allclose(steps.executed[:, 0], 0.01 * k + np.where(human, 0.2, 0.1))
    assert np.isnan(steps.proposed[human]).all() and np.isfinite(steps.proposed[~human]).all()
    assert np.isnan(steps.human[~human]).all() and np.isfinite(steps.human[human]).all()
    np.testing.assert_array_equal(steps.mode, np.where(human, 3, 2))
    np.testing.assert_array_equal(steps.source, np.where(human, 2, 1))
    np.testing.assert_array_equal(steps.valid, ~np.isin(k, INVALID))
    np.testing.assert_array_equal(np.flatnonzero(steps.clamped.any(1)), [25])
    assert steps.clamped[25].tolist() == [False, True, False, False, False]
    np.testing.assert_allclose(steps.observation_age, 0.02, atol=1e-5)


def test_late_answers_of_the_critic_are_joined_to_what_it_saw(recorded):
    steps = read_steps(episode_files(recorded)[0], store())
    seen = np.searchsorted(steps.log_ns, steps.log_ns)  # answers come 0.35 s late, for every tenth step
    np.testing.assert_allclose(steps.critic["progress"][1:], (seen[1:] // 10) / 10, atol=0.1)
    jumps = np.flatnonzero(np.diff(steps.critic["progress"]) > 0)
    assert set(np.diff(jumps)) == {10}
    assert np.all(steps.critic_stamp[1:] <= steps.stamp[1:] + 1e-3)


def test_resampled_rows_mark_every_step_between_them(recorded):
    steps = read_steps(episode_files(recorded)[0], store(), fps=10)
    np.testing.assert_allclose(steps.time, np.arange(10) / 10, atol=1e-9)
    np.testing.assert_allclose(steps.measured[:, 0], 0.1 * np.arange(10))
    assert np.flatnonzero(steps.clamped.any(1)).tolist() == [3]  # of steps 21 to 30
    assert np.flatnonzero(~steps.valid).tolist() == [3, 4]  # steps 30 to 39 are not valid


def test_a_row_without_a_step_is_not_valid(tmp_path):
    bus, script, _ = record(tmp_path, 0)
    script.event("started", 0)
    bus.run(0.3)
    for k in (*range(20), *range(60, 80)):
        script.step(k)
        bus.run(0.41 if k == 19 else 0.01)
    script.event("ended", 0)
    bus.run(1.0)
    steps = read_steps(tmp_path / "episode_000000.mcap", bus.store, fps=10)
    assert steps.valid.tolist() == [True, True, True, False, False, False, True, True]


def test_labels_of_sirius_follow_from_the_table(recorded):
    labels = sirius_labels(read_steps(episode_files(recorded)[0], store()))
    assert set(labels[60:90]) == {1} and set(labels[45:60]) == {-10} and not labels[:45].any() and not labels[90:].any()


def test_an_episode_without_steps_is_named(tmp_path):
    bus, script, _ = record(tmp_path, 0)
    play(bus, script, 0, 0)
    with pytest.raises(RecordingError, match="no message on safety/step"):
        read_steps(tmp_path / "episode_000000.mcap", bus.store)


# Pictures


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8", "rgba8"])
def test_pictures_of_every_encoding(encoding):
    colour = np.array([10, 120, 240], np.uint8)
    pixels = {
        "rgb8": colour,
        "bgr8": colour[::-1],
        "mono8": colour[1:2],
        "rgba8": np.array([*colour, 255], np.uint8),
    }[encoding]
    step = 6 * len(pixels) + 5
    data = np.zeros((4, step), np.uint8)
    data[:, : 6 * len(pixels)] = np.tile(pixels, 6)
    message = store().new(
        "sensor_msgs/msg/Image", height=4, width=6, step=step, encoding=encoding, data=data.reshape(-1)
    )
    shown = observations.picture(message)
    assert shown.shape == (4, 6, 3)
    assert (shown == (colour if encoding != "mono8" else 120)).all()
    message.data = message.data[:-1]
    with pytest.raises(RecordingError, match="a 6x4"):
        observations.picture(message)
    message.encoding = "bayer"
    with pytest.raises(RecordingError, match="unknown encoding 'bayer'"):
        observations.picture(message)


# Conversion


def test_conversion_keeps_everything(recorded, tmp_path):
    target = tmp_path / "set"
    made = export(recorded, target, store(), robot="panda")
    assert made.added == {"episode_000000.mcap": 0, "episode_000001.mcap": 1} and made.frames == 20
    dataset = Dataset(target)
    assert dataset.tasks == ["push the cube"] and dataset.info["robot_type"] == "panda"
    rows = dataset.frames(1)
    k = 10 * np.arange(10)
    np.testing.assert_allclose(rows["observation.state"][:, 0], 0.01 * k, atol=1e-6)
    np.testing.assert_allclose(rows["action"][:, 0], 0.01 * k + 0.05, atol=1e-6)
    np.testing.assert_allclose(rows["observation.velocity"], 0.5)
    np.testing.assert_allclose(rows["observation.environment_state"][:, 0], k / 100, atol=0.011)
    np.testing.assert_allclose(rows["observation.environment_state"][:, 3], 1.0)
    np.testing.assert_array_equal(rows["observation.goal.named"], [[1, 0]] * 10)
    np.testing.assert_array_equal(rows["step.mode"], np.where(np.isin(k, HUMAN), 3, 2))
    assert np.isnan(rows["action.proposed"][np.isin(k, HUMAN)]).all()
    assert rows["next.success"].tolist() == rows["next.done"].tolist() == [False] * 9 + [True]
    assert rows["step.stamp"].dtype == np.float64 and math.isclose(np.diff(rows["step.stamp"])[0], 0.1, abs_tol=1e-6)
    assert dataset.episodes[0]["interventions"] == 1 and dataset.episodes[0]["outcome"] == "success"
    shown = dataset.images(1, "observation.images.front")
    assert shown.shape == (10, *SIZE, 3)
    np.testing.assert_allclose(shown[:, 10, 10, 0], k % 100 + 50, atol=14)  # a frame is up to 0.1 s old


def test_episodes_are_added_once(recorded, tmp_path):
    folder, target = own(recorded, tmp_path), tmp_path / "set"
    second = folder / "episode_000001.mcap"
    export([folder / "episode_000000.mcap"], target, store())
    made = export(folder, target, store())
    assert made.added == {second.name: 1} and "already" in made.skipped["episode_000000.mcap"]
    assert len(Dataset(target)) == 2
    with pytest.raises(RecordingError, match="no episode to export.*already"):
        export(folder, target, store())


def test_episodes_without_an_end_are_passed_over_until_they_are_recovered(recorded, tmp_path):
    folder = own(recorded, tmp_path)
    (folder / "episode_000001.mcap").rename(folder / "episode_000001.mcap.active")
    made = export(folder, tmp_path / "set", store(), cameras=[])
    assert "recover" in made.skipped["episode_000001.mcap.active"]
    recover(folder)
    assert export(folder, tmp_path / "set", store(), cameras=[]).added == {"episode_000001.mcap": 1}


def test_mistakes_are_named_and_leave_nothing(recorded, tmp_path):
    target = tmp_path / "set"
    with pytest.raises(RecordingError, match="unknown camera 'frunt'; did you mean 'front'"):
        export(recorded, target, store(), cameras=["frunt"])
    with pytest.raises(RecordingError, match="fps"):
        export(recorded, target, store(), fps=0)
    with pytest.raises(RecordingError, match="no folder of episodes"):
        export(tmp_path / "none", target, store())
    assert not list(tmp_path.iterdir())


# Looking at it


def test_details_of_an_episode(recorded, tmp_path):
    path = episode_files(recorded)[0]
    found = details(path)
    rates = {row["topic"]: row for row in found["topics"]}
    assert math.isclose(rates["/safety/step"]["rate_hz"], STEP_HZ, rel_tol=0.01)
    assert math.isclose(rates["/camera/front/image_raw"]["longest_gap_s"], 0.1, rel_tol=0.01)
    assert [span["mode"] for span in found["modes"]] == ["POLICY", "HUMAN", "POLICY"]
    picture = plot(path, tmp_path / "episode.png")
    assert picture.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(RecordingError, match="cannot read"):
        details(tmp_path / "none.mcap")


def test_writing_is_fast_enough_for_a_stack(tmp_path):
    """1,500 messages a second and two cameras have to leave most of a core free."""
    file = EpisodeFile(tmp_path / "episode_000000.mcap")
    definition = store().definition("sensor_msgs/msg/JointState")
    channel = file.channel("/joint_states", "sensor_msgs/msg/JointState", definition)
    cdr = bytes(300)
    begin = time.process_time()
    for i in range(15_000):
        file.write(channel, i, i, cdr)
    file.finish("outcome", {})
    assert time.process_time() - begin < 5.0
