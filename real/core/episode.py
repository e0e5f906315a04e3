"""When an episode begins and ends, and what became of it.

The machine is idle, running or ended. A critic may end an episode with success, but only after several answers in a
row; a person may end it with any word, and change that word afterwards. It knows no clock but the monotonic times it
is given; stamps only tell which answer is the newer observation.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from real.core.modes import Mode
from real.errors import RealError
from robolearn.errors import unknown

OUTCOMES = ("success", "failure", "abort", "time_out", "fault")
"""What may become of an episode."""
REQUESTS = ("start", "success", "failure", "abort")
"""What an operator may say."""
_LOST = {
    Mode.FAULT: "the robot is in FAULT",
    Mode.ESTOP: "e-stop",
    Mode.INIT: "the safety node started again",
}
"""Modes in which no episode can go on, and why."""


class State(str, Enum):
    """Of the machine."""

    IDLE = "idle"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class EpisodeSettings:
    """How episodes end.

    Attributes:
        done_threshold: an answer of the critic above it says that the task is done.
        debounce: so many such answers in a row end the episode; 0: the critic never does.
        time_out_s: longest length of an episode, s.
        critic_timeout_s: a critic silent for longer is reported, s; the episode goes on.
    """

    done_threshold: float = 0.9
    debounce: int = 3
    time_out_s: float = 60.0
    critic_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.done_threshold < 1.0:
            raise RealError(f"done_threshold is a number in [0, 1), not {self.done_threshold!r}")
        if self.debounce < 0:
            raise RealError(f"debounce is a number of answers >= 0, not {self.debounce!r}")
        for name in ("time_out_s", "critic_timeout_s"):
            if not getattr(self, name) > 0:
                raise RealError(f"{name} is a number of seconds > 0, not {getattr(self, name)!r}")


@dataclass
class EpisodeRecord:
    """One episode so far.

    Attributes:
        episode: its number, from 0.
        outcome: of `OUTCOMES`, empty while it runs; judged_by: "critic", "operator", "clock" or "safety".
        reason: in words.
        first_outcome: the outcome before an operator changed it.
        duration_s: its length, s.
        steps, human_steps: steps of the safety node, and those of them in mode HUMAN.
        interventions: how often a person took over.
        reward_pending: the critic has not answered lately; values may still come and be joined by their stamps.
        last_answer_ns: stamp of the newest observation that the critic answered for; at first that of the start.
        p_done: that answer.
    """

    episode: int
    outcome: str = ""
    judged_by: str = ""
    reason: str = ""
    first_outcome: str = ""
    duration_s: float = 0.0
    steps: int = 0
    human_steps: int = 0
    interventions: int = 0
    reward_pending: bool = False
    last_answer_ns: int = 0
    p_done: float = 0.0

    @property
    def autonomous_success(self) -> bool:
        """Success without a person's help."""
        return self.outcome == "success" and self.interventions == 0


