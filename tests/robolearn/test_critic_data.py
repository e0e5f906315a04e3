"""Simulated episodes for critics: as many as asked for, of the kinds asked for, and every label the simulator's own."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from robolearn.critic_data import CAMERAS, HORIZON_S, SAME_COLOR, SHIFTS, TAIL, DataError, Recipe, collect, even_counts
from robolearn.errors import RobolearnError
from sim.experts.arm import MODES
from sim.opengl import RenderError
from sim.tasks import make_env
from sim.tasks.arm_things import COLORS, HELDOUT, SHAPES
from vlm_rewards.clips import ClipSet

COUNTS = {"expert": 4, "miss": 2, "drop": 2, "run_on": 2, "wrong_goal": 2, "wrong_object": 3, SAME_COLOR: 3}
RECIPE = Recipe("arm_pick_place", COUNTS, seed=3, size=48)


def made(recipe: Recipe) -> ClipSet:
    try:
        return collect(recipe, threads=1)
    except RenderError as error:
        pytest.skip(f"this machine cannot render: {error}")


@pytest.fixture(scope="module")
def clips() -> ClipSet:
    return made(RECIPE)


def thing(text: str) -> tuple[str, str]:
    """Colour and shape that an instruction names."""
    words = text.split()
    return next((a, b) for a, b in zip(words, words[1:], strict=False) if a in COLORS and b in SHAPES)


def test_there_are_as_many_of_each_mode_as_asked_for_in_an_order_that_says_nothing(clips) -> None:
    assert Counter(clips.modes) == COUNTS
    assert clips.modes != sorted(clips.modes) and clips.cameras == CAMERAS
    assert clips.rgb.shape[1:] == (2, 48, 48, 3) and clips.rgb.dtype == torch.uint8
    assert all(len(clips[e].rgb.flatten(1).unique(dim=0)) > 5 for e in range(len(clips)))  # they move


def test_lengths_and_times(clips) -> None:
    frames = round(10 * HORIZON_S) // 2 + 1
    for e in range(len(clips)):
        clip = clips[e]
        assert torch.allclose(clip.times, 0.2 * torch.arange(len(clip)).double())
        if clip.mode == "expert":
            rest = len(clip) - 1 - int(clip.done.nonzero()[0])
            assert TAIL[0] <= rest <= TAIL[1] or len(clip) == frames
        elif clip.mode == "run_on":
            assert len(clip) == frames
        else:
            assert 2 * frames // 3 <= len(clip) <= frames


def test_modes_are_what_their_labels_say(clips) -> None:
    for e in range(len(clips)):
        clip = clips[e]
        assert ((clip.progress >= 0) & (clip.progress <= 1)).all() and torch.equal(clip.progress == 1, clip.done)
        if clip.mode == "expert":
            assert clip.success and clip.progress[0] < 0.4
        elif clip.mode == "run_on":
            assert clip.done.any() and not clip.success
        else:
            assert not clip.done.any()
        other_done = clip.facts["done_other"][:, 0] > 0.5
        assert torch.equal(clip.facts["progress_other"][:, 0] == 1, other_done)
        assert other_done.any() == (clip.mode in ("wrong_object", SAME_COLOR))


def test_the_other_instruction_names_the_other_object(clips) -> None:
    for e in range(len(clips)):
        clip = clips[e]
        (other,) = clip.others
        mine, theirs = thing(clip.instruction), thing(other)
        assert mine != theirs and clip.instruction.replace(" ".join(mine), "") == other.replace(" ".join(theirs), "")
        assert mine not in HELDOUT and theirs not in HELDOUT
        if clip.mode == SAME_COLOR:
            assert mine[0] == theirs[0] and mine[1] != theirs[1]
        elif clip.mode == "wrong_object":
            assert mine[0] != theirs[0]


def test_relabelled_episodes_are_those_of_a_scene_where_the_other_object_is_named() -> None:
    """What is said of the other object is what the environment says when it is the one that is named."""
    env = make_env("arm_pick_place", 12, seed=2, ends="never")
    assignment = env.task.randomizers["assignment"]
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        env.step(torch.rand(12, 4, generator=generator) * 2 - 1)
    c = env.channels
    before = {name: c[name].clone() for name in ("progress", "done", "progress_other", "done_other")}
    asked, other = env.instructions(), assignment.instructions(other=True)
    assignment.named.copy_(1 - assignment.named)
    env._senses.read()
    c = env.channels
    assert env.instructions() == other and assignment.instructions(other=True) == asked
    for name in ("progress", "done"):
        assert torch.equal(c[name], before[f"{name}_other"]) and torch.equal(c[f"{name}_other"], before[name])
    assert not torch.equal(before["progress"], before["progress_other"])


def test_facts_say_what_the_simulation_knows(clips) -> None:
    frames = clips.num_frames
    env = make_env("arm_pick_place", 1)
    state = env.observation_dims["critic"]
    sizes = {"proprioception": 11, "state": state, "progress_other": 1, "done_other": 1}
    sizes |= {f"pixel_{name}": 4 for name in ("named", "other", "goal")}
    assert {name: tuple(value.shape) for name, value in clips.facts.items()} == {
        name: (frames, size) for name, size in sizes.items()
    }
    finger = clips.facts["proprioception"][:, 7]
    assert -1e-3 < finger.min() < 0.03 and finger.max() < 0.041


def near(picture: torch.Tensor, place: torch.Tensor, color: str) -> bool:
    """Whether a pixel around ``place`` (2,) in [0, 1] has the hue of ``color``."""
    size = picture.shape[0]
    x, y = (place * size).long().clamp(1, size - 2).tolist()
    patch = picture[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).float()
    directions = torch.nn.functional.normalize(torch.tensor(list(COLORS.values())), dim=1)
    nearest = (torch.nn.functional.normalize(patch, dim=1) @ directions.T).argmax(1)
    saturated = patch.amax(1) - patch.amin(1) > 60
    return bool((saturated & (nearest == list(COLORS).index(color))).any())


def found(clips: ClipSet, fact: str, view: int) -> float:
    """Share of the pictures in which the pixel of ``fact`` shows the object's colour, or nothing where it is hidden."""
    hits, total = 0, 0
    for e in range(len(clips)):
        clip = clips[e]
        color, _ = thing(clip.instruction if fact == "pixel_named" else clip.others[0])
        for rgb, place in zip(clip.rgb[::4, view], clip.facts[fact][::4, 2 * view : 2 * view + 2], strict=True):
            if torch.isfinite(place).all():
                assert ((place >= 0) & (place <= 1)).all()
                hits, total = hits + near(rgb, place, color), total + 1
    assert total > 30
    return hits / total


