"""A flat pick-and-place world drawn with OpenCV: recordings of every mode, with exact truth, in milliseconds each."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from vlm_rewards.clips import Clip, ClipSet

COLOURS = {
    "red": (200, 40, 40),
    "green": (40, 170, 60),
    "blue": (40, 70, 210),
    "yellow": (220, 200, 40),
    "purple": (150, 50, 170),
}
SHAPES = ("cube", "can", "ball")
MODES = ("expert", "miss", "drop", "stall", "hover", "run_on", "wrong_goal", "random", "wrong_object")
SAME_COLOUR = "wrong_object_same_colour"
CAMERAS = ("front", "wrist")
TEMPLATES = (
    "put the {} on the white pad",
    "place the {} on the white pad",
    "move the {} onto the white pad",
    "pick up the {} and set it down on the white pad",
)
REACH = 0.05
"""How near is near enough, in widths of the table."""
LIFTED = 0.3


@dataclass(frozen=True)
class Step:
    """One frame's state: gripper (2,), its height, whether it is closed, objects (2, 2), which is held or -1."""

    gripper: np.ndarray
    height: float
    closed: bool
    objects: np.ndarray
    held: int


@dataclass(frozen=True)
class Scene:
    """Colour and shape of two objects, and where the pad and a second, dark mark lie."""

    looks: tuple[tuple[str, str], tuple[str, str]]
    pad: np.ndarray
    mark: np.ndarray


def drawn_clips(episodes: int | dict[str, int], seed: int = 0, size: int = 48, modes: Sequence[str] = MODES) -> ClipSet:
    """Recordings of two cameras at ``size`` x ``size`` pixels.

    Args:
        episodes: of each of ``modes``, or a number for each mode.
    """
    numbers = episodes if isinstance(episodes, dict) else dict.fromkeys(modes, episodes)
    return ClipSet(
        [
            drawn_clip(mode, zlib.crc32(f"{mode} {index} {seed}".encode()), size)
            for mode, number in numbers.items()
            for index in range(number)
        ]
    )


def drawn_clip(mode: str, seed: int, size: int = 48) -> Clip:
    """One recording; the first object is the one that the instruction names."""
    rng = np.random.default_rng(seed)
    places = _apart(rng, 4)
    scene = Scene(_looks(rng, mode), places[2], places[3])
    steps = list(_played(mode, places[:2], scene, rng))
    judged = np.array([[_progress(step, i, scene) for i in (0, 1)] for step in steps], np.float32)
    done = np.array([[_done(step, i, scene) for i in (0, 1)] for step in steps])
    pictures = np.stack([[_front(step, scene, size, rng), _wrist(step, scene, size, rng)] for step in steps])
    template = TEMPLATES[int(rng.integers(len(TEMPLATES)))]
    named, other = (template.format(" ".join(look)) for look in scene.looks)
    return Clip(
        torch.from_numpy(pictures),
        CAMERAS,
        torch.arange(len(steps)).double() * 0.2,
        named,
        torch.from_numpy(judged[:, 0].copy()),
        torch.from_numpy(done[:, 0].copy()),
        mode,
        (other,),
        {**_facts(steps, scene), "progress_other": _column(judged[:, 1]), "done_other": _column(done[:, 1])},
    )


def noise_pictures(frames: int, size: int = 48, seed: int = 0) -> torch.Tensor:
    """(frames, 2, size, size, 3) uint8 without any meaning."""
    made = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, 2, size, size, 3), dtype=torch.uint8, generator=made)


