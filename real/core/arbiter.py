"""Who commands the robot: the state machine of the safety node.

`Arbiter.update` is called once a control cycle with everything that is known, and makes at most one transition::

    INIT -> HOLD <-> POLICY -> HUMAN -> HOLD        HOLD -> RESET -> HOLD
    any -> FAULT (latched)       any -> ESTOP (latched)

It leaves HOLD for POLICY only on an explicit request, and a fault or an e-stop only on "clear". It never asks for the
motors' torque to be cut: in every mode without a source the robot is held where it was commanded last. It is software
and not safety-rated: a hardware e-stop is required beside it.
"""

from __future__ import annotations

from collections.abc import Callable

from real.core.modes import LATCHED, REQUESTS, ArbiterSettings, Decision, Inputs, Mode, Source
from robolearn.errors import did_you_mean

__all__ = ["LATCHED", "REQUESTS", "Arbiter", "ArbiterSettings", "Decision", "Inputs", "Mode", "Source"]

_Step = tuple[Mode, str]


class Arbiter:
    """The state machine. Pure: all it knows comes with `update`.

    Attributes:
        mode: the current mode.
        why: why, in words.
        unknown_requests: requests that are none of `REQUESTS`.
        refused_requests: requests that could not be granted when they came.
    """

    def __init__(self, settings: ArbiterSettings | None = None) -> None:
        self.settings = settings or ArbiterSettings()
        self.mode = Mode.INIT
        self.why = "waiting for joint states"
        self.unknown_requests = 0
        self.refused_requests = 0
        self._bad: tuple[tuple[float, int], ...] = ()
        self._joints_seen = 0.0
        self._entered = 0.0
        self._deadman_spent = False
        self._had_target = False
        self._took_over_from_policy = False
        self._give_back = False

    def update(self, inputs: Inputs) -> Decision:
        """One control cycle; at most one transition."""
        spent_before = self._deadman_spent
        self._note(inputs)
        known = self._known(inputs.requests)
        granted, step = "", self._must(inputs)
        if step is None and "hold" in known:
            step = self._hold(inputs)
            granted = "hold" if step is not None else ""
        if step is None:
            step = self._steps[self.mode](self, inputs, spent_before)
        if step is None:
            for request in dict.fromkeys(r for r in known if r != "hold"):
                step = self._grant(request, inputs)
                if step is not None:
                    granted = request
                    break
        refusals = [self._refuse(r, inputs) for r in dict.fromkeys(known) if r != granted]
        unknown = [_unknown(r) for r in inputs.requests if r not in REQUESTS]
        changed = step is not None and step[0] != self.mode
        reasons = (step[1],) if step is not None and changed else ()
        if step is not None and changed:
            self._enter(step[0], step[1], inputs)
        return Decision(
            mode=self.mode,
            source=self._source(inputs),
            reasons=(*reasons, *refusals, *unknown),
            why=self.why,
            changed=changed,
            flush=changed and self.mode != Mode.POLICY,
        )

    def _note(self, inputs: Inputs) -> None:
        """Remember what later cycles depend on."""
        if inputs.joints_fresh:
            self._joints_seen = inputs.now
        if inputs.bad_commands > 0:
            self._bad += ((inputs.now, inputs.bad_commands),)
        if self._bad:
            self._bad = tuple(b for b in self._bad if inputs.now - b[0] <= self.settings.bad_window_s)
        # A switch held since before the robot could follow it, or by a teleoperator that went silent, takes over only
        # after it was let go: nobody may find the robot moving because of a stuck button.
        if not inputs.deadman:
            self._deadman_spent = False
        elif not inputs.human_fresh or self.mode in (Mode.INIT, *LATCHED):
            self._deadman_spent = True
        if self.mode == Mode.POLICY and inputs.has_target:
            self._had_target = True

    def _known(self, requests: tuple[str, ...]) -> list[str]:
        known = [r for r in requests if r in REQUESTS]
        self.unknown_requests += len(requests) - len(known)
        return known

    def _must(self, inputs: Inputs) -> _Step | None:
        """What no request and no mode can put off."""
        if self.mode == Mode.ESTOP:
            return None
        if inputs.estop:
            return Mode.ESTOP, "e-stop pressed"
        if self.mode == Mode.FAULT:
            return None
        bad = sum(count for _, count in self._bad)
        if inputs.publishers > 1:
            return Mode.FAULT, f"{inputs.publishers} publishers on the robot's command topics; only safety may be one"
        if bad >= self.settings.max_bad_commands:
            return Mode.FAULT, f"{bad} bad commands within {self.settings.bad_window_s:g} s"
        stale_s = inputs.now - self._joints_seen
        if self.mode != Mode.INIT and not inputs.joints_fresh and stale_s > self.settings.joints_fault_s:
            return Mode.FAULT, f"no joint states for {stale_s:.2f} s"
        return None

    def _hold(self, inputs: Inputs) -> _Step | None:
        if self.mode in (Mode.INIT, *LATCHED):
            return None
        # The one who asked to hold must not be overruled by a switch still held.
        self._deadman_spent = self._deadman_spent or inputs.deadman
        self._give_back = False
        return Mode.HOLD, "asked to hold"

    def _in_init(self, inputs: Inputs, _spent: bool) -> _Step | None:
        return (Mode.HOLD, "joint states arrive") if inputs.joints_fresh else None

    def _in_hold(self, inputs: Inputs, _spent: bool) -> _Step | None:
        give_back, self._give_back = self._give_back, False
        if (step := self._takeover(inputs)) is not None:
            return step
        if give_back and not inputs.requests and not self._unready(inputs):
            return Mode.POLICY, "deadman released: back to the policy"
        return None

    def _in_policy(self, inputs: Inputs, spent: bool) -> _Step | None:
        if (step := self._takeover(inputs)) is not None:
            return step
        if not inputs.joints_fresh:
            return Mode.HOLD, "joint states are stale"
        if not inputs.cameras_fresh:
            return Mode.HOLD, "a required camera is stale"
        if inputs.deadman and not inputs.human_fresh and not spent:
            return Mode.HOLD, "deadman held, but the teleoperator's messages are too old"
        if inputs.has_target:
            return None
        if not inputs.policy_fresh:
            return Mode.HOLD, "the policy is silent and its chunk has ended"
        if self._had_target:
            return Mode.HOLD, "the policy is late: its chunk has ended"
        if inputs.now - self._entered > self.settings.first_target_s:
            return Mode.HOLD, f"the policy gave no chunk within {self.settings.first_target_s:g} s"
        return None

    def _in_human(self, inputs: Inputs, _spent: bool) -> _Step | None:
        if not inputs.human_fresh:
            return Mode.HOLD, "the teleoperator's messages are too old"
        if not inputs.deadman:
            self._give_back = self.settings.auto_rearm and self._took_over_from_policy
            return Mode.HOLD, "deadman released"
        if not inputs.joints_fresh:
            return Mode.HOLD, "joint states are stale"
        return None

    def _in_reset(self, inputs: Inputs, _spent: bool) -> _Step | None:
        if (step := self._takeover(inputs)) is not None:
            return step
        if not inputs.joints_fresh:
            return Mode.HOLD, "joint states are stale"
        return (Mode.HOLD, "reset done") if inputs.reset_done else None

    def _latched(self, _inputs: Inputs, _spent: bool) -> _Step | None:
        return None

    _steps: dict[Mode, Callable[[Arbiter, Inputs, bool], _Step | None]] = {
        Mode.INIT: _in_init,
        Mode.HOLD: _in_hold,
        Mode.POLICY: _in_policy,
        Mode.HUMAN: _in_human,
        Mode.RESET: _in_reset,
        Mode.FAULT: _latched,
        Mode.ESTOP: _latched,
    }

    def _takeover(self, inputs: Inputs) -> _Step | None:
        if inputs.deadman and inputs.human_fresh and inputs.joints_fresh and not self._deadman_spent:
            return Mode.HUMAN, "deadman held"
        return None

    def _grant(self, request: str, inputs: Inputs) -> _Step | None:
        if self._obstacle(request, inputs):
            return None
        target = {"arm": Mode.POLICY, "reset": Mode.RESET, "clear": Mode.HOLD}[request]
        return target, f"asked to {request}"

    def _obstacle(self, request: str, inputs: Inputs) -> str:
        """Why a request cannot be granted now; empty where it can."""
        if request == "hold":
            return (
                f"the robot is held already: the mode is {self.mode.name}" if self.mode in (Mode.INIT, *LATCHED) else ""
            )
        if request == "clear":
            return self._unclearable(inputs)
        if self.mode != Mode.HOLD:
            return f"the mode is {self.mode.name}, not HOLD"
        if request == "arm":
            return self._unready(inputs)
        return "" if inputs.joints_fresh else "joint states are stale"

    def _unclearable(self, inputs: Inputs) -> str:
        if self.mode not in LATCHED:
            return f"the mode is {self.mode.name}: nothing to clear"
        if inputs.estop:
            return "the e-stop is still pressed"
        if not inputs.joints_fresh:
            return "joint states are stale"
        return "another node publishes commands to the robot" if inputs.publishers > 1 else ""

    def _unready(self, inputs: Inputs) -> str:
        """Why the policy may not take over now; empty where it may."""
        for ready, why in (
            (inputs.joints_fresh, "joint states are stale"),
            (inputs.cameras_fresh, "a required camera is stale"),
            (inputs.policy_fresh, "no heartbeat of the policy"),
            (inputs.aligned, "the policy's first target is far from where the robot is"),
            (not (inputs.deadman and inputs.human_fresh), "the deadman is held"),
        ):
            if not ready:
                return why
        return ""

    def _refuse(self, request: str, inputs: Inputs) -> str:
        """Count a request that was not granted, and say why. Called before the mode changes."""
        obstacle = self._obstacle(request, inputs)
        self.refused_requests += 1
        return f"{request!r} refused: {obstacle or 'something more urgent came in the same cycle'}"

    def _enter(self, mode: Mode, why: str, inputs: Inputs) -> None:
        if mode == Mode.HUMAN:
            self._took_over_from_policy = self.mode == Mode.POLICY
        if self.mode in LATCHED and mode == Mode.HOLD:
            self._bad = ()
        if mode != Mode.HOLD or self.mode != Mode.HUMAN:
            self._give_back = False
        self._had_target = False
        self._entered = inputs.now
        self.mode, self.why = mode, why

    def _source(self, inputs: Inputs) -> Source:
        if self.mode == Mode.POLICY:
            return Source.POLICY if inputs.has_target else Source.NONE
        return {Mode.HUMAN: Source.HUMAN, Mode.RESET: Source.RESET}.get(self.mode, Source.NONE)


def _unknown(request: str) -> str:
    # A request is a string off the wire: only its beginning is worth a line of a log.
    return f"unknown request {request[:40]!r}; {did_you_mean(request[:40], REQUESTS)}requests: {', '.join(REQUESTS)}"
