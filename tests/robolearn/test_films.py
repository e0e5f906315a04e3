"""Films of a policy beside its reference."""

from __future__ import annotations

import imageio_ffmpeg
import pytest
import torch

from robolearn.films import film
from robolearn.judge import zero_action
from sim.opengl import RenderError
from sim.video import SceneRenderer


@pytest.fixture
def env(small):
    made = small(0, evaluation=True)
    try:
        SceneRenderer(made.world.shards[0].physics.model, 16, 16).close()
    except RenderError as error:
        pytest.skip(f"this machine cannot render: {error}")
    return made


@pytest.mark.parametrize("worlds, size", [(1, (128, 48)), (2, (256, 48)), (3, (256, 96)), (9, (256, 96))])
def test_a_film_shows_worlds_of_all_objects_in_true_time(env, tmp_path, worlds, size):
    path = film(env, zero_action, tmp_path / "film.mp4", worlds=worlds, fps=10, size=(48, 64))
    count, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert next(imageio_ffmpeg.read_frames(str(path)))["size"] == size
    assert count == -(-(env.max_episode_length - 1) // 6)
    assert seconds == pytest.approx(env.max_episode_length * env.step_dt, abs=0.15)
    env.step(torch.zeros(env.num_envs, env.num_actions))  # the environment can be used on


def test_a_failing_policy_leaves_no_film(env, tmp_path):
    with pytest.raises(RuntimeError, match="no weights"):
        film(env, lambda env, obs: (_ for _ in ()).throw(RuntimeError("no weights")), tmp_path / "film.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("worlds", [0, -1])
def test_no_worlds_to_show(small, tmp_path, worlds):
    with pytest.raises(RenderError, match=f"at least 1 world, got {worlds}"):
        film(small(0, evaluation=True), zero_action, tmp_path / "film.mp4", worlds=worlds)
