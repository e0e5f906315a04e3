"""Names of the ROS graph: which are allowed, how they become absolute, and how remaps change them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from real.errors import TransportError

_TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_KINDS = {"rostopic://": "topic", "rosservice://": "service"}
_LONGEST = 247
"""What a DDS topic name leaves when ``rt`` or ``rq…Request`` is put around a ROS name."""


def _tokens(name: str, what: str, given: str) -> None:
    for token in name.split("/"):
        if not token:
            raise TransportError(
                f"{what} {given!r} has an empty part; write it without '//' and without a '/' at its end"
            )
        if not _TOKEN.match(token):
            raise TransportError(
                f"{what} {given!r}: {token!r} may hold letters, digits and _ only and must not begin with a digit"
            )


def check_node_name(name: str) -> str:
    """Return a node's base name.

    Raises:
        TransportError: it is empty, or holds anything but letters, digits and ``_``, or begins with a digit.
    """
    if not _TOKEN.match(name) or len(name) > 255:
        raise TransportError(f"node name {name!r} must be letters, digits and _ only, must not begin with a digit")
    return name


def check_namespace(namespace: str) -> str:
    """Return a namespace with a leading and without a trailing ``/``; ``""`` is ``/``. Raises TransportError."""
    if namespace in ("", "/"):
        return "/"
    full = namespace if namespace.startswith("/") else "/" + namespace
    _tokens(full[1:], "namespace", namespace)
    return full


def join(namespace: str, name: str) -> str:
    """``/`` and ``a`` → ``/a``; ``/left`` and ``a`` → ``/left/a``."""
    return f"/{name}" if namespace == "/" else f"{namespace}/{name}"


def expand(name: str, namespace: str, node: str) -> str:
    """The full name of a topic or service: ``/absolute``, ``relative`` to ``namespace``, or ``~/private`` to the node.

    Raises:
        TransportError: the name is empty, has characters that ROS does not allow, or is too long.
    """
    if not name:
        raise TransportError("a topic or service name is empty")
    filled = name.replace("{node}", node).replace("{ns}", namespace).replace("{namespace}", namespace)
    if filled == "~":
        full = join(namespace, node)
    elif filled.startswith("~/"):
        full = join(join(namespace, node), filled[2:])
    elif filled.startswith("/"):
        full = filled
    else:
        full = join(namespace, filled)
    _tokens(full[1:], "name", name)
    if len(full) > _LONGEST:
        raise TransportError(f"name {full!r} has {len(full)} characters; at most {_LONGEST} are possible")
    return full


@dataclass(frozen=True)
class Remap:
    """One rule ``[node:]source:=target``.

    Attributes:
        source, target: names as given; ``__node`` and ``__ns`` as source change the node itself.
        node: applies to nodes of this name only; ``None``: to all.
        kind: ``"topic"``, ``"service"`` or ``""`` for both.
    """

    source: str
    target: str
    node: str | None = None
    kind: str = ""

    @staticmethod
    def parse(rule: str) -> Remap:
        """Read ``a:=b``, ``node:a:=b``, ``__node:=x``, ``rostopic://a:=b``. Raises TransportError."""
        left, found, target = rule.partition(":=")
        if not found or not left or not target:
            raise TransportError(f"remap {rule!r} is not 'from:=to'")
        node = None
        before, colon, after = left.partition(":")
        if colon and not after.startswith("//"):
            node, left = check_node_name(before), after
        kind = ""
        for prefix, of in _KINDS.items():
            if left.startswith(prefix):
                kind, left = of, left[len(prefix) :]
        if left == "__name":
            left = "__node"
        if left == "__node":
            check_node_name(target)
        elif left == "__ns":
            check_namespace(target)
        else:
            expand(left, "/", "node")
            expand(target, "/", "node")
        return Remap(left, target, node, kind)


@dataclass(frozen=True)
class Remaps:
    """Rules in their order; the first that fits a name counts, and a name is changed once at most."""

    rules: tuple[Remap, ...] = ()

    def _first(self, source: str, node: str) -> str | None:
        return next((r.target for r in self.rules if r.source == source and r.node in (None, node)), None)

    def identity(self, namespace: str, node: str) -> tuple[str, str]:
        """Namespace and name of a node after ``__ns`` and ``__node``."""
        to_namespace, to_name = self._first("__ns", node), self._first("__node", node)
        return check_namespace(to_namespace or namespace), check_node_name(to_name or node)

    def resolve(self, name: str, namespace: str, node: str, *, service: bool = False) -> str:
        """The full name of a topic or service of a node: expanded, then remapped. Raises TransportError."""
        full = expand(name, namespace, node)
        kind = "service" if service else "topic"
        for rule in self.rules:
            if rule.source in ("__ns", "__node") or rule.kind not in ("", kind) or rule.node not in (None, node):
                continue
            if expand(rule.source, namespace, node) == full:
                return expand(rule.target, namespace, node)
        return full
