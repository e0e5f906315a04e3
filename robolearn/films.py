"""Films of a policy at work: what it does, beside the reference that it follows where there is one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robolearn.judge import Controller
from sim.env import Env
from sim.opengl import RenderError
from sim.video import SceneRenderer, caption, write_video
from sim.world import Shard

_TABLE: dict[str, Any] = {"distance": 0.6, "elevation": -15.0}
_WALKER: dict[str, Any] = {"lookat": (0.0, 0.0, 0.65), "distance": 2.6, "elevation": -12.0}
_ACROSS: dict[str, Any] = {"lookat": (0.45, 0.0, 0.05), "distance": 0.75, "azimuth": 180.0, "elevation": -40.0}


def film(
    env: Env, controller: Controller, path: Path, *, worlds: int = 4, fps: int = 30, size: tuple[int, int] = (240, 320)
) -> Path:
    """Write an mp4 of ``worlds`` worlds of an evaluation environment.

    Where the goal is a `sim.motions.ReferenceGoal`, each world is shown as the policy (left) beside its reference; a
    robot that walks is followed; others are seen from across the table, with what they are asked to do.

    Args:
        env: the environment.
        controller: what acts.
        path: the mp4.
        worlds: how many worlds to show, spread over all of them.
        fps: frames per second; control steps are skipped to fit, time runs true.
        size: (height, width) of one picture, pixels.

    Raises:
        RenderError: fewer than one world, the machine cannot render, or the film cannot be written.
    """
    if worlds < 1:
        raise RenderError(f"a film needs at least 1 world, got {worlds}")
    chosen = np.unique(np.linspace(0, env.num_envs - 1, min(worlds, env.num_envs)).astype(int))
    every = max(1, round(1.0 / env.step_dt / fps))
    return write_video(path, _frames(env, controller, chosen, every, size), 1.0 / env.step_dt / every)


@torch.inference_mode()
def _frames(
    env: Env, controller: Controller, chosen: np.ndarray, every: int, size: tuple[int, int]
) -> Iterator[np.ndarray]:
    shards = [next(s for s in env.world.shards if s.start <= i < s.stop) for i in chosen]
    models = {shard.label: copy.copy(shard.physics.model) for shard in shards}
    shown = ((picture, view) for channel, picture, view in _VIEWS if channel in env.channels)
    picture, view = next(shown, (_instructed, _ACROSS))
    renderers = {label: SceneRenderer(model, *size, **view) for label, model in models.items()}
    obs = env.reset()
    longest = int(env.max_episode_length)
    try:
        for step in range(longest - 1):
            if step % every == 0:
                pictures = []
                for i, shard in zip(chosen, shards, strict=True):
                    env.world.write_model(i, models[shard.label])
                    pictures.append(picture(env, i, shard, renderers[shard.label]))
                yield _grid(pictures)
            obs = env.step(controller(env, obs)).obs
    finally:
        for renderer in renderers.values():
            renderer.close()


def _grid(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures of one size in rows of two; a single one stays alone."""
    if len(pictures) % 2 and len(pictures) > 1:
        pictures = [*pictures, np.zeros_like(pictures[0])]
    rows = [np.concatenate(pictures[k : k + 2], axis=1) for k in range(0, len(pictures), 2)]
    return np.concatenate(rows)


def _instructed(env: Env, world: int, shard: Shard, renderer: SceneRenderer) -> np.ndarray:
    """The world from across the table, (H, W, 3)."""
    qpos = shard.physics.bind("qpos")[world - shard.start].cpu().numpy()
    return caption(renderer.render(qpos), env.instructions()[world])


def _following(env: Env, world: int, shard: Shard, renderer: SceneRenderer) -> np.ndarray:
    """The world from beside, the camera moving along with the robot's base, (H, W, 3)."""
    qpos = shard.physics.bind("qpos")[world - shard.start].cpu().numpy()
    renderer.camera.lookat[:2] = qpos[:2]
    ahead, left, turn = env.channels["velocity_command"][world].tolist()
    return caption(renderer.render(qpos), f"{ahead:+.2f} {left:+.2f} m/s {turn:+.2f} rad/s")


def _pair(env: Env, world: int, shard: Shard, renderer: SceneRenderer) -> np.ndarray:
    """Policy and reference side by side, (H, 2W, 3)."""
    c = env.channels
    actual = torch.cat([c["joint_pos"][world], c["object_pose"][world]]).cpu().numpy()
    wanted = torch.cat([c["reference_joint_pos"][world, 0], c["reference_object_pose"][world, 0]]).cpu().numpy()
    centre = wanted[-7:-4]
    renderer.camera.lookat[:] = 0.5 * (renderer.camera.lookat + [centre[0], centre[1], max(centre[2], 0.08)])
    error = 100.0 * float(np.linalg.norm(actual[-7:-4] - wanted[-7:-4]))
    left = caption(renderer.render(actual), f"policy: {shard.label}, object error {error:.1f} cm")
    right = caption(renderer.render(wanted), "reference")
    return np.concatenate([left, right], axis=1)


_Picture = Callable[[Env, int, Shard, SceneRenderer], np.ndarray]
_VIEWS: tuple[tuple[str, _Picture, dict[str, Any]], ...] = (
    ("reference_joint_pos", _pair, _TABLE),
    ("velocity_command", _following, _WALKER),
)
"""What is shown where a task has a channel of this name."""
