"""Potentials: one world after another, from every capability, and never from nothing."""

from __future__ import annotations

import itertools

import pytest
import torch

from robolearn import checkpoints
from tests.vlm_rewards.brightness import TASK, Brightness, pictures, recording, tasks
from vlm_rewards.anchors import Reference
from vlm_rewards.clips import ClipSet
from vlm_rewards.critic import Capability, Window
from vlm_rewards.errors import CriticError, MissingCapability
from vlm_rewards.frames import Frames
from vlm_rewards.fusion import FORMS, Rule
from vlm_rewards.potential import (
    FromDelta,
    FromDone,
    FromPlan,
    FromPrefer,
    FromScore,
    FromValue,
    as_potential,
    goal_scores,
)
from vlm_rewards.potential_plan import along_waypoints

NAN = float("nan")
PATH = (0.2, 0.5, 0.4, 0.4, 0.9, 1.0)
SUCCESS = Reference.of(recording([0.0, 0.5, 1.0]))
GOAL = 14.0
"""What `Brightness` scores a carried-out instruction."""
NEEDS = {"goal": GOAL, "reference": SUCCESS}


def world(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


def point(worlds: torch.Tensor, frames: Frames) -> torch.Tensor:
    """A point that moves to the right as the picture grows brighter: from 0 to 2."""
    seen = Brightness().progress(frames)
    return torch.stack([2.0 * seen, torch.zeros_like(seen)], -1)


def made(kind: str) -> object:
    """A potential by its short name, of a critic with one capability."""
    capability, _, form = kind.partition("/")
    critic = Brightness([Capability.named(capability)])
    rule = Rule(form) if form else None
    return as_potential(critic, goal=GOAL, reference=SUCCESS, rule=rule, points=point)


KINDS = ("value", "done", "score", "prefer", "plan", *(f"delta/{form}" for form in FORMS))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("value", [0.0, 0.5, 0.4, 0.4, 0.9, 1.0]),
        ("done", [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]),
        ("score", [0.0, 0.5, 0.4, 0.4, 0.9, 1.0]),
        ("prefer", [0.0, 0.5, 0.4, 0.4, 0.9, 1.0]),
        ("plan", [0.0, 0.5, 0.4, 0.4, 0.9, 1.0]),
        *((f"delta/{form}", [0.0, 0.5, 0.4, 0.4, 0.9, 1.0]) for form in ("weighted", "mean", "anchored", "chain")),
    ],
)
def test_each_capability_of_an_exact_critic_gives_progress(kind, expected):
    potential = made(kind)
    frames = [pictures([shown]) for shown in (0.0, 0.5, 0.4, 0.4, 0.9, 1.0)]
    given = [potential.begin(world(3), frames[0], tasks(1))]
    given += [potential.read(world(3), now, tasks(1)) for now in frames[1:]]
    assert [float(answer.values) for answer in given] == pytest.approx(expected, abs=1e-5)
    assert all(answer.valid.all() and answer.revision == "1" for answer in given)
    assert potential.revision == "1"


@pytest.mark.parametrize("kind", KINDS)
def test_worlds_are_apart_and_batches_make_no_difference(kind):
    together, alone = made(kind), made(kind)
    made_by = torch.Generator().manual_seed(0)
    paths = (torch.rand(6, 3, generator=made_by) * 200).round() / 200
    paths[0] = 0.0
    numbers = (4, 0, 9)
    joint, single = [], []
    for step, shown in enumerate(paths):
        ask = together.begin if step == 0 else together.read
        joint.append(ask(world(*numbers), pictures(shown), tasks(3)).values)
    for k, number in enumerate(numbers):
        for step, shown in enumerate(paths):
            ask = alone.begin if step == 0 else alone.read
            single.append(ask(world(number), pictures(shown[k : k + 1]), tasks(1)).values)
    torch.testing.assert_close(torch.stack(joint, 1).flatten(), torch.cat(single))


