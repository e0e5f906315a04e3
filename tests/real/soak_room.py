"""The whole stack on virtual time under random faults, and the books that are kept of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from real.core.arbiter import Mode
from real.nodes.critic import CriticNode
from real.nodes.episode import EpisodeNode
from real.nodes.policy import PolicyNode
from real.nodes.recorder import RecorderNode
from real.nodes.recorder import settings_of as recorder_settings
from real.nodes.safety import SafetyNode
from real.nodes.twin import TwinNode
from real.nodes.twin import settings_of as twin_settings
from real.recording.reading import messages, summarize
from real.recording.recovery import recover
from real.stack import Stack, load
from real.transport.local import LocalBus
from tests.real.fuzz_room import type_name

TOPICS = (
    *("/joint_states", "/objects/first/pose", "/objects/goal/pose", "/camera/front/image_raw"),
    *("/policy/action_chunk", "/policy/heartbeat", "/teleop/twist", "/teleop/deadman", "/safety/request"),
    *("/safety/mode", "/safety/step", "/safety/executed", "/critic/value", "/episode/event", "/episode/instruction"),
    *("/episode/goal/named", "/scene/state", "/scene/request", "/safety/reset_pose"),
)
COMMANDS = ("/arm_controller/joint_trajectory", "/gripper_controller/commands")
"""Of these, messages may be lost or late; one that is changed or out of order would be another command."""
RESTARTED = ("policy", "critic", "recorder", "episode")
ASKED_S, RECENT_S = 6.0, 6.0
"""A change of mode is put down to a request or a fault so long before it."""
_ASKED_FOR = {Mode.POLICY: "arm", Mode.RESET: "reset"}
_EARLIEST_S, _MOST_S = 0.5, 5.0
"""Between two faults."""
_PICTURE = 96


def soak_stack(bundle: Path, folder: Path, task: str, **more: Any) -> Stack:
    """The stack of a soak: rounds by itself, judged by the twin's scene."""
    return load(
        "panda_twin",
        {
            **{"bundle": str(bundle), "task": task, "record": str(folder), "critic": "elapsed_time"},
            **{"twin.rendering": "none", "recorder.min_free_mb": 0, "episode.auto_start": True},
            **{"episode.judge": "scene", "episode.time_out_s": 6.0, "critic.cameras": ["front"]},
            **more,
        },
    )


@dataclass
class Began:
    """One episode as its node's own books have it: when it began, s, and what became of it."""

    at: float
    record: Any


@dataclass
class Books:
    """What a soak comes to. ``problems`` is empty where everything is as it must be."""

    virtual_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    episodes: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    commands: int = 0
    violations: dict[str, int] = field(default_factory=dict)
    worst: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}


