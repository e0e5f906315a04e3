"""Writing bundles: the half of :mod:`robolearn.bundle` that needs torch.

The graph is made by ``torch.onnx`` (its ``torch.export`` path) for one sample, stripped of source locations,
and described in LEAPP's YAML. It then has to prove itself: see :func:`_verify`.
"""

from __future__ import annotations

import contextlib
import copy
import io
import keyword
import logging
import platform
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from robolearn.bundle import DESCRIPTION, GRAPH, ROBOT, Bundle, BundleError, PolicyError
from robolearn.contract import Channel, Contract, ContractError, robot_hash
from robolearn.errors import did_you_mean
from robolearn.files import sync_folder, to_json, write_atomic
from robolearn.leapp_yaml import NODE, OPSET, describe, tensors
from robolearn.pipeline import Arrays
from robolearn.versions import git_commit, package_version

TOLERANCE = 1e-5
"""Largest difference between a policy's commands and its bundle's: absolute up to 1, relative above."""
STATE_TOLERANCE = 1e-3
"""The same for its recurrent state, which holds what commands are made of before they are scaled and clamped."""

_STEPS, _EXTREME = 8, 1e4
_PACKAGES = ("robolearn", "torch", "onnx", "onnxruntime", "numpy", "mujoco")

logger = logging.getLogger(__name__)


