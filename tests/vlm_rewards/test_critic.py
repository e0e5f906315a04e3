"""The interface of critics: what may be asked, what is refused, and what an answer says of itself."""

from __future__ import annotations

import time

import pytest
import torch

from robolearn.errors import RobolearnError
from tests.vlm_rewards.brightness import TASK, Brightness, pictures, tasks
from vlm_rewards.answer import Answer
from vlm_rewards.critic import Capability, Critic, Judged, Window
from vlm_rewards.errors import CriticError, MissingCapability
from vlm_rewards.frames import Frames
from vlm_rewards.pictures import resized
from vlm_rewards.registry import load_critic, read_description, write_description

NAN = float("nan")
ONE_MOMENT = ("score", "done", "plan")
TWO_MOMENTS = ("delta", "prefer", "value")


class Saying(Critic):
    """Says what it is told to."""

    name = "saying"
    revision = "1"
    capabilities = frozenset(Capability)

    def __init__(self, values: list[float], confidence: list[float] | None = None, pause_s: float = 0.0) -> None:
        self.told = Judged(torch.tensor(values), None if confidence is None else torch.tensor(confidence))
        self.pause_s = pause_s

    def _score(self, now, instructions):
        time.sleep(self.pause_s)
        return self.told

    def _done(self, now, instructions):
        return self.told

    def _delta(self, before, after, instructions):
        return self.told


def ask(critic: Critic, capability: str, frames: Frames, instructions: list[str]) -> object:
    seen = (frames,) if capability in ONE_MOMENT else (frames, frames)
    return getattr(critic, capability)(*seen, instructions)


def answer(values: list[float], stamps: list[float] | None = None, confidence: list[float] | None = None) -> Answer:
    times = torch.zeros(len(values)) if stamps is None else torch.tensor(stamps)
    return Answer.of(torch.tensor(values), times, "r", 0.0, None if confidence is None else torch.tensor(confidence))


# Frames


@pytest.mark.parametrize(
    ("rgb", "what"),
    [
        (torch.zeros(2, 1, 1, 4, 4, 3), "float32"),
        (torch.zeros(2, 1, 4, 4, 3, dtype=torch.uint8), r"\(2, 1, 4, 4, 3\)"),
        (torch.zeros(2, 1, 1, 3, 4, 4, dtype=torch.uint8), "uint8"),
        (torch.zeros(2, 1, 1, 0, 4, 3, dtype=torch.uint8), "empty"),
        (torch.zeros(2, 0, 1, 4, 4, 3, dtype=torch.uint8), "empty"),
        (torch.zeros(2, 1, 2, 4, 4, 3, dtype=torch.uint8), "2 cameras"),
        (torch.zeros(3, 1, 1, 4, 4, 3, dtype=torch.uint8), "3 moments"),
    ],
)
def test_frames_of_another_shape_or_type_are_refused(rgb, what):
    with pytest.raises(CriticError, match=what):
        Frames(rgb, ("front",), torch.zeros(2))


def test_frames_that_name_a_camera_twice_are_refused():
    with pytest.raises(CriticError, match="twice"):
        Frames(torch.zeros(1, 1, 2, 4, 4, 3, dtype=torch.uint8), ("front", "front"), torch.zeros(1))


def test_frames_are_chosen_by_camera_row_and_age():
    frames = pictures(torch.tensor([[0.1, 0.2], [0.3, 0.4]]), ("front", "wrist"))
    swapped = frames.of(("wrist", "front"))
    assert torch.equal(swapped.rgb[:, :, 0], frames.rgb[:, :, 1])
    assert torch.equal(swapped.rgb[:, :, 1], frames.rgb[:, :, 0])
    assert frames.rows(torch.tensor([1])).stamps.tolist() == [1.0]
    assert len(frames.rows(torch.tensor([False, False]))) == 0
    with pytest.raises(CriticError, match="lack camera top; they come from front, wrist"):
        frames.of(("top",))
    window = Frames(
        torch.arange(3).view(1, 3, 1, 1, 1, 1).expand(1, 3, 1, 2, 2, 3).to(torch.uint8), ("f",), torch.zeros(1)
    )
    assert window.latest(2).rgb[0, :, 0, 0, 0, 0].tolist() == [1, 2]
    assert window.latest(5) is window


