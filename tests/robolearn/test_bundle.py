"""Bundles: the policy that was trained, LEAPP's runner and ours give the same numbers; damage is refused."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from robolearn.bundle import Bundle, BundleError, PolicyError, digest, export
from robolearn.contract import Channel, Contract, ContractError, robot_hash
from robolearn.pipeline import read_safetensors

JOINTS = tuple(f"joint_{i}" for i in range(22))
POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")
MJCF = "<mujoco model='hand'><worldbody/></mujoco>\n"
LOWER, UPPER = (-0.47,) * 22, (1.61,) * 22
PROVENANCE = {
    "seed": 1,
    "commit": "0123abc",
    "metrics": {"success": np.float32(0.5)},
    "time": "2026-01-01T00:00:00",
}

TRACKER = Contract(
    robot="hand",
    robot_hash="",
    inputs=(
        Channel("joint_pos", (22,), "rad", kind="state/joint/position", elements=JOINTS),
        Channel("object_pose", (7,), "m+wxyz", "world", kind="state/body/pose", elements=POSE),
        Channel("reference_joint_pos", (4, 22), "rad", elements=JOINTS),
    ),
    commands=(
        Channel(
            "joint_target",
            (22,),
            "rad",
            kind="target/joint/position",
            elements=JOINTS,
            lower=LOWER,
            upper=UPPER,
        ),
    ),
    state=(Channel("residual", (22,), "rad"), Channel("last_action", (22,)), Channel("hidden", (64,))),
    rate_hz=60.0,
    delay_s=0.02,
    task="dex_track",
    instruction="lift the mug",
)


class Tracker(torch.nn.Module):
    """What a tracking task exports: normalisation, quaternions, a recurrent network, a residual, clamps."""

    def __init__(self) -> None:
        super().__init__()
        size = 22 + 7 + 88 + 22 + 4
        self.lower: torch.Tensor
        self.upper: torch.Tensor
        self.goal: torch.Tensor
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.randn(size))
        self.register_buffer("std", torch.rand(size) + 0.5)
        self.register_buffer("lower", torch.tensor(LOWER))
        self.register_buffer("upper", torch.tensor(UPPER))
        self.register_buffer("goal", torch.nn.functional.normalize(torch.randn(4), dim=0))
        self.gru = torch.nn.GRUCell(size, 64)
        self.head = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ELU(), torch.nn.Linear(64, 22))

    def forward(
        self,
        joint_pos: torch.Tensor,
        object_pose: torch.Tensor,
        reference_joint_pos: torch.Tensor,
        residual: torch.Tensor,
        last_action: torch.Tensor,
        hidden: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        quat = object_pose[:, 3:]
        quat = quat / quat.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        error = quat_mul(self.goal.expand_as(quat), quat * torch.tensor([1.0, -1, -1, -1]))
        error = torch.where(error[:, :1] < 0, -error, error)
        ahead = (reference_joint_pos - joint_pos[:, None]).flatten(1)
        features = torch.cat([joint_pos, object_pose[:, :3], quat, ahead, last_action, error], dim=-1)
        hidden = self.gru(((features - self.mean) / self.std).clamp(-5, 5), hidden)
        action = self.head(hidden)
        residual = (residual + 0.1 * action).clamp(-0.5, 0.5)
        target = torch.minimum(torch.maximum(reference_joint_pos[:, 0] + residual, self.lower), self.upper)
        return {"joint_target": target, "residual": residual, "last_action": action, "hidden": hidden}


def quat_mul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


GAIN = Contract(
    robot="hand",
    robot_hash="",
    inputs=(Channel("q", (2,), "rad", elements=("a", "b")),),
    commands=(Channel("u", (2,), lower=(-1, -1), upper=(1, 1), elements=("a", "b")),),
    rate_hz=10,
)


class Gain(torch.nn.Module):
    """The smallest policy."""

    def forward(self, q: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"u": (3 * q).clamp(-1, 1)}


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    torch.manual_seed(0)
    return Tracker()


@pytest.fixture(scope="module")
def tracker_path(tracker: Tracker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "tracker"
    return export(tracker, TRACKER, path, mjcf=MJCF, provenance=PROVENANCE)


@pytest.fixture(scope="module")
def gain_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(Gain(), GAIN, tmp_path_factory.mktemp("bundles") / "gain", mjcf=MJCF, provenance={})


@pytest.fixture
def gain(gain_path: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(gain_path, tmp_path / "gain"))


def episode(contract: Contract, steps: int, scale: float = 1.0, seed: int = 0) -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        yield {c.name: (scale * rng.standard_normal(c.shape)).astype(c.dtype) for c in contract.inputs}


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None], *, seal: bool = True) -> Path:
    """Change a description as an exporter with other ideas (sealed) or a hand (not sealed) would."""
    file = folder / "bundle.yaml"
    description = yaml.safe_load(file.read_text())
    change(description)
    if seal:
        description["pipeline"]["configs"]["robolearn"]["digest"] = digest(description)
    file.write_text(yaml.safe_dump(description, sort_keys=False))
    return folder


# --- the same numbers everywhere


def test_the_bundle_is_the_policy(tracker: Tracker, tracker_path: Path) -> None:
    bundle = Bundle.load(tracker_path)
    tracker.eval()
    for _ in range(2):  # the second episode begins, after a reset, where the first began
        state = {c.name: torch.zeros(1, *c.shape) for c in TRACKER.state}
        for inputs in episode(TRACKER, 20):
            with torch.no_grad():
                expected = tracker(**{k: torch.from_numpy(v)[None] for k, v in inputs.items()}, **state)
            state = {c.name: expected[c.name] for c in TRACKER.state}
            commands = bundle.step(inputs)
            assert tuple(commands) == ("joint_target",)
            np.testing.assert_allclose(commands["joint_target"], expected["joint_target"][0], atol=1e-5, rtol=0)
        for name, value in bundle.state.items():
            np.testing.assert_allclose(value, state[name][0], atol=1e-5, rtol=0)
        assert any(value.any() for value in bundle.state.values())
        bundle.reset()
        assert not any(value.any() for value in bundle.state.values())


def test_leapp_runs_our_bundle(tracker_path: Path) -> None:
    from leapp import InferenceManager

    bundle = Bundle.load(tracker_path)
    runner = InferenceManager(str(tracker_path / "bundle.yaml"))
    assert runner.inputs == [f"policy/{name}" for name in TRACKER.names()]
    assert runner.feedback_inputs == ["policy/residual_in", "policy/last_action_in", "policy/hidden_in"]
    for _ in range(2):
        for inputs in episode(TRACKER, 6):
            theirs = runner({f"policy/{k}": torch.from_numpy(v)[None] for k, v in inputs.items()})
            np.testing.assert_array_equal(bundle.step(inputs)["joint_target"], theirs["policy/joint_target"][0])
        bundle.reset()
        runner.reset()


@pytest.fixture(scope="module")
def leapp_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nodes exported by LEAPP alone: a stateful filter that starts at 0.3, and a recurrent policy."""
    import leapp
    from leapp import annotate
    from leapp.utils.enums import InputKindEnum, OutputKindEnum
    from leapp.utils.tensor_description import GraphConfigs, TensorSemantics

    torch.manual_seed(0)
    names = [f"j{i}" for i in range(5)]
    gru, head = torch.nn.GRUCell(9, 8), torch.nn.Linear(8, 5)
    folder = tmp_path_factory.mktemp("leapp")
    leapp.start("pipeline", save_path=str(folder))
    with torch.no_grad():
        q, gain = annotate.input_tensors(
            "filter",
            [
                TensorSemantics(
                    name="joint_pos",
                    ref=torch.zeros(1, 5),
                    kind=InputKindEnum.JOINT_POSITION,
                    element_names=names,
                    extra={"unit": "rad"},
                ),
                TensorSemantics(name="gain", ref=torch.ones(1, 1)),
            ],
        )
        low_pass = annotate.state_tensors("filter", {"low_pass": torch.full((1, 5), 0.3)})
        low_pass = 0.8 * low_pass + 0.2 * gain * q
        annotate.update_state("filter", {"low_pass": low_pass})
        filtered = annotate.output_tensors("filter", {"filtered": low_pass * 1.5}, export_with="onnx")
        filtered, pose, gain = annotate.input_tensors(
            "policy", {"filtered": filtered, "object_pos": torch.zeros(1, 3), "gain": torch.ones(1, 1)}
        )
        hidden = annotate.state_tensors("policy", {"hidden": torch.zeros(1, 8)})
        hidden = gru(torch.cat([filtered, pose, gain], dim=-1), hidden)
        annotate.update_state("policy", {"hidden": hidden})
        target = TensorSemantics(
            name="joint_target", ref=head(hidden), kind=OutputKindEnum.JOINT_POSITION, element_names=names
        )
        annotate.output_tensors("policy", [target], export_with="onnx-torchscript")
    leapp.stop()
    leapp.compile_graph(visualize=False, graph_configs=GraphConfigs(frequency=50))
    return folder / "pipeline"


