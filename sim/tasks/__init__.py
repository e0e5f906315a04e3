"""Tasks by name: ``make_env("dex_track", num_envs=512, seed=1)``."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from robolearn.errors import RobolearnError, unknown
from sim.engines import Engine
from sim.env import Env
from sim.randomize import Target

__all__ = ["TaskError", "config_class", "list_tasks", "make_env", "targets"]

BYTES_PER_WORLD = 20_000
"""A low estimate of what one world takes: its state, channels and observations."""

_TASKS = {
    "arm_pick_place": ("sim.tasks.arm", "ArmPickPlaceConfig"),
    "arm_push": ("sim.tasks.arm", "ArmPushConfig"),
    "arm_reach": ("sim.tasks.arm", "ArmReachConfig"),
    "dex_track": ("sim.tasks.dex_track", "DexTrackConfig"),
    "g1_walk": ("sim.tasks.g1_walk", "G1WalkConfig"),
}


class TaskError(RobolearnError):
    """An unknown task or setting of one, or an impossible number of environments."""


def list_tasks() -> list[str]:
    """Names of all tasks."""
    return sorted(_TASKS)


def config_class(name: str) -> type:
    """The dataclass of a task's settings, with their defaults.

    Raises:
        TaskError: no task of that name.
    """
    if name not in _TASKS:
        raise TaskError(unknown("task", name, _TASKS))
    module, cls = _TASKS[name]
    return getattr(import_module(module), cls)


def targets(name: str) -> Mapping[str, Target]:
    """What can be randomised in a task: ``object`` → what that means in its models.

    Raises:
        TaskError: no task of that name.
    """
    if name not in _TASKS:
        raise TaskError(unknown("task", name, _TASKS))
    found: Mapping[str, Target] = import_module(_TASKS[name][0]).TARGETS
    return found


def make_env(
    name: str,
    num_envs: int,
    seed: int = 0,
    engine: Engine | None = None,
    split: str = "train",
    evaluation: bool = False,
    **settings: Any,
) -> Env:
    """Make ``num_envs`` worlds of a task.

    Args:
        name: one of `list_tasks`.
        num_envs: worlds, at least 1 (with ``evaluation``, 0 means one for each clip, or as many as the task likes).
        seed: of every random draw.
        engine: what steps the worlds; the CPU with every core where it is not given.
        split: which of the task's data to use.
        evaluation: whole episodes from their start, assists and early terminations off.
        settings: the task's own settings; nested ones may be mappings.

    Raises:
        TaskError: unknown names or an impossible size.
    """
    config = _configure(config_class(name), settings, name)
    least = 0 if evaluation else 1
    if not isinstance(num_envs, int) or num_envs < least:
        raise TaskError(f"num_envs must be a whole number of at least {least}, got {num_envs!r}")
    _check_memory(num_envs)
    make: Callable[..., Env] = import_module(_TASKS[name][0]).make
    return make(config, num_envs, seed=seed, engine=(engine or Engine()).resolved(), split=split, evaluation=evaluation)


def _check_memory(num_envs: int) -> None:
    """Refuse a number of worlds that this machine cannot hold, before an hour is spent on finding out."""
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most = available // BYTES_PER_WORLD
    if num_envs > most:
        raise TaskError(
            f"num_envs {num_envs} needs at least {num_envs * BYTES_PER_WORLD / 1e9:.0f} GB of memory, "
            f"this machine has {available / 1e9:.0f} GB: at most {most}"
        )


def _configure(cls: type, settings: Mapping[str, Any], path: str) -> Any:
    """An instance of a settings dataclass, with nested mappings turned into nested dataclasses."""
    defaults = cls()
    names = [field.name for field in dataclasses.fields(cls)]
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in names:
            raise TaskError(unknown("setting", f"{path}.{key}", [f"{path}.{name}" for name in names]))
        nested = getattr(defaults, key)
        if dataclasses.is_dataclass(nested) and not isinstance(value, type(nested)):
            if not isinstance(value, Mapping):
                raise TaskError(f"setting {path}.{key} takes a mapping of settings, got {value!r}")
            value = _configure(type(nested), value, f"{path}.{key}")
        values[key] = value
    return cls(**values)
