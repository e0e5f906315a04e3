"""Faults of nodes and people: who drives, who has stopped, who may begin again; all on a whole stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

from real.recording.reading import episode_files, summarize
from real.recording.steps import read_steps
from real.transport.handle import BEST_EFFORT
from robolearn.bundle import digest
from robolearn.pipeline import sha256
from tests.real.stack_on_bus import ARM, DYNAMIC, STRING, StackOnBus, write_bundle

DT = 0.005
POLICY, HUMAN, RESET = 1, 2, 3


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "swing")


@pytest.fixture
def stack(bundle: Path, tmp_path: Path) -> Any:
    made = StackOnBus(bundle, tmp_path)
    yield made
    made.check_limits()


class Commands:
    """Every command that reaches the robot's arm."""

    def __init__(self, stack: StackOnBus) -> None:
        self.rows: list[np.ndarray] = []
        kind = "trajectory_msgs/msg/JointTrajectory"
        stack.operator.subscribe(ARM, kind, lambda m, _: self.rows.append(m.points[0].positions.copy()))

    def check_smooth(self, stack: StackOnBus) -> None:
        limits = stack.safety._motion._limits
        speed = np.diff(self.rows, axis=0) / DT
        assert (np.abs(speed) <= limits.velocity[:7] * (1 + 1e-6)).all()
        assert (np.abs(np.diff(speed, axis=0) / DT) <= limits.acceleration[:7] * (1 + 1e-6)).all()
        assert (np.abs(np.diff(speed, n=2, axis=0) / DT**2) <= limits.jerk[:7] * (1 + 1e-4)).all()


def test_a_takeover_takes_one_cycle_and_both_ways_are_smooth(stack, tmp_path):
    stack.running(0.6)
    heard: list[float] = []
    node = stack.bus.node("ear")
    kind = "sensor_msgs/msg/Joy"
    node.subscribe("teleop/deadman", kind, lambda m, r: m.buttons[0] and heard.append(r.monotonic), BEST_EFFORT)
    commands = Commands(stack)
    stack.bus.run(0.3)
    stack.take_over(0.1, 0.05, 0, 0, 0, 0.3)
    stack.until("HUMAN", 0.1)
    stack.bus.run(0.01)
    first = next(step for step in stack.steps if step["source"] == HUMAN)
    assert 0 <= first["at"] - heard[0] <= DT + 0.001
    stack.bus.run(1.0)
    stack.let_go()
    stack.until("HOLD", 0.1)
    assert stack.safety._buffer.sample(stack.bus.clock.monotonic()) is None, "old chunks are flushed"
    assert stack.safety._buffer.session is None
    stack.bus.run(0.5)
    assert stack.mode == "HOLD", "not back to the policy by itself"
    session = stack.policy._session
    stack.ask("arm")
    stack.until("POLICY", 0.1)
    stack.bus.run(0.5)
    assert stack.safety._buffer.session == session and stack.mode == "POLICY"
    commands.check_smooth(stack)
    assert [mode for _, mode in stack.modes][-4:] == ["POLICY", "HUMAN", "HOLD", "POLICY"]
    stack.judge("success")
    stack.bus.run(1.0)
    ended = next(event for event in stack.events if event["event"] == "ended")
    assert ended["metrics"]["interventions"] == 1 and not ended["metrics"]["autonomous_success"]
    table = read_steps(episode_files(tmp_path)[0], stack.store)
    assert set(table.source) == {0, POLICY, HUMAN}
    assert abs((table.source == HUMAN).sum() - 102) <= 4


def test_handback_may_be_set_to_rearm_the_policy(bundle, tmp_path):
    stack = StackOnBus(bundle, tmp_path, **{"safety.auto_rearm": True})
    stack.running(0.4)
    stack.take_over()
    stack.until("HUMAN", 0.1)
    stack.bus.run(0.5)
    stack.let_go()
    stack.until("HOLD", 0.1)
    stack.until("POLICY", 0.02)
    stack.bus.run(0.5)
    assert stack.mode == "POLICY" and stack.steps[-1]["chunk_sequence"] > 3
    stack.check_limits()


