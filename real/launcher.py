"""Starts the nodes of a stack as processes, watches them, and ends them in order.

Every node runs in a session of its own, so that Ctrl-C reaches the launcher alone and the order of the end is kept;
should the launcher be killed, Linux ends the nodes (`real.nodes.run`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from real.errors import RealError
from real.nodes.run import SUPERVISOR
from real.stack import Stack

CRITICAL = ("safety", "twin")
"""Without one of these nothing may go on; other nodes that end are reported."""
END_ORDER = ("teleop", "episode", "policy", "critic", "recorder", "safety", "twin")
"""First what asks for motion; the recorder sees the end; safety holds the arm until its driver goes."""
DOMAIN = 77
"""Domain where ROS 2 is not sourced and nobody chose one: apart from that of everybody else, 0."""
_TAIL = 40

Report = Callable[[str, str], None]
"""Gets a node's name and a line that it printed."""


class LaunchError(RealError):
    """A node that does not come up."""


def environment(stack: Stack, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables of a stack's processes: its domain, and for a twin this machine alone.

    What is set already is kept. With ROS 2 sourced the domain is ROS's own, so that its tools see the stack.
    """
    env = dict(os.environ if base is None else base)
    if stack.domain is not None:
        env["ROS_DOMAIN_ID"] = str(stack.domain)
    elif not env.get("ROS_DOMAIN_ID") and not env.get("ROS_DISTRO"):
        env["ROS_DOMAIN_ID"] = str(DOMAIN)
    if stack.twin is not None and not env.get("ROS_AUTOMATIC_DISCOVERY_RANGE"):
        env["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    return env


def node_command(name: str, stack: str, overrides: Mapping[str, Any], module: str = "real.nodes") -> list[str]:
    """The command line of a node: ``python -m real.nodes.<name> --ros-args -p stack:=... -p key:=value``."""
    command = [sys.executable, "-m", f"{module}.{name}", "--ros-args"]
    for key, value in {"stack": stack, **_flat(overrides)}.items():
        command += ["-p", f"{key}:={json.dumps(value)}"]
    return command


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Parameters of ROS 2 are scalars and lists; what is below becomes dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, Mapping) and value
        flat.update(_flat(value, f"{above}{key}.") if inner else {f"{above}{key}": value})
    return flat


class NodeProcess:
    """One node's process.

    Args:
        name: of the node.
        command: its command line.
        env: its environment.
        report: gets its lines, from another thread.
    """

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], report: Report) -> None:
        self.name = name
        self.lines: deque[str] = deque(maxlen=_TAIL)
        self.ready = threading.Event()
        self._report = report
        self._process = subprocess.Popen(
            list(command),
            env={**env, SUPERVISOR: str(os.getpid()), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"lines of {name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Exit code, minus the signal that ended it, or None while it runs."""
        return self._process.poll()

    @property
    def failed(self) -> bool:
        """Whether it ended by anything but its own decision, after it was ready, that its work is done."""
        if self.code is None:
            return False
        self._reader.join(1.0)
        return self.code != 0 or not self.ready.is_set()

    def describe_end(self) -> str:
        """How it ended, in words, with the last line that it printed."""
        self._reader.join(1.0)
        code = self.code
        how = f"was ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with {code}"
        last = next((line for line in reversed(self.lines) if line.strip()), "")
        return f"{self.name} {how}" + (f": {last}" if last else "")

    def end(self, patience_s: float = 5.0) -> None:
        """SIGTERM, and SIGKILL for one that does not follow in time."""
        if self.code is None:
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)  # a process that was stopped cannot end otherwise
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                self._report(self.name, "did not end when asked and was killed")
        self._reader.join(1.0)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            line = line.rstrip()
            self.lines.append(line)
            if line == f"[{self.name}] ready":
                self.ready.set()
            else:
                self._report(self.name, line)
        self._process.stdout.close()


class Launcher:
    """The processes of one stack.

    Args:
        stack: what is to run; its `Stack.path` is what the nodes read.
        overrides: dotted key → value, given to every node.
        report: gets the nodes' lines.
        extra: nodes to start beside `Stack.nodes`, such as teleop.
        env: as of `environment`.
        module: package of the nodes' modules.

    Attributes:
        processes: name → process, in the order of their start.
    """

    def __init__(
        self,
        stack: Stack,
        overrides: Mapping[str, Any],
        report: Report,
        extra: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        module: str = "real.nodes",
    ) -> None:
        self._stack = stack
        self._overrides = dict(overrides)
        self._report = report
        self._names = (*stack.nodes, *extra)
        self._env = environment(stack) if env is None else dict(env)
        self._module = module
        self._reported: set[str] = set()
        self.processes: dict[str, NodeProcess] = {}

    def start(self, time_out_s: float = 60.0, waiting: Callable[[], None] = lambda: time.sleep(0.02)) -> None:
        """Start all, and return when all are ready; ``waiting`` is called meanwhile, again and again.

        Raises:
            LaunchError: one ended or was not ready in time; the others have been ended.
        """
        try:
            for name in self._names:
                command = node_command(name, str(self._stack.path), self._overrides, self._module)
                self.processes[name] = NodeProcess(name, command, self._env, self._report)
            until = time.monotonic() + time_out_s
            while pending := [p for p in self.processes.values() if not p.ready.is_set()]:
                for process in self.processes.values():
                    if process.failed:
                        raise LaunchError(f"{process.describe_end()} while the stack came up")
                if time.monotonic() > until:
                    late = ", ".join(p.name for p in pending)
                    raise LaunchError(f"not ready after {time_out_s:g} s: {late}; ready_s=... waits longer")
                waiting()
        except BaseException:
            self.stop()
            raise

    def ended(self) -> list[NodeProcess]:
        """Processes that ended since the last call."""
        new = [p for p in self.processes.values() if p.code is not None and p.name not in self._reported]
        self._reported |= {p.name for p in new}
        return new

    def stop(self, patience_s: float = 5.0) -> None:
        """End all, in the order of `END_ORDER`; may be called again."""
        order = [name for name in END_ORDER if name in self.processes]
        order += [name for name in self.processes if name not in order]
        for name in order:
            self.processes[name].end(patience_s)
