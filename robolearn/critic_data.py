"""Simulated episodes for critics: an expert's, and failures of every kind, seen by cameras and labelled exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from robolearn.errors import RobolearnError, unknown
from robolearn.threads import one_thread
from sim.camera import BatchCameras
from sim.engines import Engine
from sim.env import Env
from sim.experts.arm import MODES, ScriptedArm
from sim.robots import get_robot
from sim.tasks import make_env
from sim.tasks.arm_scene import Views, pixels, views
from sim.tasks.arm_things import Assignment
from sim.terms.table import named_pos, other_pos
from vlm_rewards.clips import Clip, ClipSet

CAMERAS = ("front", "wrist")
SAME_COLOR = "wrong_object_same_colour"
"""``wrong_object`` in scenes where both objects have one colour: only the shape tells them apart."""
TAIL = (2, 5)
"""Frames that a success goes on for after it is done, least and most."""
HORIZON_S = 6.4
WORLDS = 144
"""Most worlds simulated together."""
LEFTOVER = 24
"""Worlds for the last few episodes."""
LAST_ROUND = 200
"""Rounds of worlds after which the episodes that are still missing are given up."""
_SEEDS_APART = 1_000_003
"""Between the seeds of two environments for one recipe, so that no other recipe's episodes begin alike."""

SHIFTS: dict[str, dict[str, Any]] = {
    "camera": {"camera_position": [-0.02, 0.02], "camera_rotation": [0.0, 0.05]},
    "light": {"light_diffuse": [0.6, 1.4], "light_direction": [0.0, 0.5]},
}
"""Name → what is randomised in episodes that a critic should judge as well."""

Say = Callable[[str], None]


class DataError(RobolearnError):
    """Episodes that cannot be simulated."""


@dataclass(frozen=True)
class Recipe:
    """What episodes to make.

    Attributes:
        task: an arm task.
        counts: mode → number of episodes; `SAME_COLOR` is a mode here.
        seed: of everything.
        size: height and width of pictures, pixels.
        every: control steps between frames.
        settings: of the task, such as ``pairs`` or ``paraphrase``.
        noise: of the scripts' actions, see `ScriptedArm`.
    """

    task: str
    counts: Mapping[str, int]
    seed: int = 0
    size: int = 64
    every: int = 2
    settings: Mapping[str, Any] = field(default_factory=dict)
    noise: float = 0.0


def even_counts(task: str, failures: int, experts: int | None = None) -> dict[str, int]:
    """As many episodes of every failure, and ``experts`` (by default as many) of the expert.

    Raises:
        DataError: a task without scripts, or negative numbers.
    """
    if task not in MODES:
        raise DataError(unknown("task with scripts", task, MODES))
    if failures < 0 or (experts or 0) < 0:
        raise DataError(f"numbers of episodes must be 0 or more, got {failures} and {experts}")
    modes = [*MODES[task], *([SAME_COLOR] if "wrong_object" in MODES[task] else [])]
    return {mode: (failures if experts is None else experts) if mode == "expert" else failures for mode in modes}


def collect(recipe: Recipe, threads: int = 0, say: Say = lambda text: None) -> ClipSet:
    """Simulate, film and label the episodes of a recipe; experts that do not succeed are made again.

    Facts of each frame: ``progress_other`` and ``done_other`` (1), the truth about the same frame under the
    instruction that names the other object; ``proprioception`` (joint positions and the tool's place); ``state``, the
    critic's observations; ``pixel_named``, ``pixel_other`` and ``pixel_goal`` (V·2), where things are in each picture,
    x to the right and y down in [0, 1], NaN outside.

    Raises:
        DataError: a task without scripts, an unknown mode, no episodes, or scripts that do not do what they should.
    """
    _check(recipe)
    mixed = {mode: count for mode, count in recipe.counts.items() if mode != SAME_COLOR and count}
    alike = {"wrong_object": recipe.counts.get(SAME_COLOR, 0)}
    clips = _collect(recipe, mixed, {}, threads, say)
    if alike["wrong_object"]:
        clips += _collect(recipe, alike, {"same_color": 1.0, "distinct": True}, threads, say)
    order = np.random.default_rng(recipe.seed).permutation(len(clips))
    return ClipSet([clips[i] for i in order])