def test_we_run_what_leapp_exports(leapp_pipeline: Path) -> None:
    from leapp import InferenceManager

    bundle = Bundle.load(leapp_pipeline)
    contract = bundle.contract
    assert contract.names() == ("joint_pos", "filter/gain", "object_pos", "policy/gain")
    assert contract.channel("joint_pos") == Channel(
        "joint_pos", (5,), "rad", kind="state/joint/position", elements=tuple(f"j{i}" for i in range(5))
    )
    assert contract.channel("joint_target").kind == "target/joint/position"
    assert contract.rate_hz == 50 and contract.robot == "" and bundle.mjcf == ""
    np.testing.assert_array_equal(bundle.state["low_pass"], np.full(5, 0.3, np.float32))
    runner = InferenceManager(str(leapp_pipeline / "pipeline.yaml"))
    keys = {"joint_pos": "filter/joint_pos", "object_pos": "policy/object_pos"}
    for _ in range(2):
        for inputs in episode(contract, 6):
            theirs = runner({keys.get(k, k): torch.from_numpy(v)[None] for k, v in inputs.items()})
            ours = bundle.step(inputs)
            np.testing.assert_array_equal(ours["joint_target"], theirs["policy/joint_target"][0])
        bundle.reset()
        runner.reset()
    with pytest.raises(BundleError, match="names no robot"):
        Bundle.load(leapp_pipeline, robot="hand")


