"""Names, remaps and parameters, as ROS 2 users write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from real.errors import TransportError
from real.transport.arguments import parse_ros_args
from real.transport.names import Remaps, check_namespace, expand


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("joint_states", "/left/joint_states"),
        ("camera/wrist/image_raw", "/left/camera/wrist/image_raw"),
        ("/diagnostics", "/diagnostics"),
        ("~/value", "/left/critic/value"),
        ("~", "/left/critic"),
        ("{node}_out", "/left/critic_out"),
    ],
)
def test_names_are_absolute_relative_or_private(name: str, full: str) -> None:
    assert expand(name, "/left", "critic") == full


@pytest.mark.parametrize("name", ["", "/", "a/", "/a//b", "1a", "a b", "a-b", "~a", "a/~", "ä", "/" + "a" * 300])
def test_impossible_names_are_refused(name: str) -> None:
    with pytest.raises(TransportError):
        expand(name, "/", "node")


def test_a_namespace_begins_with_a_slash_and_does_not_end_with_one() -> None:
    assert [check_namespace(n) for n in ("", "/", "left", "/left/arm")] == ["/", "/", "/left", "/left/arm"]
    with pytest.raises(TransportError):
        check_namespace("/left/")


def remaps(*rules: str) -> Remaps:
    return parse_ros_args(["--ros-args", *(word for rule in rules for word in ("-r", rule))]).remaps


def test_remaps_compare_full_names_and_the_first_that_fits_counts() -> None:
    rules = remaps("joint_states:=/left/joints", "/joint_states:=/never", "~/mode:=mode", "b:=c", "a:=b")
    assert rules.resolve("joint_states", "/", "safety") == "/left/joints"
    assert rules.resolve("/joint_states", "/", "safety") == "/left/joints"
    assert rules.resolve("/ns/joint_states", "/", "safety") == "/ns/joint_states"
    assert rules.resolve("~/mode", "/arm", "safety") == "/arm/mode"
    assert rules.resolve("a", "/", "safety") == "/b", "a name is remapped once"


def test_remaps_for_one_node_or_kind() -> None:
    rules = remaps("safety:a:=b", "rosservice://go:=stop", "rostopic://go:=went")
    assert rules.resolve("a", "/", "safety") == "/b"
    assert rules.resolve("a", "/", "policy") == "/a"
    assert rules.resolve("go", "/", "policy") == "/went"
    assert rules.resolve("go", "/", "policy", service=True) == "/stop"


def test_node_and_namespace_can_be_remapped() -> None:
    assert remaps("__node:=x", "__ns:=/left").identity("/", "safety") == ("/left", "x")
    assert remaps("__name:=x").identity("/a", "safety") == ("/a", "x")
    assert remaps("policy:__node:=x").identity("/", "safety") == ("/", "safety")


def test_parameters_have_the_types_of_yaml() -> None:
    given = "i:=3 f:=2.5 e:=1e-3 t:=true s:=text d:=2024-01-02 q:='7' l:=[1,2] m:=[1,2.5] n.o:=x empty:=".split()
    args = parse_ros_args(["--ros-args", *(word for rule in given for word in ("-p", rule))])
    assert args.parameters("/any/node") == {
        "i": 3, "f": 2.5, "e": 0.001, "t": True, "s": "text", "d": "2024-01-02", "q": "7", "l": [1, 2],
        "m": [1.0, 2.5], "n.o": "x", "empty": "",
    }  # fmt: skip


def test_what_is_not_ros_is_left_over() -> None:
    args = parse_ros_args(
        ["--speed", "3", "--ros-args", "-p", "a:=1", "--log-level", "warn", "--log-level", "dds:=DEBUG", "-e", "/e"]
        + ["--", "file", "--ros-args", "-p", "b:=2", "--disable-rosout-logs"]
    )
    assert args.rest == ("--speed", "3", "file")
    assert args.parameters("/n") == {"a": 1, "b": 2}
    assert (args.log_level, dict(args.log_levels), args.enclave) == ("warn", {"dds": "debug"}, "/e")
    assert parse_ros_args([]).parameters("/n") == {}


FILE = """
/**:
  ros__parameters:
    rate: 10
    limits: {velocity: 1.5, names: [a, b]}
safety:
  ros__parameters: {rate: 100}
/left/safety:
  ros__parameters: {rate: 200}
right:
  safety:
    ros__parameters: {rate: 300}
/*/policy:
  ros__parameters: {rate: 20}
"""


def test_parameter_files_by_node_name_namespace_and_wildcard(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(FILE)
    args = parse_ros_args(["--ros-args", "--params-file", str(path)])
    rates = {n: args.parameters(n)["rate"] for n in ("/safety", "/left/safety", "/right/safety", "/a/policy", "/b/c/x")}
    assert rates == {"/safety": 100, "/left/safety": 200, "/right/safety": 300, "/a/policy": 20, "/b/c/x": 10}
    assert args.parameters("/safety") == {"rate": 100, "limits.velocity": 1.5, "limits.names": ["a", "b"]}
    later = parse_ros_args(["--ros-args", "--params-file", str(path), "-p", "safety:rate:=7"])
    assert later.parameters("/safety")["rate"] == 7 and later.parameters("/b")["rate"] == 10


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["-x", "a:=b"], "unknown ROS argument '-x'"),
        (["--parms-file", "x"], "did you mean '--params-file'"),
        (["-r"], "-r needs a value"),
        (["-r", "--"], "-r needs a value"),
        (["-r", "ab"], "not 'from:=to'"),
        (["-r", "a:="], "not 'from:=to'"),
        (["-r", "a:=b//c"], "b//c"),
        (["-r", "__node:=a/b"], "node name 'a/b'"),
        (["-p", "a"], "not 'name:=value'"),
        (["-p", "a:={b: 1}"], "scalar"),
        (["-p", "a:=[1, x]"], "mixes"),
        (["-p", "a:=[1"], "no YAML"),
        (["-p", "a:=!!python/object/apply:os.system [ls]"], "no YAML"),
        (["--log-level", "loud"], "unknown level 'loud'"),
        (["--params-file", "/nowhere/p.yaml"], "cannot be read"),
    ],
)
def test_mistakes_are_one_line(args: list[str], says: str) -> None:
    with pytest.raises(TransportError) as error:
        parse_ros_args(["--ros-args", *args])
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[1]", "a: 1", "a: {b: 1}", "a: {ros__parameters: 3}", "a: {other: {}}", "a: [", ""])
def test_bad_parameter_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(TransportError) as error:
        parse_ros_args(["--ros-args", "--params-file", str(path)])
    assert "bad.yaml" in str(error.value) and "\n" not in str(error.value)
