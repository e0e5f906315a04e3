"""A LEAPP pipeline, run with numpy and onnxruntime alone.

LEAPP describes a policy as named models (*nodes*) whose tensors (*ports*, ``node/name``) are wired together:
``data_flow`` within a step, ``feedback_flow`` from one step to the next. This module reads such a
description, ours or anybody's, and runs it where all models are ONNX. As of LEAPP's config version 1.3::

    models: {node: {inputs: [tensor], outputs: [tensor],
                    parameters: {model_path, sha256sum, md5sum, backend}}}
    pipeline: {inputs: {node: [name]}, outputs: {node: [name]}, data_flow: {port: [port]},
               feedback_flow: {port: [port]}, initial_values: file.safetensors, configs: {frequency, ...}}
    system information: {...}

A tensor is ``{name, dtype, shape, type, kind?, element_names?, ...}``. Its shape has the batch axis; its
element names are one list for each axis after that; what LEAPP has no field for lies flat beside these keys.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import yaml

from robolearn.contract import Channel, ContractError
from robolearn.errors import RobolearnError

Arrays = dict[str, np.ndarray]

_ONNX_TYPES = {"float32": "float", "float64": "double"}  # the others have one name in both worlds
_SAFETENSORS_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


class BundleError(RobolearnError):
    """A bundle is missing, damaged, for another robot, or cannot be made."""


@dataclass(frozen=True)
class Port:
    """One end of the pipeline: a channel and the tensor of a node that carries it.

    Attributes:
        key: ``node/name``, unique in the pipeline.
        shape: the tensor's shape, batch axis included.
        channel: the same as a channel, without the batch axis.
    """

    key: str
    shape: tuple[int, ...]
    channel: Channel


@dataclass(frozen=True)
class _Node:
    """One ONNX model; ``inputs`` and ``outputs`` are its tensors' port keys, in the model's order."""

    session: onnxruntime.InferenceSession
    inputs: dict[str, str]
    outputs: dict[str, str]


def read_description(file: Path) -> dict[str, Any]:
    """Read a LEAPP description.

    Raises:
        BundleError: where the file is not one, or is cut short.
    """
    try:
        description = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"cannot read {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BundleError(f"{file} is not readable YAML: {' '.join(str(error).split())}") from error
    # The last section is "system information": a file that was cut short lacks it.
    for section in ("models", "pipeline", "system information"):
        if not isinstance(description, dict) or not isinstance(description.get(section), dict):
            raise BundleError(f"{file} is no LEAPP description, or is cut short: it has no section {section!r}")
    configs = description["pipeline"].setdefault("configs", {})
    if not isinstance(configs, dict):
        raise BundleError(f"{file} is no LEAPP description: pipeline.configs is {configs!r}")
    return description


class Pipeline:
    """The nodes of a description, ready to step.

    Attributes:
        inputs, commands, state: the ends of the pipeline by channel name. A channel is named after its tensor
            (a state ``h_in`` fed by ``h_out`` is the channel ``h``), or ``node/name`` where two share a name.
        initial_state: the state after a reset, by channel name.
    """

    def __init__(self, description: Mapping[str, Any], file: Path, threads: int) -> None:
        """Open the models that ``description``, read from ``file``, names.

        Raises:
            BundleError: where the description contradicts itself, or a model is missing, damaged or of a kind
                other than ONNX.
        """
        try:
            self._build(description, file, threads)
        except (ContractError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"{file} is no valid LEAPP description: {type(error).__name__} {error}") from error

    def run(self, inputs: Arrays, state: Arrays) -> tuple[Arrays, Arrays]:
        """One step: input and state channels to command channels and the next state, by channel name."""
        values = {port.key: inputs[name].reshape(port.shape) for name, port in self.inputs.items()}
        values.update({port.key: state[name].reshape(port.shape) for name, port in self.state.items()})
        for node in self._nodes:
            feeds = {name: values[key] for name, key in node.inputs.items()}
            results = node.session.run(list(node.outputs), feeds)
            for key, result in zip(node.outputs.values(), results, strict=True):
                values[key] = result
                # A feedback target has been read by now: what it gets here is the next step's.
                values.update(dict.fromkeys(self._wires.get(key, ()), result))
        return self._collect(self.commands, values), self._collect(self.state, values)

    @staticmethod
    def _collect(ports: Mapping[str, Port], values: Arrays) -> Arrays:
        return {name: values[port.key].reshape(port.channel.shape) for name, port in ports.items()}

    def _build(self, description: Mapping[str, Any], file: Path, threads: int) -> None:
        models, pipeline = description["models"], description["pipeline"]
        self._nodes = [_open_node(name, model, file, threads) for name, model in models.items()]
        data_flow, feedback = (pipeline.get(flow) or {} for flow in ("data_flow", "feedback_flow"))
        self._wires = {
            source: (*data_flow.get(source, ()), *feedback.get(source, ())) for source in {**data_flow, **feedback}
        }
        state_names = {
            target: _state_name(source, target) for source, targets in feedback.items() for target in targets
        }
        ends = [
            {key: _name(key) for key in _keys(pipeline["inputs"])},
            {key: _name(key) for key in _keys(pipeline["outputs"])},
            state_names,
        ]
        uses = Counter(name for names in ends for name in names.values())
        tensors = dict(_tensors(models))
        self.inputs, self.commands, self.state = (
            {port.channel.name: port for port in (_port(tensors, k, n, uses[n] > 1) for k, n in names.items())}
            for names in ends
        )
        self._check_wiring(tensors)
        self.initial_state = {n: np.zeros(p.channel.shape, p.channel.numpy_dtype) for n, p in self.state.items()}
        if pipeline.get("initial_values"):
            self._read_initial_values(_inside(file.parent, pipeline["initial_values"]))

    def _check_wiring(self, tensors: Mapping[str, Any]) -> None:
        """Refuse wires to nowhere, and node inputs that nothing feeds: they would run on made-up numbers."""
        for source, targets in self._wires.items():
            for key in (source, *targets):
                if key not in tensors:
                    raise ValueError(f"the pipeline wires {key!r}, which no model has")
        fed = {port.key for ports in (self.inputs, self.state) for port in ports.values()}
        for node in self._nodes:
            for key in node.inputs.values():
                if key not in fed:
                    raise ValueError(f"nothing feeds {key!r}")
            for key in node.outputs.values():
                fed.update(self._wires.get(key, ()))

    def _read_initial_values(self, file: Path) -> None:
        values = read_safetensors(file)
        for name, port in self.state.items():
            if port.key in values:
                self.initial_state[name] = port.channel.check(values[port.key].reshape(port.channel.shape))


def read_safetensors(file: Path) -> Arrays:
    """Read a safetensors file: u64 header length, JSON header, then raw little-endian data.

    Raises:
        BundleError: where the file is missing, damaged, or holds a type numpy has not.
    """
    try:
        data = file.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        header.pop("__metadata__", None)
        arrays = {}
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            raw = np.frombuffer(data[start + first : start + last], _SAFETENSORS_TYPES[entry["dtype"]])
            arrays[name] = raw.reshape(entry["shape"])
        return arrays
    except OSError as error:
        raise BundleError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{file} is damaged: {error}") from error


def sha256(file: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits. Raises BundleError where it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise BundleError(f"cannot read {file}: {error.strerror}") from error


def _open_node(name: str, model: Mapping[str, Any], file: Path, threads: int) -> _Node:
    parameters = model["parameters"]
    if parameters["backend"] != "onnx":
        raise BundleError(f"{file}: model {name!r} is of kind {parameters['backend']!r}; only 'onnx' runs here")
    onnx_file = _inside(file.parent, parameters["model_path"])
    if sha256(onnx_file) != parameters["sha256sum"]:
        raise BundleError(f"{onnx_file} is damaged: its SHA-256 is not the one in {file.name}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    # What LEAPP's own runner uses: the higher levels may reorder arithmetic, and policies are small.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        session = onnxruntime.InferenceSession(str(onnx_file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base of their own
        raise BundleError(f"onnxruntime cannot open {onnx_file}: {str(error).splitlines()[0]}") from error
    _check_tensors(onnx_file, "input", session.get_inputs(), model["inputs"])
    _check_tensors(onnx_file, "output", session.get_outputs(), model["outputs"])
    return _Node(
        session,
        {tensor["name"]: f"{name}/{tensor['name']}" for tensor in model["inputs"]},
        {tensor["name"]: f"{name}/{tensor['name']}" for tensor in model["outputs"]},
    )


def _check_tensors(file: Path, side: str, actual: list[Any], described: list[Mapping[str, Any]]) -> None:
    """Hold a model's tensors against its description; axes the model leaves open are not compared."""
    found = {tensor.name: tensor for tensor in actual}
    names = [tensor["name"] for tensor in described]
    if set(found) != set(names):
        raise ValueError(f"{file.name} has {side}s {sorted(found)}, described are {sorted(names)}")
    for tensor in described:
        model, shape, dtype = found[tensor["name"]], _shape(tensor), tensor["dtype"]
        same = len(model.shape) == len(shape) and all(
            a == b for a, b in zip(model.shape, shape, strict=True) if isinstance(a, int)
        )
        if not same or model.type != f"tensor({_ONNX_TYPES.get(dtype, dtype)})":
            raise ValueError(
                f"{side} {model.name!r} of {file.name} is {model.type} {model.shape}, described as {dtype} {shape}"
            )


