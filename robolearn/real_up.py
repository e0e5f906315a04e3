"""`robolearn real up`: the whole stack of a robot, or of its twin, as processes of this machine."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robolearn import real_settings, settings
from robolearn.errors import RobolearnError
from robolearn.files import json_line
from robolearn.real_settings import NOT_SAFE
from robolearn.settings import MISSING

if TYPE_CHECKING:
    from real.launcher import Launcher
    from real.monitor import Monitor
    from real.stack import Stack
    from real.transport.handle import NodeHandle

SUMMARY = "start all nodes of a stack, show how they do, end them in order"
_LINE_S = 2.0
_SETTLE_S = 1.0
_SHORT = ("bundle", "critic", "task", "episodes", "instruction", "record", "transport", "domain")


class UpError(RobolearnError):
    """A stack that cannot be brought up beside what runs already."""


@dataclass
class Options:
    """Settings of `robolearn real up`; dotted ones, such as safety.rate_hz=100, are keys of the stack."""

    stack: str = MISSING
    """Name of a stack, or the path of its YAML."""
    bundle: str = ""
    """Folder of the policy's bundle; default: the stack's, or no policy."""
    critic: str = ""
    """A critic's folder, model, address or baseline; default: the stack's, or none."""
    task: str = ""
    """Name of the task; a twin becomes a world of it."""
    instruction: str = ""
    """What the robot is told."""
    episodes: int = 0
    """Run so many by itself, then end; 0: an operator starts them, until Ctrl-C."""
    record: str = ""
    """Folder for recordings."""
    teleop: bool = False
    """Start the teleop node too, with the stack's gamepad or Joy topic; a keyboard is `robolearn teleop`."""
    transport: str = "auto"
    """auto, dds or ros."""
    domain: int | None = None
    """DDS domain; null: the stack's, ROS_DOMAIN_ID, or 77 where ROS 2 is not sourced."""
    ready_s: float = 120.0
    """How long the nodes may take to come up."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``key=value`` settings and ``--json``."""
    settings.add_arguments(parser, Options)


def main(args: argparse.Namespace) -> int:
    """The verb: 0 after Ctrl-C or the last episode, 1 if a node ended by itself, 2 for a mistake."""
    options, dotted = real_settings.parse(Options, args.settings)
    given = real_settings.overrides(options, dotted, _SHORT)
    for key in ("bundle", "record"):
        if key in given:
            given[key] = os.path.abspath(given[key])
    if options.episodes:
        given.setdefault("episode.auto_start", True)
    stack = real_settings.load_stack(options.stack, given)
    if options.teleop and stack.teleop.device == "keyboard":
        raise UpError("a keyboard needs a terminal of its own: run `robolearn teleop`; or give teleop.device=gamepad")
    print(NOT_SAFE, file=sys.stderr)
    run = _Run(stack, given, options, quiet=bool(args.json))
    result = run.run()
    if args.json:
        print(json_line(result))
    return int(result["exit_code"])


class _Run:
    def __init__(self, stack: Stack, given: dict[str, Any], options: Options, quiet: bool) -> None:
        from real.launcher import Launcher, environment
        from real.preflight import check_files

        self.stack = stack
        self.options = options
        failed = [finding for finding in check_files(stack) if finding.state == "fail"]
        if failed:
            raise UpError("; ".join(f"{finding.name}: {finding.detail}; {finding.advice}" for finding in failed))
        os.environ.update(environment(stack))
        self.failures: list[str] = []
        extra = ("teleop",) if options.teleop else ()
        self.launcher: Launcher = Launcher(stack, given, self.report, extra)
        self.quiet = quiet
        self._print: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)

    def report(self, name: str, line: str) -> None:
        self._print(f"[{name}] {line.removeprefix(f'[{name}] ')}")

    def run(self) -> dict[str, Any]:
        from real.monitor import Monitor
        from real.transport.open import open_node

        stack = self.stack
        with _signals() as stopping:
            handle = open_node("launcher", namespace=stack.namespace, transport=stack.transport, domain=stack.domain)
            monitor = Monitor(handle)
            try:
                _spin(handle, _SETTLE_S, stopping)
                self._refuse_a_second_stack(handle)
                self.launcher.start(self.options.ready_s, waiting=lambda: _wait_or_stop(handle, stopping))
                self._print("up: " + ", ".join(self.launcher.processes) + "; Ctrl-C ends it")
                with self._status(monitor) as show:
                    reason = self._watch(handle, monitor, show, stopping)
                self._print(f"ending: {reason}")
            except KeyboardInterrupt:
                reason = "interrupted while it came up"
            finally:
                summary = monitor.summary()  # of the running stack, not of its end
                self.launcher.stop()
                handle.close()
        code = 1 if self.failures else 0
        return {**summary, "reason": reason, "ended": self.failures, "exit_code": code}

    def _watch(self, handle: NodeHandle, monitor: Monitor, show: Callable[[str], None], stopping: list[int]) -> str:
        """Until something ends the stack; says what."""
        from real.launcher import CRITICAL

        while not stopping:
            handle.spin_once(0.1)
            show(monitor.line())
            for process in self.launcher.ended():
                self.failures.append(process.describe_end())
                self._print(self.failures[-1])
                if process.name in CRITICAL:
                    return f"{process.name} is gone"
            if self.options.episodes and len(monitor.episodes.ended) >= self.options.episodes:
                return f"{self.options.episodes} episodes are done"
        return signal.Signals(stopping[0]).name

    def _refuse_a_second_stack(self, handle: NodeHandle) -> None:
        mine = handle.resolve("safety")
        if mine in handle.nodes():
            domain = os.environ.get("ROS_DOMAIN_ID", "0")
            raise UpError(f"domain {domain} has a node {mine} already; end that stack, or give domain=...")

    @contextlib.contextmanager
    def _status(self, monitor: Monitor) -> Iterator[Callable[[str], None]]:
        """On a terminal one line kept up to date, else a line now and then and at every change of mode."""
        if sys.stderr.isatty() and not self.quiet:
            from rich.console import Console
            from rich.live import Live
            from rich.text import Text

            console = Console(stderr=True)
            with Live(console=console, refresh_per_second=5, transient=True) as live:
                self._print = lambda line: console.print(Text(line))
                yield lambda line: live.update(Text("\n".join([line, *monitor.warnings])))
            self._print = lambda line: print(line, file=sys.stderr, flush=True)
            return
        next_line, mode = 0.0, ""

        def show(line: str) -> None:
            nonlocal next_line, mode
            if time.monotonic() >= next_line or monitor.mode != mode:
                next_line, mode = time.monotonic() + _LINE_S, monitor.mode
                self._print("\n  ".join([line, *monitor.warnings]))

        yield show


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them, so that nodes are ended in order."""
    stopping: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda received, _: stopping.append(received))
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _spin(handle: NodeHandle, seconds: float, stopping: list[int]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not stopping:
        handle.spin_once(0.05)


def _wait_or_stop(handle: NodeHandle, stopping: list[int]) -> None:
    handle.spin_once(0.05)
    if stopping:
        raise KeyboardInterrupt
