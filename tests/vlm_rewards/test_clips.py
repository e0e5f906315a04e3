"""Sets of recorded episodes: packed, kept and read."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.vlm_rewards.brightness import pictures, recording
from vlm_rewards.anchors import Reference, moments
from vlm_rewards.clips import Clip, ClipSet, time_labelled
from vlm_rewards.critic import Window
from vlm_rewards.errors import CriticError


def some() -> ClipSet:
    one = replace(recording([0.0, 0.5, 1.0]), others=("leave it dark",), facts={"proprioception": torch.ones(3, 2)})
    two = replace(recording([0.0, 0.25], mode="stall"), facts={"proprioception": torch.zeros(2, 2)})
    return ClipSet([one, two])


def same(a: Clip, b: Clip) -> bool:
    tensors = all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("rgb", "times", "progress", "done"))
    words = (a.cameras, a.instruction, a.mode, a.others) == (b.cameras, b.instruction, b.mode, b.others)
    facts = a.facts.keys() == b.facts.keys() and all(torch.equal(a.facts[name], b.facts[name]) for name in a.facts)
    return tensors and words and facts


def test_clips_come_out_as_they_went_in(tmp_path):
    clips = some()
    clips.save(tmp_path / "set")
    read = ClipSet.load(tmp_path / "set")
    assert len(read) == 2 and read.num_frames == 5
    for e in range(2):
        assert same(clips[e], read[e])
    assert [clip.mode for clip in read] == ["expert", "stall"]
    assert same(read[-1], clips[1])
    assert read.episode().tolist() == [0, 0, 0, 1, 1]
    assert read.of_mode("stall") == [1] and read[0].success and not read[1].success
    assert same(read.subset([1])[0], clips[1])
    with pytest.raises(IndexError):
        read[2]


def test_time_labels_know_nothing_but_the_time():
    clips = ClipSet([replace(recording([0.0] * 21), others=("leave it dark",), facts={"state": torch.ones(21, 2)})])
    timed = time_labelled(clips)[0]
    torch.testing.assert_close(timed.progress, torch.arange(21) / 20)
    assert timed.done.tolist() == [False] * 18 + [True] * 3
    assert not timed.facts and timed.others == ("leave it dark",) and torch.equal(timed.rgb, clips[0].rgb)
    assert not clips[0].done.any()


def test_saving_again_replaces_the_set(tmp_path):
    some().save(tmp_path)
    some().subset([1]).save(tmp_path)
    assert len(ClipSet.load(tmp_path)) == 1


def test_clips_that_do_not_go_together_are_refused():
    with pytest.raises(CriticError, match="at least one"):
        ClipSet([])
    with pytest.raises(CriticError, match="do not go with"):
        ClipSet([recording([0.0]), recording([0.0], cameras=("wrist",))])
    with pytest.raises(CriticError, match="do not go with"):
        ClipSet([recording([0.0]), replace(recording([0.0]), rgb=torch.zeros(1, 1, 8, 8, 3, dtype=torch.uint8))])


@pytest.mark.parametrize(
    "parts",
    [
        {"times": torch.zeros(2)},
        {"progress": torch.zeros(4)},
        {"done": torch.zeros(1, dtype=torch.bool)},
        {"facts": {"state": torch.zeros(2, 1)}},
        {"rgb": torch.zeros(3, 1, 4, 4, 3)},
        {"rgb": torch.zeros(3, 2, 4, 4, 3, dtype=torch.uint8)},
        {"rgb": torch.zeros(0, 1, 4, 4, 3, dtype=torch.uint8)},
    ],
)
def test_a_clip_whose_parts_do_not_fit_is_refused(parts):
    with pytest.raises(CriticError):
        ClipSet([replace(recording([0.0, 0.5, 1.0]), **parts)])


@pytest.mark.parametrize("name", ["clips.json", "rgb.npy", "starts.npy", "fact_proprioception.npy"])
@pytest.mark.parametrize("harm", ["missing", "empty", "cut"])
def test_a_damaged_folder_is_reported(tmp_path, name, harm):
    some().save(tmp_path)
    file = tmp_path / name
    data = file.read_bytes()
    file.unlink()
    if harm != "missing":
        file.write_bytes(b"" if harm == "empty" else data[:-5])
    with pytest.raises(CriticError, match=str(tmp_path)):
        ClipSet.load(tmp_path)


def test_arrays_that_do_not_fit_together_are_reported(tmp_path):
    some().save(tmp_path)
    np.save(tmp_path / "starts.npy", np.array([0, 4, 3]))
    np.save(tmp_path / "done.npy", np.zeros(7, bool))
    with pytest.raises(CriticError, match="done has 7 rows for 5 frames; starts do not cut"):
        ClipSet.load(tmp_path)


def test_a_pickled_array_is_not_read(tmp_path):
    some().save(tmp_path)
    np.save(tmp_path / "done.npy", np.array([{}] * 5, dtype=object), allow_pickle=True)
    with pytest.raises(CriticError):
        ClipSet.load(tmp_path)


def test_another_format_is_reported(tmp_path):
    some().save(tmp_path)
    described = json.loads((tmp_path / "clips.json").read_text())
    (tmp_path / "clips.json").write_text(json.dumps(described | {"format": 9}))
    with pytest.raises(CriticError, match="format 9"):
        ClipSet.load(tmp_path)


def test_a_set_that_was_not_written_whole_cannot_be_read(tmp_path, monkeypatch):
    some().save(tmp_path)

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError):
        some().save(tmp_path)
    with pytest.raises(CriticError):
        ClipSet.load(tmp_path)


def test_moments_of_a_clip_have_the_pictures_that_came_before():
    clip = recording([0.0, 0.1, 0.2, 0.3, 0.4])  # one picture a second
    assert moments(clip, Window()).rgb.shape[:2] == (5, 1)
    seen = moments(clip, Window(3, 2.0), torch.tensor([4, 3, 0]))
    assert seen.newest[:, 0, 0, 0, 0].tolist() == [80, 60, 0]
    assert seen.rgb[:, :, 0, 0, 0, 0].tolist() == [[0, 40, 80], [0, 20, 60], [0, 0, 0]]
    assert seen.stamps.tolist() == [4.0, 3.0, 0.0]
    # Between two pictures the older one counts: the newer one was not there yet.
    assert moments(clip, Window(2, 1.5), torch.tensor([4])).rgb[0, 0, 0, 0, 0, 0] == 40


def test_a_reference_ends_where_the_task_is_done():
    clip = recording([0.0, 0.3, 0.6, 1.0, 1.0, 1.0])
    reference = Reference.of(clip, anchors=(0.5,))
    assert len(reference) == 2
    assert reference.progress.tolist() == pytest.approx([0.6, 1.0])
    assert reference.frames.stamps.tolist() == [2.0, 3.0]
    assert torch.equal(reference.goal.newest, pictures([1.0]).newest)


def test_a_reference_of_unknown_progress_counts_time():
    clip = recording([0.0, 0.1, 0.2, 0.3, 1.0])
    clip = replace(clip, progress=torch.full((5,), torch.nan))
    reference = Reference.of(clip, anchors=(0.25, 0.5))
    assert reference.progress.tolist() == pytest.approx([0.25, 0.5, 1.0])


def test_a_reference_is_a_success():
    with pytest.raises(CriticError, match="stall.* is none"):
        Reference.of(recording([0.0, 0.5], mode="stall"))
    with pytest.raises(CriticError, match="between 0 and 1"):
        Reference.of(recording([0.0, 1.0]), anchors=(1.5,))