def test_a_robot_needs_neither_torch_nor_mujoco_nor_leapp(tracker_path: Path) -> None:
    code = """
import json, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "leapp", "mujoco", "onnx", "scipy", "safetensors"):
            raise ImportError(f"{name} is not on this robot")

sys.meta_path.insert(0, Block())
import numpy as np
from robolearn.bundle import Bundle

bundle = Bundle.load(sys.argv[1], robot="hand")
inputs = {c.name: np.full(c.shape, 0.1, c.dtype) for c in bundle.contract.inputs}
print(json.dumps([bundle.step(inputs)["joint_target"].tolist() for _ in range(3)]))
"""
    result = subprocess.run([sys.executable, "-c", code, str(tracker_path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    bundle = Bundle.load(tracker_path)
    inputs = {c.name: np.full(c.shape, 0.1, c.dtype) for c in bundle.contract.inputs}
    assert json.loads(result.stdout) == [bundle.step(inputs)["joint_target"].tolist() for _ in range(3)]


# --- what a bundle says


def test_contract_and_provenance_come_back(tracker_path: Path) -> None:
    bundle = Bundle.load(str(tracker_path))
    assert bundle.contract == replace(TRACKER, robot_hash=robot_hash(MJCF))
    assert bundle.mjcf == MJCF
    provenance = bundle.provenance
    assert {k: provenance[k] for k in PROVENANCE} == {**PROVENANCE, "metrics": {"success": 0.5}}
    assert provenance["task"] == "dex_track"
    assert provenance["versions"]["torch"] == torch.__version__


def test_time_is_added_where_missing(gain_path: Path) -> None:
    assert Bundle.load(gain_path).provenance["time"].endswith("+00:00")


def test_images_integers_and_passed_through_state(tmp_path: Path) -> None:
    """A state that copies an input, a command that is also state, an unread input: all keep their names."""
    contract = Contract(
        "hand",
        "",
        inputs=(Channel("q", (2,)), Channel("rgb", (4, 4, 3), dtype="uint8"), Channel("unread", (3,))),
        commands=(Channel("u", (2,), lower=(-1, -1), upper=(1, 1)),),
        state=(
            Channel("last_q", (2,)),
            Channel("last_u", (2,)),
            Channel("history", (3, 2)),
            Channel("clock", (1,), dtype="int64"),
        ),
        rate_hz=10,
    )

    class Module(torch.nn.Module):
        def forward(self, **x: torch.Tensor) -> dict[str, torch.Tensor]:
            light = x["rgb"].float().mean(dim=(1, 2, 3))[:, None] / 255
            u = (x["q"] - x["last_q"] + x["history"][:, 0] + light + 0.1 * x["clock"]).clamp(-1, 1)
            history = torch.cat([x["history"][:, 1:], x["q"][:, None]], dim=1)
            return {"u": u, "last_q": x["q"], "last_u": u, "history": history, "clock": x["clock"] + 1}

    bundle = Bundle.load(export(Module(), contract, tmp_path / "b", mjcf=MJCF, provenance={}))
    assert bundle.contract.inputs == contract.inputs and bundle.contract.state == contract.state
    q = np.array([0.1, 0.2], np.float32)
    inputs: dict[str, np.ndarray] = {
        "q": q,
        "rgb": np.zeros((4, 4, 3), np.uint8),
        "unread": np.zeros(3, np.float32),
    }
    u = [bundle.step(inputs)["u"] for _ in range(2)]
    np.testing.assert_allclose(u, np.array([q, [0.1, 0.1]]), atol=1e-6)
    assert bundle.state["clock"] == [2]
    np.testing.assert_array_equal(bundle.state["last_q"], q)
    np.testing.assert_array_equal(bundle.state["last_u"], u[-1])
    np.testing.assert_array_equal(bundle.state["history"], [[0, 0], q, q])


# --- nothing bad goes in or out


@pytest.mark.parametrize(
    ("q", "message"),
    [
        (np.zeros(3, np.float32), r"shape \(3,\) given"),
        (np.zeros(2), "dtype float64 given, float32 expected"),
        (np.array([0, np.nan], np.float32), r"element 'b' \[1\] is nan"),
    ],
)
def test_bad_inputs_are_refused_and_change_nothing(tracker_path: Path, gain_path: Path, q: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        Bundle.load(gain_path).step({"q": q})
    with pytest.raises(ContractError, match="unknown input channel 'qq'; did you mean 'q'"):
        Bundle.load(gain_path).step({"qq": q})
    tracker = Bundle.load(tracker_path)
    tracker.step(next(episode(TRACKER, 1)))
    before = tracker.state
    with pytest.raises(ContractError):
        tracker.step({})
    assert all((tracker.state[name] == value).all() for name, value in before.items())


@pytest.mark.parametrize("scale", [0.0, 1e3, 1e12, 3e38])
def test_commands_keep_their_limits_whatever_goes_in(tracker_path: Path, scale: float) -> None:
    bundle = Bundle.load(tracker_path)
    lower, upper = bundle.contract.limits("joint_target")
    with np.errstate(over="ignore"):
        wild = [{k: np.clip(v, -3e38, 3e38) for k, v in x.items()} for x in episode(TRACKER, 10, scale)]
    for inputs in wild:
        try:
            target = bundle.step(inputs)["joint_target"]
        except PolicyError:
            assert scale > 1e18  # squares overflow float32 there; refused, never passed on
            continue
        assert np.isfinite(target).all() and (target >= lower).all() and (target <= upper).all()


def test_a_policy_that_turns_nan_is_stopped_before_the_robot_and_its_memory(tmp_path: Path) -> None:
    contract = replace(GAIN, state=(Channel("total", (2,)),))

    class Root(torch.nn.Module):
        def forward(self, q: torch.Tensor, total: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"u": torch.sqrt(8 - q).clamp(-1, 1), "total": total + q}  # a clamp lets NaN through

    with pytest.raises(BundleError, match="extreme inputs: .*'u': element .* is nan, not a finite number"):
        export(Root(), contract, tmp_path / "b", mjcf=MJCF, provenance={})

    class Memory(torch.nn.Module):
        def forward(self, q: torch.Tensor, total: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"u": q.clamp(-1, 1), "total": total + (q - 0.5) / (q - 0.5)}

    bundle = Bundle.load(export(Memory(), contract, tmp_path / "b", mjcf=MJCF, provenance={}))
    bundle.step({"q": np.zeros(2, np.float32)})
    before = bundle.state["total"]
    with pytest.raises(PolicyError, match="'total': element .* is nan, not a finite number"):
        bundle.step({"q": np.full(2, 0.5, np.float32)})
    np.testing.assert_array_equal(bundle.state["total"], before)


# --- damage and strangers are refused


@pytest.mark.parametrize("robot", ["gripper", "<mujoco/>", robot_hash("<mujoco/>")])
def test_another_robot_is_refused(gain_path: Path, robot: str) -> None:
    with pytest.raises(BundleError, match="is for robot 'hand'"):
        Bundle.load(gain_path, robot=robot)


@pytest.mark.parametrize("robot", [None, "hand", MJCF, robot_hash(MJCF)])
def test_its_own_robot_is_accepted(gain_path: Path, robot: str | None) -> None:
    assert Bundle.load(gain_path, robot=robot).contract.robot_hash == robot_hash(MJCF)


@pytest.mark.parametrize("name", ["policy.onnx", "robot.xml", "bundle.yaml"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "flipped", "binary"])
def test_damage_is_one_clear_line(gain: Path, name: str, damage: str) -> None:
    file = gain / name
    data = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "truncated":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        at = data.find(b"10") if name == "bundle.yaml" else len(data) // 2  # in the YAML: the rate
        data[at] ^= 1
        file.write_bytes(data)
    else:
        file.write_bytes(bytes(range(256)))
    with pytest.raises(BundleError) as caught:
        Bundle.load(gain)
    assert "\n" not in str(caught.value)
    assert str(gain) in str(caught.value)


def test_every_truncation_of_the_description_is_refused(gain: Path) -> None:
    text = (gain / "bundle.yaml").read_bytes()
    for end in range(0, len(text) - 1, 29):
        (gain / "bundle.yaml").write_bytes(text[:end])
        with pytest.raises(BundleError):
            Bundle.load(gain)


def set_path(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(description: dict[str, Any]) -> None:
        node: Any = description
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_path("pipeline", "configs", "robolearn", "format", value=99), "has format 99; .* reads up to 1"),
        (
            set_path("models", "policy", "parameters", "backend", value="jit"),
            "'policy' is of kind 'jit'; only 'onnx'",
        ),
        (
            set_path("models", "policy", "parameters", "model_path", value="../policy.onnx"),
            "outside the bundle",
        ),
        (
            set_path("models", "policy", "parameters", "model_path", value="/etc/hostname"),
            "outside the bundle",
        ),
        (set_path("models", "policy", "inputs", 0, "shape", value=[1, 3]), "described as float32 .1, 3."),
        (set_path("models", "policy", "inputs", 0, "dtype", value="float64"), "described as float64"),
        (
            set_path("models", "policy", "inputs", 0, "name", value="p"),
            "has inputs .'q'., described are .'p'.",
        ),
        (set_path("models", "policy", "inputs", value=None), "no valid LEAPP description"),
        (set_path("models", "policy", value=[]), "no valid LEAPP description"),
        (set_path("pipeline", "inputs", "policy", value=[]), "nothing feeds 'policy/q'"),
        (set_path("pipeline", "outputs", "policy", value=["v"]), "names 'policy/v', which no model has"),
        (
            set_path("pipeline", "feedback_flow", value={"policy/x": ["policy/q"]}),
            "'policy/x', which no model has",
        ),
        (set_path("pipeline", "initial_values", value="gone.safetensors"), "cannot read .*gone.safetensors"),
    ],
)
def test_descriptions_that_contradict_themselves_are_refused(
    gain: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.load(rewrite(gain, change))
    assert "\n" not in str(caught.value)


def test_an_edited_description_is_refused(gain: Path) -> None:
    change = set_path("models", "policy", "outputs", 0, "upper", value=[9.0, 9.0])
    with pytest.raises(BundleError, match="edited or damaged after its export"):
        Bundle.load(rewrite(gain, change, seal=False))


def test_a_path_without_a_bundle_is_named(tmp_path: Path, gain_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle at .*nowhere"):
        Bundle.load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="it has no YAML file"):
        Bundle.load(tmp_path)
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(BundleError, match="it has a.yaml, b.yaml"):
        Bundle.load(tmp_path)
    with pytest.raises(BundleError, match="no section 'models'"):
        Bundle.load(tmp_path / "a.yaml")
    assert Bundle.load(gain_path / "bundle.yaml").contract.robot == "hand"


def test_damaged_safetensors(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    good = len(header).to_bytes(8, "little") + header + struct.pack("<2f", 1, 2)
    file.write_bytes(good)
    np.testing.assert_array_equal(read_safetensors(file)["a"], np.array([1, 2], np.float32))
    for end in range(len(good)):
        file.write_bytes(good[:end])
        with pytest.raises(BundleError, match="is damaged"):
            read_safetensors(file)


# --- an export proves itself, or leaves nothing


def test_same_arguments_same_bytes_and_no_noise(
    tracker: Tracker, tracker_path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker.train()
    capfd.readouterr()
    again = export(tracker, TRACKER, tmp_path / "elsewhere", mjcf=MJCF, provenance=PROVENANCE)
    assert capfd.readouterr() == ("", "")
    assert tracker.training  # the caller's module is as it was
    assert sorted(f.name for f in again.iterdir()) == ["bundle.yaml", "policy.onnx", "robot.xml"]
    for file in again.iterdir():
        assert file.read_bytes() == (tracker_path / file.name).read_bytes(), file.name


def test_a_bundle_names_no_file_of_the_machine_that_trained(tracker_path: Path) -> None:
    for file in tracker_path.iterdir():
        data = file.read_bytes()
        assert b".py" not in data and os.fsencode(tracker_path.parent) not in data, file.name


def test_an_earlier_bundle_is_replaced_and_anything_else_is_not(gain: Path, tmp_path: Path) -> None:
    before = Bundle.load(gain).provenance["time"]
    export(Gain(), GAIN, gain, mjcf=MJCF, provenance={"time": "later"})
    assert Bundle.load(gain).provenance["time"] == "later" != before
    (gain / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="holds notes.txt"):
        export(Gain(), GAIN, gain, mjcf=MJCF, provenance={})
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BundleError, match="exists and is no bundle"):
        export(Gain(), GAIN, tmp_path / "file", mjcf=MJCF, provenance={})
    with pytest.raises(BundleError, match="cannot write the bundle"):
        export(Gain(), GAIN, tmp_path / "file" / "below", mjcf=MJCF, provenance={})
    assert (gain / "notes.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "gain"]  # no temporary folder is left


class Returns(torch.nn.Module):
    """Gives ``make(q)``."""

    def __init__(self, make: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.make = make

    def forward(self, q: torch.Tensor) -> Any:
        return self.make(q)


def only_while_exporting(q: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"u": (q * (2 if torch.compiler.is_exporting() else 1)).clamp(-1, 1)}


def data_dependent(q: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"u": q.clamp(-1, 1) if float(q.sum()) > 0 else -q.clamp(-1, 1)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda q: q, "returns Tensor, a dict of tensors by channel is needed"),
        (lambda q: {"v": q}, "returns no 'u'; .*it returns: v"),
        (lambda q: {"u": q, "uu": q}, "returns 'uu', which is no command or state of the contract; "),
        (lambda q: {"u": q[:, :1]}, r"returns 'u' as float32 \(1, 1\), the contract says float32 \(1, 2\)"),
        (lambda q: {"u": q.double()}, "returns 'u' as float64"),
        (
            lambda q: {"u": q},
            "extreme inputs: .*command 'u': element 'a' .* outside .*clamp commands",
        ),
        (only_while_exporting, "the ONNX graph is not the policy: 'u' differs by"),
        (data_dependent, "cannot be expressed in ONNX"),
    ],
)
def test_a_module_that_breaks_its_contract_is_not_exported(
    tmp_path: Path, make: Callable[[torch.Tensor], Any], message: str
) -> None:
    samples = [{"q": np.array([0.3, -0.2], np.float32)}]
    with pytest.raises(BundleError, match=message) as caught:
        export(Returns(make), GAIN, tmp_path / "b", mjcf=MJCF, provenance={}, samples=samples)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("contract", "provenance", "message"),
    [
        (replace(GAIN, commands=(Channel("u", (2,)),)), {}, "command 'u' has no limits"),
        (replace(GAIN, inputs=(Channel("a/q", (2,)),)), {}, "'a/q' cannot be exported"),
        (replace(GAIN, inputs=(Channel("h_in", (2,)),), state=(Channel("h", (2,)),)), {}, "be called 'h_in'"),
        (replace(GAIN, robot=""), {}, "names its robot and states its rate"),
        (replace(GAIN, rate_hz=0), {}, "names its robot and states its rate"),
        (replace(GAIN, robot_hash=robot_hash("<other/>")), {}, "not that of robot 'hand'"),
        (GAIN, {"metrics": {"success": "high"}}, "metric 'success' is 'high', not a number"),
        (GAIN, {"metrics": [1]}, "metrics are numbers by name"),
    ],
)
def test_a_contract_that_says_too_little_is_not_exported(
    tmp_path: Path, contract: Contract, provenance: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        export(Gain(), contract, tmp_path / "b", mjcf=MJCF, provenance=provenance)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
