"""Plain data, as YAML gives it, into frozen dataclasses: types and values checked, unknown keys refused.

A field's type is the rule: bool, int, float, str, ``X | None``, ``tuple[X, ...]``, ``Mapping[str, X]``, another
dataclass, or Any for what another room checks. `setting` adds bounds and choices.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union

from real.errors import StackError
from robolearn.errors import did_you_mean

T = TypeVar("T")


def setting(
    default: Any = dataclasses.MISSING,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: tuple[str, ...] = (),
    length: int | None = None,
) -> Any:
    """A field with bounds on its number or on every number of its tuple, names to choose from, or a fixed length."""
    rules = {"above": above, "at_least": at_least, "at_most": at_most, "choices": choices, "length": length}
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=rules)
    return dataclasses.field(default=default, metadata=rules)


def build(cls: type[T], data: Any, where: str = "") -> T:
    """An instance of the dataclass ``cls``; ``where`` is the dotted name of ``data`` in messages.

    Raises:
        StackError: an unknown or missing key, a value of another type, or one out of bounds.
    """
    if data is None:
        data = {}
    if not isinstance(data, Mapping):
        raise StackError(f"{where or 'a stack'} is a mapping of keys to values, not {data!r}")
    fields = {item.name: item for item in dataclasses.fields(cls) if item.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in data:
        if key not in fields:
            raise StackError(unknown_key(where, str(key), fields))
    values: dict[str, Any] = {}
    for name, item in fields.items():
        dotted = join(where, name)
        if name in data:
            values[name] = convert(hints[name], data[name], dotted)
            _check(values[name], item.metadata, dotted)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise StackError(f"{dotted} must be given")
    try:
        return cls(**values)
    except ValueError as error:
        raise StackError(f"{where}: {error}" if where else str(error)) from error


def convert(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the type ``hint``, mappings and lists opened. Raises StackError for another type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return convert(next(option for option in inner if option is not type(None)), value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise StackError(f"{where} is a list, not {value!r}")
        return tuple(convert(inner[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin in (Mapping, dict) or hint in (Mapping, dict):
        if not isinstance(value, Mapping):
            raise StackError(f"{where} is a mapping of names to values, not {value!r}")
        return {str(key): convert(inner[1], item, join(where, str(key))) for key, item in value.items()}
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float and number:
        if not math.isfinite(value):
            raise StackError(f"{where} is a finite number, not {value}")
        return float(value)
    if hint is int and number and float(value).is_integer():
        return int(value)
    if hint in (bool, str) and isinstance(value, hint):
        return value
    kind = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[hint]
    raise StackError(f"{where} is {kind}, not {value!r}")


def _check(value: Any, rules: Mapping[str, Any], where: str) -> None:
    if value is None or not rules:
        return
    length = rules["length"]
    if length is not None and len(value) != length:
        raise StackError(f"{where} has {length} values, not {len(value)}")
    for item in value if isinstance(value, tuple) else (value,):
        above, low, high = rules["above"], rules["at_least"], rules["at_most"]
        if above is not None and not item > above:
            raise StackError(f"{where} is above {above:g}, not {item}")
        if low is not None and not item >= low:
            raise StackError(f"{where} is at least {low:g}, not {item}")
        if high is not None and not item <= high:
            raise StackError(f"{where} is at most {high:g}, not {item}")
        if rules["choices"] and item not in rules["choices"]:
            hint = did_you_mean(str(item), rules["choices"])
            raise StackError(f"{where} is {item!r}; {hint}choices: {', '.join(rules['choices'])}")


def typed(cls: type, dotted: str, value: Any) -> Any:
    """A command line's ``value`` for the setting ``dotted`` of ``cls``, as the type that the setting has.

    A shell and `ros2 launch` guess types: ``2`` may be meant as the text "2", and "2.5" as a number. Texts of lists
    and mappings are left as they are.

    Raises:
        StackError: no such setting.
    """
    hint: Any = cls
    done = ""
    for part in dotted.split("."):
        if hint is Any:
            return value
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin in (Union, types.UnionType):
            hint = next(option for option in inner if option is not type(None))
            origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            keys = [item.name for item in dataclasses.fields(hint) if item.init]
            if part not in keys:
                raise StackError(unknown_key(done, part, keys))
            hint = typing.get_type_hints(hint)[part]
        elif origin in (Mapping, dict):
            hint = inner[1]
        else:
            raise StackError(f"{done} is no section; it has no key {part!r}")
        done = join(done, part)
    return _guess(hint, value)


def _guess(hint: Any, value: Any) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    if type(None) in options and isinstance(value, str) and value.lower() in ("", "null", "none", "~"):
        return None
    if str in options and not isinstance(value, str) and isinstance(value, (int, float)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, str) and bool in options and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, str) and (int in options or float in options):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def plain(item: Any) -> Any:
    """Dataclasses and tuples as the dictionaries and lists that `build` reads back."""
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return {field.name: plain(getattr(item, field.name)) for field in dataclasses.fields(item) if field.init}
    if isinstance(item, Mapping):
        return {key: plain(value) for key, value in item.items()}
    return [plain(value) for value in item] if isinstance(item, (list, tuple)) else item


def unknown_key(where: str, key: str, keys: Any) -> str:
    """Message for a key that a section does not have."""
    names = sorted(keys)
    place = f" in {where}" if where else ""
    return f"unknown key {key!r}{place}; {did_you_mean(key, names)}keys: {', '.join(names)}"


def join(where: str, name: str) -> str:
    """Dotted name of a key of a section."""
    return f"{where}.{name}" if where else name
