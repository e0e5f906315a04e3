"""Settings of a critic as keyword arguments, checked against a dataclass."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args, get_type_hints

from robolearn.errors import unknown
from vlm_rewards.errors import CriticError

_PLAIN = {bool, int, float, str, type(None)}


def settings_of(kind: type[Any], settings: dict[str, Any], what: str) -> Any:
    """An instance of the dataclass ``kind``.

    Raises:
        CriticError: a setting that ``kind`` does not have, or of another type.
    """
    names = [field.name for field in fields(kind)]
    hints = get_type_hints(kind)
    for name in settings:
        if name not in names:
            raise CriticError(f"{what}: {unknown('setting', name, names)}")
    return kind(**{name: _fitting(name, value, hints[name]) for name, value in settings.items()})


def _fitting(name: str, value: Any, hint: Any) -> Any:
    """``value``, checked where its type is a plain one; a whole number is one with a point, too."""
    kinds = get_args(hint) or (hint,)
    if type(value) in kinds or not set(kinds) <= _PLAIN:
        return value
    if float in kinds and type(value) is int:
        return float(value)
    named = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
    raise CriticError(f"setting {name} is {named}, got {value!r}")
