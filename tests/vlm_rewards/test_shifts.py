"""Shifts that are made from recordings, and the readings of what they change."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.vlm_rewards.encoded import Comparing, Oracle, encoded_clips
from vlm_rewards.clips import ClipSet
from vlm_rewards.critic import Critic, Window
from vlm_rewards.errors import CriticError
from vlm_rewards.readings import latency_ms, moments_of, read
from vlm_rewards.shifts import SWAPPED, first_of_each_mode, made_shifts, reversed_clips, reworded, swapped


def test_a_reversed_clip_runs_backwards_while_its_clock_runs_on():
    clips = encoded_clips(2)
    back = reversed_clips(clips)
    forward, turned = clips[0], back[0]
    assert turned.rgb.equal(forward.rgb.flip(0)) and turned.progress.equal(forward.progress.flip(0))
    assert turned.times[0] == forward.times[0] and bool((turned.times.diff() > 0).all())
    assert turned.facts["state"].equal(forward.facts["state"].flip(0))


def test_a_swapped_success_is_not_done_and_progresses_as_the_facts_say():
    clips = encoded_clips(2)
    other = swapped(clips)
    assert other is not None and set(other.modes) == {SWAPPED} and len(other) == 2
    assert other.instructions == [clips.others[e][0] for e in (0, 1)]
    assert not bool(other.done.any()) and bool(other.progress.isnan().all())
    told = ClipSet([replace(clips[0], facts={"progress_other": torch.full((len(clips[0]), 1), 0.25)})])
    known = swapped(told)
    assert known is not None and set(known.progress.tolist()) == {0.25}
    assert swapped(clips.subset(clips.of_mode("miss"))) is None


def test_a_clip_that_runs_on_holds_its_last_picture():
    clips = encoded_clips(1)
    shifts = {shift.name: shift for shift in made_shifts(Oracle(), clips)}
    long, short = shifts["runs on"].clips[0], clips[0]
    assert len(long) == len(short) + round(0.5 * len(short))
    assert bool((long.rgb[len(short) :] == short.rgb[-1]).all()) and long.success
    assert torch.allclose(long.times.diff(), torch.tensor(0.2, dtype=torch.float64))


def test_views_are_left_out_as_the_critic_can_bear_it():
    clips = encoded_clips(1)
    frames = moments_of(clips, Window(), torch.arange(3))
    needy = {shift.name: shift for shift in made_shifts(Oracle(), clips)}["wrist view alone"]
    free = {shift.name: shift for shift in made_shifts(Comparing(), clips)}["wrist view alone"]
    assert needy.alter is not None and free.alter is not None
    assert needy.alter(frames).cameras == ("front", "wrist") and not bool(needy.alter(frames).rgb[:, :, 0].any())
    assert free.alter(frames).cameras == ("wrist",)


def test_other_words_mean_the_same():
    assert reworded("Put the red cube on the white pad") == "please place the red cube onto the white pad"
    assert reworded("reach the blue ball") == "please go to the blue ball"
    clips = encoded_clips(1)
    told = {clips.instructions[0]: ("get it there", "or so")}
    shift = made_shifts(Oracle(), clips, told)[-1]
    assert shift.name == "paraphrase" and shift.clips.instructions[0] == "get it there"
    assert clips.instructions[0] in told  # the set itself is as it was


def test_so_many_of_each_mode_and_no_copy_where_that_is_all():
    clips = encoded_clips(3)
    few = first_of_each_mode(clips, 2)
    assert {mode: few.modes.count(mode) for mode in set(few.modes)} == dict.fromkeys(set(clips.modes), 2)
    assert first_of_each_mode(clips, 3) is clips


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_readings_do_not_depend_on_how_many_are_asked_at_once(batch):
    clips = encoded_clips(2)
    said = read(Oracle(), clips, batch)
    assert said.progress is not None and said.done is not None
    assert torch.allclose(torch.from_numpy(said.progress).float(), clips.progress, atol=0.003)
    assert ((said.done > 0.5) == clips.done.numpy()).all() and said.source == "value"


def test_moments_come_in_the_order_asked_for():
    clips = encoded_clips(2)
    rows = torch.tensor([30, 2, 17, 2])
    frames = moments_of(clips, Window(2, 0.2), rows)
    assert frames.newest.equal(clips.rgb[rows]) and frames.stamps.equal(clips.times[rows])
    assert frames.rgb[1, 0].equal(clips.rgb[1])


def test_timing_is_for_each_moment():
    found = latency_ms(Oracle(), encoded_clips(1), 64, calls=5)
    assert 0.0 < found["p50_ms"] <= found["p95_ms"] and found["calls"] == 5


def test_a_critic_that_can_do_nothing_is_refused():
    with pytest.raises(CriticError, match="neither value, delta, score nor done"):
        read(Critic(), encoded_clips(1))
