"""Recordings read at a critic's rate and size."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import torch

from vlm_rewards.critic import Window
from vlm_rewards.fitting import fitted
from vlm_rewards.streams import DamagedVideo, VideoError, pictures
from vlm_rewards.videos import read_videos


def ffmpeg(*arguments: object) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def grey(index: int) -> int:
    return 20 + 4 * index


def make_video(path: Path, count: int = 30, fps: float = 30.0, size: tuple[int, int] = (48, 64)) -> Path:
    """Picture ``i`` is of one grey, ``grey(i)``."""
    writer = imageio_ffmpeg.write_frames(str(path), size[::-1], fps=fps, macro_block_size=8, quality=9)
    writer.send(None)
    for i in range(count):
        writer.send(np.full((*size, 3), grey(i % 50), np.uint8))
    writer.close()
    return path


def greys(recording, camera: int = 0) -> np.ndarray:
    """Which picture each moment shows."""
    return (recording.frames[:, camera].float().mean((1, 2, 3)).numpy() - 20) / 4


def test_moments_show_the_latest_picture_taken_by_then(tmp_path):
    high = make_video(tmp_path / "cam_high.mp4", 30, 30.0)
    wrist = make_video(tmp_path / "cam_wrist.mp4", 15, 15.0)
    recording = read_videos([high, wrist], rate_hz=10.0, size=(24, 32))
    assert recording.cameras == ("cam_high", "cam_wrist")
    assert recording.frames.shape == (10, 2, 24, 32, 3) and recording.frames.dtype == torch.uint8
    np.testing.assert_allclose(recording.times, np.arange(10) / 10)
    np.testing.assert_allclose(greys(recording, 0), 3 * np.arange(10), atol=0.4)
    np.testing.assert_allclose(greys(recording, 1), np.floor(1.5 * np.arange(10)), atol=0.4)
    assert recording.sources[0].fps == pytest.approx(30.0)
    assert [source.length_s for source in recording.sources] == pytest.approx([1.0, 1.0])
    np.testing.assert_allclose(recording.sources[0].taken, np.arange(30) / 30, atol=1e-6)


def test_a_part_of_a_recording(tmp_path):
    video = make_video(tmp_path / "a.mp4", 30)
    part = read_videos([video], rate_hz=10.0, start_s=0.3, end_s=0.7)
    np.testing.assert_allclose(part.times, [0.3, 0.4, 0.5, 0.6])
    np.testing.assert_allclose(greys(part), [9, 12, 15, 18], atol=0.4)
    with pytest.raises(VideoError, match=r"is 1\.00 s long, there is nothing from 2 s"):
        read_videos([video], start_s=2.0)
    with pytest.raises(VideoError, match="end_s must be after start_s, got 2 to 1 s"):
        read_videos([video], start_s=2.0, end_s=1.0)
    with pytest.raises(VideoError, match="more than 4 moments at 10 Hz; lower rate_hz, or set end_s"):
        read_videos([video], rate_hz=10.0, max_frames=4)


def test_a_variable_frame_rate_keeps_its_time_stamps(tmp_path):
    make_video(tmp_path / "even.mp4", 30)
    kept = "select='lt(n,6)+eq(n,12)+gte(n,24)'"
    ffmpeg("-i", tmp_path / "even.mp4", "-vf", kept, "-fps_mode", "vfr", tmp_path / "vfr.mp4")
    numbers = [*range(6), 12, *range(24, 30)]
    taken = [picture.time_s for picture in pictures(tmp_path / "vfr.mp4")]
    np.testing.assert_allclose(taken, np.array(numbers) / 30, atol=1e-4)
    recording = read_videos([tmp_path / "vfr.mp4"], rate_hz=10.0)
    np.testing.assert_allclose(greys(recording), [0, 3, 5, 5, 12, 12, 12, 12, 24, 27], atol=0.4)


def test_history_before_the_start_is_the_first_picture(tmp_path):
    recording = read_videos([make_video(tmp_path / "a.mp4", 30)], rate_hz=10.0)
    frames = recording.moments(torch.tensor([0, 3]), Window(3, 0.2))
    assert frames.rgb.shape == (2, 3, 1, 48, 64, 3)
    np.testing.assert_allclose(frames.stamps, [0.0, 0.3])
    shown = (frames.rgb.float().mean((2, 3, 4, 5)) - 20) / 4
    np.testing.assert_allclose(shown, [[0, 0, 0], [0, 3, 9]], atol=0.4)


def test_a_folder_of_pictures_is_a_view(tmp_path):
    folder = tmp_path / "front"
    folder.mkdir()
    for i in range(12):
        cv2.imwrite(str(folder / f"frame_{i}.{'png' if i % 2 else 'jpg'}"), np.full((16, 16, 3), grey(i), np.uint8))
    recording = read_videos({"top": folder}, rate_hz=5.0, fps=10.0)
    assert recording.cameras == ("top",)
    np.testing.assert_allclose(greys(recording), [0, 2, 4, 6, 8, 10], atol=0.3)
    with pytest.raises(VideoError, match=r"front does not say how fast its 12 pictures were taken; set fps="):
        read_videos([folder])
    (folder / "frame_5.png").write_bytes(b"no picture")
    with pytest.raises(VideoError, match=r"frame_5\.png cannot be decoded"):
        read_videos([folder], fps=10.0)
    cv2.imwrite(str(folder / "frame_5.png"), np.zeros((16, 20, 3), np.uint8))
    with pytest.raises(VideoError, match=r"frame_5\.png is 20x16, those before it are 16x16"):
        read_videos([folder], fps=10.0)


def test_colours_are_red_green_blue(tmp_path):
    folder = tmp_path / "view"
    folder.mkdir()
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 2] = 200  # OpenCV writes blue, green, red
    cv2.imwrite(str(folder / "0.png"), red)
    ffmpeg("-framerate", 10, "-i", folder / "%d.png", "-c:v", "png", tmp_path / "view.mkv")
    for given in (folder, tmp_path / "view.mkv"):
        frames = read_videos([given], fps=10.0).frames
        assert frames[0, 0, 8, 8].tolist() == [200, 0, 0]


def test_av1_of_lerobot_data_sets_is_read(tmp_path):
    make_video(tmp_path / "a.mp4", 10)
    try:
        ffmpeg("-i", tmp_path / "a.mp4", "-c:v", "libsvtav1", tmp_path / "av1.mp4")
    except subprocess.CalledProcessError:
        pytest.skip("this ffmpeg cannot encode AV1")
    np.testing.assert_allclose(greys(read_videos([tmp_path / "av1.mp4"], rate_hz=30.0)), np.arange(10), atol=0.5)


@pytest.mark.parametrize("fit", ["crop", "stretch", "letterbox"])
def test_fits_keep_what_they_say(fit):
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, :20], picture[:, 20:60], picture[:, 60:] = 50, 100, 150
    made = fitted(picture, (20, 20), fit)[..., 0]
    assert made.shape == (20, 20)
    middle = [100] * 20 if fit == "crop" else [50] * 5 + [100] * 10 + [150] * 5
    assert made[10].tolist() == middle
    assert made[0, 10] == (0 if fit == "letterbox" else 100)


def test_shrinking_averages_areas():
    checks = np.zeros((64, 64, 3), np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = 200
    assert np.unique(fitted(checks, (16, 16))).tolist() == [100]
    with pytest.raises(Exception, match="unknown fit 'crob'; did you mean 'crop'"):
        fitted(checks, (16, 16), "crob")


def test_what_a_crop_loses_is_said(tmp_path):
    video = make_video(tmp_path / "a.mp4", 5, size=(48, 64))
    notes = read_videos([video], size=(16, 16)).notes
    assert notes == ("25% of the width of a is cut off; fit=letterbox or fit=stretch shows it all",)
    assert read_videos([video], size=(16, 16), fit="stretch").notes == ()


def test_views_of_different_lengths(tmp_path):
    make_video(tmp_path / "a.mp4", 60)
    make_video(tmp_path / "b.mp4", 56)
    make_video(tmp_path / "c.mp4", 45)
    recording = read_videos([tmp_path / "a.mp4", tmp_path / "b.mp4"], rate_hz=30.0)
    assert len(recording) == 56
    assert recording.notes == ("views differ in length (a 2.00 s, b 1.87 s): trimmed to 1.87 s",)
    views = [tmp_path / "a.mp4", tmp_path / "c.mp4"]
    with pytest.raises(VideoError, match=r"views differ in length: a 2\.00 s, c 1\.50 s; trim=true reads the part"):
        read_videos(views)
    assert len(read_videos(views, rate_hz=10.0, trim=True)) == 15
    assert len(read_videos(views, rate_hz=10.0, end_s=1.2)) == 12


def test_a_damaged_video_says_how_far_it_goes(tmp_path):
    make_video(tmp_path / "whole.mp4", 300, size=(96, 128))
    ffmpeg("-i", tmp_path / "whole.mp4", "-c", "copy", "-movflags", "+faststart", tmp_path / "start.mp4")
    data = (tmp_path / "start.mp4").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(
        DamagedVideo, match=r"cut\.mp4 is damaged: \d+ pictures \(\d\.\d s of about 10 s\) decoded; .*trim"
    ):
        read_videos([cut])
    partial = read_videos([cut], trim=True)
    assert 10 < len(partial) < 50 and "is damaged" in partial.notes[0]


@pytest.mark.parametrize(
    "content, complaint",
    [(None, "there is no video or folder"), (b"", "cannot be decoded"), (b"hello world\n" * 99, "cannot be decoded")],
)
def test_what_is_no_video(tmp_path, content, complaint):
    path = tmp_path / "x.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError, match=complaint) as caught:
        read_videos([path])
    assert "\n" not in str(caught.value) and "x.mp4" in str(caught.value)


def test_sound_alone_and_empty_folders_and_names_given_twice(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", tmp_path / "sound.wav")
    with pytest.raises(VideoError, match=r"sound\.wav cannot be decoded: it holds no video"):
        read_videos([tmp_path / "sound.wav"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match=r"empty holds no pictures \(\.png, \.jpg, \.jpeg\)"):
        read_videos([tmp_path / "empty"], fps=5.0)
    with pytest.raises(VideoError, match=r"two views are named 'a'.*name=path"):
        read_videos([tmp_path / "1" / "a.mp4", tmp_path / "2" / "a.mp4"])
    with pytest.raises(VideoError, match="at least one video"):
        read_videos([])


def test_a_playlist_in_disguise_opens_no_connection(tmp_path):
    playlist = tmp_path / "list.mp4"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(VideoError, match="cannot be decoded"):
        read_videos([playlist])


def test_leaving_a_video_early_stops_its_decoder(tmp_path):
    stream = pictures(make_video(tmp_path / "a.mp4", 300, size=(480, 640)))
    assert next(stream).index == 0
    stream.close()
    children = Path(f"/proc/{Path('/proc/self').resolve().name}/task").glob("*/children")
    assert not any(child.read_text().strip() for child in children)
