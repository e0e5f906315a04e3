"""`robolearn real up`, as a user runs it: real processes of all nodes on embedded DDS, and a twin."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from robolearn import cli

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = 100 + os.getpid() % 100
RUN = (
    "import sys; from robolearn import cli; cli.VERBS['real'] = 'robolearn.real_verb'; sys.exit(cli.main(sys.argv[1:]))"
)


@pytest.fixture
def stack(tmp_path):
    """The shipped twin without pictures."""
    data = yaml.safe_load((ROOT / "real/stacks/panda_twin.yaml").read_text())
    data["twin"] = {"rendering": "none"}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def children(pid: int) -> dict[str, int]:
    """Node → process id of a launcher's children."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            command = (path / "cmdline").read_text().split("\0")
        except (OSError, IndexError):
            continue
        if parent == pid and "-m" in command:
            found[command[command.index("-m") + 1].rpartition(".")[2]] = int(path.name)
    return found


def test_a_stack_comes_up_refuses_a_second_one_and_goes_down_with_its_safety_node(stack, tmp_path):
    env = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    command = [sys.executable, "-c", RUN, "real", "up", f"stack={stack}", "transport=dds"]
    errors = tmp_path / "errors"
    with errors.open("w") as file:
        process = subprocess.Popen(
            [*command, "--json"], stdout=subprocess.PIPE, stderr=file, env=env, cwd=ROOT, text=True
        )
    try:
        until = time.monotonic() + 90
        while "\nup: twin, safety, episode" not in errors.read_text():
            assert process.poll() is None and time.monotonic() < until, errors.read_text()
            time.sleep(0.05)
        assert "NOT safety-rated" in errors.read_text()
        second = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert second.returncode == 2 and f"domain {DOMAIN} has a node /safety already" in second.stderr
        nodes = children(process.pid)
        assert set(nodes) == {"twin", "safety", "episode"}
        os.kill(nodes["safety"], signal.SIGKILL)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1
    answer = json.loads(out.splitlines()[-1])
    assert answer["reason"] == "safety is gone" and answer["ended"][0].startswith("safety was ended by SIGKILL")
    assert not any(Path(f"/proc/{pid}").exists() for pid in nodes.values()), "nothing is left behind"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["bundel=x"], "did you mean 'bundle'"),
        (["safety.rate=1"], "unknown key 'rate' in safety; did you mean 'rate_hz'"),
        (["safety.rate_hz=0"], "safety.rate_hz is above 0"),
        (["safety.rate_hz"], "settings are written key=value"),
        (["bundle=/nowhere"], "no bundle at /nowhere"),
        (["teleop=true"], "a keyboard needs a terminal of its own"),
        (["robot.model=pandaa"], "did you mean 'panda'"),
    ],
)
def test_mistakes_are_named_before_anything_starts(monkeypatch, capsys, stack, given, message):
    monkeypatch.setitem(cli.VERBS, "real", "robolearn.real_verb")
    assert cli.main(["real", "up", f"stack={stack}", *given]) == 2
    assert message in capsys.readouterr().err


def test_a_stack_must_be_given(monkeypatch, capsys):
    monkeypatch.setitem(cli.VERBS, "real", "robolearn.real_verb")
    assert cli.main(["real", "up"]) == 2
    assert "stack=... must be given" in capsys.readouterr().err