def _looks(rng: np.random.Generator, mode: str) -> tuple[tuple[str, str], tuple[str, str]]:
    colours, shapes = list(COLOURS), list(SHAPES)
    if mode == SAME_COLOUR:
        colour = colours[rng.integers(5)]
        first, second = rng.permutation(shapes)[:2]
        return (colour, str(first)), (colour, str(second))
    if mode == "wrong_object":
        one, two = rng.permutation(colours)[:2]
        return (str(one), shapes[rng.integers(3)]), (str(two), shapes[rng.integers(3)])
    one, two = rng.permutation(15)[:2]
    return (colours[one // 3], shapes[one % 3]), (colours[two // 3], shapes[two % 3])


def _apart(rng: np.random.Generator, number: int) -> np.ndarray:
    """Places on the table that do not touch."""
    while True:
        places = rng.uniform(0.12, 0.88, (number, 2))
        gaps = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.eye(number)
        if gaps.min() > 0.26:
            return places


def _plan(
    mode: str, objects: np.ndarray, scene: Scene, rng: np.random.Generator
) -> list[tuple[np.ndarray, float, bool]]:
    """Waypoints: where, how high, whether closed on arrival."""
    if mode == "random":
        return [(rng.uniform(0.1, 0.9, 2), float(rng.uniform(0, 1)), bool(rng.integers(2))) for _ in range(6)]
    taken = objects[1] if mode.startswith("wrong_object") else objects[0]
    if mode == "miss":
        angle = rng.uniform(0, 2 * np.pi)
        taken = taken + 0.14 * np.array([np.cos(angle), np.sin(angle)])
    goal = scene.mark if mode == "wrong_goal" else scene.pad
    grasp = [(taken, 1.0, False), (taken, 0.0, False), (taken, 0.0, True), (taken, 1.0, True)]
    if mode == "stall":
        return grasp[: int(rng.integers(1, 5))]
    if mode == "drop":
        middle = taken + rng.uniform(0.35, 0.65) * (goal - taken)
        return [*grasp, (middle, 1.0, True), (middle, 1.0, False), (goal, 1.0, False)]
    if mode == "hover":
        return [*grasp, (goal, 1.0, True), (goal, float(rng.uniform(0, 0.5)), True)]
    put = [(goal, 1.0, True), (goal, 0.0, True), (goal, 0.0, False), (goal, 1.0, False)]
    away = [(goal, 0.0, False), (goal, 0.0, True), (goal, 1.0, True), (scene.mark, 1.0, True)]
    return [*grasp, *put, *(away if mode == "run_on" else [])]


def _played(mode: str, objects: np.ndarray, scene: Scene, rng: np.random.Generator) -> Iterator[Step]:
    objects, gripper, height, closed, held = objects.copy(), rng.uniform(0.2, 0.8, 2), 1.0, False, -1
    for place, level, close in _plan(mode, objects, scene, rng):
        while True:
            yield Step(gripper.copy(), height, closed, objects.copy(), held)
            way, climb = place - gripper, level - height
            far = float(np.linalg.norm(way))
            gripper = gripper + way * min(1.0, 0.2 / max(far, 1e-9))
            height += float(np.clip(climb, -0.5, 0.5))
            if held >= 0:
                objects[held] = gripper
            if far <= 0.2 and abs(climb) <= 0.5:
                break
        if close and not closed and height < 0.1:
            gaps = np.linalg.norm(objects - gripper, axis=1)
            held = int(gaps.argmin()) if gaps.min() < REACH else -1
        closed, held = close, held if close else -1
    for _ in range(4):
        yield Step(gripper.copy(), height, closed, objects.copy(), held)


def _progress(step: Step, which: int, scene: Scene) -> float:
    """Reach to .3, held from .4, carried to .8, released .9, retreated 1."""
    to_pad = float(np.linalg.norm(step.objects[which] - scene.pad))
    if step.held == which:
        return 0.4 + 0.4 * (1 - min(1.0, to_pad / 0.8))
    if to_pad < REACH:
        return 0.9 + 0.1 * min(1.0, step.height / LIFTED)
    return 0.3 * (1 - min(1.0, float(np.linalg.norm(step.objects[which] - step.gripper)) / 0.8))


def _done(step: Step, which: int, scene: Scene) -> bool:
    near = np.linalg.norm(step.objects[which] - scene.pad) < REACH
    return bool(near and step.held != which and step.height >= LIFTED)


def _front(step: Step, scene: Scene, size: int, rng: np.random.Generator) -> np.ndarray:
    return _drawn(step, scene, size, np.zeros(2), 1.0, rng)


def _wrist(step: Step, scene: Scene, size: int, rng: np.random.Generator) -> np.ndarray:
    return _drawn(step, scene, size, step.gripper - 0.25, 2.0, rng)


def _drawn(
    step: Step, scene: Scene, size: int, corner: np.ndarray, zoom: float, rng: np.random.Generator
) -> np.ndarray:
    """Seen from above: a held object and the gripper shift up the picture by their height."""
    scale = size * zoom
    picture = np.full((size, size, 3), 120, np.uint8)

    def at(place: np.ndarray, height: float = 0.0) -> tuple[int, int]:
        x, y = (place - corner) * scale
        return int(x), int(y - 0.1 * height * scale)

    def square(centre: tuple[int, int], half: float, colour: tuple[int, int, int], tall: float = 1.0) -> None:
        (x, y), w, h = centre, int(half * scale), int(half * tall * scale)
        cv2.rectangle(picture, (x - w, y - h), (x + w, y + h), colour, -1)

    square(at(scene.pad), 0.11, (245, 245, 245))
    square(at(scene.mark), 0.11, (20, 20, 20))
    for which, (colour, shape) in enumerate(scene.looks):
        centre = at(step.objects[which], step.height if step.held == which else 0.0)
        if shape == "ball":
            cv2.circle(picture, centre, int(0.075 * scale), COLOURS[colour], -1)
        else:
            square(centre, 0.07 if shape == "cube" else 0.04, COLOURS[colour], 1.0 if shape == "cube" else 2.2)
    gap = 0.08 if step.closed else 0.13
    for side in (-gap, gap):
        square(at(step.gripper + np.array([side, 0.0]), step.height), 0.02, (70, 70, 80), 3.0)
    return np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


def _facts(steps: list[Step], scene: Scene) -> dict[str, torch.Tensor]:
    body = [[*s.gripper, s.height, float(s.closed)] for s in steps]
    state = [[*row, *s.objects.ravel(), *scene.pad, float(s.held)] for row, s in zip(body, steps, strict=True)]
    return {
        "proprioception": torch.tensor(body, dtype=torch.float32),
        "state": torch.tensor(state, dtype=torch.float32),
        "pixel_named": _pixels(steps, [s.objects[0] for s in steps], [s.height * (s.held == 0) for s in steps]),
        "pixel_other": _pixels(steps, [s.objects[1] for s in steps], [s.height * (s.held == 1) for s in steps]),
        "pixel_goal": _pixels(steps, [scene.pad for _ in steps], [0.0 for _ in steps]),
    }


def _pixels(steps: list[Step], places: Sequence[np.ndarray], heights: Sequence[float]) -> torch.Tensor:
    """(T, 4): x and y in each camera's picture, NaN outside it."""
    raised = np.stack(places) - np.stack([np.zeros(len(heights)), 0.1 * np.array(heights)], 1)
    corner = np.stack([s.gripper for s in steps]) - 0.25
    seen = np.stack([raised, 2.0 * (raised - corner)], 1)
    outside = ((seen < 0) | (seen > 1)).any(-1)
    seen[outside] = np.nan
    return torch.from_numpy(seen.reshape(len(steps), 4).astype(np.float32))


def _column(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))[:, None]
