"""The arm tasks: exact progress, where episodes start, what is asked for, what cameras show of it, and resets."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from robolearn.errors import RobolearnError
from robolearn.judge import zero_action
from sim.camera import BatchCameras
from sim.channels import Channels
from sim.env import Env
from sim.opengl import RenderError
from sim.robots import get_robot
from sim.selection import Selection
from sim.tasks.arm_metrics import ArmMetrics
from sim.tasks.arm_scene import layout, pixels, views
from sim.tasks.arm_things import COLORS, HELDOUT, SHAPES, TEMPLATES, Assignment, allowed
from sim.terms import table

Small = Callable[..., Env]
TASKS = {"arm_reach": "reach", "arm_push": "push", "arm_pick_place": "pick_place"}
TOOL_SITE = get_robot("panda").tool_site


def assignment(env: Env) -> Assignment:
    found = env.task.randomizers["assignment"]
    assert isinstance(found, Assignment)
    return found


def things(instructions: list[str]) -> list[tuple[str, str]]:
    """Colour and shape that each instruction names."""
    words = [text.split() for text in instructions]
    found = [[(a, b) for a, b in zip(w, w[1:], strict=False) if a in COLORS and b in SHAPES] for w in words]
    assert all(len(named) == 1 for named in found)
    return [named[0] for named in found]


def shapes(env: Env) -> list[list[str]]:
    return [shard.label.split("+") for shard in env.world.shards for _ in range(shard.stop - shard.start)]


# Exact progress


def state(n: int, seed: int = 0, **given: torch.Tensor) -> Channels:
    """Random channels of the judges; objects, pads and tool are often within a hair's breadth of every threshold."""
    g = torch.Generator().manual_seed(seed)

    def near(threshold: float) -> torch.Tensor:
        """(n, 1) lengths of which half are within a few roundings of ``threshold``."""
        close = threshold + 1e-8 * torch.randint(-4, 5, (n, 1), generator=g)
        return torch.where(torch.rand(n, 1, generator=g) < 0.5, close, 0.3 * torch.rand(n, 1, generator=g))

    def direction(size: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(n, size, generator=g), dim=1)

    rest = torch.full((n, 2), 0.025)
    pads = torch.rand(n, 2, 2, generator=g) * 0.3
    place = torch.rand(n, 2, 7, generator=g) * 0.3
    place[:, 0, :2] = pads[:, 0] + near(table.GOAL_RADIUS) * direction(2)
    place[:, 0, 2:3] = rest[:, :1] + near(table.RESTING_HEIGHT)
    tool = place[:, 0, :3] + near(table.RELEASED) * direction(3)
    above = place[:, 0, :3] + torch.tensor([0, 0, table.ABOVE]) + near(table.REACHED) * direction(3)
    tool = torch.where(torch.rand(n, 1, generator=g) < 0.5, tool, above)
    speed = torch.zeros(n, 2, 6)
    speed[:, 0, :3] = near(table.RESTING_SPEED) * direction(3)
    channels = {
        "tool_pos": tool,
        "object_poses": place,
        "object_vels": speed,
        "pad_pos": pads,
        "named": torch.tensor([[1.0, 0.0]]).expand(n, 2),
        "rest_height": rest,
        "start_distance": 0.1 + 0.2 * torch.rand(n, 2, generator=g),
        "start_reach": 0.1 + 0.2 * torch.rand(n, 2, generator=g),
    }
    return Channels({**channels, **given})