def test_stamps_keep_microseconds_of_a_clock_that_counts_from_1970():
    now = torch.tensor([1.7e9 + 1e-6, 1.7e9], dtype=torch.float64)
    frames = Frames.now(torch.zeros(2, 1, 4, 4, 3, dtype=torch.uint8), ("front",), now)
    assert torch.equal(frames.stamps, now)


def test_frames_are_put_together_in_the_order_of_the_first():
    one = pictures(torch.tensor([[0.1, 0.2]]), ("front", "wrist"))
    other = pictures(torch.tensor([[0.4, 0.3]]), ("wrist", "front"))
    both = Frames.cat([one, other])
    assert both.newest[:, :, 0, 0, 0].tolist() == [[20, 40], [60, 80]]
    with pytest.raises(CriticError, match="do not go with"):
        Frames.cat([one, pictures(torch.tensor([[0.1, 0.2]]), ("front", "wrist"), side=5)])
    with pytest.raises(CriticError, match="no frames"):
        Frames.cat([])


def test_resizing_keeps_what_is_seen_and_leaves_equal_sizes_alone():
    frames = pictures([0.25, 0.5], ("front", "wrist"), side=16)
    assert resized(frames, 16, 16) is frames
    small = resized(frames, 4, 8)
    assert small.size == (4, 8) and small.cameras == frames.cameras
    assert torch.equal(small.newest[:, 0, 0, 0, 0], frames.newest[:, 0, 0, 0, 0])
    assert len(resized(frames.rows(torch.tensor([False, False])), 4, 4)) == 0


# Questions


@pytest.mark.parametrize("capability", [c.value for c in Capability])
def test_a_missing_capability_raises_and_says_what_there_is(capability):
    others = [c for c in Capability if c.value != capability]
    with pytest.raises(MissingCapability, match=f"cannot {capability}; it can: ") as raised:
        ask(Brightness(others), capability, pictures([0.5]), tasks(1))
    assert others[0].value in str(raised.value)
    with pytest.raises(MissingCapability, match="it can: nothing"):
        ask(Critic(), capability, pictures([0.5]), tasks(1))


def test_every_mistake_is_one_for_the_user():
    assert issubclass(MissingCapability, RobolearnError)


@pytest.mark.parametrize("capability", [c.value for c in Capability])
@pytest.mark.parametrize("instruction", ["", "  \n"])
def test_an_empty_instruction_is_refused(capability, instruction):
    with pytest.raises(CriticError, match="instruction is empty"):
        ask(Brightness(), capability, pictures([0.5, 0.5]), [TASK, instruction])


def test_moments_and_instructions_come_in_equal_numbers():
    with pytest.raises(CriticError, match="2 moments came with 1 instructions"):
        Brightness().score(pictures([0.5, 0.5]), tasks(1))
    with pytest.raises(CriticError, match="1 moments came with 2"):
        Brightness().delta(pictures([0.5, 0.5]), pictures([0.5]), tasks(2))
    with pytest.raises(CriticError, match="single text"):
        Brightness().score(pictures([0.5] * len(TASK)), TASK)


def test_frames_of_other_cameras_are_refused():
    critic = Brightness(cameras=("front", "wrist"))
    with pytest.raises(CriticError, match="made for cameras front, wrist; these frames come from front$"):
        critic.score(pictures([0.5]), tasks(1))
    both = pictures([0.5], ("front", "wrist"))
    with pytest.raises(CriticError, match="these frames come from top"):
        critic.delta(both, pictures([0.5], ("top",)), tasks(1))
    with pytest.raises(CriticError, match="cannot compare frames of cameras front with frames of top"):
        Brightness().delta(pictures([0.5]), pictures([0.5], ("top",)), tasks(1))


def test_a_critic_sees_its_cameras_in_its_own_order():
    class First(Brightness):
        def progress(self, frames: Frames) -> torch.Tensor:
            return frames.newest[:, 0, 0, 0, 0].float() / 200

    shown = pictures(torch.tensor([[0.1, 0.2, 0.3]]), ("top", "front", "wrist"))
    assert First(cameras=("wrist", "top")).value(
        shown, pictures([0.0], shown.cameras), tasks(1)
    ).values == pytest.approx(0.3)
    # Without cameras of its own it sees both moments in the order of the first.
    before = pictures(torch.tensor([[0.5, 0.0]]), ("front", "wrist"))
    after = pictures(torch.tensor([[0.9, 0.5]]), ("wrist", "front"))
    assert First().delta(before, after, tasks(1)).values == 0.0