def test_every_field_of_a_step_is_right(stack):
    stack.running(0.8)
    one = stack.steps[-1]
    assert (one["mode"], one["source"], one["valid"]) == (2, POLICY, 1)
    assert one["chunk_sequence"] == stack.policy._sequence - 1
    assert 0 < one["stamp"] * 1e-9 - one["observation_stamp"] < 0.12  # a period, and the age of poses
    assert 0 <= one["joint_age_s"] < 0.005 and np.isnan(one["human"]).all()
    np.testing.assert_array_equal(one["proposed"], one["executed"])
    np.testing.assert_allclose(one["limited"], stack.safety.commanded, atol=0.02)  # which may be a tick later
    assert 1e-4 < np.abs(one["executed"] - one["limited"])[:7].max() < 0.3, "what was asked for is not what was sent"
    assert np.abs(one["measured"] - one["limited"]).max() < 0.1
    stack.take_over(0, 0, 0.2, 0, 0, 0)
    stack.buttons = [1, 1, 0, 0]
    stack.bus.run(0.4)
    one = stack.steps[-1]
    assert (one["mode"], one["source"], one["chunk_sequence"]) == (3, HUMAN, -1)
    assert np.isnan(one["observation_stamp"]) and np.isnan(one["proposed"]).all()
    np.testing.assert_array_equal(one["human"], one["executed"])
    assert one["human"][7] == 0.0 and one["clamp_velocity"] == 1.0, "the gripper is told to close at once"
    stack.let_go()
    stack.bus.run(0.5)
    one = stack.steps[-1]
    assert (one["mode"], one["source"], one["valid"]) == (1, 0, 1)
    for field in ("proposed", "human", "executed"):
        assert np.isnan(one[field]).all()
    stack.ask("reset")
    stack.bus.run(0.2)
    one = stack.steps[-1]
    assert (one["mode"], one["source"]) == (4, RESET) and np.isfinite(one["executed"]).all()
    stack.until("HOLD")
    rates = np.diff([step["at"] for step in stack.steps])
    assert rates.max() <= 0.0105, "a step is told every 10 ms"


def test_a_limit_met_between_two_steps_told_is_told(stack):
    """Two ticks make a step; a limit that was met in either of them counts."""
    report, since, expected = stack.safety._report, [], []
    note, step = report.note, report.step

    def tell(*told: Any) -> None:
        expected.append(float(any(since)))
        since.clear()
        step(*told)

    report.note = lambda limited: (since.append(limited.clamped.acceleration), note(limited))
    report.step = tell
    stack.arm()
    stack.bus.run(1.0)
    assert list(stack.column("clamp_acceleration")) == expected[: len(stack.steps)]
    assert 0 < sum(expected) < len(expected)


def test_a_slow_policy_finishes_its_chunk_and_is_held(stack, tmp_path):
    stack.running(1.0)
    stack.bus.pause("policy")
    took = stack.until("HOLD", 1.0)
    assert 0.1 < took <= 0.05 + stack.stack.safety.hold_s + 0.06
    assert "late" in stack.why
    stack.bus.run(0.5)
    still = stack.safety.commanded.copy()
    stack.bus.resume("policy")
    stack.bus.run(1.0)
    assert stack.mode == "HOLD"
    np.testing.assert_array_equal(stack.safety.commanded, still)
    stack.ask("arm")
    stack.bus.run(0.5)
    assert stack.mode == "POLICY"


def test_a_killed_policy_is_held_and_its_successor_needs_to_be_armed(stack, tmp_path):
    stack.running(1.0)
    stack.bus.kill("policy")
    stack.until("HOLD", 1.0)
    stack.bus.run(0.5)
    assert not stack.steps[-1]["valid"]
    still = stack.safety.commanded.copy()
    stack.ask("arm")
    stack.bus.run(1.0)
    assert stack.mode == "HOLD", "nobody is there to be armed"
    stack.start_policy()
    stack.bus.run(1.0)
    assert stack.mode == "HOLD"
    np.testing.assert_array_equal(stack.safety.commanded, still)
    stack.ask("arm")
    stack.bus.run(0.5)
    assert stack.mode == "POLICY"
    stack.judge("abort")
    stack.bus.run(1.0)
    table = read_steps(episode_files(tmp_path)[0], stack.store)
    assert len(table) > 350 and set(table.source) == {0, POLICY}


