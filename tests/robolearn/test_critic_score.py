"""`robolearn critic score`: from recordings to numbers, a plot and a film."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import torch

from robolearn import critic_score, settings
from robolearn.critic_inputs import quoted
from robolearn.errors import RobolearnError
from tests.vlm_rewards.painted import KIND, paint, save
from vlm_rewards import registry
from vlm_rewards.streams import pictures

UP = np.linspace(0.0, 1.0, 41)
SHARED = Path(os.environ.get("ROBOLEARN_SHARED_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data"))


@pytest.fixture(autouse=True)
def painted_critics(monkeypatch):
    monkeypatch.setitem(registry.KINDS, KIND, "tests.vlm_rewards.painted")


@pytest.fixture
def videos(tmp_path) -> str:
    """Two views of 4 s at 10 Hz: progress rises from 0 to 1, seen by ``wrist`` at half its height."""
    front = paint(tmp_path / "front.mkv", UP)
    wrist = paint(tmp_path / "wrist.mkv", UP / 2)
    return f"{front},{wrist}"


def run(*given: object, drawn: bool = False, json_line: bool = True) -> int:
    """The verb as the command line calls it; with plot and film only where they are looked at."""
    parser = argparse.ArgumentParser()
    critic_score.add_arguments(parser)
    arguments = [*map(str, given), *(["--json"] if json_line else [])]
    arguments += [] if drawn else ["plot=false", "film=false"]
    return critic_score.main(parser.parse_intermixed_args(arguments))


def scores(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((folder / "scores.json").read_text())
    return made


def test_known_pixels_give_known_progress_and_a_film_in_true_time(tmp_path, videos, capsys):
    out = tmp_path / "out"
    critic = save(tmp_path / "critic", "value", "done")
    told = (f"critic={critic}", f"video={videos}", "instruction=go up", "rate_hz=10", "film_fps=5", f"out={out}")
    assert run(*told, drawn=True) == 0
    found = scores(out)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["usable"] and told["files"] == [str(out / f"scores.{kind}") for kind in ("json", "png", "mp4")]
    assert "per_moment" not in told and found["per_moment"].keys() >= {"time_s", "reason", "latency_ms"}
    moments = found["per_moment"]
    np.testing.assert_allclose(moments["time_s"], np.arange(41) / 10)
    np.testing.assert_allclose(moments["views"]["front"]["value"], UP, atol=0.003)
    np.testing.assert_allclose(moments["views"]["wrist"]["value"], UP / 2, atol=0.003)
    np.testing.assert_allclose(moments["value"], 0.75 * UP, atol=0.003)
    assert moments["valid"] == [True] * 41 and not any(moments["reason"]) and moments["done"] == [0.0] * 41
    assert found["voc"] == found["views"]["wrist"]["voc"] == pytest.approx(1.0)
    assert found["end"] == pytest.approx(0.75, abs=0.003) and found["abstained"] == 0.0
    assert found["view_spread"] == pytest.approx(float((UP / 2).mean()), abs=0.01)
    assert found["progress_from"] == "value" and found["critic"]["revision"] == "colours"
    assert found["done"] == {"end": 0.0, "highest": 0.0, "threshold": 0.5, "debounce": 1, "first_at_s": None}
    assert sorted(path.name for path in out.iterdir()) == ["scores.json", "scores.mp4", "scores.png"]
    assert cv2.imread(str(out / "scores.png")).shape[1] > 1000
    count, seconds = imageio_ffmpeg.count_frames_and_secs(str(out / "scores.mp4"))
    assert count == 21 and seconds == pytest.approx(4.2, abs=0.11)
    shown = [picture.rgb for picture in pictures(out / "scores.mp4")]
    height, width = shown[0].shape[:2]
    assert width == 720 and height % 8 == 0
    front = [int(picture[52 + 40, width // 2 - 40, 0]) for picture in shown]
    np.testing.assert_allclose(front, 250 * UP[::2], atol=6)


def test_where_the_critic_abstains_nothing_is_invented(tmp_path):
    trust = np.where((np.arange(41) >= 10) & (np.arange(41) < 20), 0.1, 1.0)
    video = paint(tmp_path / "view.mkv", UP, trust)
    critic = save(tmp_path / "critic", "value")
    for fallback, between in (("drop", None), ("hold", UP[9])):
        out = tmp_path / fallback
        told = (f"fallback={fallback}", "rate_hz=10", "instruction=go up", f"out={out}")
        assert run(f"critic={critic}", f"video={video}", *told) == 0
        found = scores(out)
        moments = found["per_moment"]
        assert moments["abstained"] == [10 <= i < 20 for i in range(41)]
        assert [not valid for valid in moments["valid"]] == moments["abstained"]
        assert moments["reason"][10] == "abstained: confidence below 0.3" and moments["reason"][9] == ""
        assert moments["confidence"][15] == pytest.approx(0.1, abs=0.003)
        kept = [value for value, valid in zip(moments["value"], moments["valid"], strict=True) if valid]
        np.testing.assert_allclose(kept, np.delete(UP, range(10, 20)), atol=0.003)
        held = moments["value"][10:20]
        assert held == [None] * 10 if between is None else held == pytest.approx([between] * 10, abs=0.003)
        assert found["usable"] and found["abstained"] == pytest.approx(10 / 41)


def test_a_critic_out_of_its_domain_says_so(tmp_path, capsys):
    trust = np.where(np.arange(41) == 3, 0.9, 0.05)
    video = paint(tmp_path / "view.mkv", UP, trust)
    critic = save(tmp_path / "critic", "value", "done")
    out = tmp_path / "out"
    told = (f"critic={critic}", f"video={video}", "instruction=go up", "rate_hz=10", f"out={out}")
    assert run(*told, "film_fps=2", json_line=False, drawn=True) == 0
    table = capsys.readouterr().out
    verdict = "the critic does not know these pictures: 98% of moments abstained (confidence < 0.3)"
    assert f"NOT USABLE: {verdict}" in table
    found = scores(out)
    assert found["usable"] is False and found["verdict"] == verdict
    assert found["end"] is None and found["voc"] is None and found["done"]["first_at_s"] is None
    assert run(*told, "abstain=0") == 0
    assert scores(out)["usable"] is True


def test_views_are_assigned_to_the_cameras_of_the_critic(tmp_path, videos):
    critic = save(tmp_path / "critic", "value", cameras=("left", "right"))
    told = (f"critic={critic}", f"video={videos}", "instruction=go", "rate_hz=10", f"out={tmp_path / 'out'}")
    with pytest.raises(RobolearnError) as caught:
        run(*told)
    assert str(caught.value) == (
        "critic 'painted' was made for cameras left, right, the recording has views front, wrist; "
        "say which is which, such as 'views={left:front,right:wrist}'"
    )
    run(*told, "views={left:front,right:front}")
    assert scores(tmp_path / "out")["end"] == pytest.approx(1.0)
    run(*told, "views.left=front", "views.right=wrist")
    found = scores(tmp_path / "out")
    assert found["end"] == pytest.approx(0.75, abs=0.003) and found["views"] == {}
    assert [view["view"] for view in found["recording"]["views"]] == ["front", "wrist"]
    with pytest.raises(RobolearnError, match=r"views\.left=top: the recording has views front, wrist"):
        run(*told, "views.left=top")
    with pytest.raises(RobolearnError, match=r"views\.up: critic 'painted' was made for left, right"):
        run(*told, "views.up=front")


def test_views_can_be_judged_apart_and_named(tmp_path):
    front = paint(tmp_path / "a.mkv", UP, 0.8)
    wrist = paint(tmp_path / "b.mkv", UP / 2, 0.4)
    out = tmp_path / "out"
    critic = save(tmp_path / "critic", "value", "done")
    run(f"critic={critic}", f"video=x={front},y={wrist}", "instruction=go", "fuse=apart", f"out={out}")
    found = scores(out)
    assert found["views"].keys() == {"x", "y"}
    assert found["end"] == pytest.approx((0.8 * 1.0 + 0.4 * 0.5) / 1.2, abs=0.01)
    run(f"critic={critic}", f"video={front},{wrist}", "instruction=go", "alone=false", f"out={out}")
    assert scores(out)["views"] == {}


def annotations(path: Path, ends: list[int], key: str = "anotation") -> Path:
    subtasks = [
        {key: f"subtask{k + 1}", "start_frame_id": start, "end_frame_id": end}
        for k, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True))
    ]
    path.write_text(json.dumps(subtasks))
    return path


@pytest.mark.parametrize("key", ["anotation", "annotation"])
def test_agreement_with_annotated_subtasks(tmp_path, key):
    up_and_down = np.concatenate([UP[:31], UP[30:20:-1]])
    video = paint(tmp_path / "view.mkv", up_and_down)
    marks = annotations(tmp_path / "marks.json", [10, 20, 30, 40], key)
    critic, out = save(tmp_path / "critic", "value"), tmp_path / "out"
    told = (f"critic={critic}", f"video={video}", "instruction=go", "rate_hz=10", f"keyframes={marks}", f"out={out}")
    run(*told)
    agreed = scores(out)["keyframes"]
    assert [end["annotation"] for end in agreed["ends"]] == ["subtask1", "subtask2", "subtask3", "subtask4"]
    assert [end["end_s"] for end in agreed["ends"]] == pytest.approx([1.0, 2.0, 3.0, 4.0])
    assert [end["value"] for end in agreed["ends"]] == pytest.approx([0.25, 0.5, 0.75, 0.525], abs=0.003)
    assert agreed["rising"] == pytest.approx(2 / 3) and agreed["judged"] == 4
    assert agreed["rank_correlation"] == pytest.approx(0.8)
    run(*told, "start_s=1.5", "end_s=3.5")
    assert [end["end_s"] for end in scores(out)["keyframes"]["ends"]] == pytest.approx([2.0, 3.0])


def test_annotations_that_do_not_fit(tmp_path):
    video = paint(tmp_path / "view.mkv", UP)
    told = (f"critic={save(tmp_path / 'critic', 'value')}", f"video={video}", "instruction=go", f"out={tmp_path / 'o'}")
    marks = annotations(tmp_path / "marks.json", [10, 90])
    with pytest.raises(RobolearnError, match="subtask2 is of frames 10 to 90, the video has 41"):
        run(*told, f"keyframes={marks}")
    marks.write_text('[{"annotation": "grasp", "start_frame_id": 3}]')
    with pytest.raises(RobolearnError, match='needs annotation, start_frame_id and end_frame_id, got {"annotation"'):
        run(*told, f"keyframes={marks}")
    for text, complaint in (("[]", "no list of subtasks"), ("{", "cannot be read")):
        marks.write_text(text)
        with pytest.raises(RobolearnError, match=complaint):
            run(*told, f"keyframes={marks}")
    assert not (tmp_path / "o").exists()


def test_paraphrases_of_an_instruction_show_its_spread(tmp_path, videos):
    texts = tmp_path / "instruction.json"
    texts.write_text(json.dumps(["clear the table", "go half way", "clear the table"]))
    critic, out = save(tmp_path / "critic", "value"), tmp_path / "out"
    told = (f"critic={critic}", f"video={videos.split(',')[0]}", f"instruction={texts}", "rate_hz=10", f"out={out}")
    run(*told)
    found = scores(out)
    assert found["instruction"] == "clear the table" and found["end"] == pytest.approx(1.0)
    assert found["paraphrases"]["go half way"]["end"] == pytest.approx(0.5)
    assert found["paraphrase_spread"] == pytest.approx(0.25, abs=0.003)
    run(*told, "paraphrases=false")
    assert scores(out)["paraphrase_spread"] is None


@pytest.mark.parametrize("text", ["", "   ", "[]", '[""]', "{}"])
def test_an_instruction_that_says_nothing(tmp_path, videos, text):
    given = text
    if text.startswith(("[", "{")):
        (tmp_path / "i.json").write_text(text)
        given = str(tmp_path / "i.json")
    with pytest.raises(RobolearnError, match="instruction '.*' is empty or no list of texts"):
        run("critic=random_init", f"video={videos}", f"instruction={given}")


def test_instructions_and_paths_are_taken_as_they_are():
    hard = 'put the red cube, don\'t drop it: 50% {of} it = "done" \\'
    options = settings.parse(
        critic_score.Options,
        [quoted(f"instruction={hard}"), quoted("video=a b.mp4,x=c,d"), quoted("critic=http://h:1/v1"), "abstain=0.5"],
    )
    assert options.instruction == hard
    assert options.video == ["a b.mp4", "x=c", "d"] and options.critic == "http://h:1/v1"
    assert options.abstain == 0.5


def test_deltas_are_fused_with_the_anchors_of_a_reference(tmp_path):
    reference = tmp_path / "success"
    reference.mkdir()
    paint(reference / "view.mkv", np.linspace(0, 1, 21))
    video = paint(tmp_path / "view.mkv", 0.6 * UP)
    critic, out = save(tmp_path / "critic", "value", "delta"), tmp_path / "out"
    told = (f"critic={critic}", f"video={video}", "instruction=go up", "rate_hz=10", f"out={out}")
    run(*told, f"reference={reference}")
    found = scores(out)
    assert found["progress_from"] == "delta"
    np.testing.assert_allclose(found["per_moment"]["value"], 0.6 * UP, atol=0.01)
    run(*told, f"reference={reference / 'view.mkv'}", "rule=chain")
    np.testing.assert_allclose(scores(out)["per_moment"]["value"], 0.6 * UP, atol=0.01)
    run(*told, "capability=delta")
    assert scores(out)["end"] == pytest.approx(0.6, abs=0.01)
    with pytest.raises(RobolearnError, match=r"success has no other\.mkv for view other; it holds view\.mkv"):
        other = paint(tmp_path / "other.mkv", UP)
        run(*told[:1], f"video={video},{other}", *told[2:], f"reference={reference}")
    with pytest.raises(RobolearnError, match="in_context=true needs reference="):
        run(*told, "in_context=true")


def test_scores_have_no_scale_until_a_goal_gives_one(tmp_path):
    video = paint(tmp_path / "view.mkv", 0.2 + 0.6 * UP)
    success = paint(tmp_path / "success.mkv", UP)
    critic, out = save(tmp_path / "critic", "score"), tmp_path / "out"
    told = (f"critic={critic}", f"video={video}", "instruction=go up", "rate_hz=10", f"out={out}")
    run(*told)
    found = scores(out)
    assert "its scores have no scale" in found["verdict"]
    np.testing.assert_allclose(found["per_moment"]["value"], 1.2 * UP, atol=0.02)
    for more in ("goal=5", f"reference={success}"):
        run(*told, more)
        found = scores(out)
        assert "no scale" not in found["verdict"]
        np.testing.assert_allclose(found["per_moment"]["value"], 0.6 * UP / 0.8, atol=0.01)


def test_a_critic_that_only_tells_what_is_done(tmp_path):
    critic, out = save(tmp_path / "critic", "done"), tmp_path / "out"
    video = paint(tmp_path / "view.mkv", UP)
    run(f"critic={critic}", f"video={video}", "instruction=go up", "rate_hz=10", f"out={out}")
    found = scores(out)
    assert found["progress_from"] == "done" and found["done"] is None and found["end"] == 1.0
    with pytest.raises(RobolearnError, match="critic 'painted' cannot value; it can: done"):
        run(f"critic={critic}", "video=missing.mp4", "instruction=go up", "capability=value")


def test_the_rate_follows_the_window_of_the_critic(tmp_path):
    critic, out = save(tmp_path / "critic", "value", window=(4, 0.25)), tmp_path / "out"
    told = (f"critic={critic}", f"video={paint(tmp_path / 'view.mkv', UP)}", "instruction=go", f"out={out}")
    run(*told)
    np.testing.assert_allclose(np.diff(scores(out)["per_moment"]["time_s"]), 0.25)
    run(*told, "rate_hz=8")
    assert scores(out)["moments"] == 33
    with pytest.raises(RobolearnError, match=r"pictures 0\.25 s apart: rate_hz must be a multiple of 4, got 3"):
        run(*told, "rate_hz=3")


def test_ctrl_c_leaves_no_half_file(tmp_path, videos, monkeypatch):
    critic, out = save(tmp_path / "critic", "value"), tmp_path / "out"
    told = (f"critic={critic}", f"video={videos}", f"out={out}")
    with pytest.raises(KeyboardInterrupt):
        run(*told, "instruction=stop here", drawn=True)
    assert not out.exists()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("robolearn.critic_film._Drawing.frame", _interrupted)
        run(*told, "instruction=go", drawn=True)
    assert sorted(path.name for path in out.iterdir()) == ["scores.json", "scores.png"]


def test_an_output_folder_that_cannot_be_made(tmp_path, videos):
    (tmp_path / "file").write_text("")
    with pytest.raises(RobolearnError, match="cannot write to .*file/out: Not a directory"):
        run("critic=random_init", f"video={videos}", "instruction=go", f"out={tmp_path / 'file' / 'out'}")


def test_what_stays_of_an_earlier_scoring_goes(tmp_path, videos):
    told = ("critic=random_init", f"video={videos}", "instruction=go", f"out={tmp_path / 'out'}", "rate_hz=2")
    run(*told, "film_fps=2", drawn=True)
    run(*told)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scores.json"]


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        ("fallback=distilled", "unknown fallback 'distilled'.*drop, hold"),
        ("abstain=3", "abstain is a confidence from 0 to 1, got 3"),
        ("film_fps=0", "film_fps must be above 0, got 0"),
        ("fuse=both", "unknown view fusion 'both'"),
        ("capability=valu", "unknown judgement 'valu'; did you mean 'value'"),
        ("rule=mean_", "unknown fusion form 'mean_'; did you mean 'mean'"),
        ("size=[16]", r"size is \[height, width\] in pixels, got \[16\]"),
        ("max_frames=3", "more than 3 moments at 5 Hz; lower rate_hz, or set end_s"),
        ("capability=plan", "critic 'random_init' cannot plan"),
    ],
)
def test_mistakes_are_one_line(tmp_path, videos, wrong, complaint):
    with pytest.raises(RobolearnError, match=complaint) as caught:
        run("critic=random_init", f"video={videos}", "instruction=go", f"out={tmp_path / 'out'}", wrong)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_tiny_clip_scores_a_recording(tmp_path, videos):
    pytest.importorskip("transformers")
    from tests.vlm_rewards.tiny_encoders import save_clip

    out = tmp_path / "out"
    told = (f"video={videos}", "instruction=put the can on the pad", f"out={out}", "settings.alpha=0.2")
    run(f"critic={save_clip(tmp_path / 'clip')}", *told)
    found = scores(out)
    assert found["progress_from"] == "score" and found["per_moment"]["value"][0] == 0.0
    assert found["per_moment"]["valid"] == [True] * 21


def test_a_tiny_vision_language_model_is_shown_a_reference(tmp_path):
    pytest.importorskip("transformers")
    from tests.vlm_rewards.tiny_vlm import tiny_qwen

    video, success = paint(tmp_path / "view.mkv", UP[:11]), paint(tmp_path / "success.mkv", UP)
    out = tmp_path / "out"
    told = (f"video={video}", "instruction=go up", f"out={out}", "rate_hz=2", "settings.least_mass=0", "abstain=0")
    model = f"critic={tiny_qwen(tmp_path / 'qwen')}"
    run(model, *told)
    revision = scores(out)["critic"]["revision"]
    run(model, *told, f"reference={success}", "in_context=true")
    found = scores(out)
    assert found["critic"]["revision"] != revision and all(found["per_moment"]["valid"])


@pytest.fixture
def episode() -> Path:
    folder = SHARED / "real_episodes" / "episode_001"
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {SHARED}; set ROBOLEARN_SHARED_DATA to where they are")
    return folder


def test_a_real_recording_of_three_views(tmp_path, episode):
    cameras = ("cam_high", "cam_left_wrist", "cam_right_wrist")
    out = tmp_path / "out"
    run(
        "critic=random_init",
        f"video={','.join(str(episode / f'{camera}.mp4') for camera in cameras)}",
        f"instruction={episode.parent / 'task_instruction.json'}",
        f"keyframes={episode / 'annotated_keyframes.json'}",
        "rate_hz=1",
        "size=[48,64]",
        f"out={out}",
    )
    found = scores(out)
    assert found["instruction"] == "clean the table" and len(found["paraphrases"]) == 4
    assert [(view["pictures"], view["size"]) for view in found["recording"]["views"]] == [(1277, [480, 640])] * 3
    assert found["moments"] == 43 and found["views"].keys() == set(cameras)
    assert len(found["keyframes"]["ends"]) == 16
    assert found["keyframes"]["ends"][-1]["end_s"] == pytest.approx(1263 / 30)
    assert "it cannot say whether it knows such pictures" in found["verdict"]


def test_elapsed_time_agrees_with_every_annotation_without_looking(tmp_path, episode):
    out = tmp_path / "out"
    run(
        "critic=elapsed_time",
        "settings.horizon_s=42.5",
        f"video={episode / 'cam_high.mp4'}",
        "instruction=clean the table",
        f"keyframes={episode / 'annotated_keyframes.json'}",
        "rate_hz=2",
        "size=[24,32]",
        f"out={out}",
    )
    found = scores(out)
    assert found["voc"] == pytest.approx(1.0) and found["keyframes"]["rank_correlation"] == pytest.approx(1.0)
    assert found["done"]["first_at_s"] == pytest.approx(42.5)
    assert torch.tensor(found["per_moment"]["value"]).diff().min() > 0
