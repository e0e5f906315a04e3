"""Films of a policy at work: what it does, beside the reference it follows."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from robolearn.judge import Controller
from sim.env import Env
from sim.opengl import RenderError
from sim.video import SceneRenderer, caption, write_video


def film_tracking(
    env: Env, controller: Controller, path: Path, *, worlds: int = 4, fps: int = 30, size: tuple[int, int] = (240, 320)
) -> Path:
    """Write an mp4 of ``worlds`` worlds of an evaluation environment, each the policy (left) beside its reference.

    Args:
        env: an environment whose goal is a `sim.motions.ReferenceGoal`.
        controller: what acts.
        path: the mp4.
        worlds: how many worlds to show, spread over all objects.
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
    renderers = {label: SceneRenderer(model, *size, distance=0.6, elevation=-15.0) for label, model in models.items()}
    obs = env.reset()
    longest = int(env.max_episode_length)
    try:
        for step in range(longest - 1):
            if step % every == 0:
                pairs = []
                for i, shard in zip(chosen, shards, strict=True):
                    env.world.write_model(i, models[shard.label])
                    pairs.append(_pair(env, i, shard.label, renderers[shard.label]))
                yield _grid(pairs)
            obs = env.step(controller(env, obs)).obs
    finally:
        for renderer in renderers.values():
            renderer.close()


def _grid(pairs: list[np.ndarray]) -> np.ndarray:
    """Pictures of one size in rows of two; a single one stays alone."""
    if len(pairs) % 2 and len(pairs) > 1:
        pairs = [*pairs, np.zeros_like(pairs[0])]
    rows = [np.concatenate(pairs[k : k + 2], axis=1) for k in range(0, len(pairs), 2)]
    return np.concatenate(rows)


def _pair(env: Env, world: int, label: str, renderer: SceneRenderer) -> np.ndarray:
    """Policy and reference side by side, (H, 2W, 3)."""
    c = env.channels
    actual = torch.cat([c["joint_pos"][world], c["object_pose"][world]]).numpy()
    wanted = torch.cat([c["reference_joint_pos"][world, 0], c["reference_object_pose"][world, 0]]).numpy()
    centre = wanted[-7:-4]
    renderer.camera.lookat[:] = 0.5 * (renderer.camera.lookat + [centre[0], centre[1], max(centre[2], 0.08)])
    error = 100.0 * float(np.linalg.norm(actual[-7:-4] - wanted[-7:-4]))
    left = caption(renderer.render(actual), f"policy: {label}, object error {error:.1f} cm")
    right = caption(renderer.render(wanted), "reference")
    return np.concatenate([left, right], axis=1)
