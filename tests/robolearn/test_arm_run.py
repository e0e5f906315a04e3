"""An arm task through the verbs: train, evaluate and film a few steps of pushing, and what the film says."""

from __future__ import annotations

import io
import json

import imageio_ffmpeg
import numpy as np
import pytest

from robolearn import cli
from robolearn.config import compose, to_train_config
from robolearn.evaluate import Options as EvaluateOptions
from robolearn.evaluate import evaluate, print_table
from robolearn.play import Options as PlayOptions
from robolearn.play import film
from robolearn.train import train
from robolearn.trained import Trained
from sim.opengl import RenderError

TINY = [
    *("task=arm_push", "num_envs=16", "world.threads=1", "budget.iterations=2", "budget.minutes=null"),
    *("algo.num_steps=4", "algo.minibatches=1", "task.episode_s=1.0", "evaluate=false", "video=false", "seed=3"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arm") / "run"
    result = train(to_train_config(compose([*TINY, f"run_dir={folder}"])))
    assert result is not None and result.outcome.signal is None
    return folder


def test_it_is_judged_beside_the_scripted_expert(run):
    trained = Trained.load(run)
    result = evaluate(trained, EvaluateOptions(run=str(run)))
    rows = result["rows"]
    assert set(rows) == {"policy", "policy, sensor noise", "scripted expert", "untrained policy"}
    assert all(row["episodes"] == 96 and row["diverged"]["mean"] == 0 for row in rows.values())
    assert rows["scripted expert"]["progress"]["mean"] > rows["policy"]["progress"]["mean"] + 0.2
    out = io.StringIO()
    print_table(result, out)
    assert "ever_done %" in out.getvalue() and "loitering_s" in out.getvalue()
    assert trained.env("heldout_pairs", num_envs=4).num_envs == 4


def test_a_run_keeps_what_was_assigned(run):
    """Its configuration says what was asked for; the picture of draws shows the colours."""
    assert (run / "randomization.png").exists() and (run / "config.yaml").exists()
    assert json.loads((run / "run.json").read_text())


def test_it_is_filmed_from_across_the_table_with_its_instructions(run, tmp_path):
    try:
        path = film(PlayOptions(run=str(run), worlds=3), tmp_path / "push.mp4")
    except RenderError as error:
        pytest.skip(f"this machine cannot render: {error}")
    count, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert count == 9 and seconds == pytest.approx(0.9, abs=0.11)
    frames = imageio_ffmpeg.read_frames(str(path))
    width, height = next(frames)["size"]
    assert (width, height) == (640, 480)
    first = np.frombuffer(next(frames), np.uint8).reshape(height, width, 3).astype(int)
    assert first[:240, :320].max() > 200  # the white pad, or the letters
    assert (first[:22, :320].min(2) > 180).sum() > 100 and (first[240:262, :320].min(2) > 180).sum() > 100  # captions
    colored = (first.max(2) - first.min(2)) > 90
    for top, left in ((0, 0), (0, 320), (240, 0)):
        assert colored[top + 30 : top + 240, left : left + 320].sum() > 100  # two objects
    assert first[260:, 330:].max() < 30  # three pictures, one place left over


def test_wrong_names_are_answered_in_one_line(run, capsys):
    assert cli.main(["play", f"run={run}", "split=heldout_pair", f"out={run}/x.mp4"]) == 2
    assert "unknown split 'heldout_pair'; did you mean 'heldout_pairs'" in capsys.readouterr().err
    assert cli.main(["train", "task=arm_push", "task.shapes=[cube,pyramid]", f"run_dir={run}2"]) == 2
    assert "unknown shape 'pyramid'" in capsys.readouterr().err
    assert cli.main(["list", "robots"]) == 0
    assert "arm, 7 joints and a gripper" in capsys.readouterr().out