def _check(recipe: Recipe) -> None:
    modes = even_counts(recipe.task, 0)
    for mode, count in recipe.counts.items():
        if mode not in modes:
            raise DataError(unknown(f"mode of {recipe.task}", mode, modes))
        if count < 0:
            raise DataError(f"a number of episodes must be 0 or more, got {count} of {mode}")
    if not any(recipe.counts.values()):
        raise DataError(f"a recipe for {recipe.task} asks for no episodes")
    if not 0.0 <= recipe.noise < math.inf:
        raise DataError(f"noise must be 0 or more, in units of action, got {recipe.noise}")
    if recipe.every < 1:
        raise DataError(f"every must be at least 1 control step, got {recipe.every}")


def _collect(recipe: Recipe, counts: Mapping[str, int], extra: Mapping[str, Any], threads: int, say: Say) -> list[Clip]:
    """Episodes of one kind of scene, in rounds of worlds until there are enough of each mode."""
    wanted = dict(counts)
    total = sum(wanted.values())
    if not total:
        return []
    settings = {"same_color": 0.3, **recipe.settings, **extra, "ends": "never", "episode_s": HORIZON_S + 1.0}
    generator = np.random.default_rng(recipe.seed)
    clips: list[Clip] = []
    number = 0
    for worlds in dict.fromkeys((min(total, WORLDS), min(total, LEFTOVER))):  # the last few in a world of their own
        env = make_env(recipe.task, worlds, recipe.seed + _SEEDS_APART * number, Engine(threads=threads), **settings)
        with BatchCameras(env.world, CAMERAS, recipe.size, recipe.size, threads=threads) as cameras:
            while (left := sum(wanted.values())) and (left > LEFTOVER or worlds <= LEFTOVER) and number < LAST_ROUND:
                modes = _assign(wanted, worlds, generator)
                for clip in _episodes(env, cameras, modes, recipe, number, generator, bool(extra)):
                    if wanted.get(clip.mode, 0) > 0 and _fits(clip):
                        wanted[clip.mode] -= 1
                        clips.append(replace(clip, mode=SAME_COLOR) if extra else clip)
                number += 1
                say(f"{len(clips)} of {total} episodes")
    if len(clips) == total:
        return clips
    missing = ", ".join(f"{count} of {mode}" for mode, count in wanted.items() if count)
    raise DataError(f"{recipe.task}: the scripts did not make enough episodes; missing: {missing}")


def _assign(wanted: Mapping[str, int], worlds: int, generator: np.random.Generator) -> list[str]:
    """A mode for each world, in proportion to what is missing, in random order."""
    names = [mode for mode, count in wanted.items() if count > 0]
    share = np.array([wanted[mode] for mode in names], dtype=float)
    counts = np.maximum(1, np.floor(worlds * share / share.sum()).astype(int))
    modes = [mode for mode, count in zip(names, counts, strict=True) for _ in range(count)]
    modes += [names[i] for i in generator.choice(len(names), max(0, worlds - len(modes)), p=share / share.sum())]
    return [modes[i] for i in generator.permutation(len(modes))[:worlds]]


def _fits(clip: Clip) -> bool:
    """Whether an episode is what its mode says: experts succeed, other failures than ``run_on`` do not."""
    if clip.mode == "expert":
        return clip.success
    return bool(clip.done.any()) and not clip.success if clip.mode == "run_on" else not bool(clip.done.any())


