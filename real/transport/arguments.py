"""What ROS 2 gives a node on its command line: ``--ros-args`` with remaps, parameters and the log level."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from real.errors import TransportError
from real.transport.names import Remap, Remaps, check_node_name
from robolearn.errors import did_you_mean, unknown

LEVELS = ("debug", "info", "warn", "error", "fatal", "unset")
_FLAGS = {
    "-r": "remap",
    "--remap": "remap",
    "-p": "param",
    "--param": "param",
    "--params-file": "file",
    "--log-level": "log",
    "-e": "enclave",
    "--enclave": "enclave",
    "--log-config-file": "unused",
}
_SWITCHES = tuple(
    f"--{s}-{of}" for s in ("enable", "disable") for of in ("rosout-logs", "stdout-logs", "external-lib-logs")
)
_SCALARS = (bool, int, float, str)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with ROS 2's idea of a scalar: 1e-3 is a number, and a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z"), list("-+.0123456789")
)


@dataclass(frozen=True)
class Parameters:
    """Parameters for the nodes whose full name fits ``node``: exact, or with ``*`` (one part) and ``**`` (any)."""

    node: str
    values: Mapping[str, Any]

    def fits(self, full_name: str) -> bool:
        """Whether they are for a node of this full name."""
        pattern = re.escape(self.node).replace(r"/\*\*", "(/[^/]+)*").replace(r"\*", "[^/]+")
        return re.fullmatch(pattern, full_name) is not None


@dataclass(frozen=True)
class RosArguments:
    """Everything between ``--ros-args`` and ``--``, and what is left.

    Attributes:
        remaps: rules in their order.
        given: parameters in their order; later ones win.
        log_level: for all loggers, one of `LEVELS`, ``""`` where not given; log_levels: logger's name → level.
        enclave: security enclave, ``"/"`` where not given.
        rest: the other arguments.
    """

    remaps: Remaps = Remaps()
    given: tuple[Parameters, ...] = ()
    log_level: str = ""
    log_levels: Mapping[str, str] = field(default_factory=dict)
    enclave: str = "/"
    rest: tuple[str, ...] = ()

    def parameters(self, full_name: str) -> dict[str, Any]:
        """Dotted name → value of what applies to a node."""
        return {name: value for some in self.given if some.fits(full_name) for name, value in some.values.items()}


def parse_ros_args(args: Sequence[str]) -> RosArguments:
    """Read arguments like ``sys.argv[1:]``.

    Raises:
        TransportError: an unknown option, a rule, parameter or file that cannot be read.
    """
    rest: list[str] = []
    remaps: list[Remap] = []
    given: list[Parameters] = []
    levels: dict[str, str] = {}
    enclave = "/"
    for flag, value in _options(args, rest):
        kind = _FLAGS[flag]
        if kind == "remap":
            remaps.append(Remap.parse(value))
        elif kind == "param":
            given.append(_parameter(value))
        elif kind == "file":
            given.extend(_file(value))
        elif kind == "log":
            logger, found, level = value.rpartition(":=")
            if level.lower() not in LEVELS or (found and not logger):
                raise TransportError("--log-level: " + unknown("level", level, LEVELS))
            levels[logger] = level.lower()
        elif kind == "enclave":
            enclave = value
    level = levels.pop("", "")
    return RosArguments(Remaps(tuple(remaps)), tuple(given), level, levels, enclave, tuple(rest))


def _options(args: Iterable[str], rest: list[str]) -> Iterator[tuple[str, str]]:
    """The options inside ROS sections as (flag, value); what is outside goes to ``rest``."""
    inside = False
    remaining = iter(args)
    for arg in remaining:
        if arg == "--ros-args":
            inside = True
        elif not inside:
            rest.append(arg)
        elif arg == "--":
            inside = False
        elif arg in _SWITCHES:
            continue
        else:
            if arg not in _FLAGS:
                hint = did_you_mean(arg, (*_FLAGS, *_SWITCHES))
                raise TransportError(
                    f"unknown ROS argument {arg!r}; {hint}choices: {', '.join(_FLAGS)}; '--' ends the ROS arguments"
                )
            following = next(remaining, None)
            if following is None or following in ("--", "--ros-args"):
                raise TransportError(f"{arg} needs a value after it")
            yield arg, following


def _parameter(rule: str) -> Parameters:
    """``name:=value`` or ``node:name:=value``."""
    left, found, text = rule.partition(":=")
    node, colon, name = left.rpartition(":")
    if not found or not name or (colon and not node):
        raise TransportError(f"parameter {rule!r} is not 'name:=value'")
    where = f"parameter {name!r}"
    # A bare node name of a command line fits that node in every namespace.
    pattern = f"/**/{check_node_name(node)}" if node else "/**"
    return Parameters(pattern, {name: _checked(_yaml(text, where), where)})


def _file(path: str) -> list[Parameters]:
    """The parameters of a file, those of exact names after those of wildcards."""
    try:
        content = _yaml(Path(path).read_text(encoding="utf-8"), f"parameter file {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise TransportError(f"parameter file {path} cannot be read: {error}") from error
    if not isinstance(content, Mapping):
        raise TransportError(f"parameter file {path} is not a table of node names")
    found = list(_nodes(content, "", path))
    if not found:
        raise TransportError(f"parameter file {path} has no 'ros__parameters' below a node's name")
    return sorted(found, key=lambda parameters: "*" not in parameters.node)


def _nodes(content: Mapping[Any, Any], above: str, path: str) -> Iterator[Parameters]:
    for name, inner in content.items():
        where = f"{above}/{str(name).strip('/')}"
        if not isinstance(inner, Mapping):
            raise TransportError(f"parameter file {path}: {where!r} must be a table with 'ros__parameters'")
        others = {key: value for key, value in inner.items() if key != "ros__parameters"}
        if "ros__parameters" in inner:
            values = inner["ros__parameters"] or {}
            if not isinstance(values, Mapping):
                raise TransportError(f"parameter file {path}: 'ros__parameters' of {where!r} must be a table")
            yield Parameters(where, dict(_flat(values, "", f"parameter file {path}")))
        yield from _nodes(others, where, path)


def _flat(values: Mapping[Any, Any], above: str, where: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, name + ".", where)
        else:
            yield name, _checked(value, f"{where}: {name!r}")


def _yaml(text: str, where: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise TransportError(f"{where} is no YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()


def _checked(value: Any, where: str) -> Any:
    """A scalar, or a list of scalars of one type (whole numbers among others become floats), as ROS 2 has them."""
    if isinstance(value, _SCALARS):
        return value
    if value is None:
        return ""
    if not isinstance(value, list) or not all(isinstance(item, _SCALARS) for item in value):
        raise TransportError(f"{where} is {value!r}; it must be a scalar or a list of scalars")
    kinds = {type(item) for item in value}
    if kinds == {int, float}:
        return [float(item) for item in value]
    if len(kinds) > 1:
        raise TransportError(f"{where} mixes {', '.join(sorted(k.__name__ for k in kinds))} in one list")
    return value