class Soak:
    """A stack, faults drawn from a seed, an operator who clears what latched, and a bookkeeper.

    Args:
        bundle, task: what the policy is, and where.
        folder: where episodes are recorded.
        seed: of the faults.
    """

    def __init__(self, bundle: Path, task: str, folder: Path, seed: int) -> None:
        self.stack = soak_stack(bundle, folder, task)
        self.folder, self.random = folder, Random(seed)
        self.bus = LocalBus(seed=seed)
        self.twin = TwinNode(self.bus.node("twin"), twin_settings(self.stack))
        self.safety = SafetyNode(self.bus.node("safety"), self.stack)
        self.nodes: dict[str, Any] = {}
        self.episodes: list[EpisodeNode] = []
        self.operator = self.bus.node("operator")
        self.books = Books()
        self.began: list[Began] = []
        self.log: list[tuple[float, float, str]] = []
        self.asked: list[tuple[float, str]] = []
        self.recorded: dict[Path, float] = {}
        self._busy: set[str] = set()
        self._driving_until = 0.0
        self._mode, self._latched_at = Mode.INIT, 0.0
        for name in RESTARTED:
            self.start(name)
        self._operate()

    @property
    def now(self) -> float:
        """Virtual, s."""
        return self.bus.clock.monotonic()

    def start(self, name: str) -> None:
        """Start a node (again)."""
        handle = self.bus.node(name)
        if name == "recorder":
            self.nodes[name] = RecorderNode(handle, recorder_settings(self.stack))
        else:
            made = {"policy": PolicyNode, "critic": CriticNode, "episode": EpisodeNode}[name](handle, self.stack)
            self.nodes[name] = made
            if isinstance(made, EpisodeNode):
                self.episodes.append(made)

    def run(self, seconds: float, faults_until: float) -> Books:
        """Let it run; no faults begin in the time after ``faults_until``, s from now."""
        begin = self.now
        self.bus.after(_EARLIEST_S, lambda: self._next(begin + faults_until))
        end = self.bus.clock.ns + round(seconds * 1e9)
        while True:
            try:
                if not self.bus.step(end):
                    break
            except Exception as error:  # whatever a node let out is a finding
                notes = "; ".join(getattr(error, "__notes__", []))
                self.books.problems.append(f"at {self.now - begin:.2f} s: {type_name(error)} {notes}")
            self._watch()
        return self._close(seconds)

    # Faults

    def _next(self, until: float) -> None:
        if self.now > until:
            return
        kinds = ("network", "network", "cut", "pause", "kill", "e-stop", "takeover", "clock", "publisher", "freeze")
        kind = self.random.choice(kinds)
        getattr(self, "_fault_" + kind.replace("-", ""))()
        self.bus.after(self.random.uniform(_EARLIEST_S, _MOST_S), lambda: self._next(until))

    def _note(self, kind: str, seconds: float) -> None:
        self.books.faults[kind.split()[0]] += 1
        self.log.append((self.now, self.now + seconds, kind))

    def _fault_network(self) -> None:
        commands = self.random.random() < 0.1
        topic = self.random.choice(COMMANDS if commands else TOPICS)
        kind = self.random.choice(
            ("drop", "delay") if commands else ("drop", "delay", "duplicate", "reorder", "corrupt")
        )
        share, seconds = self.random.uniform(0.1, 1.0), self.random.uniform(0.3, 3.0)
        faults = self.bus.faults
        set_to = {
            "drop": lambda s: faults.drop(topic, s),
            "delay": lambda s: faults.delay(topic, 0.3 * s, 0.1 * s),
            "duplicate": lambda s: faults.duplicate(topic, s, 0.05),
            "reorder": lambda s: faults.reorder(topic, s, 0.1),
            "corrupt": lambda s: faults.corrupt(topic, s),
        }[kind]
        set_to(share)
        self._note(f"{kind} {topic}", seconds)
        self.bus.after(seconds, lambda: set_to(0.0))

    def _fault_cut(self) -> None:
        self._cut(self.random.choice((*TOPICS, *COMMANDS)), self.random.uniform(0.1, 2.0), "cut")

    def _fault_freeze(self) -> None:
        self._cut("/joint_states", self.random.uniform(0.05, 2.5), "freeze")

    def _cut(self, topic: str, seconds: float, kind: str) -> None:
        if topic in self._busy:
            return
        self._busy.add(topic)
        self.bus.faults.cut(topic)
        self._note(f"{kind} {topic}", seconds)

        def heal() -> None:
            self._busy.discard(topic)
            self.bus.faults.heal(topic)

        self.bus.after(seconds, heal)

    def _fault_pause(self) -> None:
        name = self.random.choice((*RESTARTED, "safety", "twin"))
        seconds = self.random.uniform(0.02, 0.3 if name == "twin" else 2.0)
        if not self._seize(name):
            return
        self.bus.pause(name)
        self._note(f"pause {name}", seconds)

        def resume() -> None:
            self._busy.discard(name)
            self.bus.resume(name)

        self.bus.after(seconds, resume)

    def _fault_kill(self) -> None:
        name, seconds = self.random.choice(RESTARTED), self.random.uniform(0.2, 3.0)
        if not self._seize(name):
            return
        self.bus.kill(name)
        if name == "recorder" and (file := self.nodes[name].recorder.file) is not None:
            file.abandon()  # what the system does for a process that is killed
        self._note(f"kill {name}", seconds)

        def again() -> None:
            self._busy.discard(name)
            self.start(name)

        self.bus.after(seconds, again)

    def _seize(self, name: str) -> bool:
        free = name not in self._busy
        self._busy.add(name)
        return free

    def _fault_estop(self) -> None:
        self._press(True)
        self._note("e-stop", 0.5)
        self.bus.after(0.5, lambda: self._press(False))

    def _press(self, pressed: bool) -> None:
        self._estop.publish(self.bus.store.new("std_msgs/msg/Bool", data=pressed))

    def _fault_takeover(self) -> None:
        seconds = self.random.uniform(0.3, 3.0)
        self._driving_until = self.now + seconds
        self._twist_now = [self.random.uniform(-0.2, 0.2) for _ in range(6)]
        self._note("takeover", seconds)

    def _fault_clock(self) -> None:
        self.bus.clock.jump(self.random.choice((-3600.0, 3600.0, -0.5, 0.5)))
        self._note("clock", 0.0)

    def _fault_publisher(self) -> None:
        """Another node that would command the arm; what it sends is refused by every driver, for it is nothing."""
        if not self._seize("second"):
            return
        node, seconds = self.bus.node("second"), self.random.uniform(0.2, 1.0)
        type = "trajectory_msgs/msg/JointTrajectory"
        publisher = node.publisher(COMMANDS[0], type)
        node.timer(0.02, lambda: publisher.publish(self.bus.store.new(type)))
        self._note("publisher", seconds)

        def leave() -> None:
            self._busy.discard("second")
            node.close()

        self.bus.after(seconds, leave)

    # The operator, who is not faulty but whose messages may be lost

    def _operate(self) -> None:
        operator, new = self.operator, self.bus.store.new
        self._estop = operator.publisher("safety/estop", "std_msgs/msg/Bool")
        self._request = operator.publisher("safety/request", "std_msgs/msg/String")
        self._twist = operator.publisher("teleop/twist", "geometry_msgs/msg/TwistStamped")
        self._deadman = operator.publisher("teleop/deadman", "sensor_msgs/msg/Joy")
        self._image = operator.publisher("camera/front/image_raw", "sensor_msgs/msg/Image")
        self._twist_now = [0.0] * 6
        self._shown = 0
        operator.subscribe("safety/request", "std_msgs/msg/String", lambda m, _: self.asked.append((self.now, m.data)))

        def drive() -> None:
            driving = self.now < self._driving_until
            x, y, z, a, b, c = self._twist_now if driving else [0.0] * 6
            linear, angular = (
                new("geometry_msgs/msg/Vector3", x=x, y=y, z=z),
                new("geometry_msgs/msg/Vector3", x=a, y=b, z=c),
            )
            twist = new("geometry_msgs/msg/Twist", linear=linear, angular=angular)
            self._twist.publish(new("geometry_msgs/msg/TwistStamped", twist=twist))
            self._deadman.publish(new("sensor_msgs/msg/Joy", buttons=[int(driving), 0, 0, 0]))

        def show() -> None:
            self._shown += 1
            header = new("std_msgs/msg/Header", stamp=self.bus.store.time(operator.clock.now()))
            size = {"height": _PICTURE, "width": _PICTURE, "step": 3 * _PICTURE}
            picture = np.full(_PICTURE * _PICTURE * 3, self._shown % 256, np.uint8)
            self._image.publish(new("sensor_msgs/msg/Image", header=header, encoding="rgb8", data=picture, **size))

        def clear() -> None:
            if self._mode in (Mode.FAULT, Mode.ESTOP) and self.now - self._latched_at > 1.0:
                self._press(False)
                self._request.publish(new("std_msgs/msg/String", data="clear"))

        operator.timer(0.02, drive)
        operator.timer(0.2, show)
        operator.timer(0.5, clear)

    # The books

    def _watch(self) -> None:
        mode = self.safety.arbiter.mode
        if mode != self._mode:
            self._judge_mode(self._mode, mode)
            self._mode, self._latched_at = mode, self.now
        for node in self.episodes:
            known = getattr(node, "_booked", 0)
            for record in node.machine.records[known:]:
                self.began.append(Began(self.now, record))
            node._booked = len(node.machine.records)  # type: ignore[attr-defined]
        file = self.nodes["recorder"].recorder.file
        if file is not None and file.path not in self.recorded:
            self.recorded[file.path] = self.now

    def _judge_mode(self, before: Mode, after: Mode) -> None:
        """Every change needs a cause: a request, the operator's deadman, or a fault of the last seconds."""
        self.books.modes[f"{before.name} -> {after.name}"] += 1
        why = self.safety.arbiter.why
        problem = ""
        if before in (Mode.FAULT, Mode.ESTOP) and after != Mode.ESTOP and not self._was_asked("clear"):
            problem = "nobody cleared it"
        elif after in _ASKED_FOR and not self._was_asked(_ASKED_FOR[after]):
            problem = "nobody asked"
        elif after == Mode.HUMAN and not self._lately("takeover", "corrupt /teleop"):
            problem = "nobody took over"
        elif after == Mode.ESTOP and not self._lately("e-stop", "corrupt /teleop"):
            problem = "nobody pressed"
        elif after == Mode.FAULT and not self._lately(""):
            problem = "nothing was wrong"
        elif after == Mode.INIT:
            problem = "no node starts again"
        if problem:
            self.books.problems.append(f"{before.name} -> {after.name} ({why}): {problem}")

    def _was_asked(self, word: str) -> bool:
        return any(self.now - at < ASKED_S and said == word for at, said in self.asked)

    def _lately(self, *kinds: str) -> bool:
        return any(self.now - end < RECENT_S and kind.startswith(kinds) for _, end, kind in self.log)

    def _close(self, seconds: float) -> Books:
        books, driver = self.books, self.twin.cell.driver
        self.nodes["recorder"].close()
        books.virtual_s, books.commands = seconds, driver.commands
        books.violations, books.worst = dict(driver.violations), {k: float(v) for k, v in driver.worst.items()}
        if any(books.violations.values()):
            books.problems.append(f"beyond a limit: {books.violations}, worst {books.worst}")
        books.problems += check_files(self.folder, books)
        self._account()
        return books

    def _account(self) -> None:
        """Every episode that was begun has a file, or a reason for having none."""
        files = dict(self.recorded)
        living = self.episodes[-1].machine.record
        for begun in self.began:
            outcome = begun.record.outcome or ("running" if begun.record is living else "cut off by a kill")
            path = next((p for p, at in files.items() if -0.01 <= at - begun.at <= 3.5), None)
            if path is not None:
                del files[path]
                self.books.episodes[f"{outcome}, recorded"] += 1
                continue
            why = self._excuse(begun)
            self.books.episodes[f"{outcome}, {why or 'lost'}"] += 1
            if not why:
                self.books.problems.append(f"episode at {begun.at:.2f} s ({outcome}) has no file and no excuse")
        for path in files:
            self.books.problems.append(f"{path.name} belongs to no episode")

    def _excuse(self, begun: Began) -> str:
        near = [kind for start, end, kind in self.log if start - 0.1 <= begun.at + 1.0 and begun.at <= end + 1.0]
        if any(kind in ("kill recorder", "pause recorder") for kind in near):
            return "recorder down"
        if any(kind.endswith("/episode/event") for kind in near):
            return "its event was lost"
        if any(kind in ("kill episode", "pause episode") for kind in near):
            return "its node was down"
        return "shorter than the recorder settles" if 0 < begun.record.duration_s < 0.3 else ""


def check_files(folder: Path, books: Books) -> list[str]:
    """Recover what was killed, open every file, count states; what is wrong, in words."""
    problems = []
    for recovery in recover(folder) if folder.is_dir() else []:
        if recovery.path is None:
            problems.append(f"{recovery.source.name} cannot be recovered: {recovery.fault}")
    for path in sorted(folder.glob("episode_*.mcap")):
        found = summarize(path)
        recovered = found.end.get("recovered") == "true"
        books.files["recovered" if recovered else found.state] += 1
        count = sum(1 for _ in messages(path))
        books.messages += count
        if count == 0 or found.fault or found.state not in ("complete", "partial", "recovered"):
            problems.append(f"{path.name}: {found.state}, {count} messages, {found.fault}")
    return problems
