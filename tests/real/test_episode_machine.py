"""The episode machine: who ends an episode, when, and what is counted."""

from __future__ import annotations

import json

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from real.core.episode import OUTCOMES, REQUESTS, EpisodeMachine, EpisodeSettings, Event, State
from real.core.modes import Mode
from real.errors import RealError


def running(**options: float) -> EpisodeMachine:
    machine = EpisodeMachine(EpisodeSettings(**options))
    (event,) = machine.request("start", 10.0, stamp_ns=1000)
    assert (event.event, event.episode) == ("started", 0)
    return machine


def names(events: list[Event]) -> list[str]:
    return [event.event for event in events]


def test_success_needs_several_answers_in_a_row_about_newer_observations() -> None:
    machine = running(debounce=3)
    answers = [(0.99, 1001), (0.99, 1001), (0.99, 1000), (0.95, 1002), (0.5, 1003), (0.99, 1004), (0.99, 1005)]
    for p_done, stamp in answers:
        assert machine.critic(p_done, True, stamp, 11.0) == []
    (event,) = machine.critic(0.95, True, 1006, 12.0)
    assert (event.event, event.outcome) == ("ended", "success")
    assert event.metrics["judged_by"] == "critic" and event.metrics["duration_s"] == 2.0
    assert event.metrics["autonomous_success"] is True
    assert machine.state is State.ENDED


@pytest.mark.parametrize(("p_done", "valid"), [(float("nan"), True), (1.5, True), (float("inf"), True), (0.99, False)])
def test_an_invalid_answer_breaks_the_row(p_done: float, valid: bool) -> None:
    machine = running(debounce=2)
    machine.critic(0.99, True, 1001, 11.0)
    machine.critic(p_done, valid, 1002, 11.1)
    assert machine.critic(0.99, True, 1003, 11.2) == [] and machine.invalid_answers == 1
    assert names(machine.critic(0.99, True, 1004, 11.3)) == ["ended"]


def test_answers_from_before_the_episode_do_not_count() -> None:
    machine = running(debounce=1)
    machine.request("failure", 11.0)
    machine.request("start", 12.0, stamp_ns=5000)
    assert machine.critic(0.99, True, 4999, 12.1) == []
    assert machine.critic(0.99, True, 5000, 12.2) == []
    assert names(machine.critic(0.99, True, 5001, 12.3)) == ["ended"]


def test_without_debounce_the_critic_never_ends_it() -> None:
    machine = running(debounce=0)
    assert all(machine.critic(1.0, True, 1001 + i, 11.0) == [] for i in range(50))
    assert machine.tick(50.0) == [], "nor is its silence reported"


def test_an_operator_overrides_now_and_afterwards() -> None:
    machine = running(debounce=1)
    machine.critic(0.99, True, 1001, 11.0)
    (event,) = machine.request("failure", 12.0)
    assert (event.event, event.outcome, event.episode) == ("relabelled", "failure", 0)
    assert machine.record is not None and machine.record.first_outcome == "success"
    assert machine.totals()["successes"] == 0
    machine.request("success", 13.0)
    assert machine.totals()["autonomous_successes"] == 1

    (event,) = running().request("abort", 11.0)
    assert (event.outcome, event.metrics["judged_by"]) == ("abort", "operator")


def test_interventions_and_human_steps() -> None:
    machine = running()
    for mode in (Mode.POLICY, Mode.HUMAN, Mode.HUMAN, Mode.HOLD, Mode.POLICY, Mode.HUMAN, Mode.HOLD):
        machine.mode(mode, 11.0)
        machine.step(mode)
    (event,) = machine.request("success", 12.0)
    assert event.metrics["interventions"] == 2
    assert (event.metrics["steps"], event.metrics["human_steps"]) == (7, 3)
    assert event.metrics["autonomous_success"] is False
    machine.step(Mode.HUMAN)
    machine.mode(Mode.HUMAN, 12.5)
    assert machine.record is not None and (machine.record.interventions, machine.record.steps) == (2, 7)
    machine.request("start", 13.0)
    assert machine.record.interventions == 1, "it began in a person's hands"


