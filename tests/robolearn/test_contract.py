"""The border of a policy: what a contract accepts, and what it says about the rest."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import yaml

from robolearn.contract import Channel, Contract, ContractError, robot_hash

JOINTS = ("index_0", "index_1", "thumb_0")
MJCF = "<mujoco model='hand'/>"


def make_contract(**changes: Any) -> Contract:
    values: dict[str, Any] = {
        "robot": "hand",
        "robot_hash": robot_hash(MJCF),
        "inputs": (
            Channel("joint_pos", (3,), "rad", kind="state/joint/position", elements=JOINTS),
            Channel("reference", (4, 3), "rad", elements=JOINTS),
            Channel("wrist_rgb", (8, 8, 3), dtype="uint8"),
        ),
        "commands": (
            Channel("joint_target", (3,), "rad", elements=JOINTS, lower=(-0.2, -0.2, 0.1), upper=(1.61,) * 3),
        ),
        "state": (Channel("hidden", (5,)), Channel("clock", (1,), dtype="int64")),
        "rate_hz": 60,
        "delay_s": 0.02,
        "task": "dex_track",
    }
    return Contract(**{**values, **changes})


def make_inputs() -> dict[str, np.ndarray]:
    return {
        "joint_pos": np.zeros(3, np.float32),
        "reference": np.zeros((4, 3), np.float32),
        "wrist_rgb": np.zeros((8, 8, 3), np.uint8),
    }


def test_good_inputs_come_back_in_contract_order() -> None:
    inputs = make_inputs()
    checked = make_contract().check_inputs(dict(reversed(inputs.items())))
    assert tuple(checked) == make_contract().names() == ("joint_pos", "reference", "wrist_rgb")
    assert all(checked[name] is inputs[name] for name in inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joint_pos": None}, "input channel 'joint_pos' is missing; given: reference, wrist_rgb"),
        ({"joint_poss": np.zeros(3, np.float32)}, "did you mean 'joint_pos'?"),
        ({"joint_pos": np.zeros(4, np.float32)}, "channel 'joint_pos': shape (4,) given, (3,) expected"),
        ({"joint_pos": np.zeros((1, 3), np.float32)}, "shape (1, 3) given, (3,) expected"),
        (
            {"joint_pos": np.zeros(3)},
            "dtype float64 given, float32 expected; cast it with .astype('float32')",
        ),
        ({"joint_pos": [0.0, 0.0, 0.0]}, "dtype float64 given, float32 expected"),
        ({"joint_pos": np.zeros(3, np.int64)}, "dtype int64 given, float32 expected"),
        ({"joint_pos": ["a", "b", "c"]}, "dtype <U1 given, float32 expected"),
        ({"wrist_rgb": np.zeros((8, 8, 3), np.float32)}, "dtype float32 given, uint8 expected"),
        ({"joint_pos": np.array([0, np.nan, 0], np.float32)}, "element 'index_1' [1] is nan"),
        ({"joint_pos": np.array([0, 0, -np.inf], np.float32)}, "element 'thumb_0' [2] is -inf"),
        ({"reference": np.full((4, 3), np.nan, np.float32)}, "'reference': element 'index_0' [0, 0] is nan"),
    ],
)
def test_bad_inputs_are_named(change: dict[str, Any], message: str) -> None:
    values = {k: v for k, v in {**make_inputs(), **change}.items() if v is not None}
    with pytest.raises(ContractError) as caught:
        make_contract().check_inputs(values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_misspelt_name_explains_the_missing_one() -> None:
    inputs = make_inputs()
    inputs["join_pos"] = inputs.pop("joint_pos")
    with pytest.raises(ContractError, match="unknown input channel 'join_pos'; did you mean 'joint_pos'?"):
        make_contract().check_inputs(inputs)


def test_commands_keep_their_limits_as_float32_has_them() -> None:
    contract = make_contract()
    at_limit = np.array([-0.2, 1.61, 0.1], np.float32)  # float32(1.61) > 1.61: the graph's clamp gives this number
    assert contract.check_commands({"joint_target": at_limit})["joint_target"] is at_limit
    with pytest.raises(ContractError, match=r"element 'thumb_0' \[2\] is 0.0, outside \[0.1"):
        contract.check_commands({"joint_target": np.zeros(3, np.float32)})
    with pytest.raises(ContractError, match="not a finite number"):
        contract.check_commands({"joint_target": np.full(3, np.nan, np.float32)})


def test_limits_are_per_element_and_open_where_unstated() -> None:
    lower, upper = make_contract().limits("joint_target")
    np.testing.assert_array_equal(lower, np.array([-0.2, -0.2, 0.1], np.float32))
    np.testing.assert_array_equal(upper, np.full(3, 1.61, np.float32))
    assert lower.dtype == upper.dtype == np.float32
    assert not lower.flags.writeable
    np.testing.assert_array_equal(make_contract().limits("joint_pos")[1], [np.inf] * 3)


def test_initial_state_is_zero() -> None:
    state = make_contract().initial_state()
    assert {k: (v.shape, v.dtype.name, float(v.sum())) for k, v in state.items()} == {
        "hidden": ((5,), "float32", 0.0),
        "clock": ((1,), "int64", 0.0),
    }


@pytest.mark.parametrize("robot", ["hand", MJCF, f"\n  {MJCF}".strip(), robot_hash(MJCF)])
def test_its_own_robot_is_accepted(robot: str) -> None:
    make_contract().check_robot(robot)


@pytest.mark.parametrize("robot", ["gripper", "<mujoco model='gripper'/>", robot_hash("<mujoco/>"), ""])
def test_another_robot_is_refused(robot: str) -> None:
    with pytest.raises(ContractError, match="the contract is for robot 'hand'"):
        make_contract().check_robot(robot)


def test_a_contract_without_a_robot_is_held_against_none() -> None:
    with pytest.raises(ContractError, match="names no robot"):
        make_contract(robot="", robot_hash="").check_robot("hand")


def test_plain_data_round_trip() -> None:
    contract = make_contract(instruction="lift the mug")
    text = yaml.safe_dump(contract.to_dict())
    assert Contract.from_dict(yaml.safe_load(text)) == contract
    assert Channel("a", (2,)).to_dict() == {"name": "a", "shape": [2]}
    assert hash(contract) == hash(make_contract(instruction="lift the mug"))


def test_numpy_arguments_become_plain() -> None:
    channel = Channel("a", np.array([2]), lower=np.array([-1, -2]), upper=np.inf)  # type: ignore[arg-type]
    assert channel == Channel("a", (2,), lower=(-1.0, -2.0), upper=(float("inf"),) * 2)
    assert all(type(n) is int for n in channel.shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "a word without spaces"),
        ({"name": "joint pos"}, "a word without spaces"),
        ({"shape": ()}, "shape is a tuple of positive integers, not ()"),
        ({"shape": (0,)}, "positive integers"),
        ({"shape": 3}, "positive integers"),
        ({"shape": (True,)}, "positive integers"),
        ({"dtype": "float23"}, "unknown dtype 'float23'; did you mean 'float"),
        ({"elements": ("x", "y")}, "2 element names for a last axis of 3"),
        ({"elements": ("x", "y", "x")}, "element 'x' is named twice"),
        ({"lower": (1, 2)}, "lower has shape (2,), (3,) expected"),
        ({"lower": "low"}, "lower holds numbers"),
        ({"upper": (1, np.nan, 2)}, "upper is not a number at index 1"),
        (
            {"lower": 1, "upper": (2, 0, 2), "elements": JOINTS},
            "lower 1.0 > upper 0.0 at element 'index_1' [1]",
        ),
    ],
)
def test_impossible_channels_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError) as caught:
        Channel(**{"name": "q", "shape": (3,), **arguments})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"commands": ()}, "at least one command"),
        ({"state": (Channel("joint_pos", (3,)),)}, "channel 'joint_pos' is named twice"),
        ({"rate_hz": -1}, "rate_hz is a number >= 0, not -1"),
        ({"rate_hz": float("nan")}, "rate_hz is a number >= 0"),
        ({"delay_s": "20 ms"}, "delay_s is a number >= 0, not '20 ms'"),
        ({"robot_hash": "abc"}, "64 hexadecimal digits"),
    ],
)
def test_impossible_contracts_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError) as caught:
        make_contract(**changes)
    assert message in str(caught.value)


def test_unknown_names_and_keys_are_refused_with_the_closest() -> None:
    contract = make_contract()
    with pytest.raises(ContractError, match="did you mean 'joint_target'"):
        contract.channel("joint_targt")
    with pytest.raises(ContractError, match="unknown group 'input'; did you mean 'inputs'"):
        contract.names("input")
    with pytest.raises(ContractError, match="unknown key 'unti' in a channel; did you mean 'unit'"):
        Channel.from_dict({"name": "a", "shape": [1], "unti": "m"})
    with pytest.raises(ContractError, match="a channel needs the key 'shape'; given: name"):
        Channel.from_dict({"name": "a"})
    with pytest.raises(ContractError, match="a contract is a mapping"):
        Contract.from_dict([])  # type: ignore[arg-type]


def test_period() -> None:
    assert make_contract().dt == pytest.approx(1 / 60)
    with pytest.raises(ContractError, match="states no rate"):
        _ = make_contract(rate_hz=0).dt


def test_it_needs_numpy_alone() -> None:
    code = "import sys, robolearn.contract; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "yaml", "onnxruntime", "mujoco"} & set(modules)
