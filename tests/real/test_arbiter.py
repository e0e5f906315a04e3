"""The arbiter: the whole table of one cycle, and random walks."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from real.core.arbiter import REQUESTS, Arbiter, ArbiterSettings, Decision, Inputs, Mode, Source

READY = Inputs(now=0.0, joints_fresh=True, policy_fresh=True, human_fresh=True, has_target=True)
EDGES = {
    Mode.INIT: {Mode.HOLD, Mode.FAULT, Mode.ESTOP},
    Mode.HOLD: {Mode.POLICY, Mode.HUMAN, Mode.RESET, Mode.FAULT, Mode.ESTOP},
    Mode.POLICY: {Mode.HOLD, Mode.HUMAN, Mode.FAULT, Mode.ESTOP},
    Mode.HUMAN: {Mode.HOLD, Mode.FAULT, Mode.ESTOP},
    Mode.RESET: {Mode.HOLD, Mode.HUMAN, Mode.FAULT, Mode.ESTOP},
    Mode.FAULT: {Mode.HOLD, Mode.ESTOP},
    Mode.ESTOP: {Mode.HOLD},
}
WAY = {
    Mode.INIT: [],
    Mode.HOLD: [{}],
    Mode.POLICY: [{}, {"requests": ("arm",)}],
    Mode.HUMAN: [{}, {"requests": ("arm",)}, {"deadman": True}],
    Mode.RESET: [{}, {"requests": ("reset",)}],
    Mode.FAULT: [{}, {"publishers": 2}],
    Mode.ESTOP: [{}, {"estop": True}],
}


def reach(mode: Mode, settings: ArbiterSettings | None = None) -> tuple[Arbiter, float]:
    """An arbiter that came to a mode the ordinary way, and the time then."""
    arbiter = Arbiter(settings)
    for i, change in enumerate(WAY[mode]):
        arbiter.update(replace(READY, now=i * 0.01, **change))
    assert arbiter.mode == mode
    return arbiter, len(WAY[mode]) * 0.01


def then(arbiter: Arbiter, now: float, **change: object) -> Decision:
    return arbiter.update(replace(READY, now=now, **change))


def check(before: Mode, inputs: Inputs, decision: Decision, armed: bool) -> None:
    """What must be true of every cycle, whatever came before."""
    after = decision.mode
    assert decision.changed == (after != before)
    assert not decision.changed or after in EDGES[before], f"{before.name} -> {after.name}"
    assert decision.flush == (decision.changed and after != Mode.POLICY)
    assert decision.why and (decision.reasons or not decision.changed)
    allowed = {Mode.POLICY: {Source.POLICY, Source.NONE}, Mode.HUMAN: {Source.HUMAN}, Mode.RESET: {Source.RESET}}
    assert decision.source in allowed.get(after, {Source.NONE})
    if inputs.estop:
        assert after == Mode.ESTOP
    if inputs.publishers > 1:
        assert after in (Mode.FAULT, Mode.ESTOP)
    if before in (Mode.FAULT, Mode.ESTOP) and after == Mode.HOLD:
        assert "clear" in inputs.requests and not inputs.estop and inputs.joints_fresh
    if after == Mode.POLICY:
        assert armed and inputs.joints_fresh and inputs.cameras_fresh
        assert inputs.has_target or inputs.policy_fresh
    if after == Mode.HUMAN:
        assert inputs.deadman and inputs.human_fresh and inputs.joints_fresh
    if "hold" in inputs.requests:
        assert after not in (Mode.POLICY, Mode.HUMAN, Mode.RESET)


def test_every_mode_and_every_input() -> None:
    """The full product: 7 modes x 2^9 flags x publishers x bad commands x requests."""
    flags = ("joints_fresh", "policy_fresh", "cameras_fresh", "has_target", "deadman", "human_fresh", "estop")
    flags += ("aligned", "reset_done")
    asked = [(), *((r,) for r in REQUESTS), ("explode",), ("arm", "clear"), ("clear", "arm"), ("hold", "arm")]
    cycles = 0
    for mode in Mode:
        start, now = reach(mode)
        for values in product((False, True), repeat=len(flags)):
            named = dict(zip(flags, values, strict=True))
            for publishers, bad, requests in product((1, 2), (0, 10), asked):
                inputs = Inputs(now, publishers=publishers, bad_commands=bad, requests=requests, **named)
                arbiter = copy.copy(start)
                decision = arbiter.update(inputs)
                check(mode, inputs, decision, armed=mode == Mode.POLICY or "arm" in requests)
                check_must(mode, inputs, decision)
                assert arbiter.unknown_requests == requests.count("explode")
                cycles += 1
    assert cycles == 7 * 512 * 2 * 2 * 9


def check_must(before: Mode, inputs: Inputs, decision: Decision) -> None:
    """What one cycle must bring about, from an ordinary way to the mode."""
    after, calm = decision.mode, not inputs.estop and inputs.publishers == 1 and inputs.bad_commands == 0
    if before not in (Mode.FAULT, Mode.ESTOP) and not calm and not inputs.estop:
        assert after == Mode.FAULT
    if before in (Mode.FAULT, Mode.ESTOP) and not inputs.estop:
        clear = "clear" in inputs.requests and inputs.joints_fresh and inputs.publishers == 1
        assert after == (Mode.HOLD if clear else before)
    if not calm or "hold" in inputs.requests:
        return
    takeover = inputs.deadman and inputs.human_fresh and inputs.joints_fresh
    if before in (Mode.HOLD, Mode.POLICY, Mode.RESET) and takeover:
        assert after == Mode.HUMAN and decision.source == Source.HUMAN
    if before == Mode.HUMAN:
        assert after == (Mode.HUMAN if takeover else Mode.HOLD)
    if before == Mode.POLICY and not takeover and not (inputs.joints_fresh and inputs.cameras_fresh):
        assert after == Mode.HOLD
    if before == Mode.INIT:
        assert after == (Mode.HOLD if inputs.joints_fresh else Mode.INIT)
    if before == Mode.HOLD and not (inputs.deadman and inputs.human_fresh):
        ready = inputs.joints_fresh and inputs.cameras_fresh and inputs.policy_fresh and inputs.aligned
        if inputs.requests[:1] == ("arm",):
            assert after == (Mode.POLICY if ready else Mode.HOLD)
        if inputs.requests == ("reset",):
            assert after == (Mode.RESET if inputs.joints_fresh else Mode.HOLD)


class Walk(RuleBasedStateMachine):
    """Random cycles, seconds of them; what each may do depends on what came before."""

    @initialize(auto_rearm=st.booleans())
    def begin(self, auto_rearm: bool) -> None:
        self.arbiter = Arbiter(ArbiterSettings(max_bad_commands=3, auto_rearm=auto_rearm))
        self.auto_rearm = auto_rearm
        self.now = 0.0
        self.armed = False
        self.may_give_back = False
        self.from_policy = False
        self.let_go = False

    @rule(
        dt=st.sampled_from([0.004, 0.01, 0.3, 1.5]),
        quiet=st.booleans(),
        flags=st.lists(st.booleans(), min_size=9, max_size=9),
        requests=st.lists(st.sampled_from([*REQUESTS, "", "ARM"]), max_size=2),
        bad=st.sampled_from([0, 0, 0, 1, 5]),
        publishers=st.sampled_from([1, 1, 1, 2]),
    )
    def cycle(self, dt: float, quiet: bool, flags: list[bool], requests: list[str], bad: int, publishers: int) -> None:
        self.now += dt
        joints, policy, cameras, target, deadman, human, estop, aligned, done = flags
        inputs = Inputs(
            now=self.now,
            joints_fresh=joints or quiet,
            policy_fresh=policy or quiet,
            cameras_fresh=cameras or quiet,
            has_target=target,
            deadman=deadman,
            human_fresh=human,
            requests=tuple(requests),
            estop=estop and not quiet,
            bad_commands=0 if quiet else bad,
            aligned=aligned or quiet,
            publishers=1 if quiet else publishers,
            reset_done=done,
        )
        before = self.arbiter.mode
        self.let_go = self.let_go or not deadman
        if not (human or not deadman) or (deadman and before in (Mode.INIT, Mode.FAULT, Mode.ESTOP)):
            self.let_go = False
        armed = self.armed or "arm" in requests or self.may_give_back
        decision = self.arbiter.update(inputs)
        check(before, inputs, decision, armed)
        if decision.mode == Mode.HUMAN and before != Mode.HUMAN:
            assert self.let_go, "a switch that was stuck or went silent took over"
            self.from_policy = before == Mode.POLICY
        released = before == Mode.HUMAN and decision.mode == Mode.HOLD and human and not deadman
        self.may_give_back = released and self.from_policy and self.auto_rearm and "hold" not in requests
        self.armed = decision.mode == Mode.POLICY

    @invariant()
    def says_why(self) -> None:
        if hasattr(self, "arbiter"):
            assert self.arbiter.why


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)


def test_an_expired_deadman_leads_to_hold_and_not_back() -> None:
    arbiter, now = reach(Mode.HUMAN, ArbiterSettings(auto_rearm=True))
    decision = then(arbiter, now, deadman=True, human_fresh=False)
    assert decision.mode == Mode.HOLD and decision.flush and "too old" in decision.why
    for i in range(1, 50):
        assert then(arbiter, now + i * 0.01, deadman=True, human_fresh=False).mode == Mode.HOLD
    assert then(arbiter, now + 0.5, deadman=True).mode == Mode.HOLD, "it must be let go first"
    then(arbiter, now + 0.51, deadman=False)
    assert then(arbiter, now + 0.52, deadman=True).mode == Mode.HUMAN


def test_a_dead_teleoperator_does_not_keep_the_policy_from_work() -> None:
    arbiter, now = reach(Mode.HUMAN)
    then(arbiter, now, deadman=True, human_fresh=False)
    for i in range(20):
        asked = ("arm",) if i == 0 else ()
        decision = then(arbiter, now + i * 0.01, deadman=True, human_fresh=False, requests=asked)
        assert decision.mode == Mode.POLICY and decision.source == Source.POLICY


def test_a_released_deadman_needs_arm_unless_configured() -> None:
    arbiter, now = reach(Mode.HUMAN)
    assert then(arbiter, now).mode == Mode.HOLD
    assert then(arbiter, now + 0.01).mode == Mode.HOLD
    assert then(arbiter, now + 0.02, requests=("arm",)).mode == Mode.POLICY

    arbiter, now = reach(Mode.HUMAN, ArbiterSettings(auto_rearm=True))
    assert then(arbiter, now).mode == Mode.HOLD
    assert then(arbiter, now + 0.01).mode == Mode.POLICY

    arbiter, now = reach(Mode.HUMAN, ArbiterSettings(auto_rearm=True))
    then(arbiter, now)
    assert then(arbiter, now + 0.01, cameras_fresh=False).mode == Mode.HOLD
    assert then(arbiter, now + 0.02).mode == Mode.HOLD, "the offer lasts one cycle"

    arbiter, now = reach(Mode.HOLD, ArbiterSettings(auto_rearm=True))
    assert then(arbiter, now, deadman=True).mode == Mode.HUMAN
    modes = [then(arbiter, now + 0.01 * i).mode for i in (1, 2, 3)]
    assert modes == [Mode.HOLD] * 3, "nothing was taken from the policy that could be given back"


def test_asked_to_hold_while_the_deadman_is_held() -> None:
    arbiter, now = reach(Mode.HUMAN)
    assert then(arbiter, now, deadman=True, requests=("hold",)).mode == Mode.HOLD
    assert then(arbiter, now + 0.01, deadman=True).mode == Mode.HOLD
    then(arbiter, now + 0.02)
    assert then(arbiter, now + 0.03, deadman=True).mode == Mode.HUMAN


def test_policy_finishes_its_chunk_then_holds_until_armed() -> None:
    arbiter, now = reach(Mode.POLICY)
    assert then(arbiter, now, policy_fresh=False).source == Source.POLICY
    decision = then(arbiter, now + 0.01, policy_fresh=False, has_target=False)
    assert decision.mode == Mode.HOLD and "silent" in decision.why
    assert then(arbiter, now + 0.02).mode == Mode.HOLD


def test_an_armed_policy_may_take_its_time_once() -> None:
    arbiter, now = reach(Mode.POLICY, ArbiterSettings(first_target_s=0.5))
    for i in range(1, 50):
        decision = then(arbiter, now + i * 0.01 - 0.02, has_target=False)
        assert decision.mode == Mode.POLICY and decision.source == Source.NONE
    assert then(arbiter, now + 0.6, has_target=False).mode == Mode.HOLD

    arbiter, now = reach(Mode.POLICY)
    then(arbiter, now)
    decision = then(arbiter, now + 0.01, has_target=False)
    assert decision.mode == Mode.HOLD and "late" in decision.why


def test_stale_joints_hold_then_fault() -> None:
    arbiter, now = reach(Mode.POLICY, ArbiterSettings(joints_fault_s=1.0))
    last = now - 0.01
    assert then(arbiter, last + 0.9, joints_fresh=False).mode == Mode.HOLD
    decision = then(arbiter, last + 1.1, joints_fresh=False)
    assert decision.mode == Mode.FAULT and "no joint states for 1.10 s" in decision.why
    decision = then(arbiter, last + 1.2, joints_fresh=False, requests=("clear",))
    assert decision.mode == Mode.FAULT and "refused: joint states are stale" in decision.reasons[0]
    assert then(arbiter, last + 1.3).mode == Mode.FAULT
    assert then(arbiter, last + 1.4, requests=("clear",)).mode == Mode.HOLD


def test_bad_commands_add_up_within_a_window_and_latch() -> None:
    patient = ArbiterSettings(max_bad_commands=3, bad_window_s=1.0)
    arbiter, now = reach(Mode.POLICY, patient)
    for i in range(20):
        assert then(arbiter, now + i * 0.6, bad_commands=1).mode == Mode.POLICY
    arbiter, now = reach(Mode.POLICY, patient)
    modes = [then(arbiter, now + i * 0.1, bad_commands=1).mode for i in range(3)]
    assert modes == [Mode.POLICY, Mode.POLICY, Mode.FAULT]
    assert then(arbiter, now + 0.3, requests=("clear",)).mode == Mode.HOLD
    assert then(arbiter, now + 0.4).mode == Mode.HOLD, "clearing forgets them"


def test_estop_waits_for_release_and_clear() -> None:
    arbiter, now = reach(Mode.ESTOP)
    decision = then(arbiter, now, estop=True, requests=("clear",))
    assert decision.mode == Mode.ESTOP and decision.reasons == ("'clear' refused: the e-stop is still pressed",)
    assert then(arbiter, now + 1, requests=("arm", "hold", "reset")).mode == Mode.ESTOP
    assert then(arbiter, now + 2, deadman=True).mode == Mode.ESTOP
    assert then(arbiter, now + 3, deadman=True, requests=("clear",)).mode == Mode.HOLD
    assert then(arbiter, now + 4, deadman=True).mode == Mode.HOLD, "held since before it was cleared"


@pytest.mark.parametrize("mode", [Mode.POLICY, Mode.HUMAN, Mode.RESET])
def test_one_transition_a_cycle(mode: Mode) -> None:
    arbiter, now = reach(mode)
    decision = then(arbiter, now, requests=("hold", "arm", "reset"), deadman=mode == Mode.HUMAN)
    assert decision.mode == Mode.HOLD
    assert arbiter.refused_requests == 2
    assert [r.split(" refused")[0] for r in decision.reasons] == ["asked to hold", "'arm'", "'reset'"]


def test_unknown_requests_are_told_and_counted() -> None:
    arbiter, now = reach(Mode.HOLD)
    decision = then(arbiter, now, requests=("armm", "x" * 10_000))
    assert decision.mode == Mode.HOLD and arbiter.unknown_requests == 2
    assert "did you mean 'arm'?" in decision.reasons[0]
    assert len(decision.reasons[1]) < 200
