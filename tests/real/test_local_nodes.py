from __future__ import annotations

from typing import Any

import pytest

from real.errors import MessageError, TransportError
from real.transport.handle import LATCHED, Received
from real.transport.local import LocalBus
from real.transport.names import Remap, Remaps
from tests.real.local_link import STRING, Link, say

TRIGGER = "std_srvs/srv/Trigger"


def test_a_paused_nodes_timers_are_late_afterwards() -> None:
    bus = LocalBus()
    node = bus.node("a", namespace="left")
    ticks: list[float] = []
    start = bus.clock.monotonic()
    timer = node.timer(0.1, lambda: ticks.append(round(node.clock.monotonic() - start, 6)))
    bus.run(0.25)
    bus.pause("/left/a")
    bus.run(0.5)
    bus.resume("/left/a")
    bus.run(0.25)
    assert ticks == [0.1, 0.2, 0.75, 0.8, 0.9, 1.0]
    assert timer.missed == 4 and timer.worst_lateness_s == pytest.approx(0.45)


def test_a_pause_interrupts_work() -> None:
    link = Link()
    start = link.bus.clock.monotonic()
    link.sender.busy(0.1)
    link.say("result")
    link.bus.pause(link.sender)
    link.bus.run(1.0)
    assert link.got == []
    link.bus.resume(link.sender)
    assert link.sender.clock.monotonic() - start == pytest.approx(1.1)
    link.bus.run(1.0)
    assert link.got == ["result"]


def test_a_killed_node_is_gone_but_for_its_lease() -> None:
    link = Link(send=LATCHED, receive=LATCHED)
    ticks: list[int] = []
    link.sender.timer(0.1, lambda: ticks.append(1))
    link.say("latched")
    link.bus.run(1)
    link.sender.busy(0.1)
    link.say("never sent")
    link.bus.kill("sender")
    n, late = len(ticks), link.bus.node("late")
    got: list[Any] = []
    late.subscribe("word", STRING, lambda m, r: got.append(m), LATCHED)
    link.bus.run(8.9)
    assert len(ticks) == n and got == [] and link.got == ["latched"]
    assert late.nodes() == ["/late", "/receiver", "/sender"]
    assert [e.node for e in late.publishers("word")] == ["/sender"]
    link.bus.run(0.2)
    assert late.nodes() == ["/late", "/receiver"] and late.publishers("word") == []
    with pytest.raises(TransportError, match="closed"):
        link.say("ghost")
    with pytest.raises(TransportError, match="has been killed"):
        link.sender.timer(1, lambda: None)


def test_a_node_may_come_back_while_its_ghost_is_seen() -> None:
    link = Link()
    link.bus.kill("sender")
    again = link.bus.node("sender")
    publisher = again.publisher("word", STRING)
    assert len(again.publishers("word")) == 2 and again.nodes().count("/sender") == 2
    say(again, publisher, "back")
    link.bus.run(10)
    assert link.got == ["back"]
    assert [e.gid for e in again.publishers("word")] == [publisher.gid]
    with pytest.raises(TransportError, match="living node"):
        link.bus.pause(link.sender)


def test_a_closed_node_leaves_at_once() -> None:
    link = Link()
    link.sender.service("ask", TRIGGER, lambda request: link.bus.store.new(f"{TRIGGER}_Response"))
    link.say("last")
    link.sender.close()
    link.sender.close()
    assert link.receiver.nodes() == ["/receiver"] and link.receiver.publishers("word") == []
    link.bus.run(1)
    assert link.got == ["last"]
    with pytest.raises(TransportError, match="did not answer"):
        link.receiver.call("ask", TRIGGER, link.bus.store.new(f"{TRIGGER}_Request"))
    link.bus.node("sender")


def test_a_closed_subscription_gets_nothing_more() -> None:
    link = Link()
    link.say("under way")
    link.subscription.close()
    link.bus.run(1)
    assert link.got == [] and link.sender.subscriptions("word") == []
    link.publisher.close()
    with pytest.raises(TransportError, match="closed"):
        link.say("a")


def test_names_namespaces_parameters_and_remaps() -> None:
    bus = LocalBus()
    remaps = Remaps((Remap.parse("word:=/other"), Remap.parse("__ns:=/right")))
    node = bus.node("a", namespace="/left", parameters={"rate": 100.0}, remaps=remaps)
    assert (node.name, node.namespace, node.full_name) == ("a", "/right", "/right/a")
    assert [node.resolve(n) for n in ("word", "x", "~/x", "/x")] == ["/other", "/right/x", "/right/a/x", "/x"]
    assert node.parameters == {"rate": 100.0}
    with pytest.raises(TransportError, match="'/right/a' is already in use"):
        bus.node("a", namespace="/right")
    with pytest.raises(TransportError, match="did you mean '/right/a'"):
        bus.pause("/right/b")
    with pytest.raises(TransportError):
        node.publisher("no name", STRING)


# Spinning and services


