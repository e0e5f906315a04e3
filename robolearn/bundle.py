"""Bundles: what training exports and a robot loads.

A bundle is a folder::

    policy.onnx    raw channels in physical units -> commands in physical units, one sample, float32
    bundle.yaml    its LEAPP description: channels, kinds, units, limits, rate; contract and provenance
    robot.xml      MJCF of the robot it was trained for

Normalisation, history, action scale and clamps are inside the graph; recurrent state goes in as ``<name>_in``
and comes out as ``<name>_out``, wired by LEAPP's ``feedback_flow`` and zero at a reset. So LEAPP's own
``InferenceManager`` runs our bundles, and :meth:`Bundle.load` runs pipelines that LEAPP exported, of any
number of ONNX nodes. What LEAPP has no field for is extra: ``unit``, ``frame``, ``lower`` and ``upper`` of a
tensor lie beside its ``kind``; robot, delay, task and provenance lie under ``pipeline.configs.robolearn``.

Loading and stepping needs numpy, onnxruntime and PyYAML. :func:`export` needs torch, imported when called.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from robolearn.contract import Contract, ContractError
from robolearn.pipeline import Arrays, BundleError, Pipeline, read_description, sha256

if TYPE_CHECKING:
    import torch

__all__ = ["Bundle", "BundleError", "PolicyError", "export"]

DESCRIPTION, GRAPH, ROBOT = "bundle.yaml", "policy.onnx", "robot.xml"
FORMAT = 1
"""Version of what lies under ``pipeline.configs.robolearn``."""


class PolicyError(BundleError):
    """A policy gave a value that no robot may execute: not finite, or outside its limits."""


class Bundle:
    """A policy ready to run: channels in, commands out, recurrent state in between.

    Attributes:
        path: the bundle's folder.
        contract: what it reads and commands.
        mjcf: the robot's MJCF text; ``""`` in a bundle of another maker.
        provenance: task, seed, commit, versions, metrics and time of its making, as far as stated.
    """

    def __init__(
        self, path: Path, contract: Contract, pipeline: Pipeline, mjcf: str, provenance: Mapping[str, Any]
    ) -> None:
        self.path = path
        self.contract = contract
        self.mjcf = mjcf
        self.provenance = dict(provenance)
        self._pipeline = pipeline
        self.reset()

    @classmethod
    def load(cls, path: str | Path, robot: str | None = None, *, threads: int = 1) -> Bundle:
        """Load a bundle, ours or any LEAPP export made of ONNX models.

        Args:
            path: the bundle's folder, or its YAML file.
            robot: the robot it is to run on, held against the one it was made for: a name, MJCF text, or the
                SHA-256 of that.
            threads: threads that onnxruntime may use.

        Raises:
            BundleError: where the bundle is missing, damaged, or for another robot.
        """
        file = _description_file(Path(path))
        description = read_description(file)
        configs = description["pipeline"]["configs"]
        ours = configs.get("robolearn") or {}
        _check_integrity(file, description, ours)
        pipeline = Pipeline(description, file, threads)
        try:
            contract = Contract(
                robot=ours.get("robot", ""),
                robot_hash=ours.get("robot_hash", ""),
                inputs=tuple(port.channel for port in pipeline.inputs.values()),
                commands=tuple(port.channel for port in pipeline.commands.values()),
                state=tuple(port.channel for port in pipeline.state.values()),
                rate_hz=configs.get("frequency") or 0.0,
                delay_s=ours.get("delay_s", 0.0),
                task=ours.get("task", ""),
                instruction=ours.get("instruction", ""),
            )
            if robot is not None:
                contract.check_robot(robot)
        except ContractError as error:
            raise BundleError(f"{file.parent}: {error}") from error
        mjcf = (file.parent / ROBOT).read_bytes().decode() if ours else ""
        return cls(file.parent, contract, pipeline, mjcf, ours.get("provenance") or {})

    @property
    def state(self) -> Arrays:
        """A copy of the recurrent state, by channel name."""
        return {name: value.copy() for name, value in self._state.items()}

    def reset(self) -> None:
        """Begin an episode: the recurrent state returns to its initial value (zero in bundles of ours)."""
        self._state = dict(self._pipeline.initial_state)

    def resume(self, state: Mapping[str, ArrayLike]) -> None:
        """Go on from a recurrent state, such as one that `state` gave.

        Raises:
            ContractError: it is not the contract's.
        """
        names = set(self.contract.names("state"))
        if set(state) != names:
            raise ContractError(f"the recurrent state is {', '.join(sorted(names)) or 'empty'}, not {sorted(state)}")
        self._state = {c.name: c.check(state[c.name]).copy() for c in self.contract.state}

    def step(self, inputs: Mapping[str, ArrayLike]) -> Arrays:
        """One step of the policy.

        Args:
            inputs: every input channel of the contract, without a batch axis, in physical units.

        Returns:
            Every command of the contract, without a batch axis, finite and within its limits.

        Raises:
            ContractError: where an input is not what the contract says; the recurrent state has not moved.
            PolicyError: where a command or the next state is not finite or outside its limits; the recurrent
                state has not moved.
        """
        commands, state = self._pipeline.run(self.contract.check_inputs(inputs), self._state)
        try:
            commands = self.contract.check_commands(commands)
            for channel in self.contract.state:
                channel.check(state[channel.name])
        except ContractError as error:
            raise PolicyError(f"the policy's output is refused: {error}") from error
        self._state = state
        return commands


def export(
    module: torch.nn.Module,
    contract: Contract,
    path: str | Path,
    *,
    mjcf: str,
    provenance: Mapping[str, Any],
    samples: Sequence[Mapping[str, np.ndarray]] = (),
) -> Path:
    """Write a policy as a bundle, and prove that the bundle is the policy.

    The folder appears whole or not at all. Before it does, the bundle is loaded and stepped beside ``module`` over
    several steps of an episode, each from ``module``'s recurrent state, and driven with extreme inputs to see that
    commands keep their limits. The same arguments give the same bytes.

    Args:
        module: ``forward(**inputs, **state)``, keyword tensors ``(B, …)`` by channel name, gives a dict of
            commands and next state under the same names. It is not modified.
        contract: its channels; every command has limits. ``robot_hash`` may be ``""`` and is then filled in.
        path: the folder; an earlier bundle there is replaced, anything else is refused.
        mjcf: the robot's MJCF text.
        provenance: where the policy comes from: ``seed``, ``commit``, ``metrics`` (numbers by name) and what
            else is plain data. ``task``, ``versions`` and ``time`` (UTC) are added where missing.
        samples: recorded inputs, one dict a step of one episode, to compare on instead of random ones.

    Returns:
        The folder.

    Raises:
        BundleError: where the module does not keep the contract, cannot be expressed in ONNX, or differs from
            its ONNX graph by more than 1e-5 (relative to values above 1; its recurrent state by 1e-3); where the
            folder cannot be written.
    """
    from robolearn.bundle_export import export_bundle

    return export_bundle(module, contract, Path(path), mjcf=mjcf, provenance=provenance, samples=samples)


def digest(description: Mapping[str, Any]) -> str:
    """SHA-256 of a description without its own digest; tells an export from one edited or damaged later."""
    pipeline = description["pipeline"]
    ours = {k: v for k, v in pipeline["configs"]["robolearn"].items() if k != "digest"}
    bare = {**description, "pipeline": {**pipeline, "configs": {**pipeline["configs"], "robolearn": ours}}}
    return hashlib.sha256(json.dumps(bare, sort_keys=True, default=str).encode()).hexdigest()


def _description_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise BundleError(f"no bundle at {path}")
    if (path / DESCRIPTION).is_file():
        return path / DESCRIPTION
    files = sorted(path.glob("*.yaml"))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "no YAML file"
        raise BundleError(f"{path} is no bundle: it needs {DESCRIPTION}, or one YAML file; it has {found}")
    return files[0]


def _check_integrity(file: Path, description: Mapping[str, Any], ours: Any) -> None:
    """Hold a bundle of ours against its own checksums; other makers record only those of their models."""
    if not ours:
        return
    if not isinstance(ours, dict) or not isinstance(ours.get("format"), int):
        raise BundleError(f"{file} is damaged: pipeline.configs.robolearn states no format")
    if ours["format"] > FORMAT:
        raise BundleError(f"{file} has format {ours['format']}; this robolearn reads up to {FORMAT}")
    if ours.get("digest") != digest(description):
        raise BundleError(f"{file} was edited or damaged after its export; export the policy again")
    if sha256(file.parent / ROBOT) != ours["robot_hash"]:
        raise BundleError(f"{file.parent / ROBOT} is damaged: its SHA-256 is not the one in {file.name}")
