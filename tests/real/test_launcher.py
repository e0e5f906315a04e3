"""Processes of a stack: started, watched, ended in order, and never left behind; with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from real.launcher import DOMAIN, Launcher, LaunchError, environment, node_command
from real.stack import load
from real.transport.arguments import parse_ros_args

ROOT = Path(__file__).resolve().parents[2]
NODE = """
import sys
from real.nodes.run import run_node

class Node:
    finished = {finished}
    def close(self):
        print("closed", flush=True)

def build(handle, stack):
    {body}
    return Node()

if __name__ == "__main__":
    sys.exit(run_node("{name}", build))
"""
DEAF = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("[policy] ready", file=sys.stderr, flush=True)
time.sleep(100)
"""


@pytest.fixture
def small(tmp_path):
    """Makes a package of small nodes on the real transport; gives a launcher for them and the lines they print."""
    package = tmp_path / "small_nodes"
    package.mkdir()
    (package / "__init__.py").touch()
    lines: list[tuple[str, str]] = []
    made: list[Launcher] = []

    def launcher(names, bodies=None, finished=(), raw=None) -> Launcher:
        for name in names:
            body = (bodies or {}).get(name, "pass")
            text = NODE.format(name=name, body=body, finished=name in finished)
            (package / f"{name}.py").write_text((raw or {}).get(name, text))
        stack = load("panda", {"transport": "dds", "domain": 100 + os.getpid() % 100})
        env = environment(stack, {**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"})
        env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(ROOT)])
        extra = [name for name in names if name not in stack.nodes]
        overrides = {"transport": "dds", "domain": stack.domain}
        made.append(Launcher(stack, overrides, lambda *line: lines.append(line), extra, env, "small_nodes"))
        return made[-1]

    yield launcher, lines
    for one in made:
        one.stop(1.0)


def wait(done, seconds=20.0):
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_all_come_up_and_go_in_order(small):
    launcher, lines = small
    stack = launcher(["safety", "episode", "policy"])
    stack.start(30)
    assert [p.code for p in stack.processes.values()] == [None] * 3
    assert stack.ended() == []
    stack.stop()
    assert [p.code for p in stack.processes.values()] == [0, 0, 0]
    assert [name for name, line in lines if line == "closed"] == ["episode", "policy", "safety"]


def test_a_killed_node_is_noticed_once_and_described(small):
    launcher, _ = small
    stack = launcher(["safety", "episode"])
    stack.start(30)
    os.kill(stack.processes["safety"].pid, signal.SIGKILL)
    wait(lambda: stack.processes["safety"].code is not None)
    (ended,) = stack.ended()
    assert ended.name == "safety" and "was ended by SIGKILL" in ended.describe_end()
    assert stack.ended() == []


def test_a_node_that_cannot_start_ends_the_others_and_says_why(small):
    launcher, _ = small
    stack = launcher(
        ["safety", "episode"],
        {"episode": "from real.errors import StackError; raise StackError('no such goal')"},
    )
    with pytest.raises(LaunchError, match=r"episode ended with 2: \[episode\] no such goal while the stack came up"):
        stack.start(30)
    assert all(process.code is not None for process in stack.processes.values())


def test_a_node_that_is_never_ready_is_named(small):
    launcher, _ = small
    stack = launcher(["safety", "episode"], raw={"episode": "import time; time.sleep(100)"})
    with pytest.raises(LaunchError, match="not ready after 4 s: .*episode"):
        stack.start(4)
    assert all(process.code is not None for process in stack.processes.values())


def test_a_node_that_is_finished_ends_with_0(small):
    launcher, _ = small
    stack = launcher(["safety", "episode"], finished=("episode",))
    stack.start(30)
    wait(lambda: bool(stack.ended()))
    assert stack.processes["episode"].code == 0


def test_stopped_and_deaf_processes_are_ended_all_the_same(small):
    launcher, lines = small
    stack = launcher(["safety", "episode", "policy"], raw={"policy": DEAF})
    stack.start(30)
    os.kill(stack.processes["episode"].pid, signal.SIGSTOP)
    stack.stop(1.0)
    assert stack.processes["policy"].code == -signal.SIGKILL
    assert stack.processes["episode"].code in (0, -signal.SIGTERM)
    assert ("policy", "did not end when asked and was killed") in lines


def test_nodes_end_with_a_launcher_that_is_killed(small, tmp_path):
    launcher, _ = small
    launcher(["safety", "episode"])  # writes the modules
    script = tmp_path / "launch_it.py"
    script.write_text(
        "import os, sys, time\n"
        "from real.launcher import Launcher, environment\n"
        "from real.stack import load\n"
        "stack = load('panda', {'transport': 'dds', 'domain': int(sys.argv[1])})\n"
        "given = {'transport': 'dds', 'domain': stack.domain}\n"
        "one = Launcher(stack, given, lambda *line: None, (), environment(stack), 'small_nodes')\n"
        "one.start(30)\n"
        "print(*[p.pid for p in one.processes.values()], flush=True)\n"
        "time.sleep(100)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    env["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    command = [sys.executable, str(script), str(100 + os.getpid() % 100)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2 and all(alive(pid) for pid in pids)
    process.kill()
    process.communicate()
    wait(lambda: not any(alive(pid) for pid in pids))


def test_the_domain_of_a_stack():
    twin, robot = load("panda_twin"), load("panda")
    assert environment(twin, {}) == {"ROS_DOMAIN_ID": str(DOMAIN), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    assert environment(robot, {}) == {"ROS_DOMAIN_ID": str(DOMAIN)}, "its driver may be on another machine"
    assert environment(robot, {"ROS_DISTRO": "jazzy"}) == {"ROS_DISTRO": "jazzy"}, "ROS's tools must see it"
    assert environment(robot, {"ROS_DOMAIN_ID": "3"}) == {"ROS_DOMAIN_ID": "3"}
    assert environment(load("panda", {"domain": 5}), {"ROS_DOMAIN_ID": "3"}) == {"ROS_DOMAIN_ID": "5"}


def test_a_node_s_command_line_is_read_back_as_it_was_meant():
    given = {
        "instruction": 'put the "red" can: on the pad', "bundle": "0123", "safety.rate_hz": 100, "domain": None,
        "safety.auto_rearm": True, "limits.workspace": {"lower": [0, 0, 0.5], "upper": [1, 1, 1]},
    }  # fmt: skip
    command = node_command("safety", "/a b/s.yaml", given)
    assert command[:3] == [sys.executable, "-m", "real.nodes.safety"]
    read = parse_ros_args(command[3:]).parameters("/safety")
    assert read["stack"] == "/a b/s.yaml"
    stack = load("panda", {key: value for key, value in read.items() if key != "stack"})
    assert stack.episode.instruction == given["instruction"]
    assert stack.policy.bundle == "0123"
    assert stack.domain is None and stack.safety.auto_rearm is True and stack.safety.rate_hz == 100
    assert stack.limits.workspace is not None and stack.limits.workspace.lower == (0, 0, 0.5)
