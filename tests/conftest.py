"""Shared by all rooms: one thread, and small real environments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import robolearn  # noqa: F401 - chooses the renderer, before MuJoCo is imported by a test
from sim.engines import Engine
from sim.env import Env
from sim.references.generate import generate
from sim.tasks import make_env

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of noise-free clips, made once: 3 for training and 3 held out, of a cube and a ball."""
    folder = tmp_path_factory.mktemp("clips")
    for split in ("train", "heldout"):
        for clip in generate(["cube", "ball"], clips=3, seed=0, split=split, duration=1.5):
            clip.save(folder / f"{clip.name}.npz")
    return folder


@pytest.fixture(scope="session")
def small(clip_folder: Path) -> Callable[..., Env]:
    """``small(num_envs=6, task="dex_track", **settings)``: a small real environment on one thread."""

    def make(num_envs: int = 6, task: str = "dex_track", **settings: Any) -> Env:
        smallest = {
            "dex_track": {"motions": {"folder": str(clip_folder)}},
            "g1_walk": {"episode_s": 1.5},
            **{name: {"episode_s": 2.0} for name in ("arm_reach", "arm_push", "arm_pick_place")},
        }
        return make_env(task, num_envs, **{"engine": Engine(threads=1), **smallest[task], **settings})

    return make
