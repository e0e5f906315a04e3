from __future__ import annotations

import pytest

from real.errors import TransportError
from real.transport.handle import BEST_EFFORT, RELIABLE, QoS, Received
from real.transport.local import LocalBus
from tests.real.local_link import STRING, Link, numbers, say


def test_drop_takes_its_share_and_is_counted() -> None:
    link = Link()
    link.bus.faults.drop("/word", 0.5)
    link.say(*numbers(400))
    link.bus.run(1)
    lost = link.bus.faults.counts["drop", "/word"]
    assert 150 < lost < 250 and len(link.got) == 400 - lost
    link.bus.faults.drop("/word", 0)
    link.say("a")
    link.bus.run(1)
    assert link.got[-1] == "a" and link.bus.faults.counts["drop", "/word"] == lost


def test_another_seed_loses_other_messages() -> None:
    def heard(seed: int) -> list[str]:
        link = Link(LocalBus(seed=seed))
        link.bus.faults.drop("/word", 0.5)
        link.say(*numbers(50))
        link.bus.run(1)
        return link.got

    assert heard(1) == heard(1) != heard(2)


def test_a_fault_of_one_publisher_spares_the_others() -> None:
    link = Link()
    other = link.bus.node("other")
    publisher = other.publisher("word", STRING)
    link.bus.faults.drop("/word", 1, publisher="/sender")
    link.say("lost")
    say(other, publisher, "kept")
    link.bus.run(1)
    assert link.got == ["kept"]


def test_duplicate_delivers_again_later() -> None:
    link = Link()
    link.bus.faults.duplicate("/word", 1, delay_s=0.1)
    link.say("a")
    link.bus.run(0.05)
    link.say("b")
    link.bus.run(1)
    assert link.got == ["a", "b", "a", "b"]
    assert link.bus.faults.counts == {("duplicate", "/word"): 2}


def test_reorder_lets_later_messages_overtake() -> None:
    link = Link()
    link.bus.faults.reorder("/word", 0.3, 0.015)
    for word in numbers(100):
        link.say(word)
        link.bus.run(0.01)
    link.bus.run(1)
    assert link.got != numbers(100) and sorted(link.got, key=int) == numbers(100)
    late = sum(int(a) > int(b) for a, b in zip(link.got, link.got[1:], strict=False))
    assert 0 < late <= link.bus.faults.counts["reorder", "/word"]


def test_corrupt_changes_bytes() -> None:
    link = Link(raw=True)
    link.bus.faults.corrupt("/word", 1)
    link.say(*numbers(200))
    link.bus.run(1)
    sent = [link.bus.store.serialize(link.bus.store.new(STRING, data=word)) for word in numbers(200)]
    assert len(link.got) == 200 and all(a != b for a, b in zip(sent, link.got, strict=True))
    lengths = [len(b) - len(a) for a, b in zip(sent, link.got, strict=True)]
    assert min(lengths) < 0 and max(lengths) == 0
    assert link.bus.faults.counts["corrupt", "/word"] == 200


def test_corrupt_messages_reach_no_callback_or_stay_messages() -> None:
    link = Link()
    link.bus.faults.corrupt("*", 1)
    link.say(*["a long enough word"] * 500)
    link.bus.run(1)
    assert len(link.got) + link.receiver.malformed["/word"] == 500
    assert link.receiver.malformed["/word"] > 200


def test_cut_and_heal() -> None:
    link = Link()
    link.bus.faults.cut("/word")
    link.say("lost")
    link.bus.run(1)
    link.bus.faults.heal("/word")
    link.say("kept")
    link.bus.run(1)
    assert link.got == ["kept"]
    with pytest.raises(TransportError, match="nothing to heal"):
        link.bus.faults.heal("/word")
    link.bus.faults.cut("*")
    link.bus.faults.clear()
    link.say("again")
    link.bus.run(1)
    assert link.got == ["kept", "again"]


def test_impossible_faults_are_refused() -> None:
    faults = LocalBus().faults
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(TransportError, match="from 0 to 1"):
            faults.drop("/a", share)
    with pytest.raises(TransportError, match="full name of a topic, such as '/a'"):
        faults.cut("a")
    with pytest.raises(TransportError, match="full name of a publishing node"):
        faults.cut("/a", publisher="b")
    with pytest.raises(TransportError, match=">= 0"):
        faults.delay("/a", -1)


# Determinism


def story(seed: int) -> list[tuple[str, float, int, str, bytes]]:
    """A busy graph under every fault: what each callback got, when, from whom."""
    bus = LocalBus(seed=seed, jitter_s=0.001)
    log: list[tuple[str, float, int, str, bytes]] = []

    def talker(name: str, period_s: float) -> None:
        node = bus.node(name)
        publishers = {topic: node.publisher(topic, STRING) for topic in ("a", "b")}
        count = 0

        def tick() -> None:
            nonlocal count
            count += 1
            node.busy(0.001 * (count % 5))
            say(node, publishers["ab"[count % 2]], f"{name} {count}")

        node.timer(period_s, tick)

    def listener(name: str, qos: QoS) -> None:
        node = bus.node(name)

        def heard(data: bytes, received: Received) -> None:
            log.append((name, received.monotonic, node.clock.now(), received.publisher, data))
            node.busy(0.0015)

        for topic in ("a", "b"):
            node.subscribe(topic, STRING, heard, qos, raw=True)

    for i in range(3):
        talker(f"talker{i}", 0.004 + 0.001 * i)
    listener("greedy", QoS(depth=50))
    listener("newest", BEST_EFFORT)
    bus.faults.drop("/a", 0.1)
    bus.faults.corrupt("*", 0.1)
    bus.faults.duplicate("/b", 0.1, delay_s=0.003)
    bus.faults.reorder("*", 0.1, 0.01, publisher="/talker1")
    bus.faults.delay("/b", 0.001, jitter_s=0.004)
    bus.after(1.0, lambda: bus.pause("greedy"))
    bus.after(1.3, lambda: bus.resume("greedy"))
    bus.after(1.5, lambda: bus.clock.jump(-60))
    bus.after(2.0, lambda: bus.kill("talker2"))
    bus.run(3)
    assert all(bus.faults.counts[kind, "/b"] for kind in ("corrupt", "duplicate", "reorder", "delay"))
    return log


def test_one_seed_gives_one_run_byte_for_byte() -> None:
    first = story(1)
    assert len(first) > 1000
    assert story(1) == first
    assert story(2) != first


def test_more_traffic_does_not_change_the_faults_of_another_topic() -> None:
    def heard(with_others: bool) -> list[str]:
        link = Link(LocalBus(seed=3))
        link.bus.faults.drop("/word", 0.5)
        link.bus.faults.drop("/other", 0.5)
        other = link.sender.publisher("other", STRING, RELIABLE)
        for word in numbers(100):
            link.say(word)
            if with_others:
                say(link.sender, other, word)
        link.bus.run(1)
        return link.got

    assert heard(False) == heard(True)