@pytest.mark.parametrize("kind", KINDS)
def test_worlds_that_come_later_leave_the_others_alone(kind):
    crowded, alone = made(kind), made(kind)
    for potential in (crowded, alone):
        potential.begin(world(0), pictures([0.0]), tasks(1))
        potential.read(world(0), pictures([0.5]), tasks(1))
    crowded.begin(world(60, 7), pictures([0.1, 0.2]), tasks(2))
    after = [potential.read(world(0), pictures([0.7]), tasks(1)).values for potential in (crowded, alone)]
    assert torch.equal(*after)


@pytest.mark.parametrize("kind", KINDS)
def test_values_lie_between_0_and_1(kind):
    potential = made(kind)
    potential.begin(world(0), pictures([0.5]), tasks(1))
    for shown in (0.0, 1.0, 0.2, 0.8, 0.5):
        given = potential.read(world(0), pictures([shown]), tasks(1))
        assert not given.valid or 0.0 <= given.values <= 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_an_invalid_answer_stays_invalid_and_changes_nothing(kind):
    disturbed, calm = made(kind), made(kind)
    for potential in (disturbed, calm):
        potential.begin(world(0, 1), pictures([0.0, 0.0]), tasks(2))
        potential.read(world(0, 1), pictures([0.5, 0.3]), tasks(2))
    lost = disturbed.read(world(0, 1), pictures([NAN, 0.6]), tasks(2))
    assert lost.valid.tolist() == [False, True]
    assert lost.values[0].isnan() and lost.reasons[0] and not lost.reasons[1]
    calm.read(world(1), pictures([0.6]), tasks(1))
    after = [potential.read(world(0, 1), pictures([0.7, 0.6]), tasks(2)).values for potential in (disturbed, calm)]
    assert torch.equal(*after)


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_from_a_checkpoint(kind, tmp_path):
    one, other = made(kind), made(kind)
    one.begin(world(0, 5), pictures([0.0, 0.2]), tasks(2))
    one.read(world(0, 5), pictures([0.5, 0.3]), tasks(2))
    checkpoints.write(tmp_path / "state.pt", 1, {"potential": one.state_dict()})
    other.load_state_dict(checkpoints.read(tmp_path / "state.pt").state["potential"])
    now = (world(0, 5), pictures([0.8, 0.1]), tasks(2))
    assert torch.equal(one.read(*now).values, other.read(*now).values)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "done"])
def test_a_world_that_did_not_begin_is_reported(kind):
    potential = made(kind)
    with pytest.raises(CriticError, match="world 2 has no episode: begin it first"):
        potential.read(world(2), pictures([0.5]), tasks(1))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("done", "score", "plan")])
def test_frames_that_change_between_episodes_are_reported(kind):
    potential = made(kind)
    potential.begin(world(0), pictures([0.0]), tasks(1))
    with pytest.raises(CriticError, match="cannot be kept beside"):
        potential.begin(world(1), pictures([0.0], side=5), tasks(1))


def test_an_episode_begins_anew():
    for kind in ("value", "delta/chain", "delta/weighted"):
        potential = made(kind)
        potential.begin(world(0), pictures([0.0]), tasks(1))
        potential.read(world(0), pictures([0.9]), tasks(1))
        assert potential.begin(world(0), pictures([0.0]), tasks(1)).values == pytest.approx(0.0)
        assert potential.read(world(0), pictures([0.5]), tasks(1)).values == pytest.approx(0.5)


# Which potential


def test_the_best_capability_is_taken_that_has_what_it_needs():
    every = [c for c in Capability]
    assert isinstance(as_potential(Brightness(every)), FromValue)
    assert isinstance(as_potential(Brightness([Capability.DELTA, Capability.DONE])), FromDelta)
    sparse = [Capability.SCORE, Capability.PLAN, Capability.DONE]
    assert isinstance(as_potential(Brightness(sparse)), FromDone)
    assert isinstance(as_potential(Brightness(sparse), goal=GOAL), FromScore)
    assert isinstance(as_potential(Brightness(sparse), points=point), FromPlan)
    assert isinstance(as_potential(Brightness([Capability.PREFER])), FromPrefer)
    assert isinstance(as_potential(Brightness(every), "prefer"), FromPrefer)
    assert isinstance(as_potential(Brightness(every), Capability.DONE), FromDone)