def test_spinning_lets_time_pass() -> None:
    link = Link()
    start = link.bus.clock.monotonic()
    link.receiver.spin_once(0.5)
    assert link.bus.clock.monotonic() - start == pytest.approx(0.5)
    link.say("a")
    link.receiver.spin_once(0.5)
    assert link.got == ["a"] and link.bus.clock.monotonic() - start == pytest.approx(0.5002)
    link.sender.timer(0.1, lambda: link.say("tick"))
    link.receiver.spin(until=lambda: len(link.got) == 4)
    assert link.bus.clock.monotonic() - start == pytest.approx(0.8004)
    link.bus.after(1, link.receiver.close)
    link.receiver.spin()
    assert not link.receiver.alive


def test_spinning_for_nothing_is_refused() -> None:
    with pytest.raises(TransportError, match="for ever"):
        LocalBus().node("a").spin()


def test_run_until_tells_whether_it_came_true() -> None:
    link = Link()
    link.say("a")
    assert link.bus.run_until(lambda: bool(link.got), 1.0)
    start = link.bus.clock.monotonic()
    assert not link.bus.run_until(lambda: len(link.got) > 1, 1.0)
    assert link.bus.clock.monotonic() - start == pytest.approx(1.0)


def test_callbacks_of_a_node_run_one_at_a_time_unless_it_spins() -> None:
    link = Link()
    depth: list[int] = []
    inside = 0

    def work(advance: Any) -> None:
        nonlocal inside
        inside += 1
        depth.append(inside)
        if len(depth) < 5:
            advance()
        inside -= 1

    timer = link.receiver.timer(0.1, lambda: work(lambda: link.bus.run(0.15)))
    link.bus.run(1)
    assert max(depth) == 1 and timer.missed > 0
    timer.cancel()
    depth.clear()
    link.receiver.timer(0.1, lambda: work(lambda: link.receiver.spin_once(0.15)))
    link.bus.run(1)
    assert max(depth) > 1


def test_services_answer_from_within_callbacks() -> None:
    bus = LocalBus()
    server, client = bus.node("server"), bus.node("client")
    asked: list[str] = []

    def handle(request: Any) -> Any:
        asked.append(bus.store.type_of(request))
        server.busy(0.2)
        return bus.store.new(f"{TRIGGER}_Response", success=True, message="yes")

    server.service("~/ask", TRIGGER, handle)
    answers: list[tuple[str, float]] = []
    ticks: list[float] = []

    def ask() -> None:
        timer.cancel()
        start = client.clock.monotonic()
        response = client.call("/server/ask", TRIGGER, bus.store.new(f"{TRIGGER}_Request"))
        answers.append((response.message, client.clock.monotonic() - start))

    timer = client.timer(0.1, ask)
    client.timer(0.05, lambda: ticks.append(client.clock.monotonic()))
    bus.run(1)
    assert asked == [f"{TRIGGER}_Request"] and len(ticks) == 20
    ((message, took),) = answers
    assert message == "yes" and took == pytest.approx(0.2004)


def test_a_service_that_does_not_answer() -> None:
    bus = LocalBus()
    server, client = bus.node("server"), bus.node("client")
    request = bus.store.new(f"{TRIGGER}_Request")
    server.service("ask", TRIGGER, lambda _: request)
    bus.pause(server)
    with pytest.raises(TransportError, match=r"'/ask' did not answer within 0.5 s"):
        client.call("ask", TRIGGER, request, timeout_s=0.5)
    with pytest.raises(MessageError, match="is asked with"):
        client.call("ask", TRIGGER, bus.store.new(STRING))
    with pytest.raises(MessageError, match="responds with"):
        bus.resume(server)
    bus.kill(server)
    with pytest.raises(TransportError, match="did not answer"):
        client.call("ask", TRIGGER, request)


def test_exceptions_of_callbacks_come_out_with_the_nodes_name() -> None:
    link = Link()
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise ZeroDivisionError("oh")

    timer = link.sender.timer(0.1, fail)
    with pytest.raises(ZeroDivisionError) as caught:
        link.bus.run(1)
    assert caught.value.__notes__ == ["in a callback of node /sender"]
    timer.cancel()
    link.say("still works")
    link.bus.run(1)
    assert link.got == ["still works"] and calls == [1]


def test_an_exception_loses_no_other_callback() -> None:
    link = Link()

    def fail(message: Any, received: Received) -> None:
        raise ZeroDivisionError(message.data)

    link.receiver.subscribe("fail", STRING, fail)
    failing = link.sender.publisher("fail", STRING)
    link.bus.pause("receiver")
    say(link.sender, failing, "oh")
    link.say("after it")
    link.bus.run(1)
    with pytest.raises(ZeroDivisionError):
        link.bus.resume("receiver")
    link.bus.run(1)
    assert link.got == ["after it"]


def test_a_call_outlives_a_killed_server_where_another_one_comes() -> None:
    bus = LocalBus()
    client = bus.node("client")
    request = bus.store.new(f"{TRIGGER}_Request")

    def serve(message: str) -> None:
        node = bus.node("server")

        def handle(_: Any) -> Any:
            node.busy(0.2)
            return bus.store.new(f"{TRIGGER}_Response", message=message)

        node.service("/ask", TRIGGER, handle)

    serve("first")
    bus.after(0.1, lambda: bus.kill("server"))
    with pytest.raises(TransportError, match="did not answer"):
        client.call("/ask", TRIGGER, request)
    serve("second")
    bus.kill("server")
    bus.after(0.1, lambda: serve("third"))
    assert client.call("/ask", TRIGGER, request).message == "third"