def test_pixels_are_where_the_objects_colours_are(clips) -> None:
    for fact in ("pixel_named", "pixel_other"):
        assert found(clips, fact, 0) > 0.8  # the arm hides some
        assert found(clips, fact, 1) > 0.8
    swapped = clips.subset(range(len(clips)))
    swapped.facts["pixel_named"] = clips.facts["pixel_other"]
    assert found(swapped, "pixel_named", 0) < 0.6  # it is not that colours are everywhere


def test_pixels_follow_cameras_that_are_moved() -> None:
    moved = {"camera_position": [0.05, 0.1], "camera_rotation": [0.1, 0.2]}
    recipe = Recipe("arm_pick_place", {"expert": 6}, seed=1, size=48, settings={"randomize": moved})
    clips = made(recipe)
    assert found(clips, "pixel_named", 0) > 0.7
    for name, randomize in SHIFTS.items():
        shifted = made(Recipe("arm_reach", {"expert": 2}, seed=1, size=16, settings={"randomize": randomize}))
        assert len(shifted) == 2, name


def test_one_seed_is_one_set_bit_for_bit_and_another_is_another() -> None:
    counts = {"expert": 2, "random": 1, SAME_COLOR: 1}
    first, again, other = (made(Recipe("arm_reach", counts, seed=seed, size=16)) for seed in (4, 4, 5))
    assert again.instructions == first.instructions and again.modes == first.modes and again.others == first.others
    for name in ("rgb", "times", "progress", "done", "starts"):
        assert torch.equal(getattr(again, name), getattr(first, name)), name
    for name, value in first.facts.items():
        assert np.array_equal(value.numpy(), again.facts[name].numpy(), equal_nan=True), name
    assert other.instructions != first.instructions and not torch.equal(other.rgb[:5], first.rgb[:5])