def test_a_policy_that_starts_in_mode_policy_stays_silent(stack):
    stack.arm()
    stack.bus.run(0.3)
    stack.bus.kill("policy")
    stack.start_policy()
    stack.bus.run(0.15)
    assert stack.mode == "POLICY" and stack.policy.chunks == 0
    stack.until("HOLD", 1.0)


def test_a_killed_safety_node_stops_the_arm_and_its_successor_begins_where_that_is(stack, tmp_path):
    stack.running(0.8)
    driver = stack.twin.cell.driver
    assert np.abs(np.diff(stack.column("limited")[-2:], axis=0)).max() > 1e-4, "it moves"
    stack.bus.kill("safety")
    stack.bus.run(1.5)
    assert set(driver.modes.values()) == {"holding"} and driver.timeouts >= 1
    where = driver.set_point
    stack.bus.run(0.5)
    np.testing.assert_array_equal(driver.set_point, where)
    (event,) = [event for event in stack.events if event["event"] == "ended"]
    assert event["outcome"] == "fault" and "silent" in event["reason"]
    stack.bus.run(8.0)  # until nobody sees the killed one any more
    stack.start_safety()
    stack.until("HOLD", 2.0)
    stack.bus.run(0.3)
    assert np.abs(stack.safety.commanded - where).max() < 0.01
    assert summarize(episode_files(tmp_path)[0]).state == "complete"
    stack.arm()


def test_a_safety_node_that_stood_still_begins_anew(stack):
    """SIGSTOP for longer than the controllers wait, while the arm moves fast."""
    stack.running(0.8)
    stack.bus.pause("safety")
    stack.bus.run(0.6)
    stack.bus.resume("safety")
    stack.until("HOLD", 1.0)
    stack.bus.run(1.0)
    assert stack.mode == "HOLD" and stack.safety._motion.placed
    assert np.abs(stack.safety.commanded - stack.twin.cell.driver.set_point).max() < 1e-3
    stack.ask("arm")
    stack.bus.run(0.5)
    assert stack.mode == "POLICY"


def test_a_teleoperator_that_dies_while_driving_is_held_not_given_back(stack):
    stack.running(0.5)
    stack.take_over()
    stack.until("HUMAN", 0.1)
    stack.bus.run(0.5)
    stack.driving = False  # its last word stays: held
    took = stack.until("HOLD", 1.0)
    assert took <= stack.stack.safety.teleop_age_s + 0.03
    stack.bus.run(2.0)
    assert stack.mode == "HOLD"
    stack.driving = True  # it comes back with a stuck switch
    stack.bus.run(0.5)
    assert stack.mode == "HOLD"
    stack.let_go()
    stack.bus.run(0.1)
    stack.take_over()
    stack.until("HUMAN", 0.1)


@pytest.mark.parametrize("mode", ["INIT", "HOLD", "POLICY", "HUMAN", "RESET", "FAULT"])
def test_an_e_stop_is_latched_in_every_mode(bundle, tmp_path, mode):
    stack = StackOnBus(bundle, tmp_path)
    if mode == "INIT":
        stack.bus.faults.cut("/joint_states")
        stack.bus.run(0.3)
    elif mode in ("HOLD", "POLICY", "HUMAN"):
        stack.arm() if mode == "POLICY" else stack.until("HOLD")
        if mode == "HUMAN":
            stack.bus.run(0.2)
            stack.take_over()
            stack.until("HUMAN", 0.1)
    else:
        stack.until("HOLD")
        stack.bus.run(0.3)
        for _ in range(stack.stack.safety.latch_after if mode == "FAULT" else 0):
            stack.say("policy/action_chunk", "trajectory_msgs/msg/JointTrajectory")
            stack.bus.run(0.01)
        if mode == "RESET":
            stack.take_over(0.1, 0, 0, 0, 0, 0)
            stack.bus.run(0.5)
            stack.let_go()
            stack.bus.run(0.5)
            stack.ask("reset")
        stack.until(mode, 0.5)
    assert stack.mode == mode
    stack.bus.run(0.1)
    stack.estop(True)
    assert stack.until("ESTOP", 0.1) <= DT + 0.002
    stack.bus.run(0.5)
    if mode == "INIT":
        assert stack.twin.cell.driver.commands == 0, "nobody knows where the robot is"
        stack.bus.faults.heal("/joint_states")
    still = stack.safety.commanded.copy()
    stack.estop(False)
    for word in ("arm", "hold", "reset"):
        stack.ask(word)
    stack.take_over()
    stack.bus.run(0.5)
    assert stack.mode == "ESTOP"
    if mode != "INIT":
        np.testing.assert_array_equal(stack.safety.commanded, still)
    stack.estop(True)
    stack.ask("clear")
    stack.bus.run(0.1)
    assert stack.mode == "ESTOP", "it is still pressed"
    stack.estop(False)
    stack.let_go()
    stack.bus.run(0.05)
    stack.ask("clear")
    stack.until("HOLD", 0.1)
    stack.bus.run(0.3)
    stack.check_limits()