@one_thread()
@torch.inference_mode()
def _episodes(
    env: Env,
    cameras: BatchCameras,
    modes: Sequence[str],
    recipe: Recipe,
    number: int,
    generator: np.random.Generator,
    alike: bool,
) -> list[Clip]:
    """One episode in every world; of ``wrong_object`` those whose objects are ``alike`` in colour, or are not.

    A world that is reset on the way, because its physics failed, gives none.
    """
    arm = ScriptedArm(env, modes, seed=recipe.seed * 100_003 + number, noise=recipe.noise)
    env.reset()
    same = assignment_of(env).same_colored().tolist()
    whole = torch.ones(env.num_envs, dtype=torch.bool)
    seen = None if _cameras_vary(env) else _views(env)
    pictures: list[torch.Tensor] = []
    rows: list[dict[str, torch.Tensor]] = []
    for k in range(round(HORIZON_S / env.step_dt) + 1):
        if k:
            step = env.step(arm.act())
            whole &= ~(step.terminated | step.truncated)
        if k % recipe.every == 0:
            rgb = cameras.refresh().rgb
            assert rgb is not None
            pictures.append(rgb.clone())
            rows.append(_labels(env, seen or _views(env)))
    rgb = torch.stack(pictures, dim=1)
    labels = {name: torch.stack([row[name] for row in rows], dim=1) for name in rows[0]}
    asked, others = env.instructions(), assignment_of(env).instructions(other=True)
    times = torch.arange(len(rows), dtype=torch.float64) * recipe.every * env.step_dt
    clips = []
    for i, mode in enumerate(modes):
        if not whole[i] or (mode == "wrong_object" and same[i] != alike):  # each has a set of its own
            continue
        length = _length(labels["done"][i], mode, len(rows), generator)
        facts = {name: value[i, :length].clone() for name, value in labels.items() if name not in ("progress", "done")}
        clips.append(
            Clip(
                rgb[i, :length].clone(),
                CAMERAS,
                times[:length],
                asked[i],
                labels["progress"][i, :length].clone(),
                labels["done"][i, :length] > 0.5,
                mode,
                (others[i],),
                facts,
            )
        )
    return clips


def assignment_of(env: Env) -> Assignment:
    """What the worlds of an arm task are asked to do."""
    assignment = env.task.randomizers["assignment"]
    assert isinstance(assignment, Assignment)
    return assignment


def _labels(env: Env, seen: Views) -> dict[str, torch.Tensor]:
    """What the simulation knows of every world now, its cameras ``seen``; name → (N,) or (N, d)."""
    c = env.channels
    goal = torch.cat([c["pad_pos"][:, 0], torch.zeros_like(c["pad_pos"][:, 0, :1])], dim=1)
    places = {"named": named_pos(c), "other": other_pos(c), "goal": goal}
    return {
        "progress": c["progress"].clone(),
        "done": c["done"].clone(),
        "progress_other": c["progress_other"].unsqueeze(1).clone(),
        "done_other": c["done_other"].unsqueeze(1).clone(),
        "proprioception": torch.cat([c["joint_pos"], c["tool_pos"]], dim=1),
        "state": env.task.observe("critic", c).clone(),
        **{f"pixel_{name}": pixels(c, place, seen).flatten(1) for name, place in places.items()},
    }


def _views(env: Env) -> Views:
    """How the cameras see now."""
    return views(env.world, get_robot(env.task.robot).tool_site)


def _cameras_vary(env: Env) -> bool:
    """Whether how cameras see is randomised."""
    fields = {name for randomizer in env.task.randomizers.values() for name in randomizer.fields}
    return any(name.startswith("cam_") for name in fields)


def _length(done: torch.Tensor, mode: str, frames: int, generator: np.random.Generator) -> int:
    """How many frames an episode keeps: a success ends soon, others between two thirds and all of the time."""
    if mode == "expert" and bool(done.any()):
        return min(frames, int(torch.nonzero(done)[0]) + 1 + int(generator.integers(TAIL[0], TAIL[1] + 1)))
    if mode == "run_on":
        return frames
    return int(generator.integers(2 * frames // 3, frames + 1))