def test_held_out_pairs_and_paraphrases_are_settings() -> None:
    counts = {"expert": 2, "wrong_object": 2}
    clips = made(Recipe("arm_reach", counts, seed=1, size=16, settings={"pairs": "heldout", "paraphrase": True}))
    assert all(thing(text) in HELDOUT for text in clips.instructions)
    assert all(text.startswith(("bring the hand", "reach out")) for text in clips.instructions)


def test_a_set_larger_than_one_round_is_made_in_several(monkeypatch) -> None:
    monkeypatch.setattr("robolearn.critic_data.WORLDS", 8)
    monkeypatch.setattr("robolearn.critic_data.LEFTOVER", 4)
    said: list[str] = []
    counts = {"expert": 9, "random": 5, "hover": 5}
    clips = collect(Recipe("arm_reach", counts, seed=2, size=8), threads=1, say=said.append)
    assert Counter(clips.modes) == counts and said[-1] == "19 of 19 episodes" and len(said) > 2
    states = clips.facts["state"][clips.starts[:-1]]
    assert len(states.unique(dim=0)) == 19  # no two begin alike


def test_even_counts_are_even() -> None:
    counts = even_counts("arm_push", 3, experts=5)
    assert set(counts) == {*MODES["arm_push"], SAME_COLOR}
    assert counts.pop("expert") == 5 and set(counts.values()) == {3}
    assert even_counts("arm_reach", 2)["expert"] == 2


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe("arm_pul", {"expert": 1}), "unknown task with scripts 'arm_pul'; did you mean 'arm_pu"),
        (Recipe("g1_walk", {"expert": 1}), "unknown task with scripts 'g1_walk'"),
        (Recipe("arm_push", {"mis": 1}), "unknown mode of arm_push 'mis'; did you mean 'miss'"),
        (Recipe("arm_reach", {"drop": 1}), "unknown mode of arm_reach 'drop'"),
        (Recipe("arm_push", {"expert": -1}), "0 or more, got -1 of expert"),
        (Recipe("arm_push", {"expert": 0}), "asks for no episodes"),
        (Recipe("arm_push", {}), "asks for no episodes"),
        (Recipe("arm_push", {"expert": 1}, every=0), "every must be at least 1 control step, got 0"),
        (Recipe("arm_push", {"expert": 1}, size=0), "between 1 and"),
        (Recipe("arm_push", {"expert": 1}, noise=-0.1), "noise must be 0 or more, in units of action, got -0.1"),
        (Recipe("arm_push", {"expert": 1}, settings={"pears": 1}), "did you mean 'arm_push.pairs'"),
        (Recipe("arm_push", {SAME_COLOR: 1}, settings={"shapes": ["cube"]}), "distinct needs two shapes"),
    ],
)
def test_impossible_recipes_are_refused(recipe: Recipe, message: str) -> None:
    with pytest.raises(RobolearnError, match=message):
        collect(recipe, threads=1)
    with pytest.raises(DataError, match="0 or more, got -2 and None"):
        even_counts("arm_push", -2)


def test_scripts_that_do_not_do_what_they_should_are_named(monkeypatch) -> None:
    monkeypatch.setattr("robolearn.critic_data.LAST_ROUND", 1)
    with pytest.raises(
        DataError, match="arm_pick_place: the scripts did not make enough episodes; missing: .* of expert"
    ):
        collect(Recipe("arm_pick_place", {"expert": 3}, size=8, settings={"axes": ["x"]}), threads=1)