@pytest.mark.parametrize("kind", table.JUDGES)
def test_progress_is_a_potential_that_is_one_just_where_it_is_done(kind: str) -> None:
    c = state(200_000)
    c.derived.update(table.judged(kind))
    for progress, done in ((c["progress"], c["done"]), (c["progress_other"], c["done_other"])):
        assert ((progress >= 0) & (progress <= 1)).all() and set(done.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(progress == 1, done == 1)
    assert 0.01 < c["done"].mean() < 0.99 and c["done_other"].mean() < 0.2
    assert ((c["progress"] > 0.9) & (c["done"] == 0)).any()


def test_progress_is_what_the_formulas_say() -> None:
    one = {"named": torch.tensor([[0.0, 1.0]]), "rest_height": torch.tensor([[0.025, 0.035]])}
    pose = torch.zeros(1, 2, 7)
    pose[0, 1, :3] = torch.tensor([0.5, 0.1, 0.035])
    base = {**one, "object_poses": pose, "object_vels": torch.zeros(1, 2, 6), "pad_pos": torch.zeros(1, 2, 2)}
    base["pad_pos"][0, 0] = torch.tensor([0.4, 0.1])
    which = one["named"]

    def judge(kind: str, tool: list[float], height: float = 0.0, **more: torch.Tensor) -> tuple[float, bool]:
        moved = pose.clone()
        moved[0, 1, 2] += height
        c = state(1, tool_pos=torch.tensor([tool]), **{**base, "object_poses": moved, **more})
        progress, done = table.JUDGES[kind](c, which)
        return progress.item(), done.item()

    starts = {"start_reach": torch.tensor([[9.0, 0.23]]), "start_distance": torch.tensor([[9.0, 0.135]])}
    at_half = [0.5, 0.1, 0.035 + 0.06 + 0.13]
    assert judge("reach", at_half, **starts) == (pytest.approx(0.5, abs=1e-5), False)
    assert judge("reach", [0.5, 0.1, 0.12], **starts) == (1.0, True)
    way = 1 - (0.1 - 0.035) / (0.135 - 0.035)  # from 13.5 cm to 10 cm
    behind = [0.5 + table.BEHIND, 0.1, 0.03]
    pushed = 1 - (0.1 - 0.045) / (0.135 - 0.045)  # onto the pad, not to its middle
    assert judge("push", behind, **starts) == (pytest.approx(0.25 + 0.75 * pushed, abs=1e-5), False)
    assert judge("push", [behind[0] + 0.15, 0.1, 0.3], **starts)[0] == pytest.approx(0.125 + 0.75 * pushed, abs=1e-5)
    far = [0.5, 0.1, 0.035 + 0.175]
    assert judge("pick_place", far, **starts) == (pytest.approx(0.15, abs=1e-5), False)
    held = judge("pick_place", [0.5, 0.1, 0.035 + 0.05], height=0.05, **starts)
    assert held == (pytest.approx(0.30 + 0.10 + 0.35 * way, abs=1e-5), False)
    on_pad = {**starts, "pad_pos": torch.tensor([[[0.5, 0.1], [0.3, 0.0]]])}
    assert judge("pick_place", [0.5, 0.1, 0.095], height=0.06, **on_pad)[0] == pytest.approx(0.80, abs=1e-5)
    assert judge("pick_place", [0.5, 0.1, 0.035 + 0.04], **on_pad)[0] == pytest.approx(0.85 + 0.149 / 2, abs=1e-5)
    assert judge("pick_place", [0.5, 0.1, 0.035 + 0.061], **on_pad) == (1.0, True)
    moving = torch.tensor([[[0.0] * 6, [0.06, 0, 0, 0, 0, 0]]])
    assert not judge("pick_place", [0.5, 0.1, 0.2], **on_pad, object_vels=moving)[1]
    assert not judge("pick_place", [0.5, 0.1, 0.2], height=0.01, **on_pad)[1]


# Starts


@pytest.mark.parametrize("task", TASKS)
def test_things_start_apart_at_rest_and_nothing_is_done(small: Small, task: str) -> None:
    env = small(256, task=task, engine=None)
    c = env.channels
    place, pads, tool = c["object_poses"][..., :3], c["pad_pos"], c["tool_pos"]
    assert ((place[..., 0] >= 0.36) & (place[..., 0] <= 0.55) & (place[..., 1].abs() <= 0.18)).all()
    assert ((pads[..., 0] >= 0.36) & (pads[..., 0] <= 0.55) & (pads[..., 1].abs() <= 0.18)).all()
    assert torch.equal(place[..., 2], c["rest_height"]) and not c["object_vels"].any()
    turn = 2 * torch.atan2(c["object_poses"][..., 6], c["object_poses"][..., 3])
    assert turn.abs().max() <= 0.25 + 1e-6 and turn.abs().max() > 0.2

    def apart(a: torch.Tensor, b: torch.Tensor, wanted: float, least: float) -> torch.Tensor:
        distance = torch.linalg.vector_norm(a[:, :2] - b[:, :2], dim=1)
        assert distance.min() > least
        return distance >= wanted

    first, second = place.unbind(1)
    goal, decoy = pads.unbind(1)
    kept = apart(first, second, 0.11, 0.06) & apart(goal, decoy, 0.12, 0.06)
    for thing in (first, second):
        kept &= apart(thing, goal, 0.13, 0.07) & apart(thing, decoy, 0.10, 0.05)
        if task == "arm_push":
            kept &= apart(thing, tool, 0.09, 0.04)
    assert kept.float().mean() > (0.3 if task == "arm_push" else 0.4)  # the best of some candidates, where none fits
    low, high = (0.03, 0.03) if task == "arm_push" else (0.10, 0.22)
    assert tool[:, 2].min() > low - 2e-3 and tool[:, 2].max() < high + 2e-3
    assert not c["done"].any() and not c["done_other"].any() and c["progress"].max() < 0.9
    distance = torch.linalg.vector_norm(place[..., :2] - goal.unsqueeze(1), dim=2)
    torch.testing.assert_close(c["start_distance"], distance)
    reach = torch.linalg.vector_norm(place - tool.unsqueeze(1), dim=2)
    torch.testing.assert_close(c["start_reach"], reach, atol=2e-3, rtol=0)
    env.step(zero_action(env, {}))
    assert env.channels["object_vels"].abs().max() < 0.2 and env.diverged == 0  # nothing lies in anything else


def test_scenes_have_pairs_of_shapes_as_evenly_as_they_can() -> None:
    assert layout(["cube", "can"], 3) == [(("cube", "can"), 1), (("cube", "cube"), 1), (("can", "can"), 1)]
    assert layout(["cube", "can"], 1) == [(("cube", "can"), 1)]
    counts = [number for _, number in layout(["cube", "can", "ball"], 20)]
    assert sum(counts) == 20 and max(counts) - min(counts) <= 1 and len(counts) == 6
    assert all(a != b for (a, b), _ in layout(["cube", "can", "ball"], 20, distinct=True))


# Words and pictures


@pytest.mark.parametrize("task", TASKS)
def test_instructions_have_one_object_of_the_scene_and_wordings_of_their_own(small: Small, task: str) -> None:
    said = {}
    for paraphrase in (False, True):
        env = small(120, task=task, paraphrase=paraphrase, engine=None)
        asked, other = things(env.instructions()), things(assignment(env).instructions(other=True))
        for mine, theirs, pair in zip(asked, other, shapes(env), strict=True):
            assert sorted([mine[1], theirs[1]]) == sorted(pair) and mine != theirs
        patterns = Counter(
            text.replace(" ".join(named), "{thing}") for text, named in zip(env.instructions(), asked, strict=True)
        )
        said[paraphrase] = patterns
        assert set(patterns) == set(TEMPLATES[TASKS[task]][paraphrase])
        assert min(patterns.values()) > 0.4 * 120 / len(patterns)
        named = env.channels["named"]
        assert torch.equal(named.sum(1), torch.ones(120)) and 40 < named[:, 0].sum() < 80
        assert env.task.instruction not in env.instructions()
    assert not set(said[False]) & set(said[True])


def drawn(env: Env, resets: int = 4) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """(Named, other) object of every world over some resets."""
    pairs = []
    for _ in range(resets):
        env.reset()
        pairs += zip(things(env.instructions()), things(assignment(env).instructions(other=True)), strict=True)
    return pairs


@pytest.mark.parametrize("task", ["arm_push", "arm_pick_place"])
def test_held_out_pairs_are_named_where_they_are_asked_for_and_never_seen_otherwise(small: Small, task: str) -> None:
    settings: dict[str, Any] = {"task": task, "engine": None}
    for env in (small(60, **settings), small(60, **settings, evaluation=True, split="heldout")):
        assert all(allowed(*named) and allowed(*other) for named, other in drawn(env))
    for env in (small(60, **settings, pairs="heldout"), small(60, **settings, split="heldout_pairs")):
        found = drawn(env)
        assert all(named in HELDOUT and allowed(*other) for named, other in found)
        assert {named for named, _ in found} == {pair for pair in HELDOUT if pair[1] in sum(shapes(env), [])}
    anything = drawn(small(60, **settings, pairs="any"))
    share = sum(named in HELDOUT for named, _ in anything) / len(anything)
    assert 0.1 < share < 0.35  # one colour in five


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_two_objects_have_one_colour_as_often_as_asked_and_never_one_shape_too(small: Small, share: float) -> None:
    env = small(240, task="arm_pick_place", same_color=share, engine=None)
    for _ in range(3):
        env.reset()
        alike = assignment(env).same_colored()
        differ = torch.tensor([a != b for a, b in shapes(env)])
        assert not alike[~differ].any() and (~differ).any()
        assert alike[differ].float().mean().item() == pytest.approx(share, abs=0.1 if 0 < share < 1 else 1e-9)


def test_distinct_scenes_have_two_shapes(small: Small) -> None:
    env = small(40, task="arm_push", distinct=True)
    assert all(a != b for a, b in shapes(env)) and assignment(env).same_colored().any()


def nearest_color(rgb: torch.Tensor) -> str:
    """The colour whose direction in RGB is that of a lit surface."""
    names, known = list(COLORS), torch.tensor(list(COLORS.values()))
    normal = torch.nn.functional.normalize
    return names[int((normal(known, dim=1) @ normal(rgb.float(), dim=0)).argmax())]


def geoms(env: Env, body: str) -> list[int]:
    """For each world, the geom of one of the objects."""
    return [s.physics.model.geom(f"{body}_0").id for s in env.world.shards for _ in range(s.stop - s.start)]


MOVED = {"camera_position": {}, "camera_rotation": {}, "camera_fovy": {}}


@pytest.mark.parametrize(("front", "randomize"), [("high", {}), ("low", {}), ("high", MOVED)])
def test_the_named_object_has_the_named_colour_where_it_is_in_the_picture(
    small: Small, front: str, randomize: Any
) -> None:
    """Cameras, projection, colours and words are four ways to the same object."""
    env = small(24, task="arm_pick_place", front_camera=front, randomize=randomize)
    try:
        cameras = BatchCameras(env.world, ("front", "wrist"), 96, 96, segmentation=True, threads=1)
    except RenderError as error:
        pytest.skip(f"this machine cannot render: {error}")
    with cameras:
        frames = cameras.refresh()
    c, seen = env.channels, views(env.world, TOOL_SITE)
    bodies = list(zip(geoms(env, "first"), geoms(env, "second"), strict=True))
    shown, hidden = Counter(), Counter()
    for other, place in ((False, table.named_pos(c)), (True, table.other_pos(c))):
        places = (pixels(c, place, seen) * 96).clamp(0, 95)
        for i, (color, _) in enumerate(things(assignment(env).instructions(other))):
            for view, at in enumerate(places[i]):
                if torch.isfinite(at).all():
                    x, y = at.long().tolist()
                    which = int(c["named"][i].argmax()) ^ other
                    if int(frames.segmentation[i, view, y, x, 0]) == bodies[i][which]:
                        assert nearest_color(frames.rgb[i, view, y, x]) == color
                        shown[view] += 1
                    else:
                        hidden[view] += 1
    assert shown[0] >= 40 and shown[1] >= 12 and hidden[0] <= 6 and hidden[1] <= 2  # by the arm, by the gripper
    assert bool((seen.position == seen.position[:1]).all()) == (not randomize)


def test_pads_are_where_they_seem(small: Small) -> None:
    """The goal is white and the decoy dark, where the projection says."""
    env = small(6, task="arm_reach")
    try:
        cameras = BatchCameras(env.world, ("front",), 96, 96, threads=1)
    except RenderError as error:
        pytest.skip(f"this machine cannot render: {error}")
    with cameras:
        rgb = cameras.refresh().rgb
    c, bright = env.channels, []
    for pad in (0, 1):
        place = torch.cat([c["pad_pos"][:, pad], torch.zeros(6, 1)], dim=1)
        at = (pixels(c, place, views(env.world, TOOL_SITE))[:, 0] * 96).long()
        bright.append([int(rgb[i, 0, y, x].max()) for i, (x, y) in enumerate(at.tolist())])
    assert sorted(bright[0])[1] > 200 and sorted(bright[1])[-2] < 90


# Episodes


@pytest.mark.parametrize("task", TASKS)
def test_the_clock_ends_what_is_not_done(small: Small, task: str) -> None:
    env = small(6, task=task, episode_s=0.6)
    for _ in range(6):
        step = env.step(zero_action(env, {}))
    assert step.truncated.all() and not step.terminated.any() and len(step.final_ids) == 6
    assert (step.episodes["success"] == 0).all() and torch.allclose(step.episodes["seconds"], torch.tensor(0.6))
    assert not env.episode_steps.any() and (env.channels["time_spent"] == 0).all()
    assert env.max_episode_length == 6


def test_metrics_tell_done_at_the_end_from_done_once_and_count_loitering() -> None:
    metrics = ArmMetrics(3, 0.1, torch.device("cpu"))
    rows = [([0.7, 0.2, 1.0], [0, 0, 1]), ([0.8, 1.0, 0.5], [0, 1, 0]), ([0.1, 1.0, 0.6], [0, 1, 0])]
    for progress, done in rows:
        metrics.update(Channels({"progress": torch.tensor(progress), "done": torch.tensor(done).float()}))
    saved = metrics.state_dict()
    result = metrics.finish(Selection(torch.tensor([0, 1])))
    assert result["success"].tolist() == [0, 1] and result["ever_done"].tolist() == [0, 1]
    assert torch.allclose(result["loitering_s"], torch.tensor([0.2, 0.0]))
    assert torch.allclose(result["best_progress"], torch.tensor([0.8, 1.0]))
    last = metrics.finish(Selection(torch.tensor([2])))
    assert (last["success"].item(), last["ever_done"].item()) == (0, 1)
    assert last["loitering_s"].item() == pytest.approx(0.1) and last["seconds"].item() == pytest.approx(0.3)
    metrics.load_state_dict(saved)
    assert torch.equal(metrics.finish(Selection.all(3))["success"], torch.tensor([0.0, 1.0, 0.0]))


@pytest.mark.parametrize("task", TASKS)
def test_the_reward_is_lost_while_progress_is_missing(small: Small, task: str) -> None:
    env = small(6, task=task)
    step = env.step(torch.ones(6, env.num_actions))
    expected = 0.2 * (env.channels["progress"] - 1.0)
    assert torch.allclose(step.rewards["remaining"], expected, atol=1e-6) and not step.rewards["finished"].any()
    assert set(small(2, task=task, reward="sparse").task.rewards) == {"finished"}
    control = small(120, task=task, reward="random", engine=None)
    rewards = torch.stack([control.step(zero_action(control, {})).reward for _ in range(4)])
    assert abs(rewards.mean().item()) < 0.15 < rewards.std().item()


def test_noise_reaches_the_policy_alone_and_each_object_has_its_own(small: Small) -> None:
    task = {"task": "arm_pick_place", "engine": None}
    noisy = small(120, sensor_noise=True, **task)
    obs = noisy.step(zero_action(noisy, {})).obs
    assert torch.equal(obs["critic"], noisy.task.observe("critic", noisy.channels))
    assert not torch.equal(obs["policy"], obs["critic"][:, : obs["policy"].shape[1]])
    error = noisy.state_dict()["seen"]["object_poses"] - noisy.channels["object_poses"]
    assert error[..., :3].std().item() == pytest.approx(0.002, rel=0.1)
    assert abs(torch.corrcoef(error[..., 0].T)[0, 1].item()) < 0.3
    biased = small(40, randomize={"sensor_bias": [1.0, 1.0], "sensor_noise": [1e-6, 1e-6]}, task="arm_pick_place")
    for _ in range(2):
        biased.step(zero_action(biased, {}))
        error = biased.state_dict()["seen"]["object_poses"] - biased.channels["object_poses"]
        assert torch.allclose(error[..., :3], torch.tensor(0.002), atol=1e-5)


# Assignments and resets


def colors_shown(env: Env) -> torch.Tensor:
    """(N, 2, 3) colours in the worlds' own models."""
    shown = []
    for shard in env.world.shards:
        ids = [shard.physics.model.geom(f"{body}_0").id for body in ("first", "second")]
        shown.append(shard.physics.expand("geom_rgba")[:, ids, :3])
    return torch.cat(shown).double()


@pytest.mark.parametrize("dense", [False, True])
def test_a_reset_draws_a_new_assignment_for_its_worlds_alone(small: Small, dense: bool) -> None:
    env = small(12, task="arm_reach")
    env.world.dense = dense
    rgb = torch.tensor(list(COLORS.values())).double()
    changed = 0
    for k in range(40):
        before, said = colors_shown(env), env.instructions()
        env.episode_steps[k % 12] = env.max_episode_length - 1  # its time is up
        step = env.step(zero_action(env, {}))
        ended = step.terminated | step.truncated
        assert ended[k % 12]
        now, asked = colors_shown(env), env.instructions()
        assert torch.equal(now[~ended], before[~ended])
        assert all(a == b for a, b, e in zip(asked, said, ended.tolist(), strict=True) if not e)
        changed += sum(a != b for a, b in zip(asked, said, strict=True))
        torch.testing.assert_close(now, rgb[assignment(env).colors], atol=1e-6, rtol=0)
        named = [list(COLORS)[c[w]] for c, w in zip(assignment(env).colors, assignment(env).named, strict=True)]
        assert [color for color, _ in things(asked)] == named
        torch.testing.assert_close(env.channels["named"].argmax(1), assignment(env).named)
    assert changed > 20


EVERYTHING = {
    "object_mass": {"at": "reset", "each": True},
    "object_friction": {},
    "arm_damping": {"at": "interval", "interval_s": [0.1, 0.3]},
    "camera_position": {},
    "light_diffuse": {"at": "reset"},
    "latency": [0, 2],
    "sensor_bias": {},
}


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("task", ["arm_push", "arm_pick_place"])
def test_a_state_continues_bit_for_bit(small: Small, task: str, dense: bool) -> None:
    a, b = (small(6, task=task, seed=seed, randomize=EVERYTHING, episode_s=0.8) for seed in (1, 2))
    a.world.dense = b.world.dense = dense
    actions = torch.randn(26, 6, a.num_actions, generator=torch.Generator().manual_seed(0))
    for action in actions[:11]:
        a.step(action), b.step(action.flip(0))
    b.load_state_dict(copy.deepcopy(a.state_dict()))
    ended = 0
    for action in actions[11:]:
        assert a.instructions() == b.instructions() and torch.equal(colors_shown(a), colors_shown(b))
        x, y = a.step(action), b.step(action)
        assert all(torch.equal(x.obs[group], y.obs[group]) for group in x.obs) and torch.equal(x.reward, y.reward)
        ended += int((x.terminated | x.truncated).sum())
    assert ended >= 6


def test_one_seed_is_one_run_and_another_is_another(small: Small) -> None:
    a, b, other = (small(12, task="arm_push", seed=seed) for seed in (3, 3, 4))
    assert a.instructions() == b.instructions() != other.instructions()
    assert torch.equal(a.channels["object_poses"], b.channels["object_poses"])
    assert not torch.equal(a.channels["object_poses"], other.channels["object_poses"])


# Settings


def test_the_policy_reads_what_a_robot_can_know(small: Small) -> None:
    for task in TASKS:
        env = small(2, task=task)
        assert set(env.contract.names("inputs")) == {"joint_pos", "object_poses", "pad_pos", "named"}
        assert env.contract.rate_hz == pytest.approx(10) and env.contract.robot == "panda"
    assert small(2, task="arm_push").num_actions == 2 and small(2, task="arm_pick_place").num_actions == 4


def test_evaluations_end_when_it_is_done_whatever_the_setting(small: Small) -> None:
    assert "done" in small(0, task="arm_reach", evaluation=True, ends="never", engine=None).task.terminations
    assert "done" not in small(2, task="arm_reach", ends="never").task.terminations
    assert small(0, task="arm_reach", evaluation=True, engine=None).num_envs == 96


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward": "dens"}, "unknown reward 'dens'; did you mean 'dense'"),
        ({"ends": "don"}, "unknown ends 'don'; did you mean 'done'"),
        ({"pairs": "held"}, "unknown pairs 'held'.*heldout"),
        ({"shapes": ["cube", "bal"]}, "unknown shape 'bal'; did you mean 'ball'"),
        ({"shapes": []}, "shapes must be a list of some of cube, can, puck, ball, got"),
        ({"shapes": "cube"}, "shapes must be a list .*got 'cube'"),
        ({"shapes": ["cube", "cube"]}, "shapes must differ, got cube, cube"),
        ({"shapes": ["cube"], "distinct": True}, "distinct needs two shapes or more, got cube"),
        ({"same_color": 1.5}, "same_color must be between 0 and 1, got 1.5"),
        ({"shapes": ["puck"], "pairs": "heldout", "split": "trian"}, "unknown split 'trian'; did you mean 'train'"),
        ({"axes": ["x", "w"]}, "axes are some of x, y, z"),
        ({"rate_hz": 30.0}, "their product must be 200"),
        ({"episode_s": 0.01}, "episode_s must last a control step"),
        ({"tool_step": float("nan")}, "tool_step must be greater than 0, got nan"),
        ({"tool_height": [0.2, 0.1]}, r"tool_height must be \[low, high\] between 0.015 and 0.4 m"),
        ({"tool_height": 0.2}, "tool_height must be two numbers, got 0.2"),
        ({"command_delay": [2, 1]}, r"command_delay must be \[least, most\]"),
        ({"command_delay": [0, 1], "randomize": {"latency": [0, 1]}}, "both set the latency"),
        ({"robot": "g1"}, "'g1' has no gripper on an arm"),
        ({"randomize": {"object_color": [0, 1]}}, "unknown randomizer 'object_color'"),
        ({"randomize": {"object_kick": [0, 1]}}, "unknown randomizer 'object_kick'"),
        ({"tool_stp": 0.1}, "unknown setting 'arm_push.tool_stp'; did you mean 'arm_push.tool_step'"),
    ],
)
def test_impossible_settings_are_refused(small: Small, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RobolearnError, match=message):
        small(2, task="arm_push", **settings)