@dataclass(frozen=True)
class Event:
    """Something to tell the other nodes.

    Attributes:
        event: "started", "ended", "relabelled", "intervention", "critic_silent", "critic_back" or "refused".
        episode: the episode's number; -1 before the first.
        outcome, reason: as in `EpisodeRecord`.
        metrics: numbers of the episode, with "ended" and "relabelled".
    """

    event: str
    episode: int
    outcome: str = ""
    reason: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; metrics only where there are some."""
        data = asdict(self)
        if not self.metrics:
            del data["metrics"]
        return data


class EpisodeMachine:
    """Episodes one after the other. Every method gives the events that it caused, oldest first.

    Attributes:
        state: of the machine.
        record: the episode that runs or has ended; None before the first.
        records: all episodes, in order.
        invalid_answers: answers of the critic that were invalid or no probability.
        refused_requests: words that were unknown or came at the wrong time.
    """

    def __init__(self, settings: EpisodeSettings | None = None, first: int = 0) -> None:
        self.settings = settings or EpisodeSettings()
        self.state = State.IDLE
        self.records: list[EpisodeRecord] = []
        self.invalid_answers = 0
        self.refused_requests = 0
        self._first = first
        self._mode: Mode | None = None
        self._started = 0.0
        self._answered = 0.0
        self._streak = 0

    @property
    def record(self) -> EpisodeRecord | None:
        """The newest episode."""
        return self.records[-1] if self.records else None

    def request(self, word: str, now: float, stamp_ns: int = 0) -> list[Event]:
        """An operator's word, of `REQUESTS`.

        Args:
            word: "start" begins an episode; an outcome ends the running one, or relabels the one that ended.
            now: monotonic time, s.
            stamp_ns: wall time, to tell answers about earlier observations from those about this episode.
        """
        if word not in REQUESTS:
            return [self._refused(unknown("request", word[:40], REQUESTS))]
        if word == "start":
            return [self._start(now, stamp_ns)]
        if self.state is State.RUNNING:
            return [self.end(word, "operator", "the operator said so", now)]
        if self.state is State.ENDED:
            return [self._relabel(word)]
        return [self._refused(f"{word!r} before any episode")]

    def mode(self, mode: Mode, now: float) -> list[Event]:
        """The safety node's mode, whenever it is heard."""
        previous, self._mode = self._mode, mode
        if self.state is not State.RUNNING:
            return []
        if mode in _LOST:
            return [self.end("fault", "safety", _LOST[mode], now)]
        if mode == Mode.HUMAN and previous != Mode.HUMAN:
            return [self._intervention()]
        return []

    def step(self, mode: Mode) -> None:
        """Count a step of the safety node, made in ``mode``."""
        if self.state is State.RUNNING:
            record = self.records[-1]
            record.steps += 1
            record.human_steps += mode == Mode.HUMAN

    def critic(self, p_done: float, valid: bool, stamp_ns: int, now: float) -> list[Event]:
        """An answer of the critic: the probability that the task is done in an observation.

        An answer about an observation that is not newer than the last one, or from before the episode, changes
        nothing. An invalid one begins the count of answers in a row anew.
        """
        if self.state is not State.RUNNING or stamp_ns <= self.records[-1].last_answer_ns:
            return []
        if not valid or not math.isfinite(p_done) or not 0.0 <= p_done <= 1.0:
            self.invalid_answers += 1
            self._streak = 0
            return []
        record = self.records[-1]
        record.last_answer_ns, record.p_done = stamp_ns, float(p_done)
        self._answered = now
        events = []
        if record.reward_pending:
            record.reward_pending = False
            events.append(Event("critic_back", record.episode))
        self._streak = self._streak + 1 if p_done > self.settings.done_threshold else 0
        if self.settings.debounce and self._streak >= self.settings.debounce:
            reason = f"{self._streak} answers in a row above {self.settings.done_threshold:g}"
            events.append(self.end("success", "critic", reason, now))
        return events

    def tick(self, now: float) -> list[Event]:
        """Time passes."""
        if self.state is not State.RUNNING:
            return []
        record = self.records[-1]
        if now - self._started >= self.settings.time_out_s:
            return [self.end("time_out", "clock", f"{self.settings.time_out_s:g} s are over", now)]
        silent = now - self._answered
        if self.settings.debounce and not record.reward_pending and silent > self.settings.critic_timeout_s:
            record.reward_pending = True
            return [Event("critic_silent", record.episode, reason=f"no answer of the critic for {silent:.1f} s")]
        return []

    def end(self, outcome: str, judged_by: str, reason: str, now: float) -> Event:
        """End the running episode, for a reason that the machine cannot see itself.

        Raises:
            RealError: an unknown outcome, or no episode runs.
        """
        if outcome not in OUTCOMES:
            raise RealError(unknown("outcome", outcome, OUTCOMES))
        if self.state is not State.RUNNING:
            raise RealError(f"no episode runs that could end with {outcome!r}")
        record = self.records[-1]
        record.outcome = record.first_outcome = outcome
        record.judged_by, record.reason = judged_by, reason
        record.duration_s = max(0.0, now - self._started)
        self.state = State.ENDED
        return self._told("ended")

    def totals(self) -> dict[str, float]:
        """Counts over all ended episodes: episodes, successes, autonomous_successes, interventions, faults."""
        ended = [record for record in self.records if record.outcome]
        return {
            "episodes": len(ended),
            "successes": sum(record.outcome == "success" for record in ended),
            "autonomous_successes": sum(record.autonomous_success for record in ended),
            "interventions": sum(record.interventions for record in ended),
            "faults": sum(record.first_outcome == "fault" for record in ended),
            "duration_s": math.fsum(record.duration_s for record in ended),
        }

    def _start(self, now: float, stamp_ns: int) -> Event:
        if self.state is State.RUNNING:
            return self._refused(f"episode {self.records[-1].episode} is still running")
        if self._mode in _LOST:
            return self._refused(f"no episode can start in mode {self._mode.name}")
        self.records.append(EpisodeRecord(self._first + len(self.records), last_answer_ns=stamp_ns))
        self.state = State.RUNNING
        self._started = self._answered = now
        self._streak = 0
        if self._mode == Mode.HUMAN:
            self.records[-1].interventions = 1
        return Event("started", self.records[-1].episode)

    def _relabel(self, outcome: str) -> Event:
        record = self.records[-1]
        record.outcome, record.judged_by = outcome, "operator"
        record.reason = f"the operator changed it from {record.first_outcome!r}"
        return self._told("relabelled")

    def _intervention(self) -> Event:
        record = self.records[-1]
        record.interventions += 1
        return Event("intervention", record.episode, reason=f"a person took over, number {record.interventions}")

    def _refused(self, reason: str) -> Event:
        self.refused_requests += 1
        return Event("refused", self.records[-1].episode if self.records else -1, reason=reason)

    def _told(self, event: str) -> Event:
        record = self.records[-1]
        metrics = {**asdict(record), "autonomous_success": record.autonomous_success}
        for name in ("episode", "outcome", "reason"):
            del metrics[name]
        return Event(event, record.episode, record.outcome, record.reason, metrics)
