"""Faults of processes and files: kill -9, SIGSTOP and a full disk, with every node in a process of its own on DDS."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from real.msgs import store
from real.recording.reading import episode_files, summarize
from real.recording.recovery import recover
from real.recording.steps import read_steps
from real.transport.handle import LATCHED, RELIABLE, QoS
from real.transport.open import open_node
from tests.real.stack_on_bus import DYNAMIC, STRING, write_bundle

ROOT = Path(__file__).resolve().parents[2]
FULL = 200_000
"""Bytes that a file may have on the disk that is full."""
PATIENCE_S = 60.0
EVENTS = QoS(depth=10, transient_local=True)


class Processes:
    """The nodes of a stack as processes, and an operator who hears and asks."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self.domain, self.messages = 100 + os.getpid() % 100, store()
        self.settings = {
            **{"transport": "dds", "domain": self.domain, "policy.bundle": bundle, "twin.rendering": "none"},
            **{"recorder.folder": folder, "recorder.min_free_mb": 0, "episode.judge": "operator"},
            **{"episode.time_out_s": 600.0, "safety.rate_hz": 100.0, "limits.velocity": 0.3},
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.mode, self.scene, self.steps = "", {}, 0
        self.events: list[dict[str, Any]] = []
        self.node = open_node("operator", transport="dds", domain=self.domain)
        self.node.subscribe("safety/mode", STRING, lambda m, _: setattr(self, "mode", m.data), LATCHED)
        self.node.subscribe("safety/step", DYNAMIC, self._step, QoS(depth=50))
        self.node.subscribe("scene/state", STRING, lambda m, _: setattr(self, "scene", json.loads(m.data)), LATCHED)
        self.node.subscribe("episode/event", STRING, lambda m, _: self.events.append(json.loads(m.data)), EVENTS)
        self.asked = {name: self.node.publisher(f"{name}/request", STRING, RELIABLE) for name in ("safety", "episode")}

    def _step(self, message: Any, received: Any) -> None:
        self.steps += 1

    def start(self, *names: str) -> None:
        given = [text for key, value in self.settings.items() for text in ("-p", f"{key}:={value}")]
        for name in names:
            command = [sys.executable, "-m", f"real.nodes.{name}", "--ros-args", *given]
            self.running[name] = subprocess.Popen(command, cwd=ROOT)

    def signal(self, name: str, number: int) -> None:
        self.running[name].send_signal(number)
        if number == signal.SIGKILL:
            self.running.pop(name).wait()

    def wait(self, ready: Callable[[], object], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        self.node.spin(until=lambda: bool(ready()) or time.monotonic() > end)
        assert ready(), f"no {what} within {PATIENCE_S:g} s; the mode is {self.mode}"

    def ask(self, whom: str, word: str) -> None:
        self.asked[whom].publish(self.messages.new(STRING, data=word))

    def until(self, mode: str) -> None:
        self.wait(lambda: self.mode == mode, mode)

    def arm(self) -> None:
        """Ask for it until the policy has told its session."""
        end = time.monotonic() + PATIENCE_S
        while self.mode != "POLICY" and time.monotonic() < end:
            self.ask("safety", "arm")
            self.spin(0.5)
        self.until("POLICY")

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.node.spin(until=lambda: time.monotonic() > end)

    def more_steps(self, number: int) -> None:
        enough = self.steps + number
        self.wait(lambda: self.steps >= enough, "steps")

    def event(self, kind: str, episode: int) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [e for e in self.events if e["event"] == kind and e["episode"] == episode]

        self.wait(found, f"event {kind} of episode {episode}")
        return found()[-1]

    def check_limits(self) -> None:
        monitor = self.scene["monitor"]
        assert monitor["commands"] > 100
        assert not any(count for kind, count in monitor.items() if kind.startswith("violations")), monitor
        assert not monitor["reflexes"] and not monitor["rejected"], monitor

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()
        self.node.close()


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")  # inherited by the processes
    made = Processes(write_bundle(tmp_path / "bundle"), tmp_path / "episodes")
    yield made
    made.close()


def _ended(path: Path) -> bool:
    """Whether a file has its end, or no room was left for one: then it keeps its first name, to be recovered."""
    try:
        return path.suffix == ".mcap" or summarize(path).state != "recording"
    except FileNotFoundError:  # it has just got its name
        return True


def test_a_stack_of_processes_survives_what_processes_do(stack, tmp_path):
    folder = tmp_path / "episodes"
    stack.start("twin", "safety", "policy", "episode", "recorder")
    stack.until("HOLD")
    stack.wait(lambda: stack.node.publishers("policy/heartbeat"), "policy")
    stack.wait(lambda: "/recorder" in stack.node.nodes() and "/episode" in stack.node.nodes(), "nodes")

    # Episode 0: nothing happens.
    stack.arm()
    stack.ask("episode", "start")
    stack.event("started", 0)
    stack.more_steps(100)
    stack.ask("episode", "success")
    stack.event("ended", 0)
    stack.wait(lambda: [f.suffix for f in episode_files(folder)] == [".mcap"], "finished file")
    first = episode_files(folder)[0].read_bytes()

    # Episode 1: the disk is full. Recording ends, control goes on.
    recorder = stack.running["recorder"].pid
    _, hard = resource.prlimit(recorder, resource.RLIMIT_FSIZE)
    resource.prlimit(recorder, resource.RLIMIT_FSIZE, (FULL, hard))
    stack.ask("episode", "start")
    stack.event("started", 1)
    stack.wait(lambda: len(episode_files(folder)) == 2 and _ended(episode_files(folder)[1]), "end of file")
    assert stack.mode == "POLICY"
    stack.ask("episode", "failure")
    stack.event("ended", 1)
    resource.prlimit(recorder, resource.RLIMIT_FSIZE, (hard, hard))
    full = summarize(episode_files(folder)[1])
    assert full.state == "partial" and full.counts["/safety/step"] > 10
    unended = [file for file in episode_files(folder) if file.suffix != ".mcap"]
    assert unended or "File too large" in full.end["reason"]

    # Episode 2: the policy stands still, and the recorder is killed.
    stack.ask("episode", "start")
    stack.event("started", 2)
    stack.more_steps(50)
    stack.signal("policy", signal.SIGSTOP)
    stack.until("HOLD")
    stack.signal("policy", signal.SIGCONT)
    stack.more_steps(100)
    assert stack.mode == "HOLD", "it needs to be armed"
    stack.arm()
    stack.more_steps(100)
    stack.signal("recorder", signal.SIGKILL)
    assert stack.mode == "POLICY"
    files = episode_files(folder)
    assert [file.name for file in files][2:] == ["episode_000002.mcap.active"]
    *others, done = recover(folder)
    assert len(others) == len(unended)
    assert summarize(done.path).state == "recovered"
    assert len(read_steps(done.path, store())) > 200
    assert files[0].read_bytes() == first, "earlier episodes are as they were"

    # The safety node is killed while the arm moves: its controllers stop it, and the episode fails.
    stack.more_steps(20)
    assert stack.scene["monitor"]["timeouts"] == 0
    stack.signal("safety", signal.SIGKILL)
    assert stack.event("ended", 2)["outcome"] == "fault"
    stack.wait(lambda: stack.scene["monitor"]["timeouts"] >= 1, "time-out of the controllers")
    commands = stack.scene["monitor"]["commands"]
    stack.spin(0.5)
    assert stack.scene["monitor"]["commands"] == commands
    stack.check_limits()
