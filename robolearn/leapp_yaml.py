"""Writing a contract as a LEAPP description; :mod:`robolearn.pipeline` has the schema and the reader."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from typing import Any

import yaml

from robolearn.bundle import FORMAT, GRAPH, digest
from robolearn.contract import Channel, Contract
from robolearn.versions import package_version

NODE = "policy"
"""Name of the one node of our pipelines."""

OPSET = 20
"""ONNX operator set of our graphs, that of LEAPP's own exports."""

LEAPP_CONFIG_VERSION = "1.3"


def describe(contract: Contract, graph: bytes, provenance: Mapping[str, Any]) -> str:
    """The text of ``bundle.yaml`` for the serialised ONNX model ``graph``; ``provenance`` is plain data."""
    inputs, outputs = tensors(contract)
    parameters = {
        "model_path": GRAPH,
        "md5sum": hashlib.md5(graph, usedforsecurity=False).hexdigest(),
        "sha256sum": hashlib.sha256(graph).hexdigest(),
        "backend": "onnx",
        "opset_version": OPSET,
    }
    ours = {
        "format": FORMAT,
        "robot": contract.robot,
        "robot_hash": contract.robot_hash,
        "delay_s": contract.delay_s,
        "task": contract.task,
        "instruction": contract.instruction,
        "provenance": provenance,
    }
    pipeline = {
        "configs": {"frequency": contract.rate_hz, "robolearn": ours},
        "data_flow": {},
        "feedback_flow": {f"{NODE}/{name}_out": [f"{NODE}/{name}_in"] for name in contract.names("state")},
        "inputs": {NODE: list(contract.names("inputs"))},
        "outputs": {NODE: list(contract.names("commands"))},
    }
    system = {
        "leapp config version": LEAPP_CONFIG_VERSION,
        "leapp version": None,  # the format is LEAPP's, the exporter is not
        "torch version": package_version("torch"),
        "python version": platform.python_version(),
        "os": platform.system(),
    }
    description = {
        "models": {NODE: {"inputs": inputs, "outputs": outputs, "parameters": parameters}},
        "pipeline": pipeline,
        "system information": system,
    }
    ours["digest"] = digest(yaml.safe_load(_dump(description)))
    return _dump(description)


def tensors(contract: Contract) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The graph's input and output tensors in order, as LEAPP describes them."""
    state_in = [_tensor(channel, f"{channel.name}_in") for channel in contract.state]
    state_out = [_tensor(channel, f"{channel.name}_out") for channel in contract.state]
    inputs = [_tensor(channel, channel.name) for channel in contract.inputs]
    commands = [_tensor(channel, channel.name) for channel in contract.commands]
    return inputs + state_in, commands + state_out


def _tensor(channel: Channel, name: str) -> dict[str, Any]:
    tensor: dict[str, Any] = {
        "name": name,
        "dtype": channel.dtype,
        "shape": [1, *channel.shape],
        "type": "tensor",
    }
    if channel.kind:
        tensor["kind"] = channel.kind
    if channel.elements:
        tensor["element_names"] = [None] * (len(channel.shape) - 1) + [list(channel.elements)]
    extra = channel.to_dict()
    return tensor | {key: extra[key] for key in ("unit", "frame", "lower", "upper") if key in extra}


def _dump(description: Mapping[str, Any]) -> str:
    return yaml.dump(description, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110)


class _Dumper(yaml.SafeDumper):
    """Writes a value that occurs twice in full, where YAML would put an anchor and an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
