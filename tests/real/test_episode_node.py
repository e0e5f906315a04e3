"""The episode node: a person's words, rounds without a person, and what it makes of a silent safety node."""

from __future__ import annotations

from pathlib import Path

import pytest

from real.recording.reading import episode_files, summarize
from tests.real.stack_on_bus import StackOnBus, write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "swing")


def test_rounds_go_by_themselves_and_every_episode_is_accounted_for(bundle, tmp_path):
    more = {"episode.auto_start": True, "episode.episodes": 2, "episode.time_out_s": 1.0, "task": "arm_reach"}
    stack = StackOnBus(bundle, tmp_path, **more)
    assert stack.bus.run_until(lambda: stack.episode.finished, 40.0)
    stack.bus.run(1.0)
    assert [event["event"] for event in stack.events] == ["started", "ended"] * 2
    assert all(event["outcome"] == "time_out" for event in stack.events[1::2])
    files = [summarize(path) for path in episode_files(tmp_path)]
    assert [one.state for one in files] == ["complete"] * 2
    assert stack.mode == "HOLD"
    stack.check_limits()


def test_rounds_wait_for_a_person_after_an_e_stop_and_while_one_drives(bundle, tmp_path):
    stack = StackOnBus(bundle, tmp_path, **{"episode.auto_start": True, "task": "arm_reach"})
    assert stack.bus.run_until(lambda: "started" in [event["event"] for event in stack.events], 20.0)
    stack.take_over(0.05, 0, 0, 0, 0, 0)
    stack.until("HUMAN", 0.1)
    stack.bus.run(1.0)
    assert stack.mode == "HUMAN"
    stack.let_go()
    stack.until("HOLD", 0.1)
    stack.bus.run(2.0)
    assert stack.mode == "HOLD", "who took the arm from the policy gives it back"
    stack.ask("arm")
    stack.until("POLICY", 1.0)
    stack.estop(True)
    stack.until("ESTOP", 0.1)
    stack.bus.run(20.0)
    assert stack.mode == "ESTOP"
    assert [e["outcome"] for e in stack.events if e["event"] == "ended"] == ["fault"]
    stack.check_limits()


def test_an_episode_node_that_stood_still_does_not_blame_the_safety_node(bundle, tmp_path):
    stack = StackOnBus(bundle, tmp_path)
    stack.running(0.3)
    stack.bus.pause("episode")
    stack.bus.run(3.0)
    stack.bus.resume("episode")
    stack.bus.run(0.5)
    assert [event["event"] for event in stack.events] == ["started"]
    stack.check_limits()


def test_words_at_the_wrong_time_are_refused(bundle, tmp_path):
    stack = StackOnBus(bundle, tmp_path)
    stack.until("HOLD")
    for word in ("success", "strat", "x" * 5000):
        stack.judge(word)
        stack.bus.run(0.05)
    assert [event["event"] for event in stack.events] == ["refused"] * 3
    assert "did you mean 'start'" in stack.events[1]["reason"]