def test_what_is_missing_is_said():
    with pytest.raises(MissingCapability, match="cannot delta; it can: value"):
        as_potential(Brightness([Capability.VALUE]), "delta")
    with pytest.raises(MissingCapability, match="it can: nothing"):
        as_potential(Brightness([]))
    with pytest.raises(CriticError, match="from score needs goal="):
        as_potential(Brightness([Capability.SCORE]))
    with pytest.raises(CriticError, match="from plan needs points="):
        as_potential(Brightness(), "plan")
    with pytest.raises(CriticError, match="did you mean 'score'"):
        as_potential(Brightness(), "scor")
    with pytest.raises(CriticError, match="needs a reference"):
        as_potential(Brightness(), "delta", rule=Rule("weighted"))
    for kind in (FromValue, FromDone, FromPrefer, FromDelta):
        with pytest.raises(MissingCapability):
            kind(Brightness([]))


def test_a_critic_that_looks_ahead_is_no_potential_online():
    ahead = Brightness(window=Window(causal=False))
    with pytest.raises(CriticError, match="whole recordings"):
        as_potential(ahead, online=True)
    as_potential(ahead)
    as_potential(Brightness(), online=True)


# SCORE


def test_goals_of_scores_come_from_recorded_successes():
    clips = ClipSet([recording([0.0, 0.5, 1.0, 1.0]), recording([0.0, 0.5], mode="stall")])
    goals = goal_scores(Brightness(), clips)
    assert goals == {TASK: pytest.approx(GOAL)}
    potential = as_potential(Brightness([Capability.SCORE]), goal=goals)
    potential.begin(world(0, 1), pictures([0.0, 0.0]), [TASK, "another"])
    given = potential.read(world(0, 1), pictures([0.5, 0.5]), [TASK, "another"])
    assert given.valid.tolist() == [True, False] and given.values[0] == pytest.approx(0.5)
    assert "no score of its goal" in given.reasons[1]
    with pytest.raises(CriticError, match="no valid score of a success"):
        goal_scores(Brightness(), clips.subset([1]))


def test_a_score_without_start_or_room_above_it_says_nothing():
    potential = as_potential(Brightness([Capability.SCORE]), goal=GOAL)
    began = potential.begin(world(0, 1), pictures([NAN, 1.0]), tasks(2))
    assert not began.valid.any()
    given = potential.read(world(0, 1), pictures([0.5, 0.5]), tasks(2))
    assert "start of its episode has no score" in given.reasons[0]
    assert "does not score above" in given.reasons[1]


# PREFER


def test_a_preference_is_scaled_between_start_and_goal():
    potential = as_potential(Brightness([Capability.PREFER]), reference=SUCCESS)
    potential.begin(world(0), pictures([0.2]), tasks(1))
    assert potential.read(world(0), pictures([0.6]), tasks(1)).values == pytest.approx(0.5, abs=1e-5)
    assert potential.read(world(0), pictures([0.1]), tasks(1)).values == 0.0


def test_a_preference_that_contradicts_itself_is_invalid():
    class Contrary(Brightness):
        def _prefer(self, first, second, instructions):
            return self.judged(torch.full((len(first),), 0.3))

    potential = as_potential(Contrary([Capability.PREFER]), reference=SUCCESS)
    given = potential.begin(world(0), pictures([0.2]), tasks(1))
    assert not given.valid and "contradictory" in given.reasons[0]


def test_without_a_goal_a_preference_only_says_whether_it_is_better_than_the_start():
    potential = as_potential(Brightness([Capability.PREFER]))
    assert potential.begin(world(0), pictures([0.5]), tasks(1)).values == 0.0
    assert potential.read(world(0), pictures([0.4]), tasks(1)).values == 0.0
    assert 0.9 < potential.read(world(0), pictures([1.0]), tasks(1)).values < 1.0


# DELTA


