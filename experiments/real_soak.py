"""Minutes of random faults: the robot stays within its limits, every episode is accounted for.

``local`` runs the whole stack on a bus with virtual time: messages lost, late, doubled, out of order and damaged, cuts,
nodes paused, killed and started again, e-stops, takeovers, clock jumps, a second publisher of commands, frozen joint
states. ``dds`` runs it as processes over a real network with SIGSTOP, SIGKILL, e-stops, takeovers and a second
publisher::

    python experiments/real_soak.py --minutes 10 --seed 0 --bundle <bundle> --task arm_reach
    python experiments/real_soak.py --minutes 10 --transport dds --bundle <bundle> --task arm_push
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import torch

from real.launcher import Launcher, NodeProcess, node_command
from real.msgs import store
from real.nodes.messages import json_object
from real.stack import load
from real.transport.handle import QoS
from real.transport.open import open_node
from tests.real.fuzz_room import quiet
from tests.real.small_bundle import write_bundle
from tests.real.soak_room import COMMANDS, RESTARTED, Books, Soak, check_files

CALM_S = 10.0
"""At the end without new faults, so that the last episode may end."""
_EVENTS, _MODES = QoS(depth=10, transient_local=True), QoS(depth=1, transient_local=True)
_LATCHED = ("FAULT", "ESTOP")


def main(argv: list[str] | None = None) -> int:
    """Entry point; 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--transport", choices=("local", "dds"), default="local")
    parser.add_argument("--bundle", type=Path, help="by default a policy that leads the arm to and fro")
    parser.add_argument("--task", default="arm_reach")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    began, seconds = time.monotonic(), 60.0 * given.minutes
    with tempfile.TemporaryDirectory() as name:
        bundle = given.bundle or write_bundle(Path(name) / "bundle")
        folder = Path(name) / "episodes"
        if given.transport == "local":
            with quiet():
                soak = Soak(bundle.resolve(), given.task, folder, given.seed)
                books = soak.run(seconds, seconds - CALM_S)
        else:
            books = Processes(bundle.resolve(), given.task, folder, given.seed).run(seconds)
    report = {**books.to_dict(), "wall_s": round(time.monotonic() - began, 1)}
    if given.json:
        print(json.dumps(report, indent=1))
    else:
        for key, value in report.items():
            print(f"{key:12} {value}")
    return 1 if books.problems else 0