@pytest.mark.parametrize("mode", [Mode.FAULT, Mode.ESTOP, Mode.INIT])
def test_the_safety_node_ends_it(mode: Mode) -> None:
    machine = running()
    (event,) = machine.mode(mode, 11.0)
    assert (event.event, event.outcome, event.metrics["judged_by"]) == ("ended", "fault", "safety")
    (event,) = machine.request("start", 12.0)
    assert event.event == "refused" and mode.name in event.reason
    machine.mode(Mode.HOLD, 12.5)
    assert machine.request("start", 13.0)[0].episode == 1


def test_time_out_and_a_silent_critic() -> None:
    machine = running(time_out_s=30.0, critic_timeout_s=5.0)
    machine.critic(0.1, True, 1001, 12.0)
    assert machine.tick(17.0) == []
    (event,) = machine.tick(17.1)
    assert event.event == "critic_silent" and machine.state is State.RUNNING
    assert machine.tick(18.0) == []
    assert names(machine.critic(0.1, True, 1002, 19.0)) == ["critic_back"]
    assert names(machine.tick(24.5)) == ["critic_silent"]
    (event,) = machine.tick(40.0)
    assert (event.outcome, event.metrics["reward_pending"]) == ("time_out", True)
    assert event.metrics["duration_s"] == 30.0


def test_words_at_the_wrong_time() -> None:
    machine = EpisodeMachine()
    for word in ("success", "stort", "x" * 10_000):
        (event,) = machine.request(word, 1.0)
        assert event.event == "refused" and event.episode == -1 and len(event.reason) < 200
    machine.request("start", 2.0)
    assert machine.request("start", 3.0)[0].reason == "episode 0 is still running"
    assert machine.refused_requests == 4
    with pytest.raises(RealError, match="did you mean 'success'"):
        machine.end("succes", "operator", "", 4.0)


def test_events_are_plain_for_the_wire() -> None:
    machine = running()
    (event,) = machine.request("success", 12.0)
    data = json.loads(json.dumps(event.to_dict(), allow_nan=False))
    assert {"event": "ended", "episode": 0, "outcome": "success"}.items() <= data.items()
    assert "metrics" not in machine.request("nonsense", 13.0)[0].to_dict()


def test_impossible_settings() -> None:
    for bad in ({"done_threshold": 1.0}, {"debounce": -1}, {"time_out_s": 0.0}, {"critic_timeout_s": float("nan")}):
        with pytest.raises(RealError, match=next(iter(bad))):
            EpisodeSettings(**bad)


class Walk(RuleBasedStateMachine):
    """Whatever happens in whatever order, each episode starts once and ends once."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = EpisodeMachine(EpisodeSettings(debounce=2, time_out_s=3.0, critic_timeout_s=0.5))
        self.now = 0.0
        self.events: list[Event] = []

    @rule(dt=st.floats(0.0, 2.0))
    def tick(self, dt: float) -> None:
        self.now += dt
        self.events += self.machine.tick(self.now)

    @rule(word=st.sampled_from([*REQUESTS, "nonsense"]))
    def say(self, word: str) -> None:
        self.events += self.machine.request(word, self.now)

    @rule(mode=st.sampled_from(list(Mode)))
    def switch(self, mode: Mode) -> None:
        self.events += self.machine.mode(mode, self.now)
        self.machine.step(mode)

    @rule(p_done=st.floats(), valid=st.booleans(), stamp=st.integers(0, 1000))
    def answer(self, p_done: float, valid: bool, stamp: int) -> None:
        self.events += self.machine.critic(p_done, valid, stamp, self.now)

    @invariant()
    def accounted_for(self) -> None:
        started = [event.episode for event in self.events if event.event == "started"]
        ended = [event.episode for event in self.events if event.event == "ended"]
        assert started == list(range(len(started)))
        assert ended == started[: len(ended)]
        assert len(started) - len(ended) == (self.machine.state is State.RUNNING)
        assert self.machine.totals()["episodes"] == len(ended)
        for record in self.machine.records[: len(ended)]:
            assert record.outcome in OUTCOMES and record.human_steps <= record.steps
            assert record.duration_s <= 3.0 + 2.0


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
