"""``key=value`` settings on the command line, checked against a dataclass or a configuration.

A verb declares a dataclass; its fields are the settings, their types are enforced, and the string under each
field is its help::

    @dataclass
    class Options:
        run: str = MISSING
        \"\"\"The run's folder.\"\"\"
        episodes: int = 100
        \"\"\"How many episodes.\"\"\"

    def add_arguments(parser): settings.add_arguments(parser, Options)
    def main(args): options = settings.parse(Options, args.settings)
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from robolearn.errors import RobolearnError, did_you_mean, unknown

if TYPE_CHECKING:
    from omegaconf import DictConfig

MISSING: Any = "???"
"""Default of a setting that must be given."""

T = TypeVar("T")


class SettingError(RobolearnError):
    """A setting that is unknown, malformed, missing, or of the wrong type."""


def add_arguments(parser: argparse.ArgumentParser, options: type) -> None:
    """Let ``parser`` take ``key=value ...`` and ``--json``, and list the settings in its help."""
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings, see below")
    add_json(parser)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "settings:\n" + describe(options)


def add_json(parser: argparse.ArgumentParser) -> None:
    """The flag of every verb that reports: one JSON object as the last line of standard output."""
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line of standard output")


def describe(options: type, prefix: str = "") -> str:
    """One line per field of a dataclass: name, string under it, default; nested dataclasses are opened."""
    lines = []
    notes = _notes(options)
    for item in dataclasses.fields(options):
        default = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
        if dataclasses.is_dataclass(default) and not isinstance(default, type):
            lines.append(describe(type(default), f"{prefix}{item.name}."))
            continue
        shown = "required" if default == MISSING else "null" if default is None else str(default)
        shown = shown.lower() if isinstance(default, bool) else shown
        value = "" if isinstance(default, (dict, list)) else f"  [{shown}]"
        lines.append(f"  {prefix + item.name:<30} {notes.get(item.name, '')}{value}")
    return "\n".join(lines)


def parse(options: type[T], given: Sequence[str]) -> T:
    """An instance of the dataclass ``options`` from ``key=value`` settings.

    Raises:
        SettingError: an unknown, malformed or missing setting, or a value of the wrong type.
    """
    from omegaconf import OmegaConf

    config = apply(OmegaConf.structured(options), given)
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise SettingError(f"{', '.join(f'{name}=...' for name in missing)} must be given")
    made: Any = OmegaConf.to_object(config)
    return made


def apply(config: DictConfig, given: Sequence[str]) -> DictConfig:
    """``config`` with ``key=value`` settings in Hydra's grammar (lists, quotes, null), types enforced.

    Raises:
        SettingError: as in `parse`.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    known = flatten(config)
    with explain(lambda: known, {}):
        for override in OverridesParser.create().parse_overrides(list(given)):
            key = override.key_or_group
            refuse_unknown(key, known, open_below=open_names(config))
            if override.is_delete() or override.is_add() or override.is_sweep_override():
                raise SettingError(f"{override.input_line!r} is not a setting here; write key=value")
            try:
                OmegaConf.update(config, key, override.value(), force_add=True)
            except Exception as error:
                raise SettingError(_wrong_value(str(override.input_line), error)) from error
    return config


def flatten(config: Any, prefix: str = "") -> list[str]:
    """Dotted names of all settings in a configuration, groups of settings included."""
    from omegaconf import DictConfig

    names = []
    for key in config:
        name = f"{prefix}{key}"
        names.append(name)
        child = config._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            names += flatten(child, f"{name}.")
    return names


def refuse_unknown(key: str, known: Iterable[str], open_below: Iterable[str] = ()) -> None:
    """Raise `SettingError` if ``key`` is not ``known``, naming the settings where it goes astray."""
    names = sorted(set(known))
    if key in names or any(key.startswith(f"{name}.") for name in open_below):
        return
    level = key
    while level and level not in names:
        level = level.rpartition(".")[0]
    prefix = f"{level}." if level else ""
    near = [name for name in names if name.startswith(prefix) and "." not in name[len(prefix) :]]
    if not did_you_mean(key, near):
        # `minutes=3` most likely means budget.minutes.
        same = [name for name in names if name.rpartition(".")[2] == key.rpartition(".")[2]]
        if same:
            raise SettingError(f"unknown setting {key!r}; did you mean {same[0]!r}? settings: {', '.join(near)}")
    raise SettingError(unknown("setting", key, near))


@contextlib.contextmanager
def explain(known: Callable[[], Iterable[str]], groups: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise into one line that names the valid choices.

    Args:
        known: gives the dotted names of all settings; called only when something is wrong.
        groups: names in every group of choices.
    """
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except OverrideParseException as error:
        raise SettingError(f"cannot read {error.override!r}; settings are written key=value") from error
    except MissingConfigException as error:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if group in groups:
            raise SettingError(unknown(group, name, error.options or groups[group])) from error
        raise SettingError(str(error).splitlines()[0]) from error
    except HydraException as error:
        if "Ambiguous value" in str(error):
            what = str(error).splitlines()[0].partition("'")[2].rstrip("'")
            raise SettingError(f"{what}: several values make a sweep with -m, or a list in [brackets]") from error
        found = re.search(r"(?:Could not override|Could not append to config\.[^']*|Key) '([^']+)'", str(error))
        key = found.group(1).partition("@")[0] if found else ""
        if key:
            refuse_unknown(key, [*known(), *groups])
        merged = re.search(r"Error merging override (.+)", str(error))
        raise SettingError(_wrong_value(merged.group(1) if merged else key, error)) from error
    except OmegaConfBaseException as error:
        raise SettingError(_wrong_value(str(error.full_key or ""), error)) from error
    except ValueError as error:
        raise SettingError(str(error).splitlines()[0]) from error


def _wrong_value(what: str, error: BaseException) -> str:
    reason = error
    while reason.__cause__ is not None:
        reason = reason.__cause__
    line = str(reason).splitlines()[0].strip() if str(reason) else type(reason).__name__
    return f"{what}: {line}" if what else line


def open_names(config: Any) -> list[str]:
    """Settings that are dictionaries without declared keys, below which any name goes."""
    from omegaconf import DictConfig, OmegaConf

    names = []
    for name in flatten(config):
        node = OmegaConf.select(config, name)
        if isinstance(node, DictConfig) and OmegaConf.get_type(node) is dict:
            names.append(name)
    return names


def _notes(cls: type) -> dict[str, str]:
    """The strings under the fields of a dataclass, each on one line."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, SyntaxError):
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    notes = {}
    for item, below in zip(body, body[1:], strict=False):
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and isinstance(below, ast.Expr):
            if isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
                notes[item.target.id] = " ".join(below.value.value.split())
    return notes
