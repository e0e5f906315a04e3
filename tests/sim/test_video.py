"""Pictures and films: things are drawn where they are, and what cannot be drawn or written is one clear line."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import mujoco
import numpy as np
import pytest

from sim.opengl import RenderError
from sim.video import SceneRenderer, caption, write_video

MODEL = mujoco.MjModel.from_xml_string("""
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <body name="red"><freejoint/><geom type="box" size=".03 .03 .03" rgba="1 0 0 1"/></body>
  </worldbody>
</mujoco>""")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def renderer():
    try:
        made = SceneRenderer(MODEL, 90, 120, lookat=(0, 0, 0), distance=1.0, azimuth=90, elevation=0)
    except RenderError as error:
        pytest.skip(f"this machine cannot render: {error}")
    with made:
        yield made


def red(image: np.ndarray) -> np.ndarray:
    return image[..., 0].astype(int) - image[..., 1] > 60


def at(x: float, y: float, z: float) -> np.ndarray:
    return np.array([x, y, z, 1, 0, 0, 0], dtype=float)


def test_an_object_is_drawn_where_it_is(renderer):
    """Seen from -y: x to the right, z up; the field of view is 45 degrees of height at 1 m."""
    per_metre = 90 / (2 * np.tan(np.radians(22.5)))
    for x, z in ((0, 0), (0.2, 0), (-0.2, 0.1), (0.1, -0.2)):
        image = renderer.render(at(x, 0, z))
        assert image.shape == (90, 120, 3) and image.dtype == np.uint8
        rows, columns = np.nonzero(red(image))
        assert len(rows) > 10
        assert columns.mean() == pytest.approx(59.5 + per_metre * x, abs=2)
        assert rows.mean() == pytest.approx(44.5 - per_metre * z, abs=2)
    assert not red(renderer.render(at(0, 0, 5))).any()


def test_pictures_are_the_callers(renderer):
    first = renderer.render(at(0, 0, 0))
    kept = first.copy()
    renderer.render(at(0.2, 0, 0))
    np.testing.assert_array_equal(first, kept)
    caption(first, "text")
    np.testing.assert_array_equal(first, kept)


def test_rendering_leaves_the_worlds_alone(small, renderer):
    env = small(1)
    physics = env.world.shards[0].physics
    before = physics.state_dict()["state"]
    with SceneRenderer(physics.model, 48, 64) as view:
        assert view.render(physics.bind("qpos")[0].numpy()).std() > 5
    assert np.array_equal(before, physics.state_dict()["state"])


def test_a_caption_changes_only_its_corner(renderer):
    image = renderer.render(at(0, 0, 0))
    written = caption(image, "hi")
    assert written.shape == image.shape and (written != image).any()
    assert (written[40:] == image[40:]).all()


@pytest.mark.parametrize("backend", ["glfw", "disabled"])
def test_a_machine_without_opengl_says_so_in_one_line(tmp_path, backend):
    code = (
        "import mujoco\nfrom sim.opengl import RenderError\nfrom sim.video import SceneRenderer\n"
        "model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size=\"1\"/></worldbody></mujoco>')\n"
        "try:\n    SceneRenderer(model)\nexcept RenderError as error:\n    print(error)\n"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env={**env, "MUJOCO_GL": backend, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1 and lines[0].startswith("cannot render") and "libegl1" in lines[0]
    assert not list(tmp_path.iterdir())


def frames(count: int, shape: tuple[int, ...] = (48, 64, 3)) -> list[np.ndarray]:
    return [np.full(shape, 20 * i % 256, np.uint8) for i in range(count)]


def read(path: Path) -> tuple[list[np.ndarray], dict]:
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    return [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader], meta


def test_a_video_holds_every_frame_at_its_rate(tmp_path):
    path = write_video(tmp_path / "film.mp4", iter(frames(10)), 20)
    back, meta = read(path)
    assert len(back) == 10 and meta["fps"] == pytest.approx(20) and meta["size"] == (64, 48)
    for i, frame in enumerate(back):
        assert abs(frame.astype(int).mean() - 20 * i) < 6
    assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]


def test_no_frames(tmp_path):
    with pytest.raises(RenderError, match="no frames"):
        write_video(tmp_path / "film.mp4", [], 30)
    assert not list(tmp_path.iterdir())


def test_paths_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.mp4").mkdir()
    for path in (tmp_path / "none" / "a.mp4", tmp_path / "file" / "a.mp4", tmp_path / "folder.mp4"):
        with pytest.raises(RenderError, match="cannot write video") as error:
            write_video(path, frames(200), 30)
        assert "\n" not in str(error.value) and str(path) in str(error.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder.mp4"]


@pytest.mark.parametrize("bad", [np.zeros((48, 72, 3), np.uint8), np.zeros((48, 64, 3)), np.zeros((48, 64), np.uint8)])
def test_frames_that_are_not_pictures_of_one_size(tmp_path, bad):
    for film in ([*frames(2), bad], [bad, *frames(2)]):
        with pytest.raises(RenderError, match="frame [01 2]+ of"):
            write_video(tmp_path / "film.mp4", film, 30)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_film_leaves_the_old_one(tmp_path):
    path = write_video(tmp_path / "film.mp4", frames(3), 30)
    before = path.read_bytes()

    def interrupted():
        yield from frames(3)
        raise ValueError("the policy failed")

    with pytest.raises(ValueError, match="the policy failed"):
        write_video(path, interrupted(), 30)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["film.mp4"]


FULL = """
import resource, signal, sys, numpy as np
from pathlib import Path
from sim.opengl import RenderError
from sim.video import write_video
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
noise = np.random.default_rng(0).integers(0, 255, (20, 96, 128, 3), dtype=np.uint8)
try:
    write_video(Path("film.mp4"), noise, 30)
except RenderError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on the size of files")
def test_a_full_disk_is_not_taken_for_a_film(tmp_path):
    done = subprocess.run(
        [sys.executable, "-B", "-c", FULL],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "cannot write video film.mp4" in done.stdout and len(done.stdout.splitlines()) == 1, done.stderr
    assert not list(tmp_path.iterdir())
