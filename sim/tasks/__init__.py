"""Tasks by name: ``make_env("dex_track", num_envs=512, seed=1)``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from robolearn.errors import RobolearnError, unknown
from sim.env import Env

__all__ = ["TaskError", "config_class", "list_tasks", "make_env"]

_TASKS = {"dex_track": ("sim.tasks.dex_track", "DexTrackConfig")}


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


def make_env(
    name: str,
    num_envs: int,
    seed: int = 0,
    threads: int = 0,
    split: str = "train",
    evaluation: bool = False,
    **settings: Any,
) -> Env:
    """Make ``num_envs`` worlds of a task.

    Args:
        name: one of `list_tasks`.
        num_envs: worlds, at least 1 (with ``evaluation``, 0 means one for each clip).
        seed: of every random draw.
        threads: physics threads, 0 for every core.
        split: which of the task's data to use.
        evaluation: whole episodes from their start, assists and early terminations off.
        settings: the task's own settings; nested ones may be mappings.

    Raises:
        TaskError: unknown names or an impossible size.
    """
    config = _configure(config_class(name), settings, name)
    if num_envs < (0 if evaluation else 1):
        raise TaskError(f"num_envs must be at least 1, got {num_envs}")
    make: Callable[..., Env] = import_module(_TASKS[name][0]).make
    return make(config, num_envs, seed=seed, threads=threads, split=split, evaluation=evaluation)


def _configure(cls: type, settings: Mapping[str, Any], path: str) -> Any:
    """An instance of a settings dataclass, with nested mappings turned into nested dataclasses."""
    defaults = cls()
    names = [field.name for field in dataclasses.fields(cls)]
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in names:
            raise TaskError(unknown("setting", f"{path}.{key}", [f"{path}.{name}" for name in names]))
        nested = getattr(defaults, key)
        if dataclasses.is_dataclass(nested) and isinstance(value, Mapping):
            value = _configure(type(nested), value, f"{path}.{key}")
        values[key] = value
    return cls(**values)