def test_the_teleoperators_button_is_an_e_stop_too(stack):
    stack.running(0.5)
    stack.driving, stack.buttons = True, [0, 0, 0, 1]
    stack.until("ESTOP", 0.05)
    stack.bus.run(0.3)
    assert next(event for event in stack.events if event["event"] == "ended")["outcome"] == "fault"


def test_a_second_publisher_of_commands_is_a_fault(stack):
    stack.running(0.5)
    stranger = stack.bus.node("stranger")
    publisher = stranger.publisher(ARM, "trajectory_msgs/msg/JointTrajectory")
    stack.until("FAULT", 0.6)
    assert "2 publishers" in stack.why
    stack.ask("clear")
    stack.bus.run(0.3)
    assert stack.mode == "FAULT"
    publisher.close()
    stack.bus.run(0.6)
    stack.ask("clear")
    stack.until("HOLD", 0.1)


def test_a_reflex_of_the_driver_is_followed_by_hold_and_a_slow_return(stack):
    """The command goes to where the robot is, once, so that it can be armed again."""
    stack.running(0.8)
    driver = stack.twin.cell.driver
    driver._trip("for this test")
    stack.bus.run(0.5)
    stack.ask("hold")
    stack.until("HOLD", 0.1)
    stack.bus.run(1.5)
    driver.reset()
    assert stack.safety._motion.aligned(stack.safety._joints)
    stack.ask("arm")
    stack.until("POLICY", 0.1)
    stack.bus.run(0.5)
    driver.reflexes = 0
    driver.rejected.clear()


def answer(stack: StackOnBus, p_done: float, stamp: int | None = None, valid: float = 1.0) -> None:
    new = stack.store.new
    names = ["progress", "p_done", "confidence", "latency_s", "valid"]
    row = new(
        "control_msgs/msg/InterfaceValue", interface_names=names, values=np.array([p_done, p_done, 1.0, 0.1, valid])
    )
    stamp = stack.bus.clock.now() if stamp is None else stamp
    header = new("std_msgs/msg/Header", stamp=stack.store.time(stamp))
    stack.say("critic/value", DYNAMIC, header=header, joint_names=["critic"], interface_values=[row])
    stack.bus.run(0.1)


@pytest.fixture
def judged(bundle: Path, tmp_path: Path) -> Any:
    """A stack whose episodes a critic may end; the critic is played by the operator."""
    more = {"episode.judge": "critic", "critic": "elapsed_time", "critic.debounce": 3, "critic.time_out_s": 0.5}
    made = StackOnBus(bundle, tmp_path, **more)
    made.running(0.3)
    yield made
    made.check_limits()


def kinds(stack: StackOnBus) -> list[str]:
    return [event["event"] for event in stack.events]


def test_a_silent_critic_stops_nothing_and_late_answers_are_joined(judged, tmp_path):
    observed = judged.bus.clock.now()
    judged.bus.run(1.0)
    assert judged.mode == "POLICY" and "critic_silent" in kinds(judged)
    answer(judged, 0.2, observed)
    assert "critic_back" in kinds(judged)
    answer(judged, 0.9, observed - 10**8)  # about an observation from before it: too late even for that
    judged.judge("failure")
    judged.bus.run(1.0)
    told = judged.events[-1]
    assert told["outcome"] == "failure" and told["metrics"]["last_answer_ns"] == observed
    assert judged.mode == "POLICY"


