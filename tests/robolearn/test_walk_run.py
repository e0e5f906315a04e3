"""A task without references through every verb: train, evaluate, export and film a few steps of walking."""

from __future__ import annotations

import io

import imageio_ffmpeg
import numpy as np
import pytest

from robolearn.bundle import Bundle
from robolearn.config import compose, to_train_config
from robolearn.evaluate import Options as EvaluateOptions
from robolearn.evaluate import evaluate, print_table
from robolearn.export import export_run
from robolearn.play import Options as PlayOptions
from robolearn.play import film
from robolearn.train import train
from robolearn.trained import Trained
from sim.opengl import RenderError

TINY = [
    *("num_envs=4", "world.threads=1", "budget.iterations=2", "budget.minutes=null", "algo.num_steps=4"),
    *("algo.minibatches=1", "task.episode_s=1.0", "evaluate=false", "video=false", "seed=3"),
]


@pytest.fixture(scope="module", params=["task=g1_walk", "experiment=g1_walk"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("walk") / "run"
    result = train(to_train_config(compose([request.param, *TINY, f"run_dir={folder}"])))
    assert result is not None and result.outcome.signal is None
    return folder


def test_it_is_judged_beside_its_baselines(run):
    trained = Trained.load(run)
    result = evaluate(trained, EvaluateOptions(run=str(run)))
    assert set(result["report"]) >= {"success", "fell", "velocity_error"} and result["success"] == "success"
    rows = result["rows"]
    assert {"policy", "policy, sensor noise", "stand still", "untrained policy"} <= set(rows)
    assert "policy, held-out objects" not in rows and any(name.startswith("gait by the clock") for name in rows)
    assert len({row["episodes"] for row in rows.values()}) == 1
    assert all(np.isfinite(row["velocity_error"]["mean"]) for row in rows.values())
    out = io.StringIO()
    print_table(result, out)
    assert "fell %" in out.getvalue() and "upright_s" in out.getvalue()


def test_its_bundle_needs_what_the_robot_measures(run):
    bundle = Bundle.load(export_run(run), robot="g1")
    assert bundle.contract.names("inputs")[-1] == "velocity_command"
    bundle.reset()
    level = {"imu_orientation": np.array([1, 0, 0, 0], np.float32)}
    values = {c.name: level.get(c.name, np.zeros(c.shape, np.float32)) for c in bundle.contract.inputs}
    first, second = (bundle.step(values)["joint_pos_target"] for _ in range(2))
    assert first.shape == (29,) and not np.array_equal(first, second), "the clock goes on inside"


def test_it_is_filmed_from_beside(run, tmp_path):
    try:
        path = film(PlayOptions(run=str(run), worlds=3), tmp_path / "walk.mp4")
    except RenderError as error:
        pytest.skip(f"this machine cannot render: {error}")
    count, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert count == 25 and seconds == pytest.approx(1.0, abs=0.1)
    frames = imageio_ffmpeg.read_frames(str(path))
    width, height = next(frames)["size"]
    assert (width, height) == (640, 480)
    first = np.frombuffer(next(frames), np.uint8).reshape(height, width, 3)
    assert first.std() > 20 and first[250:, 330:].max() < 30, "three pictures, one place left over"
