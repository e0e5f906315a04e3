"""Settings that the verbs of the real side share: which stack, and single keys of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from robolearn import settings
from robolearn.settings import SettingError

if TYPE_CHECKING:
    from real.stack import Stack

T = TypeVar("T")
NOT_SAFE = (
    "This software is NOT safety-rated. A hardware e-stop within reach of a person, wired past this computer, "
    "is required; keep out of the robot's reach."
)


def parse(options: type[T], given: Sequence[str]) -> tuple[T, dict[str, Any]]:
    """A verb's own settings, and the dotted ones, such as ``safety.rate_hz=100``, which are keys of the stack.

    Raises:
        SettingError: an unknown, malformed or missing setting.
    """
    import yaml

    own, dotted = [], {}
    for setting in given:
        key, equals, text = setting.partition("=")
        if "." not in key:
            own.append(setting)
            continue
        if not equals:
            raise SettingError(f"cannot read {setting!r}; settings are written key=value")
        try:
            dotted[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SettingError(f"cannot read {setting!r}: its value is no YAML") from error
    return settings.parse(options, own), dotted


def overrides(options: Any, dotted: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Keys of the stack that were given, short ones first: those of ``names`` that differ from their default."""
    defaults = {item.name: item.default for item in dataclasses.fields(options)}
    short = {name: getattr(options, name) for name in names if getattr(options, name) != defaults[name]}
    return {**short, **dotted}


def load_stack(name: str, given: dict[str, Any]) -> Stack:
    """`real.stack.load` with one line that says how to install what is missing. Raises RobolearnError."""
    try:
        from real.stack import load
    except ModuleNotFoundError as error:
        raise SettingError(f"{error.name} is missing; pip install -c constraints.txt -e '.[real]'") from error
    return load(name, given)