def export_bundle(
    module: torch.nn.Module,
    contract: Contract,
    path: Path,
    *,
    mjcf: str,
    provenance: Mapping[str, Any],
    samples: Sequence[Mapping[str, np.ndarray]],
) -> Path:
    """See :func:`robolearn.bundle.export`."""
    contract = _exportable(contract, mjcf)
    path = path.expanduser().resolve()
    _refuse_foreign_folder(path)
    provenance = _complete(provenance, contract)
    policy = _Policy(copy.deepcopy(module).to("cpu").eval(), contract)
    policy.check()
    rng = np.random.default_rng(0)
    episode = list(samples) or [_random_inputs(contract, rng) for _ in range(_STEPS)]
    extremes = [_random_inputs(contract, rng, scale=_EXTREME) for _ in range(_STEPS)]

    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    try:
        new.mkdir(parents=True)  # before the slow part, which is in vain where nothing can be written
        graph = _to_onnx(policy)
        write_atomic(new / GRAPH, graph)
        write_atomic(new / ROBOT, mjcf.encode())
        write_atomic(new / DESCRIPTION, describe(contract, graph, provenance).encode())
        _verify(Bundle.load(new, mjcf), policy, episode, extremes)
        _put_in_place(new, path)
        sync_folder(path.parent)
    except OSError as error:
        raise BundleError(f"cannot write the bundle {path}: {error.strerror}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return path


class _Policy(torch.nn.Module):
    """A module with its contract: positional tensors in contract order, as ``torch.onnx`` wants them."""

    def __init__(self, module: torch.nn.Module, contract: Contract) -> None:
        super().__init__()
        self.module = module
        self.contract = contract
        self.given = (*contract.names("inputs"), *contract.names("state"))
        self.gives = (*contract.names("commands"), *contract.names("state"))

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = self.module(**dict(zip(self.given, tensors, strict=True)))
        return tuple(results[name] for name in self.gives)

    def zeros(self) -> tuple[torch.Tensor, ...]:
        """Example tensors of one sample."""
        channels = map(self.contract.channel, self.given)
        return tuple(torch.zeros((1, *c.shape), dtype=getattr(torch, c.dtype)) for c in channels)

    def check(self) -> None:
        """Refuse a module whose results are not the commands and state of its contract."""
        with torch.no_grad():
            results = self.module(**dict(zip(self.given, self.zeros(), strict=True)))
        if not isinstance(results, Mapping):
            raise BundleError(f"the module returns {type(results).__name__}, a dict of tensors by channel is needed")
        for name in self.gives:
            if name not in results:
                raise BundleError(
                    f"the module returns no {name!r}; {did_you_mean(name, results)}"
                    f"it returns: {', '.join(sorted(results)) or 'nothing'}"
                )
            channel, tensor = self.contract.channel(name), results[name]
            shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
            if shape != (1, *channel.shape) or dtype != channel.dtype:
                raise BundleError(
                    f"the module returns {name!r} as {dtype} {shape}, "
                    f"the contract says {channel.dtype} {(1, *channel.shape)}"
                )
        for name in results:
            if name not in self.gives:
                raise BundleError(
                    f"the module returns {name!r}, which is no command or state of the contract; "
                    f"{did_you_mean(name, self.gives)}it has: {', '.join(self.gives)}"
                )

    @torch.no_grad()
    def step(self, inputs: Mapping[str, np.ndarray], state: Arrays) -> tuple[Arrays, Arrays]:
        """One step in torch; arrays without a batch axis, as :class:`Bundle` has them."""
        values = {**inputs, **state}
        results = self(*(torch.from_numpy(np.array(values[name])[None]) for name in self.given))
        arrays = {name: tensor[0].numpy() for name, tensor in zip(self.gives, results, strict=True)}
        return arrays, {name: arrays.pop(name) for name in self.contract.names("state")}


def _exportable(contract: Contract, mjcf: str) -> Contract:
    """The contract with its robot's hash, or BundleError where it says too little for a robot to rely on."""
    for channel in contract.inputs + contract.commands + contract.state:
        if not channel.name.isidentifier() or keyword.iskeyword(channel.name):
            raise BundleError(f"channel {channel.name!r} cannot be exported: its name is no Python identifier")
    for channel in contract.commands:
        if channel.lower is None or channel.upper is None:
            raise BundleError(f"command {channel.name!r} has no limits in the contract")
    names = [tensor["name"] for side in tensors(contract) for tensor in side]
    for name in names:
        if names.count(name) > 1:
            raise BundleError(f"two tensors of the graph would be called {name!r}; rename a channel")
    if not contract.robot or not contract.rate_hz:
        raise BundleError("a contract to be exported names its robot and states its rate")
    if contract.robot_hash not in ("", robot_hash(mjcf)):
        raise BundleError(f"the MJCF given is not that of robot {contract.robot!r} in the contract")
    return replace(contract, robot_hash=robot_hash(mjcf))


def _to_onnx(policy: _Policy) -> bytes:
    """The policy as a serialised ONNX model of one sample."""
    inputs, outputs = tensors(policy.contract)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                policy,
                policy.zeros(),
                dynamo=True,
                input_names=[tensor["name"] for tensor in inputs],
                output_names=[tensor["name"] for tensor in outputs],
                opset_version=OPSET,
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
    except Exception as error:  # torch.export raises whatever it meets, deep inside
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BundleError(f"the module cannot be expressed in ONNX: {reason}") from error
    _strip(model.graph)
    model.graph.name = NODE
    return model.SerializeToString(deterministic=True)


def _strip(graph: onnx.GraphProto) -> None:
    """Remove what only a debugger needs: stack traces name files of the machine that trained."""
    del graph.metadata_props[:], graph.value_info[:]
    for value in (*graph.input, *graph.output, *graph.initializer):
        del value.metadata_props[:]
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    _strip(inner)


def _complete(provenance: Mapping[str, Any], contract: Contract) -> dict[str, Any]:
    """Provenance as plain data, with what is known here added where the caller did not say it."""
    known = {
        "task": contract.task,
        "commit": git_commit()[0],
        "versions": {
            "python": platform.python_version(),
            **{name: package_version(name) for name in _PACKAGES},
        },
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    complete = {**known, **to_json(provenance)}
    metrics = complete.get("metrics", {})
    if not isinstance(metrics, dict):
        raise BundleError(f"provenance: metrics are numbers by name, not {metrics!r}")
    for name, value in metrics.items():
        if not isinstance(value, (int, float, type(None))):  # None stands for a number that is not finite
            raise BundleError(f"provenance: metric {name!r} is {value!r}, not a number")
    return complete


def _random_inputs(contract: Contract, rng: np.random.Generator, scale: float = 1.0) -> Arrays:
    return {channel.name: _random(channel, rng, scale) for channel in contract.inputs}


def _random(channel: Channel, rng: np.random.Generator, scale: float) -> np.ndarray:
    dtype = channel.numpy_dtype
    if dtype.kind == "f":
        lower, upper = channel.limits
        if scale == 1.0 and np.isfinite(lower).all() and np.isfinite(upper).all():
            return rng.uniform(lower, upper, channel.shape).astype(dtype)
        largest = float(np.finfo(dtype).max)
        return np.clip(scale * rng.standard_normal(channel.shape), -largest, largest).astype(dtype)
    return rng.integers(0, 2 if dtype.kind == "b" else 128, channel.shape).astype(dtype)


def _verify(
    bundle: Bundle, policy: _Policy, episode: Sequence[Mapping[str, np.ndarray]], extremes: list[Arrays]
) -> None:
    """Step the bundle, as a robot would, beside the policy, each step from the policy's recurrent state.

    Raises:
        BundleError: where a command differs by more than :data:`TOLERANCE` or the next state by more than
            :data:`STATE_TOLERANCE`, or where extreme inputs give a command outside its limits.
    """
    state = policy.contract.initial_state()
    for number, inputs in enumerate(episode):
        bundle.resume(state)  # a robot's state would be its own; differences that feed on themselves say little
        results = {**_step(bundle, inputs, "sample inputs"), **bundle.state}
        commands, state = policy.step(inputs, state)
        for name, expected in {**commands, **state}.items():
            error = np.abs(results[name].astype(np.float64) - expected) / np.maximum(np.abs(expected), 1)
            allowed = TOLERANCE if name in commands else STATE_TOLERANCE
            if not error.max() <= allowed:  # written so that NaN fails too
                raise BundleError(
                    f"the ONNX graph is not the policy: {name!r} differs by {error.max():.1e} "
                    f"at step {number}, more than {allowed:.0e}"
                )
    bundle.reset()
    for inputs in extremes:
        _step(bundle, inputs, "extreme inputs")


def _step(bundle: Bundle, inputs: Mapping[str, np.ndarray], occasion: str) -> Arrays:
    try:
        return bundle.step(inputs)
    except PolicyError as error:
        raise BundleError(f"{occasion}: {error}; clamp commands, and keep NaN out, inside the module") from error
    except ContractError as error:
        raise BundleError(f"{occasion}: {error}") from error


def _refuse_foreign_folder(path: Path) -> None:
    """A folder may be replaced where it is empty or holds a bundle of ours and nothing else."""
    if not path.exists():
        return
    if not path.is_dir():
        raise BundleError(f"{path} exists and is no bundle; choose another path")
    files = {file.name for file in path.iterdir()}
    others = sorted(files - {DESCRIPTION, GRAPH, ROBOT})
    if others or (files and DESCRIPTION not in files):
        raise BundleError(
            f"{path} exists and is no bundle (it holds {(others or sorted(files))[0]}); choose another path"
        )


def _put_in_place(new: Path, path: Path) -> None:
    """Rename ``new`` to ``path``; an earlier bundle there is moved aside, and comes back if that fails."""
    if not path.exists():
        new.rename(path)
        return
    old = new.with_suffix(".old")
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and advice off the terminal; what it prints goes to our debug log."""
    printed = io.StringIO()
    torch_logger = logging.getLogger("torch.onnx")
    level = torch_logger.level
    torch_logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch_logger.setLevel(level)
        logger.debug("torch.onnx: %s", printed.getvalue())
