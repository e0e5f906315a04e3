"""Which transport a node gets, and the parts of the rclpy transport that need no ROS 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from real.errors import TransportError
from real.transport.arguments import parse_ros_args
from real.transport.handle import BEST_EFFORT, LATCHED, RELIABLE, SENSOR
from real.transport.open import open_node
from real.transport.ros_support import endpoint, initialisation, policies, qos_of

ROOT = Path(__file__).parents[2]
DOMAIN = 100 + os.getpid() % 100
SCRIPT = """
import sys
from real.errors import TransportError
from real.transport.open import open_node
try:
    node = open_node("n", transport=sys.argv[1], domain=int(sys.argv[2]))
    print(type(node).__name__)
    node.close()
except TransportError as error:
    print("refused:", error)
"""


def opened(transport: str, path: Path | None = None) -> tuple[str, str]:
    environment = {**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    environment["PYTHONPATH"] = os.pathsep.join(str(p) for p in (path, ROOT) if p)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, transport, str(DOMAIN)],
        env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.strip(), done.stderr.strip()


def test_without_rclpy_auto_is_embedded_dds_in_silence() -> None:
    assert opened("auto") == ("DDSNode", "")


def test_without_rclpy_ros_is_refused_in_one_line() -> None:
    out, _ = opened("ros")
    assert out.startswith("refused: transport 'ros' needs rclpy") and "source" in out and "\n" not in out


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise OSError('libpython3.12.so: cannot open')", "OSError: libpython3.12.so: cannot open"),
        ("import rpyutils_that_is_missing", "needs rpyutils_that_is_missing"),
        ("from . import qos", "cannot import name"),
    ],
)
def test_ros_that_is_sourced_but_broken_is_said_and_auto_goes_on(tmp_path: Path, code: str, says: str) -> None:
    (tmp_path / "rclpy").mkdir()
    (tmp_path / "rclpy" / "__init__.py").write_text(code)
    out, err = opened("auto", tmp_path)
    assert out == "DDSNode" and "ROS 2 is sourced but broken" in err and says in err and "using embedded DDS" in err
    out, _ = opened("ros", tmp_path)
    assert out.startswith("refused: ROS 2 is sourced but broken") and says in out and "\n" not in out


def test_unknown_transports_and_bad_arguments_are_refused() -> None:
    with pytest.raises(TransportError, match="did you mean 'dds'"):
        open_node("n", transport="ddss")
    with pytest.raises(TransportError, match="unknown ROS argument"):
        open_node("n", args=["--ros-args", "--bad"])
    with pytest.raises(TransportError, match="node name"):
        open_node("bad name", transport="dds", domain=DOMAIN)


@pytest.mark.parametrize("qos", [RELIABLE, BEST_EFFORT, SENSOR, LATCHED])
def test_qos_has_rclpys_names_and_comes_back(qos: object) -> None:
    named = policies(qos)  # type: ignore[arg-type]
    assert named["history"] == "KEEP_LAST"
    assert qos_of(named["depth"], named["reliability"], named["durability"]) == qos


def test_endpoints_of_rclpy_become_ours() -> None:
    profile = SimpleNamespace(
        depth=3, reliability=SimpleNamespace(name="BEST_EFFORT"), durability=SimpleNamespace(name="VOLATILE")
    )
    info = SimpleNamespace(
        node_name="driver", node_namespace="/left", topic_type="std_msgs/msg/String", endpoint_gid=[1, 255] * 8,
        qos_profile=profile,
    )  # fmt: skip
    found = endpoint(info, "/x")
    assert (found.node, found.gid, found.qos) == ("/left/driver", "01ff" * 8, qos_of(3, "BEST_EFFORT", "VOLATILE"))
    info.node_name = "_NODE_NAME_UNKNOWN_"
    assert endpoint(info, "/x").node == ""


def test_log_levels_and_enclave_go_to_rclpy() -> None:
    given = ["--ros-args", "--log-level", "info", "--log-level", "rcl:=debug", "--enclave", "/arm", "-r", "a:=b"]
    assert initialisation(parse_ros_args(given)) == [
        "--ros-args", "--log-level", "rcl:=debug", "--log-level", "info", "--enclave", "/arm",
    ]  # fmt: skip
    assert initialisation(parse_ros_args([])) == []