def test_single_false_answers_end_nothing_and_a_person_overrides(judged):
    for p_done in (0.99, 0.99, 0.1, 0.99, 0.99, float("nan"), 0.99, 5.0, 0.99, 0.99):
        answer(judged, p_done)
    assert "ended" not in kinds(judged)
    for _ in range(3):
        answer(judged, 0.99)
    told = judged.events[-1]
    assert told["event"] == "ended" and told["outcome"] == "success" and told["metrics"]["judged_by"] == "critic"
    judged.judge("failure")
    judged.bus.run(0.1)
    told = judged.events[-1]
    assert told["event"] == "relabelled" and told["outcome"] == "failure"


@pytest.mark.parametrize("hours", [1, -1])
def test_a_critic_ends_an_episode_in_which_the_clock_jumped(judged, hours):
    answer(judged, 0.99)
    judged.bus.clock.jump(3600.0 * hours)
    for _ in range(3):
        answer(judged, 0.99)
    assert kinds(judged)[-1] == "ended" and judged.events[-1]["outcome"] == "success"


def changed(bundle: Path, folder: Path, change: Any) -> Path:
    """A copy of a bundle with other weights, its checksums made anew."""
    folder.mkdir()
    for file in bundle.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    model = onnx.load(folder / "policy.onnx")
    change(model)
    onnx.save(model, folder / "policy.onnx")
    old, new = sha256(bundle / "policy.onnx"), sha256(folder / "policy.onnx")
    description = yaml.safe_load((folder / "bundle.yaml").read_text().replace(old, new))
    description["pipeline"]["configs"]["robolearn"]["digest"] = digest(description)
    (folder / "bundle.yaml").write_text(yaml.safe_dump(description))
    return folder


def poison(model: Any) -> None:
    """One number of every vector of weights is none any more."""
    constants = [
        a.t for node in model.graph.node if node.op_type == "Constant" for a in node.attribute if a.name == "value"
    ]
    poisoned = 0
    for tensor in [*model.graph.initializer, *constants]:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size == 8:
            broken = values.copy().reshape(-1)
            broken[0] = np.nan
            tensor.CopyFrom(onnx.numpy_helper.from_array(broken.reshape(values.shape), tensor.name))
            poisoned += 1
    assert poisoned


def test_new_weights_take_over_between_episodes_and_bad_ones_never(stack, bundle, tmp_path):
    good = write_bundle(tmp_path / "good", swing=0.2)
    far = write_bundle(tmp_path / "far", shift=0.9)
    slow = write_bundle(tmp_path / "slow", rate_hz=10.0)
    nan = changed(bundle, tmp_path / "nan", poison)
    damaged = changed(bundle, tmp_path / "damaged", lambda model: None)
    (damaged / "policy.onnx").write_bytes((damaged / "policy.onnx").read_bytes()[:-9])
    stack.running(0.5)
    for folder in (nan, damaged, far, slow, tmp_path / "nothing", Path("/dev/null"), "x" * 5000):
        stack.say("policy/candidate", STRING, data=str(folder))
        stack.bus.run(0.1)
        assert stack.policy.bundle.path == bundle and stack.mode == "POLICY", "nothing changes while it runs"
        refused = stack.policy.refused
        stack.ask("hold")
        stack.until("HOLD", 0.1)
        stack.bus.run(0.3)
        assert stack.policy.refused == refused + 1 and stack.policy.swaps == 0, folder
        stack.ask("arm")
        stack.until("POLICY", 0.1)
        stack.bus.run(0.3)
        assert stack.mode == "POLICY" and stack.policy.chunks > 0
    stack.say("policy/candidate", STRING, data=str(good))
    stack.ask("hold")
    stack.until("HOLD", 0.1)
    stack.bus.run(0.3)
    assert stack.policy.bundle.path == good and stack.policy.swaps == 1
    stack.ask("arm")
    stack.bus.run(1.0)
    assert stack.mode == "POLICY"
