"""The words of the arbiter: modes, requests, what it is told and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Mode(IntEnum):
    """What the safety node does; the numbers are those on the wire."""

    INIT = 0
    HOLD = 1
    POLICY = 2
    HUMAN = 3
    RESET = 4
    FAULT = 5
    ESTOP = 6


class Source(IntEnum):
    """Whose targets the limiter follows; NONE: stop and stay. The numbers are those on the wire."""

    NONE = 0
    POLICY = 1
    HUMAN = 2
    RESET = 3


REQUESTS = ("arm", "hold", "reset", "clear")
"""What may be asked for."""
LATCHED = (Mode.FAULT, Mode.ESTOP)
"""Modes that only "clear" ends."""


@dataclass(frozen=True)
class ArbiterSettings:
    """Limits of the arbiter's patience.

    Attributes:
        max_bad_commands: refused commands within ``bad_window_s`` seconds that latch a fault.
        bad_window_s: s.
        joints_fault_s: how long joint states may be stale before it is a fault, s.
        first_target_s: how long a policy just armed may take to its first target, s.
        auto_rearm: a deadman that took over from the policy and is released gives back to the policy, if everything
            that "arm" needs is there in the next cycle. One that expired never does.
    """

    max_bad_commands: int = 10
    bad_window_s: float = 5.0
    joints_fault_s: float = 1.0
    first_target_s: float = 1.0
    auto_rearm: bool = False


@dataclass(frozen=True)
class Inputs:
    """What is known in one control cycle.

    Attributes:
        now: monotonic time, s.
        joints_fresh: joint states arrive.
        policy_fresh: the policy's heartbeat arrives.
        cameras_fresh: every required camera's pictures arrive and change; true where none is required.
        has_target: the chunk buffer has a place for the joints to be now.
        deadman: the teleoperator's last word on its deadman switch, whatever its age.
        human_fresh: that word and the teleoperator's command are both new enough.
        requests: what was asked since the last cycle, of `REQUESTS`.
        estop: an e-stop is pressed, or was since the last cycle.
        bad_commands: commands refused since the last cycle.
        aligned: the policy's first target, where there is one, is near where the robot is commanded.
        publishers: how many publish to the robot's command topics, this node included.
        reset_done: the motion begun with the last entry to RESET has arrived.
    """

    now: float
    joints_fresh: bool = False
    policy_fresh: bool = False
    cameras_fresh: bool = True
    has_target: bool = False
    deadman: bool = False
    human_fresh: bool = False
    requests: tuple[str, ...] = ()
    estop: bool = False
    bad_commands: int = 0
    aligned: bool = True
    publishers: int = 1
    reset_done: bool = False


@dataclass(frozen=True)
class Decision:
    """What to do in this cycle.

    Attributes:
        mode: the mode from now on.
        source: whose targets to follow; NONE in every mode means to stop within limits and stay there, powered.
        reasons: what happened in this cycle, in words: why the mode changed, which requests were refused.
        why: why the mode is what it is, in words; stays until it changes.
        changed: the mode is another than before.
        flush: drop every chunk that is buffered: with every entry to a mode other than POLICY.
    """

    mode: Mode
    source: Source
    reasons: tuple[str, ...]
    why: str
    changed: bool
    flush: bool
