"""What every node's process does around its node: arguments, stack, handle, signals, exit code.

    python -m real.nodes.safety --ros-args -r __ns:=/left -p stack:=panda_twin -p rate_hz:=100 -p limits.velocity:=0.2

A dotted parameter sets that key of the stack, a plain one the key of the node's own section.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from real.errors import StackError
from real.stack import SHORT, Stack, load, section_keys
from real.transport.arguments import RosArguments, parse_ros_args
from real.transport.handle import NodeHandle
from real.transport.names import check_namespace, join
from real.transport.open import open_node
from robolearn.errors import RobolearnError, unknown

Build = Callable[[NodeHandle, Stack], Any]
USER_ERROR = 2
SUPERVISOR = "ROBOLEARN_SUPERVISOR"
"""Environment variable: id of the process that started this one; the node ends when it does."""
DEFAULT_STACK = "panda_twin"
_PLAIN = ("namespace", "transport", "domain", "distro")
_PR_SET_PDEATHSIG = 1


def run_node(name: str, build: Build, argv: Sequence[str] | None = None) -> int:
    """Run one node until SIGINT or SIGTERM, or until what ``build`` made says that it is ``finished``.

    Args:
        name: the node's name, and its section of the stack.
        build: makes the node on an open handle. What it returns may have ``close()``, called before the handle is
            closed, and ``finished``, a bool that ends the process once it is true.
        argv: like ``sys.argv[1:]``.

    Returns:
        Exit code: 0 after a signal, 2 for a user's mistake, which is one line on standard error.
    """
    stopping: list[int] = []
    try:
        arguments = list(sys.argv[1:] if argv is None else argv)
        _end_with_supervisor()
        stack = _stack(name, arguments)
        handle = open_node(
            name,
            namespace=stack.namespace,
            transport=stack.transport,
            args=arguments,
            domain=stack.domain,
            distro=stack.distro,
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda received, _: stopping.append(received))
        node: Any = None
        try:
            node = build(handle, stack)
            print(f"[{name}] ready", file=sys.stderr, flush=True)
            handle.spin(until=lambda: bool(stopping) or bool(getattr(node, "finished", False)))
        finally:
            if hasattr(node, "close"):
                node.close()
            handle.close()
    except RobolearnError as error:
        print(f"[{name}] {error}", file=sys.stderr, flush=True)
        return USER_ERROR
    except KeyboardInterrupt:
        return 0
    return 0


def node_stack(name: str, parameters: Mapping[str, Any]) -> Stack:
    """The stack that a node's parameters name, with the other parameters applied to it.

    Raises:
        StackError: an unknown stack or parameter, or a value that cannot be.
    """
    given = dict(parameters)
    if given.pop("use_sim_time", False):
        raise StackError("use_sim_time is not supported: deadlines of a robot run on real time")
    stack = given.pop("stack", DEFAULT_STACK)
    return load(str(stack), {_dotted(name, key): value for key, value in given.items()})


def _dotted(name: str, key: str) -> str:
    own = section_keys(name)
    if "." in key:
        return key
    if key in own:
        return f"{name}.{key}"
    if key in SHORT:
        return SHORT[key]
    if key in _PLAIN:
        return key
    raise StackError(unknown(f"parameter of {name}", key, ["stack", *own, *_PLAIN]))


def _stack(name: str, arguments: Sequence[str]) -> Stack:
    """Parameters may depend on the node's full name, and its namespace on the stack that a parameter names."""
    parsed = parse_ros_args(arguments)
    if parsed.rest:
        raise StackError(f"{parsed.rest[0]!r} is no argument of {name}; write --ros-args -p key:=value")
    stack = node_stack(name, parsed.parameters(_full_name(parsed, "/", name)))
    return node_stack(name, parsed.parameters(_full_name(parsed, stack.namespace, name)))


def _full_name(arguments: RosArguments, namespace: str, name: str) -> str:
    return join(*arguments.remaps.identity(check_namespace(namespace), name))


def _end_with_supervisor() -> None:
    """Ask Linux for SIGTERM when the launcher dies, however it dies: no node is left behind to command a robot."""
    supervisor = os.environ.get(SUPERVISOR, "")
    if not supervisor.isdigit() or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(supervisor):  # it died before the line above
        raise StackError("the launcher of this node is gone")
