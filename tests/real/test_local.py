from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real.errors import MessageError, TransportError
from real.transport.handle import QoS, Received
from real.transport.local import LocalBus
from real.transport.virtual_clock import VirtualClock
from tests.real.local_link import STRING, Link, numbers, say

# Time


def test_the_clock_jumps_in_one_of_its_times_only() -> None:
    clock = VirtualClock()
    monotonic, now = clock.monotonic(), clock.now()
    clock.jump(-3600)
    assert clock.monotonic() == monotonic
    assert clock.now() == now - 3600 * 10**9
    clock.advance(clock.ns + 5)
    clock.advance(clock.ns - 5)
    assert clock.now() == now - 3600 * 10**9 + 5
    with pytest.raises(TransportError, match="finite"):
        clock.jump(float("nan"))


def test_a_clock_jump_disturbs_no_timer() -> None:
    bus = LocalBus()
    node = bus.node("a")
    ticks: list[float] = []
    timer = node.timer(0.1, lambda: ticks.append(node.clock.monotonic()))
    start = bus.clock.monotonic()
    bus.after(0.45, lambda: bus.clock.jump(3600))
    bus.after(0.65, lambda: bus.clock.jump(-7200))
    bus.run(1.0)
    assert ticks == pytest.approx([start + 0.1 * (i + 1) for i in range(10)])
    assert (timer.missed, timer.worst_lateness_s) == (0, 0)


def test_timers_do_not_drift_and_cancel() -> None:
    bus = LocalBus()
    node = bus.node("a")
    ticks: list[int] = []
    timer = node.timer(0.01, lambda: ticks.append(bus.clock.ns))
    bus.run(60)
    assert len(ticks) == 6000 and ticks[-1] - ticks[0] == 59_990_000_000
    timer.cancel()
    bus.run(1)
    assert len(ticks) == 6000 and bus.quiet


@pytest.mark.parametrize("period", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_periods_are_refused(period: float) -> None:
    with pytest.raises(TransportError, match="period"):
        LocalBus().node("a").timer(period, lambda: None)


def test_a_slow_callback_makes_later_ones_late_and_ticks_missed() -> None:
    bus = LocalBus()
    node = bus.node("slow")
    ticks: list[float] = []
    start = bus.clock.monotonic()

    def tick() -> None:
        ticks.append(round(node.clock.monotonic() - start, 6))
        if len(ticks) == 2:
            node.busy(0.035)
            assert node.clock.monotonic() - start == pytest.approx(0.055)

    timer = node.timer(0.01, tick)
    bus.run(0.1)
    assert ticks == [0.01, 0.02, 0.055, 0.06, 0.07, 0.08, 0.09, 0.1]
    assert timer.missed == 2
    assert timer.worst_lateness_s == pytest.approx(0.025)


def test_what_a_busy_node_publishes_leaves_when_its_work_is_done() -> None:
    link = Link()
    start = link.bus.clock.monotonic()

    def work() -> None:
        link.sender.busy(0.05)
        link.say("result")
        timer.cancel()

    timer = link.sender.timer(0.1, work)
    link.bus.run(0.2)
    assert [received.monotonic - start for received in link.how] == pytest.approx([0.1502])


# Messages


def test_a_message_arrives_after_the_latency_as_another_object() -> None:
    link = Link()
    sent = link.bus.clock.monotonic()
    message = link.bus.store.new(STRING, data="hello")
    link.publisher.publish(message)
    message.data = "changed"
    link.bus.run(0.0001)
    assert link.got == []
    link.bus.run(1)
    assert link.got == ["hello"]
    (received,) = link.how
    assert (received.topic, received.size) == ("/word", 4 + 4 + 6)
    assert received.monotonic == pytest.approx(sent + 0.0002)
    assert received.publisher == link.publisher.gid == link.sender.publishers("word")[0].gid


def test_subscribers_share_no_message() -> None:
    link = Link()
    seen: list[str] = []
    late = link.bus.node("late")

    def spoil(message: Any, received: Received) -> None:
        seen.append(message.data)
        message.data = "spoilt"

    for _ in range(2):
        late.subscribe("word", STRING, spoil)
    link.say("clean")
    link.bus.run(1)
    assert seen == ["clean", "clean"] and link.got == ["clean"]


def test_raw_subscriptions_get_the_bytes() -> None:
    link = Link(raw=True)
    link.say("a")
    link.publisher.publish_raw(bytearray(b"\0\1\0\0 no message"))
    link.bus.run(1)
    assert link.got == [link.bus.store.serialize(link.bus.store.new(STRING, data="a")), b"\0\1\0\0 no message"]


def test_malformed_bytes_are_counted_and_dropped() -> None:
    link = Link()
    link.publisher.publish_raw(b"")
    link.publisher.publish_raw(b"\0\1\0\0\xff\xff\xff\xff")
    link.say("good")
    link.bus.run(1)
    assert link.got == ["good"]
    assert link.receiver.malformed == {"/word": 2} and link.sender.malformed == {}


def test_a_message_of_another_type_is_refused() -> None:
    link = Link()
    with pytest.raises(MessageError, match=r"'/word' carries std_msgs/msg/String, not std_msgs/msg/Bool"):
        link.publisher.publish(link.bus.store.new("std_msgs/msg/Bool"))
    with pytest.raises(MessageError, match="did you mean"):
        link.sender.publisher("x", "std_msgs/msg/Strin")


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3)), max_size=40),
    st.floats(0, 0.01),
    st.integers(0, 2**32),
)
def test_jitter_and_delay_keep_each_publishers_order(sent: list[tuple[int, int]], jitter: float, seed: int) -> None:
    bus = LocalBus(seed=seed, jitter_s=jitter)
    bus.faults.delay("/word", 0.001, jitter_s=0.02)
    got: list[tuple[str, str]] = []
    bus.node("r").subscribe("word", STRING, lambda m, r: got.append((r.publisher, m.data)), QoS(depth=100))
    node = bus.node("s")
    publishers = [node.publisher("word", STRING) for _ in range(2)]
    for i, (which, wait_ms) in enumerate(sent):
        say(node, publishers[which], str(i))
        bus.run(wait_ms / 1000)
    bus.run(1)
    assert len(got) == len(sent)
    for which, publisher in enumerate(publishers):
        expected = [str(i) for i, (w, _) in enumerate(sent) if w == which]
        assert [word for gid, word in got if gid == publisher.gid] == expected