def test_all_hops_of_all_worlds_are_asked_for_at_once():
    critic = Brightness([Capability.DELTA])
    potential = FromDelta(critic, Reference.of(recording([0.0, 0.25, 0.5, 0.75, 1.0]), anchors=(0.25, 0.5)))
    potential.begin(world(0, 1, 2), pictures([0.0] * 3), tasks(3))
    given = potential.read(world(0, 1, 2), pictures([0.2, 0.5, 0.9]), tasks(3))
    assert critic.asked == [3 * 5]  # the start, three moments of the reference, the moment before
    assert given.values.tolist() == pytest.approx([0.2, 0.5, 0.9], abs=1e-6)
    assert given.confidence.tolist() == pytest.approx([0.75] * 3, abs=1e-5)


def test_without_a_reference_progress_hangs_on_the_start_alone():
    potential = FromDelta(Brightness([Capability.DELTA]))
    assert potential.rule.form == "anchored"
    potential.begin(world(0), pictures([0.2]), tasks(1))
    assert potential.read(world(0), pictures([0.6]), tasks(1)).values == pytest.approx(0.5)


def test_views_are_judged_apart_and_one_may_be_covered():
    cameras = ("front", "wrist")
    reference = Reference.of(recording([0.0, 1.0], cameras=cameras))
    potential = FromDelta(Brightness([Capability.DELTA]), reference, views=(("front",), ("wrist",)))

    def shown(front: float, wrist: float) -> Frames:
        return pictures(torch.tensor([[front, wrist]]), cameras)

    potential.begin(world(0), shown(0.0, 0.0), tasks(1))
    assert potential.read(world(0), shown(0.4, 0.4), tasks(1)).values == pytest.approx(0.4)
    assert potential.read(world(0), shown(0.6, NAN), tasks(1)).values == pytest.approx(0.6)
    lost = potential.read(world(0), shown(NAN, NAN), tasks(1))
    assert not lost.valid and "words about a lens" in lost.reasons[0]
    # The wrist's next hop starts where it last could see.
    assert potential.read(world(0), shown(0.7, 0.7), tasks(1)).values == pytest.approx(0.7)


def test_a_critic_of_several_cameras_is_not_asked_about_one():
    cameras = ("front", "wrist")
    potential = FromDelta(Brightness([Capability.DELTA], cameras=cameras), views=(("front",),))
    with pytest.raises(CriticError, match="made for cameras front, wrist"):
        potential.begin(world(0), pictures([0.0], cameras), tasks(1))


def test_a_reference_of_other_cameras_or_size_is_refused():
    for clip in (recording([0.0, 1.0], cameras=("top",)), recording([0.0, 1.0])):
        frames = Reference.of(clip).frames
        bent = Reference(Frames(frames.rgb[..., :2, :, :], frames.cameras, frames.stamps), torch.ones(1), TASK)
        potential = FromDelta(Brightness([Capability.DELTA]), bent)
        potential.begin(world(0), pictures([0.0]), tasks(1))
        with pytest.raises(CriticError):
            potential.read(world(0), pictures([0.5]), tasks(1))


@pytest.mark.parametrize("form", FORMS)
def test_a_recording_is_judged_as_its_steps_are_online(form):
    critic = Brightness([Capability.DELTA], bias=0.05)
    potential = FromDelta(critic, SUCCESS, Rule(form))
    whole, views = potential.recording(pictures(PATH), TASK)
    assert views.shape == (len(PATH), 1) and len(critic.asked) == 1
    online = [potential.begin(world(0), pictures(PATH[:1]), tasks(1))]
    online += [potential.read(world(0), pictures([shown]), tasks(1)) for shown in PATH[1:]]
    # Online the first is 0 by definition; the recording asks about it, too.
    assert [float(answer.values) for answer in online[1:]] == pytest.approx(whole.values[1:].tolist(), abs=0.06)
    assert whole.stamps.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_longer_windows_are_compared_by_what_all_have():
    rgb = torch.arange(1, 5, dtype=torch.uint8).mul(40).view(1, 4, 1, 1, 1, 1).expand(1, 4, 1, 4, 4, 3)
    window = Frames(rgb, ("front",), torch.zeros(1))
    critic = Brightness([Capability.DELTA], window=Window(3, 1.0))
    potential = FromDelta(critic, SUCCESS)
    potential.begin(world(0), window, tasks(1))
    assert potential.read(world(0), window, tasks(1)).valid.all()


