"""Scripted arms: experts that succeed, and failures that fail in just the way their names say."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from robolearn.judge import judge
from sim.env import Env
from sim.experts.arm import MODES, ExpertError, ScriptedArm, scripted
from sim.tasks import make_env
from sim.terms.table import GOAL_RADIUS, chosen, named_pos

EACH = 9
"""Worlds for each mode."""


@dataclass(frozen=True)
class Seen:
    """Some steps of some worlds, (T, N) each; `of` gives those of one mode.

    Attributes:
        progress, done, other_done: of the named object, and of the other one.
        height: m, of the named object above where it rests.
        goal, decoy: m, from the named object to the pads.
        tool: (T, N, 3) m.
        moved: m, how far the other object is from where it was.
    """

    progress: torch.Tensor
    done: torch.Tensor
    other_done: torch.Tensor
    height: torch.Tensor
    goal: torch.Tensor
    decoy: torch.Tensor
    tool: torch.Tensor
    moved: torch.Tensor

    def of(self, rows: torch.Tensor) -> Seen:
        return Seen(**{name: value[:, rows] for name, value in vars(self).items()})


def look(env: Env, start: torch.Tensor) -> dict[str, torch.Tensor]:
    c = env.channels
    place, other = named_pos(c), chosen(c["object_poses"][..., :2], 1.0 - c["named"])
    away = torch.linalg.vector_norm(place[:, None, :2] - c["pad_pos"], dim=2)
    return {
        "progress": c["progress"].clone(),
        "done": c["done"] > 0.5,
        "other_done": c["done_other"] > 0.5,
        "height": place[:, 2] - chosen(c["rest_height"], c["named"]),
        "goal": away[:, 0],
        "decoy": away[:, 1],
        "tool": c["tool_pos"].clone(),
        "moved": torch.linalg.vector_norm(other - start, dim=1),
    }


def watch(task: str, steps: int = 64) -> dict[str, Seen]:
    """Every mode of a task at work, in episodes that only the clock ends."""
    modes = [mode for mode in MODES[task] for _ in range(EACH)]
    env = make_env(task, len(modes), seed=5, ends="never", episode_s=7.0)
    arm = ScriptedArm(env, modes, seed=1)
    start = chosen(env.channels["object_poses"][..., :2], 1.0 - env.channels["named"]).clone()
    rows = []
    for _ in range(steps):
        rows.append(look(env, start))
        env.step(arm.act())
    seen = Seen(**{name: torch.stack([row[name] for row in rows]) for name in rows[0]})
    return {mode: seen.of(torch.tensor([m == mode for m in modes])) for mode in MODES[task]}


@pytest.fixture(scope="module")
def reaching() -> dict[str, Seen]:
    return watch("arm_reach", 24)


@pytest.fixture(scope="module")
def pushing() -> dict[str, Seen]:
    return watch("arm_push")


@pytest.fixture(scope="module")
def placing() -> dict[str, Seen]:
    return watch("arm_pick_place")


def most(condition: torch.Tensor) -> bool:
    """In all worlds but one or two; what is luck is not the script's fault."""
    return int(condition.sum()) >= len(condition) - 2


def stands(seen: Seen, last: int) -> torch.Tensor:
    """(N,) whether the tool stays within a millimetre through the last steps."""
    return (seen.tool[-last:] - seen.tool[-1]).norm(dim=2).amax(0) < 1e-3


@pytest.mark.parametrize("task", MODES)
def test_experts_succeed_and_are_the_baseline(task: str) -> None:
    env = make_env(task, 48, seed=7, evaluation=True)
    baseline = env.task.baselines["scripted expert"][""]
    verdict = judge(env, lambda env, obs: baseline(env))
    assert verdict.mean("success") >= 0.9 and verdict.mean("diverged") == 0
    assert verdict.mean("seconds") < 0.8 * env.max_episode_length * env.step_dt
    env.reset()
    assert baseline(env).shape == (48, env.num_actions)  # what judging left behind is not in the way


def test_a_failure_is_never_done_but_for_one_that_undoes_it(reaching, pushing, placing) -> None:
    for task in (reaching, pushing, placing):
        for mode in set(task) & {"miss", "drop", "hover", "wrong_goal", "wrong_object"}:
            assert most(~task[mode].done.any(0)), mode
        assert most(~task["stall"].done[-1] | task["stall"].done.any(0))
        assert task["random"].done[-1].sum() <= 1 and not task["expert"].other_done.any()
        assert task["expert"].done.any(0).sum() >= EACH - 1


def test_a_miss_is_beside_the_object_and_never_lifts_it(pushing, placing) -> None:
    assert placing["miss"].height.max() < 0.02 and placing["miss"].progress.max() < 0.5
    assert (placing["expert"].height.amax(0) > 0.08).all()
    low = (placing["miss"].tool[..., 2] < 0.075).any(0)
    assert low.all()  # it goes down all the same
    assert most(pushing["miss"].progress.amax(0) < 0.4)


def test_a_drop_lifts_and_falls_beside_the_goal(placing) -> None:
    seen = placing["drop"]
    assert (seen.height.amax(0) > 0.08).all()
    top = seen.height.argmax(0)
    assert (seen.height[-1] < 0.02).all() and (top < len(seen.height) - 10).all()
    assert (seen.goal[-1] > GOAL_RADIUS).all()