def test_latency_of_one_topic() -> None:
    link = Link()
    link.bus.latency("/word", 0.5)
    link.say("a")
    link.bus.run(0.499)
    assert link.got == []
    link.bus.run(0.002)
    assert link.got == ["a"]


# Quality of service


@settings(max_examples=60, deadline=None)
@given(st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_endpoints_match_as_in_dds(offer_rel: bool, ask_rel: bool, offer_tl: bool, ask_tl: bool) -> None:
    offered = QoS(reliable=offer_rel, transient_local=offer_tl)
    asked = QoS(reliable=ask_rel, transient_local=ask_tl)
    link = Link(send=offered, receive=asked)
    link.say("a")
    link.bus.run(1)
    compatible = offer_rel >= ask_rel and offer_tl >= ask_tl
    assert link.got == (["a"] if compatible else [])
    (publisher,), (subscription,) = link.sender.publishers("word"), link.sender.subscriptions("word")
    assert (publisher.node, publisher.qos) == ("/sender", offered)
    assert (subscription.node, subscription.qos) == ("/receiver", asked)


def test_another_type_does_not_match() -> None:
    link = Link()
    got: list[Any] = []
    link.receiver.subscribe("word", "std_msgs/msg/Bool", lambda m, r: got.append(m))
    link.say("a")
    link.bus.run(1)
    assert got == [] and link.got == ["a"] and link.receiver.malformed == {}
    assert {e.type for e in link.sender.subscriptions("word")} == {STRING, "std_msgs/msg/Bool"}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10))
def test_late_joiners_get_the_last_samples(kept: int, wanted: int, sent: int) -> None:
    bus = LocalBus()
    node, late = bus.node("a"), bus.node("late")
    publisher = node.publisher("word", STRING, QoS(depth=kept, transient_local=True))
    for word in numbers(sent):
        say(node, publisher, word)
    bus.run(1)
    got: list[str] = []
    volatile: list[str] = []
    late.subscribe("word", STRING, lambda m, r: got.append(m.data), QoS(depth=wanted, transient_local=True))
    late.subscribe("word", STRING, lambda m, r: volatile.append(m.data), QoS(depth=wanted))
    bus.run(1)
    assert got == numbers(sent)[max(0, sent - min(kept, wanted)) :] and volatile == []
    say(node, publisher, "new")
    bus.run(1)
    assert got[-1] == "new" and volatile == ["new"]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(0, 20))
def test_a_paused_node_keeps_the_newest_up_to_its_depth(depth: int, sent: int) -> None:
    link = Link(receive=QoS(depth=depth))
    link.bus.pause("receiver")
    link.say(*numbers(sent))
    link.bus.run(1)
    assert link.got == []
    link.bus.resume("receiver")
    assert link.got == numbers(sent)[max(0, sent - depth) :]
    assert link.subscription.overrun == max(0, sent - depth)


def test_a_queue_keeps_at_least_one() -> None:
    with pytest.raises(TransportError, match="at least 1"):
        LocalBus().node("a").subscribe("word", STRING, lambda m, r: None, QoS(depth=0))