def _tensors(models: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, model in models.items():
        for tensor in (*model["inputs"], *model["outputs"]):
            yield f"{name}/{tensor['name']}", tensor


def _port(tensors: Mapping[str, Any], key: str, name: str, ambiguous: bool) -> Port:
    if key not in tensors:
        raise ValueError(f"the pipeline names {key!r}, which no model has")
    tensor, shape = tensors[key], _shape(tensors[key])
    per_sample = shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
    names = (tensor.get("element_names") or [None])[-1]
    elements = tuple(names) if isinstance(names, list) and len(names) == per_sample[-1] else ()
    channel = Channel(
        name=key if ambiguous else name,
        shape=per_sample,
        unit=str(tensor.get("unit") or ""),
        frame=str(tensor.get("frame") or ""),
        dtype=tensor["dtype"],
        kind=str(tensor.get("kind") or ""),
        elements=elements,
        lower=tensor.get("lower"),
        upper=tensor.get("upper"),
    )
    return Port(key, shape, channel)


def _shape(tensor: Mapping[str, Any]) -> tuple[int, ...]:
    shape = tensor["shape"]
    return tuple(int(n) for n in (json.loads(shape) if isinstance(shape, str) else shape))


def _keys(ends: Mapping[str, list[str]] | None) -> list[str]:
    return [f"{node}/{name}" for node, names in (ends or {}).items() for name in names]


def _name(key: str) -> str:
    return key.split("/", 1)[1]


def _state_name(source: str, target: str) -> str:
    """The channel of a feedback wire: LEAPP calls the ends of a model's state ``h_in`` and ``h_out``."""
    stem = target.removesuffix("_in")
    return _name(stem if target != stem and source == f"{stem}_out" else target)


def _inside(folder: Path, name: str) -> Path:
    """A file of the bundle; a description may not name files elsewhere on the machine."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise BundleError(f"{name!r} lies outside the bundle {folder}")
    return folder / name