def test_a_stall_stops_moving_for_good(reaching, pushing, placing) -> None:
    for task, last in ((reaching, 15), (pushing, 40), (placing, 30)):
        seen = task["stall"]
        assert stands(seen, last).all()
        assert ((seen.tool[0] - seen.tool[-1]).norm(dim=1) > 0.01).sum() >= EACH // 2
        assert stands(task["random"], last).sum() == 0
    assert len({round(x, 2) for x in placing["stall"].progress[-1].tolist()}) > 4  # at different times


def test_a_hover_stays_near_and_never_finishes(reaching, pushing, placing) -> None:
    for task in (reaching, pushing, placing):
        assert most(stands(task["hover"], 5))
    assert (reaching["hover"].progress[-1] > 0.2).all() and reaching["hover"].progress[-1].median() > 0.5
    assert most((pushing["hover"].progress[-1] > 0.15) & (pushing["hover"].height.abs().amax(0) < 0.01))
    seen = placing["hover"]
    holding = (seen.height[-1] > 0.03) & (seen.goal[-1] < 0.03)
    waiting = (seen.height.amax(0) < 0.01) & (seen.progress[-1] > 0.15)
    assert most(holding | waiting) and holding.sum() >= 3 and waiting.any()


def test_what_runs_on_is_done_and_undone(pushing, placing) -> None:
    for task in (pushing, placing):
        seen = task["run_on"]
        assert most(seen.done.any(0)) and most(~seen.done[-1]) and most(seen.goal[-1] > GOAL_RADIUS)
        assert seen.progress[-1].mean() < 0.8


def test_a_wrong_goal_is_the_dark_pad(pushing, placing) -> None:
    assert most(placing["wrong_goal"].decoy[-1] < 0.02)
    assert most(pushing["wrong_goal"].decoy.amin(0) < GOAL_RADIUS)


def test_a_wrong_object_is_done_with_the_other_one(reaching, pushing, placing) -> None:
    assert reaching["wrong_object"].other_done[-1].all() and most(placing["wrong_object"].other_done[-1])
    assert pushing["wrong_object"].other_done.any(0).sum() >= 2 * EACH // 3  # now and then it gets out of reach
    assert placing["wrong_object"].height.max() < 0.02
    assert most(placing["wrong_object"].moved[-1] > 0.05) and most(placing["expert"].moved[-1] < 0.01)


def test_a_random_motion_goes_anywhere(placing) -> None:
    seen = placing["random"]
    spread = seen.tool.amax(0) - seen.tool.amin(0)
    assert (spread > 0.05).all() and seen.progress[-1].mean() < 0.3


def test_one_seed_is_one_behaviour(small: Callable[..., Env]) -> None:
    def actions(seed: int) -> torch.Tensor:
        env = small(4, task="arm_push", ends="never")
        arm = ScriptedArm(env, ["random", "miss", "stall", "expert"], seed=seed)
        done = []
        for _ in range(6):
            done.append(arm.act())
            env.step(done[-1])
        return torch.stack(done)

    first = actions(0)
    assert torch.equal(first, actions(0)) and not torch.equal(first[:, 0], actions(1)[:, 0])
    assert torch.equal(first[:, 3], actions(1)[:, 3])  # an expert leaves nothing open
    assert (first.abs() <= 1).all()


def test_noise_disturbs_half_of_the_episodes_and_a_stalled_arm_stays_still(small: Callable[..., Env]) -> None:
    def actions(noise: float, mode: str) -> torch.Tensor:
        env = small(32, task="arm_push", ends="never")
        arm = ScriptedArm(env, mode, seed=3, noise=noise)
        done = []
        for _ in range(16):
            done.append(arm.act())
            env.step(done[-1])
        return torch.stack(done)

    tidy, clumsy = actions(0.0, "expert"), actions(1.0, "expert")
    assert 8 <= int((tidy != clumsy).any(2).any(0).sum()) <= 24 and (clumsy.abs() <= 1).all()
    assert not actions(1.0, "stall")[-1].any()  # all have stopped by then


def test_an_arm_starts_afresh_with_every_episode(small: Callable[..., Env]) -> None:
    env = small(4, task="arm_pick_place", episode_s=1.0)
    arm = ScriptedArm(env, "expert")
    for _ in range(10):
        step = env.step(arm.act())
    assert step.truncated.all()
    again = ScriptedArm(env, "expert")
    assert torch.equal(arm.act(), again.act())


def test_a_baseline_does_not_keep_its_environment_alive(small: Callable[..., Env]) -> None:
    env = small(2, task="arm_reach")
    scripted(env)
    gone = weakref.ref(env)
    del env
    gc.collect()
    assert gone() is None


def test_impossible_scripts_are_refused(small: Callable[..., Env]) -> None:
    env = small(2, task="arm_reach")
    with pytest.raises(ExpertError, match="unknown mode of arm_reach 'hovr'; did you mean 'hover'"):
        ScriptedArm(env, "hovr")
    with pytest.raises(ExpertError, match="2 worlds need as many modes, got 3"):
        ScriptedArm(env, ["expert"] * 3)
    with pytest.raises(ExpertError, match="unknown task with a script 'g1_walk'"):
        ScriptedArm(small(1, task="g1_walk"))