def test_pictures_of_another_size_are_refused():
    critic = Brightness()
    critic.picture = (8, 8)
    with pytest.raises(CriticError, match="8x8 pixels, got 4x4.*resized"):
        critic.score(pictures([0.5]), tasks(1))
    assert critic.score(resized(pictures([0.5]), 8, 8), tasks(1)).valid.all()


def test_longer_windows_are_cut_to_the_newest_pictures():
    seen = []

    class Watching(Brightness):
        def progress(self, frames: Frames) -> torch.Tensor:
            seen.append(frames.rgb[0, :, 0, 0, 0, 0].tolist())
            return super().progress(frames)

    rgb = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1, 1, 1).expand(1, 3, 1, 4, 4, 3)
    Watching(window=Window(2, 0.1)).score(Frames(rgb, ("front",), torch.zeros(1)), tasks(1))
    assert seen == [[20, 30]]


def test_a_critic_that_looks_ahead_is_refused_online():
    Brightness().require_online()
    ahead = Brightness(window=Window(frames=8, causal=False))
    with pytest.raises(CriticError, match="whole recordings"):
        ahead.require_online()
    assert ahead.score(pictures([0.5]), tasks(1)).valid.all()


def test_nobody_to_judge_is_no_question():
    critic = Brightness()
    nobody = pictures([0.5]).rows(torch.tensor([False]))
    for capability in ("score", "done", "delta", "prefer", "value"):
        given = ask(critic, capability, nobody, [])
        assert len(given) == 0 and given.revision == "1"
    assert not critic.asked


def test_capabilities_are_found_by_name():
    assert Capability.named("delta") is Capability.DELTA
    with pytest.raises(CriticError, match="did you mean 'value'"):
        Capability.named("vlaue")


# Answers


def test_an_answer_says_where_it_comes_from():
    frames = pictures([0.2, 0.4])
    given = Saying([1.0, 2.0], [0.3, 2.0], pause_s=0.01).score(frames, tasks(2))
    assert given.revision == "1"
    assert given.latency_s >= 0.01
    assert given.stamps.tolist() == [0.0, 1.0]
    assert given.confidence.tolist() == pytest.approx([0.3, 1.0])
    assert given.valid.all() and given.reasons == ("", "")


def test_an_answer_about_two_moments_bears_the_newer_stamp():
    start, now = pictures([0.0]), pictures([0.5, 0.5]).rows(torch.tensor([1]))
    assert Brightness().value(now, start, tasks(1)).stamps.tolist() == [1.0]


@pytest.mark.parametrize("bad", [NAN, float("inf"), -float("inf")])
def test_an_answer_that_is_no_number_is_invalid_with_a_reason(bad):
    given = Saying([1.0, bad]).score(pictures([0.5, 0.5]), tasks(2))
    assert given.valid.tolist() == [True, False]
    assert given.values[1].isnan() and given.confidence[1] == 0.0
    assert "not a finite number" in given.reasons[1]


def test_a_confidence_that_is_no_number_makes_a_row_invalid():
    given = Saying([1.0, 1.0], [NAN, 0.5]).score(pictures([0.5, 0.5]), tasks(2))
    assert given.valid.tolist() == [False, True]
    assert "confidence" in given.reasons[0]
    assert given.sure(0.0).valid.tolist() == [False, True]


def test_a_probability_outside_its_range_is_invalid_and_rounding_is_not():
    given = Saying([1.5, 1.0 + 1e-6, -1e-6, -0.2]).done(pictures([0.5] * 4), tasks(4))
    assert given.valid.tolist() == [False, True, True, False]
    assert given.values[1:3].tolist() == [1.0, 0.0]
    assert "outside 0 to 1" in given.reasons[0]
    frames = pictures([0.5] * 2)
    assert Saying([-1.0, -1.1]).delta(frames, frames, tasks(2)).valid.tolist() == [True, False]
    assert Saying([30.0]).score(pictures([0.5]), tasks(1)).values == 30.0


def test_a_critic_that_answers_another_number_of_questions_is_reported():
    with pytest.raises(CriticError, match=r"gave \(2,\) values for 3 moments"):
        Saying([0.1, 0.2]).score(pictures([0.5] * 3), tasks(3))
    with pytest.raises(CriticError, match="as many values, confidences"):
        Saying([0.1, 0.2], [0.5]).score(pictures([0.5] * 2), tasks(2))
    with pytest.raises(CriticError, match="as many"):
        Answer.of(torch.zeros(2), torch.zeros(2), "r", reasons=[""])


