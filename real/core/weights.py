"""Whether new weights may take over from those that drive now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from real.core.limits import FloatArray
from robolearn.bundle import Bundle
from robolearn.contract import Channel, Contract
from robolearn.errors import RobolearnError

JOINTS = "state/joint/position"
"""Kind of the channel that tells where the joints are."""

Inputs = Mapping[str, np.ndarray]


def refuse(candidate: Bundle, current: Contract, canaries: Sequence[Inputs], max_jump: float) -> str:
    """Why a bundle may not replace another one; empty where it may.

    Loading a bundle has held its files against their checksums; one that has none is refused. It must read and command
    what the other does, at the same rate. On every canary, each taken as a first step and all of them as one episode,
    its command must be finite, within limits, and no further than ``max_jump`` from where the joints were.

    Args:
        candidate: loaded; its recurrent state is that of a new episode afterwards.
        current: contract of the bundle that runs.
        canaries: inputs of steps that the robot has made; at least one.
        max_jump: rad or m.
    """
    if not candidate.mjcf:
        return "it has no checksums to be held against"
    if why := _differs(candidate.contract, current):
        return why
    if not canaries:
        return "there is no observation yet to try it on"
    try:
        for fresh in (True, False):
            candidate.reset()
            for canary in canaries:
                if fresh:
                    candidate.reset()
                if why := _canary(candidate, canary, max_jump):
                    return why
    except RobolearnError as error:
        return f"canary: {error}"
    finally:
        candidate.reset()
    return ""


def _differs(ours: Contract, theirs: Contract) -> str:
    for what in ("robot", "robot_hash", "rate_hz"):
        if getattr(ours, what) != getattr(theirs, what):
            return f"its {what} is {getattr(ours, what)}, not {getattr(theirs, what)}"
    for what in ("inputs", "commands"):
        mine = {channel.name: _shape(channel) for channel in getattr(ours, what)}
        other = {channel.name: _shape(channel) for channel in getattr(theirs, what)}
        if mine != other:
            named = sorted(name for name in mine | other if mine.get(name) != other.get(name))
            return f"its {what} differ: {', '.join(named)}"
    return ""


def _shape(channel: Channel) -> tuple[object, ...]:
    return channel.shape, channel.dtype, channel.kind, channel.unit, channel.elements


def _canary(candidate: Bundle, inputs: Inputs, max_jump: float) -> str:
    commands = candidate.step(inputs)
    for channel in candidate.contract.commands:
        command = np.asarray(commands[channel.name], dtype=np.float64)
        if not np.isfinite(command).all():
            return f"canary: {channel.name} is not finite"
        at = _joints(candidate.contract, inputs, channel.elements)
        first = command if command.ndim == 1 else command[0]
        if at is not None and not (np.abs(first - at) <= max_jump).all():
            worst = float(np.abs(first - at).max())
            return f"canary: {channel.name} is {worst:.3g} away from where the joints are, {max_jump:g} allowed"
    return ""


def _joints(contract: Contract, inputs: Inputs, elements: Sequence[str]) -> FloatArray | None:
    """Where ``elements`` are, as far as the inputs tell."""
    for channel in contract.inputs:
        if channel.kind == JOINTS and len(channel.shape) == 1 and set(elements) <= set(channel.elements) and elements:
            order = [channel.elements.index(element) for element in elements]
            return np.asarray(inputs[channel.name], dtype=np.float64)[order]
    return None