class Processes:
    """The stack as processes, an operator and a bookkeeper in this one."""

    def __init__(self, bundle: Path, task: str, folder: Path, seed: int) -> None:
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        domain = 100 + os.getpid() % 100
        self.folder, self.random, self.books = folder, Random(seed), Books()
        self.overrides: dict[str, Any] = {
            **{"bundle": str(bundle), "task": task, "record": str(folder), "domain": domain, "transport": "dds"},
            **{"twin.rendering": "none", "recorder.min_free_mb": 0, "episode.auto_start": True},
            **{"episode.judge": "scene", "episode.time_out_s": 6.0, "critic": "elapsed_time"},
        }
        self.launcher = Launcher(load("panda_twin", self.overrides), self.overrides, self._line)
        self.node = open_node("operator", transport="dds", domain=domain)
        self.new, self.domain = store().new, domain
        self.mode, self.cleared, self.latched_at = "", -1e9, 0.0
        self.events: list[tuple[float, dict[str, Any]]] = []
        self.down: list[tuple[float, float, str]] = []
        self.monitor: dict[str, Any] = {}
        self.later: list[tuple[float, Any]] = []
        self.driving_until = 0.0
        self._connect()

    def _connect(self) -> None:
        node = self.node
        self.estop = node.publisher("safety/estop", "std_msgs/msg/Bool")
        self.request = node.publisher("safety/request", "std_msgs/msg/String")
        self.twist = node.publisher("teleop/twist", "geometry_msgs/msg/TwistStamped")
        self.deadman = node.publisher("teleop/deadman", "sensor_msgs/msg/Joy")
        node.subscribe("safety/mode", "std_msgs/msg/String", lambda m, _: self._on_mode(m.data), _MODES)
        node.subscribe("episode/event", "std_msgs/msg/String", lambda m, _: self._on_event(m.data), _EVENTS)
        node.subscribe("scene/state", "std_msgs/msg/String", lambda m, _: self._on_scene(m.data), _MODES)
        node.timer(0.02, self._drive)
        node.timer(0.5, self._clear)
        node.timer(0.05, self._due)

    def run(self, seconds: float) -> Books:
        """Start, disturb, end, check."""
        spin = self.node.spin_once
        self.launcher.start(300.0, waiting=lambda: spin(0.02))
        try:
            begin = time.monotonic()
            following = begin + 5.0
            while (now := time.monotonic()) < begin + seconds:
                spin(0.05)
                if now > following and now < begin + seconds - CALM_S:
                    self._fault()
                    following = now + self.random.uniform(1.0, 6.0)
                self._look()
            self.books.virtual_s = seconds
            end = time.monotonic() + 2.0
            self.node.spin(until=lambda: time.monotonic() > end)
        finally:
            self.launcher.stop(20.0)
            self.node.close()
        return self._close()

    def _fault(self) -> None:
        kind = self.random.choice(("pause", "pause", "kill", "kill", "e-stop", "takeover", "publisher"))
        self.books.faults[kind] += 1
        getattr(self, "_fault_" + kind.replace("-", ""))()

    def _fault_pause(self) -> None:
        name = self.random.choice((*RESTARTED, "safety", "twin"))
        seconds = self.random.uniform(0.05, 0.3 if name == "twin" else 2.0)
        process = self.launcher.processes[name]
        os.kill(process.pid, signal.SIGSTOP)
        self._note(f"pause {name}", seconds)
        self._after(seconds, lambda: os.kill(process.pid, signal.SIGCONT) if process.code is None else None)

    def _fault_kill(self) -> None:
        name, seconds = self.random.choice(RESTARTED), self.random.uniform(0.5, 3.0)
        process = self.launcher.processes[name]
        if process.code is not None:
            return
        os.kill(process.pid, signal.SIGKILL)
        self._note(f"kill {name}", seconds + 20.0)

        def again() -> None:
            command = node_command(name, "panda_twin", self.overrides)
            self.launcher.processes[name] = NodeProcess(name, command, dict(os.environ), self._line)

        self._after(seconds, again)

    def _fault_estop(self) -> None:
        self.estop.publish(self.new("std_msgs/msg/Bool", data=True))
        self._note("e-stop", 0.5)
        self._after(0.5, lambda: self.estop.publish(self.new("std_msgs/msg/Bool", data=False)))

    def _fault_takeover(self) -> None:
        self.driving_until = time.monotonic() + self.random.uniform(0.3, 3.0)
        self._note("takeover", 3.0)

    def _fault_publisher(self) -> None:
        second = open_node("second", transport="dds", domain=self.domain)
        second.publisher(COMMANDS[0], "trajectory_msgs/msg/JointTrajectory")
        self._note("publisher", 2.0)
        self._after(1.0, second.close)

    def _note(self, what: str, seconds: float) -> None:
        self.down.append((time.monotonic(), time.monotonic() + seconds, what))

    def _after(self, seconds: float, action: Any) -> None:
        self.later.append((time.monotonic() + seconds, action))

    def _due(self) -> None:
        ready = [item for item in self.later if item[0] <= time.monotonic()]
        self.later = [item for item in self.later if item not in ready]
        for _, action in ready:
            action()

    def _drive(self) -> None:
        driving = time.monotonic() < self.driving_until
        twist = self.new("geometry_msgs/msg/TwistStamped")
        twist.twist.linear.x = 0.05 * driving
        self.twist.publish(twist)
        self.deadman.publish(self.new("sensor_msgs/msg/Joy", buttons=[int(driving), 0, 0, 0]))

    def _clear(self) -> None:
        if self.mode in _LATCHED and time.monotonic() - self.latched_at > 1.0:
            self.estop.publish(self.new("std_msgs/msg/Bool", data=False))
            self.request.publish(self.new("std_msgs/msg/String", data="clear"))
            self.cleared = time.monotonic()

    def _on_mode(self, mode: str) -> None:
        if mode == self.mode:
            return
        now = time.monotonic()
        self.books.modes[f"{self.mode or 'start'} -> {mode}"] += 1
        recent = {what.split()[0] for _, end, what in self.down if now - end < 8.0}
        if self.mode in _LATCHED and mode not in _LATCHED and now - self.cleared > 5.0:
            self.books.problems.append(f"{self.mode} -> {mode}: nobody cleared it")
        if mode == "HUMAN" and "takeover" not in recent or mode == "ESTOP" and "e-stop" not in recent:
            self.books.problems.append(f"{self.mode} -> {mode}: nobody asked")
        if mode == "FAULT" and not recent:
            self.books.problems.append(f"{self.mode} -> {mode}: nothing was wrong")
        self.mode, self.latched_at = mode, now

    def _on_event(self, text: str) -> None:
        event = json_object(text)
        if event.get("event") in ("started", "ended"):
            self.events.append((time.monotonic(), event))

    def _on_scene(self, text: str) -> None:
        self.monitor = json_object(text).get("monitor", self.monitor)

    def _look(self) -> None:
        """Processes that ended though nobody killed them."""
        for process in self.launcher.ended():
            if process.code != -signal.SIGKILL:
                self.books.problems.append(process.describe_end())

    def _line(self, name: str, line: str) -> None:
        if "Traceback" in line:
            self.books.problems.append(f"{name}: {line}")

    def _close(self) -> Books:
        books = self.books
        books.violations = {k: int(v) for k, v in self.monitor.items() if k.startswith("violations")}
        books.worst = {k: float(v) for k, v in self.monitor.items() if k.startswith("worst")}
        books.commands = int(self.monitor.get("commands", 0))
        if not self.monitor or any(books.violations.values()):
            books.problems.append(f"beyond a limit, or the twin said nothing: {books.violations}, {books.worst}")
        books.problems += check_files(self.folder, books)
        started = [(at, e) for at, e in self.events if e["event"] == "started"]
        ended = sum(e["event"] == "ended" for _, e in self.events)
        books.episodes.update({"started": len(started), "ended": ended, "files": sum(books.files.values())})
        cut = sum(what == "kill episode" for _, _, what in self.down)
        if len(started) - ended > cut + 1:
            books.problems.append(f"{len(started)} episodes began, {ended} ended, {cut} were cut off by a kill")
        excused = sum(any(a - 1 <= at <= b + 1 and "recorder" in w for a, b, w in self.down) for at, _ in started)
        if len(started) - sum(books.files.values()) > excused:
            books.problems.append(
                f"{len(started)} began while the recorder was up but for {excused}; files: {books.files}"
            )
        books.episodes["began while the recorder was down"] = excused
        return books


if __name__ == "__main__":
    sys.exit(main())