def test_reasons_make_rows_invalid_whatever_their_value():
    given = Answer.of(torch.tensor([1.0, 2.0]), torch.zeros(2), "r", reasons=["", "the server hung up"])
    assert given.valid.tolist() == [True, False] and given.values[1].isnan()
    again = given.invalid(torch.tensor([True, True]), "later")
    assert again.reasons == ("later", "the server hung up")
    assert given.invalid(torch.tensor([False, True]), "later") is given
    assert given.rows(torch.tensor([1, 0])).reasons == ("the server hung up", "")


def test_answers_about_old_pictures_are_invalid():
    given = answer([1.0, 1.0, 1.0], [9.0, 7.9, 10.0]).fresh(10.0, 2.0)
    assert given.valid.tolist() == [True, False, True]
    assert "2 s old" in given.reasons[1]
    each = answer([1.0, 1.0], [9.0, 9.0]).fresh(torch.tensor([10.0, 20.0]), 2.0)
    assert each.valid.tolist() == [True, False]


def test_an_age_that_cannot_be_told_is_not_fresh():
    given = answer([1.0, 1.0, 1.0], [NAN, 50.0, 10.5]).fresh(10.0, 2.0)
    assert given.valid.tolist() == [False, False, True]
    assert "clock" in given.reasons[0] and "clock" in given.reasons[1]


def test_a_critic_that_is_not_sure_abstains():
    given = answer([1.0, 1.0], confidence=[0.4, 0.6]).sure(0.5)
    assert given.valid.tolist() == [False, True]
    assert "abstained" in given.reasons[0] and given.confidence[0] == 0.0


def test_dropped_rows_cannot_be_used_and_are_never_zero():
    values, usable = answer([0.7, NAN]).resolve("drop")
    assert usable.tolist() == [True, False] and values[1].isnan()


@pytest.mark.parametrize("fallback", ["hold", "distilled"])
def test_rows_are_held_or_distilled_only_by_finite_values(fallback):
    other = {"held" if fallback == "hold" else "distilled": torch.tensor([0.1, 0.2, NAN, float("inf")])}
    values, usable = answer([0.7, NAN, NAN, NAN]).resolve(fallback, **other)
    assert values[:2].tolist() == pytest.approx([0.7, 0.2])
    assert usable.tolist() == [True, True, False, False]
    assert not (values[2:] == 0.0).any()


def test_a_fallback_needs_to_be_known_and_given():
    given = answer([0.7, NAN])
    with pytest.raises(CriticError, match="did you mean 'hold'"):
        given.resolve("hodl")
    for fallback in ("hold", "distilled"):
        with pytest.raises(CriticError, match="needs the values"):
            given.resolve(fallback)
    with pytest.raises(CriticError, match="needs 2 values"):
        given.resolve("hold", held=torch.tensor([0.5]))


def test_value_and_done_are_the_two_answers():
    frames, start = pictures([0.5, 1.0]), pictures([0.0, 0.0])
    value, done = Brightness().value_and_done(frames, start, tasks(2))
    assert value.values.tolist() == [0.5, 1.0] and done.values.tolist() == [0.0, 1.0]


# Registry


def test_baselines_are_found_by_name_with_their_settings():
    assert load_critic("elapsed_time", horizon_s=4).revision == load_critic("elapsed_time", horizon_s=4.0).revision
    with pytest.raises(CriticError, match="did you mean 'horizon_s'"):
        load_critic("elapsed_time", horizon=4)


def test_a_folder_says_what_it_holds(tmp_path):
    write_description(tmp_path, "process", cameras=["front"])
    assert read_description(tmp_path)["cameras"] == ["front"]
    write_description(tmp_path, "procces")
    with pytest.raises(CriticError, match="unknown kind of critic 'procces'.*did you mean 'process'"):
        load_critic(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99, "kind": "process"}', "\xff\xfe"])
def test_a_damaged_description_is_reported_with_its_place(tmp_path, text):
    (tmp_path / "critic.json").write_bytes(text.encode("latin1"))
    with pytest.raises(CriticError, match=str(tmp_path)):
        load_critic(tmp_path)
