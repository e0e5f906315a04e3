"""The embedded DDS transport, on a real domain of the loopback interface and between processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsParticipant, BuiltinTopicDcpsPublication
from cyclonedds.qos import Policy

from real.errors import MessageError, TransportError
from real.msgs import store
from real.transport.dds import DDSNode
from real.transport.dds_config import configuration, discovery_range, domain_id
from real.transport.handle import BEST_EFFORT, LATCHED, RELIABLE, QoS, Received
from real.transport.open import open_node

HERE = Path(__file__).parent
DOMAIN = 100 + os.getpid() % 100
JOINTS = "sensor_msgs/msg/JointState"
TEXT = "std_msgs/msg/String"
PATIENCE_S = 15.0


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CYCLONEDDS_URI", "ROS_DOMAIN_ID", "ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS", "ROS_DISTRO"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


@pytest.fixture
def node() -> Iterator[DDSNode]:
    with make("tester") as node:
        yield node


def make(name: str, **options: Any) -> DDSNode:
    node = open_node(name, transport="dds", domain=DOMAIN, **options)
    assert isinstance(node, DDSNode)
    return node


def until(node: DDSNode, done: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    node.spin(lambda: bool(done()) or time.monotonic() > end)
    assert done()


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []

    def run(script: str, *args: object, home: Path | None = None) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
        if home:
            environment |= {"HOME": str(home), "TMPDIR": str(home)}
        process = subprocess.Popen(
            [sys.executable, str(HERE / script), str(DOMAIN), *map(str, args)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=home,
        )  # fmt: skip
        running.append(process)
        assert process.stdout and process.stdout.readline() == "ready\n"
        return process

    yield run
    for process in running:
        assert process.stdin and process.stdout
        process.stdin.close()
        process.stdout.close()
        process.kill()
        process.wait()


def test_joint_states_at_500_hz_reach_another_process_without_loss(node: DDSNode, start: Any) -> None:
    numbers: list[int] = []
    gids = set()

    def hear(message: Any, received: Received) -> None:
        numbers.append(int(message.position[0]))
        gids.add(received.publisher)

    start("dds_peer.py", "talk", 1000, 500)
    node.subscribe("joint_states", JOINTS, hear, QoS(depth=10))
    until(node, lambda: len(numbers) >= 1000)
    assert numbers == list(range(1000))
    [talker] = node.publishers("joint_states")
    assert gids == {talker.gid} and talker.node == "/talker" and talker.type == JOINTS
    assert node.malformed == {}


def test_another_process_is_in_the_graph_with_names_types_and_qos(node: DDSNode, start: Any) -> None:
    heard: list[str] = []
    peer = start("dds_peer.py", "hold")
    node.subscribe("/peer/mode", TEXT, lambda message, _: heard.append(message.data), LATCHED)
    until(node, lambda: heard and "/peer/holder" in node.nodes())
    assert heard == ["HOLD"], "a late subscription gets what was latched"
    assert node.nodes() == ["/peer/holder", "/tester"]
    [publisher] = node.publishers("/peer/mode")
    assert (publisher.node, publisher.type, publisher.qos) == ("/peer/holder", TEXT, LATCHED)
    [mine] = node.subscriptions("/peer/mode")
    assert (mine.node, mine.topic) == ("/tester", "/peer/mode")
    [theirs] = node.subscriptions("/peer/commands")
    assert theirs.node == "/peer/holder" and theirs.qos.reliable
    peer.stdin.close()
    until(node, lambda: node.nodes() == ["/tester"] and node.publishers("/peer/mode") == [])


def test_what_is_announced_is_what_ros_2_announces(node: DDSNode) -> None:
    out = node.publisher("~/joints", JOINTS)
    with make("looker") as other:
        until(other, lambda: other.publishers("/tester/joints"))
        reader = BuiltinDataReader(other.wire.participant, BuiltinTopicDcpsPublication)
        found = {sample.key.hex: sample for sample in reader.read(100)}[out.gid]
        assert (found.topic_name, found.type_name) == ("rt/tester/joints", "sensor_msgs::msg::dds_::JointState_")
        assert found.qos[Policy.Userdata].data == f"typehash={store().type_hash(JOINTS)};".encode()
        participants = BuiltinDataReader(other.wire.participant, BuiltinTopicDcpsParticipant).read(100)
        assert {p.qos[Policy.Userdata].data for p in participants} == {b"enclave=/;"}


def test_humble_tells_the_graph_with_its_longer_identities() -> None:
    with make("old", distro="humble") as old, make("older", distro="humble") as older:
        out = old.publisher("a", TEXT)
        until(older, lambda: older.nodes() == ["/old", "/older"])
        until(older, lambda: [e.node for e in older.publishers("a")] == ["/old"])
        assert older.publishers("a")[0].gid == out.gid


def test_garbage_under_the_name_of_our_type_is_dropped_and_counted(
    node: DDSNode, start: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    heard: list[str] = []
    node.subscribe("words", TEXT, lambda message, _: heard.append(message.data), QoS(10, transient_local=True))
    too_long, bad_text, nothing, good = "ffffffff41414141", "02000000ff00", "00", "020000004100"
    endless = "ffffff7f" + "00" * 64
    payloads = [too_long, bad_text, nothing, endless, good]
    start("raw_writer.py", "rt/words", "std_msgs::msg::dds_::String_", *payloads)
    until(node, lambda: heard and node.malformed.get("/words") == 4)
    assert heard == ["A"]
    assert {endpoint.node for endpoint in node.publishers("words")} == {""}, "no node tells that these are its own"


def test_bytes_that_are_no_message_cannot_be_sent(node: DDSNode) -> None:
    out = node.publisher("words", TEXT)
    with pytest.raises(TransportError, match="no CDR"):
        out.publish_raw(b"\0\1\0\0\xff\xff\xff\xff")
    with pytest.raises(MessageError, match="carries std_msgs/msg/String"):
        out.publish(node.store.new(JOINTS))
    with pytest.raises(MessageError, match="did you mean"):
        node.publisher("joints", "sensor_msgs/msg/JointStates")


def test_a_topic_of_a_node_has_one_type_and_a_history_holds_something(node: DDSNode) -> None:
    node.publisher("a", TEXT)
    with pytest.raises(TransportError, match="rt/a carries std_msgs::msg::dds_::String_"):
        node.subscribe("a", JOINTS, print)
    with pytest.raises(TransportError, match="depth of a history is 0"):
        node.publisher("b", TEXT, QoS(depth=0))


def test_two_publishers_of_one_topic_are_told_apart(node: DDSNode) -> None:
    with make("second", namespace="/other") as other:
        mine, theirs = node.publisher("/commands", TEXT), other.publisher("/commands", TEXT)
        heard: list[tuple[str, str]] = []
        node.subscribe("/commands", TEXT, lambda message, received: heard.append((message.data, received.publisher)))
        until(node, lambda: theirs.subscriptions() and mine.subscriptions())
        mine.publish(node.store.new(TEXT, data="mine"))
        theirs.publish(node.store.new(TEXT, data="theirs"))
        until(node, lambda: len(heard) == 2)
        assert dict(heard) == {"mine": mine.gid, "theirs": theirs.gid} and mine.gid != theirs.gid
        until(node, lambda: {e.node for e in node.publishers("/commands")} == {"/tester", "/other/second"})


def test_raw_bytes_go_through_unchanged_but_for_padding(node: DDSNode) -> None:
    heard: list[bytes] = []
    image = node.store.new("sensor_msgs/msg/Image", height=4, width=3, encoding="rgb8", step=9, data=bytes(range(36)))
    out = node.publisher("image", "sensor_msgs/msg/Image")
    node.subscribe("image", "sensor_msgs/msg/Image", lambda data, _: heard.append(data), raw=True)
    until(node, out.subscriptions)
    sent = node.store.serialize(image)
    out.publish_raw(sent)
    until(node, lambda: heard)
    assert heard[0][: len(sent)] == sent and len(heard[0]) - len(sent) < 4
    assert bytes(node.store.deserialize(heard[0], "sensor_msgs/msg/Image").data) == bytes(range(36))


def test_best_effort_does_not_feed_a_reliable_subscription(node: DDSNode) -> None:
    unreliable = node.publisher("a", TEXT, BEST_EFFORT)
    fine, never = node.subscribe("a", TEXT, print, BEST_EFFORT), node.subscribe("a", TEXT, print, RELIABLE)
    until(node, unreliable.subscriptions)
    assert (fine.publishers(), never.publishers()) == (1, 0)


def test_timers_keep_their_rate_and_tell_what_they_missed(node: DDSNode) -> None:
    ticks: list[float] = []
    timer = node.timer(0.02, lambda: ticks.append(time.monotonic()))
    began = time.monotonic()
    until(node, lambda: len(ticks) + timer.missed >= 20)
    assert time.monotonic() - began >= 0.39
    time.sleep(0.1)
    before = timer.missed
    node.spin_once(0)
    assert timer.missed - before >= 3 and timer.worst_lateness_s >= 0.07
    timer.cancel()
    count = len(ticks)
    end = time.monotonic() + 0.1
    node.spin(lambda: time.monotonic() > end)
    assert len(ticks) == count
    with pytest.raises(TransportError, match="positive"):
        node.timer(0, print)


def test_waiting_costs_nothing_and_lets_other_threads_run(node: DDSNode) -> None:
    woken: list[float] = []
    thread = threading.Timer(0.1, lambda: woken.append(time.monotonic()))
    thread.start()
    began, cpu = time.monotonic(), time.process_time()
    node.spin_once(0.5)
    ended = time.monotonic()
    thread.join()
    assert ended - began >= 0.45 and woken[0] < ended - 0.05
    assert time.process_time() - cpu < 0.1


def test_an_exception_of_a_callback_comes_out_and_nothing_else_is_lost(node: DDSNode) -> None:
    heard: list[str] = []

    def hear(message: Any, received: Received) -> None:
        heard.append(message.data)
        if message.data == "bad":
            raise ValueError("from a callback")

    out = node.publisher("a", TEXT)
    node.subscribe("a", TEXT, hear)
    until(node, out.subscriptions)
    for word in ("bad", "good"):
        out.publish(node.store.new(TEXT, data=word))
    with pytest.raises(ValueError, match="from a callback"):
        until(node, lambda: len(heard) == 2)
    until(node, lambda: heard == ["bad", "good"])


def test_a_message_callback_may_end_its_subscription_and_its_node() -> None:
    node = make("brief")
    heard: list[str] = []

    def hear(message: Any, received: Received) -> None:
        heard.append(message.data)
        node.close()

    out = node.publisher("a", TEXT)
    node.subscribe("a", TEXT, hear)
    until(node, out.subscriptions)
    for word in ("one", "two"):
        out.publish(node.store.new(TEXT, data=word))
    node.spin()
    assert heard == ["one"]
    node.close()
    with pytest.raises(TransportError, match="closed"):
        out.publish(node.store.new(TEXT))
    with pytest.raises(TransportError, match="closed"):
        node.spin_once()


def test_a_killed_process_leaves_no_files(start: Any, node: DDSNode, tmp_path: Path) -> None:
    peer = start("dds_peer.py", "hold", home=tmp_path)
    until(node, lambda: "/peer/holder" in node.nodes())
    before = {e.gid for e in node.publishers("/peer/mode")}
    peer.send_signal(signal.SIGKILL)
    peer.wait()
    assert list(tmp_path.rglob("*")) == []
    again = start("dds_peer.py", "hold", home=tmp_path)
    until(node, lambda: len({e.gid for e in node.publishers("/peer/mode")} - before) == 1)
    assert again.poll() is None


def test_a_process_that_stands_still_does_not_stop_its_publisher(node: DDSNode, start: Any) -> None:
    peer = start("dds_peer.py", "hold")
    out = node.publisher("/peer/commands", TEXT)
    until(node, out.subscriptions)
    peer.send_signal(signal.SIGSTOP)
    message = node.store.new(TEXT, data="x" * 20_000)
    worst = 0.0
    for _ in range(200):
        began = time.monotonic()
        out.publish(message)
        worst = max(worst, time.monotonic() - began)
    peer.send_signal(signal.SIGCONT)
    assert worst < 0.5


def test_services_of_another_process_answer(node: DDSNode, start: Any) -> None:
    start("dds_peer.py", "serve")
    ask = "std_srvs/srv/SetBool_Request"
    answers = [
        node.call("switch", "std_srvs/srv/SetBool", node.store.new(ask, data=data), timeout_s=PATIENCE_S)
        for data in (True, False)
    ]
    assert [(a.success, a.message) for a in answers] == [(True, "got True"), (False, "got False")]
    with pytest.raises(TransportError, match="/nobody is not there"):
        node.call("nobody", "std_srvs/srv/Trigger", node.store.new("std_srvs/srv/Trigger_Request"), timeout_s=0.1)


def test_ros_arguments_reach_the_node() -> None:
    args = ["--ros-args", "-r", "__node:=other", "-r", "__ns:=/left", "-r", "words:=/said", "-p", "rate:=5"]
    with make("tester", args=args) as node:
        assert (node.full_name, node.parameters) == ("/left/other", {"rate": 5})
        assert node.publisher("words", TEXT).topic == "/said"
        assert node.subscribe("~/x", TEXT, print).topic == "/left/other/x"
        assert node.nodes() == ["/left/other"]


def test_a_name_in_use_twice_is_seen_twice(node: DDSNode) -> None:
    with make("tester"):
        until(node, lambda: len(node.nodes()) == 2)
        assert node.nodes() == ["/tester", "/tester"]


@pytest.mark.parametrize("given", ["x", "-1", "233", "1.5"])
def test_bad_domain_ids_are_refused(given: str) -> None:
    with pytest.raises(TransportError, match="ROS_DOMAIN_ID is .*0 to 232"):
        domain_id(environment={"ROS_DOMAIN_ID": given})
    with pytest.raises(TransportError, match="domain is .*0 to 232"):
        domain_id(given)


def test_the_environment_chooses_domain_and_range() -> None:
    assert domain_id(environment={"ROS_DOMAIN_ID": "42"}) == 42 and domain_id(environment={}) == 0
    assert domain_id(7, {"ROS_DOMAIN_ID": "42"}) == 7
    assert discovery_range({}) == "SUBNET"
    assert discovery_range({"ROS_LOCALHOST_ONLY": "1", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}) == "LOCALHOST"
    with pytest.raises(TransportError, match="did you mean 'LOCALHOST'"):
        discovery_range({"ROS_AUTOMATIC_DISCOVERY_RANGE": "localhos"})
    own = "<CycloneDDS/>"
    assert configuration({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT", "CYCLONEDDS_URI": own}).endswith("," + own)
    assert "<Tag>" in configuration({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"})
    with pytest.raises(TransportError, match="ASCII"):
        configuration({"CYCLONEDDS_URI": "file:///tmp/größe.xml"})
    peers = configuration({"ROS_STATIC_PEERS": "10.0.0.1;arm.local"})
    assert '<Peer address="10.0.0.1"/><Peer address="arm.local"/>' in peers


def test_an_interface_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    general = '<General><Interfaces><NetworkInterface name="nowhere9"/></Interfaces></General>'
    monkeypatch.setenv("CYCLONEDDS_URI", f"<CycloneDDS><Domain>{general}</Domain></CycloneDDS>")
    with pytest.raises(TransportError) as error:
        open_node("n", transport="dds", domain=DOMAIN + 1)
    assert "interface" in str(error.value) and "\n" not in str(error.value)