# PLAN


def test_points_advance_along_waypoints_in_order():
    path = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [NAN, NAN]]])
    passed = torch.zeros(1, dtype=torch.int64)
    given = []
    for place in ([0.0, 0.0], [0.4, 0.0], [0.8, 0.0], [1.0, 0.0], [1.0, 0.4], [1.0, 1.0]):
        phi, passed = along_waypoints(torch.tensor([place]), path, passed)
        given.append(float(phi))
    assert given[0] == 0.0 and given[1] == pytest.approx(0.2) and given[3] == pytest.approx(0.5)
    assert given[4] == pytest.approx(0.7) and given[-1] == 1.0
    assert all(after > before for before, after in itertools.pairwise(given[:2] + given[3:]))
    # What was passed stays passed: back at the start the point is far from the second leg's end.
    phi, passed = along_waypoints(torch.tensor([[0.0, 0.0]]), path, passed)
    assert passed == 2 and phi < 0.5


def test_a_path_that_ends_where_it_began_is_not_cut_short():
    path = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]])
    phi, passed = along_waypoints(torch.tensor([[0.0, 0.0]]), path, torch.zeros(1, dtype=torch.int64))
    assert passed == 0 and phi == 0.0
    for corner in path[0, 1:]:
        phi, passed = along_waypoints(corner.unsqueeze(0), path, passed)
    assert passed == 4 and phi == 1.0


def test_a_waypoint_named_twice_does_no_harm():
    path = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]])
    passed = torch.zeros(1, dtype=torch.int64)
    near, passed = along_waypoints(torch.tensor([[0.9, 0.0]]), path, passed)
    there, _ = along_waypoints(torch.tensor([[1.0, 0.0]]), path, passed)
    assert 0.5 < near < 1.0 and there == 1.0


def test_plans_in_pixels_become_metres():
    def lift(worlds: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        return torch.cat([pixels * 0.1, torch.zeros_like(pixels[..., :1])], -1)

    def hand(worlds: torch.Tensor, frames: Frames) -> torch.Tensor:
        return torch.nn.functional.pad(point(worlds, frames) * 0.1, (0, 1))

    potential = as_potential(Brightness([Capability.PLAN]), points=hand, lift=lift)
    potential.begin(world(0), pictures([0.0]), tasks(1))
    assert potential.read(world(0), pictures([0.25]), tasks(1)).values == pytest.approx(0.25)
    with pytest.raises(CriticError, match="lift"):
        as_potential(Brightness([Capability.PLAN]), points=hand).begin(world(0), pictures([0.0]), tasks(1))


def test_an_episode_without_plan_or_point_says_so():
    potential = as_potential(Brightness([Capability.PLAN]), points=lambda worlds, frames: torch.zeros(len(worlds), 2))
    began = potential.begin(world(0, 1), pictures([NAN, 0.0]), tasks(2))
    assert began.valid.tolist() == [False, True] and "words about a lens" in began.reasons[0]
    given = potential.read(world(0, 1), pictures([0.5, 0.5]), tasks(2))
    assert given.valid.tolist() == [False, True] and "no plan" in given.reasons[0]
    unseen = as_potential(
        Brightness([Capability.PLAN]), points=lambda worlds, frames: torch.full((len(worlds), 2), NAN)
    )
    assert "not seen at the start" in unseen.begin(world(0), pictures([0.0]), tasks(1)).reasons[0]


def test_a_plan_is_asked_for_once():
    asked = []

    class Planner(Brightness):
        def _plan(self, now, instructions):
            asked.append(len(now))
            return super()._plan(now, instructions)

    potential = as_potential(Planner([Capability.PLAN]), points=point)
    potential.begin(world(0, 1), pictures([0.0, 0.0]), tasks(2))
    for shown in (0.2, 0.4):
        potential.read(world(0, 1), pictures([shown, shown]), tasks(2))
    assert asked == [2]
    assert isinstance(potential, FromPlan)
    with pytest.raises(CriticError, match="2 waypoints; FromPlan"):
        FromPlan(Planner([Capability.PLAN]), point, most=1).begin(world(0), pictures([0.0]), tasks(1))
