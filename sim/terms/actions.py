"""Action decoders: from a policy's action to a command, and back to zero."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from robolearn.contract import Channel
from sim.channels import Channels


@dataclass
class ResidualTracking:
    """Residual accumulated on a reference (DexTrack, arXiv 2502.09614, released code).

    residual ← clamp(leak·residual + scale·dt·a, ±cap);  command = clamp(reference[t+1] + residual, limits)

    With leak 1 and infinite caps this is the published form. A leak below 1 forgets old corrections, which keeps
    fingers from drifting; caps bound how far the command may leave the reference.

    Attributes:
        command: channel of joint targets with limits, (J,).
        scale: (J,) rad/s or m/s per unit of action.
        cap: (J,) rad or m, on the same device.
        leak: share of the residual kept each step.
        dt: control step, s.
    """

    command: Channel
    scale: torch.Tensor
    cap: torch.Tensor
    leak: float
    dt: float
    num_actions: int = field(init=False)
    state: tuple[Channel, ...] = field(init=False)

    def __post_init__(self) -> None:
        shape, elements = self.command.shape, self.command.elements
        self.num_actions = shape[0]
        self.state = (
            Channel("residual", shape, self.command.unit, elements=elements),
            Channel("last_action", shape, "1", elements=elements),
        )
        self._gain = self.scale * self.dt
        self._lower = torch.as_tensor(self.command.lower, dtype=torch.float32, device=self.scale.device)
        self._upper = torch.as_tensor(self.command.upper, dtype=torch.float32, device=self.scale.device)

    def decode(self, c: Channels, action: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Command (N, J) and next state from ``reference_joint_pos`` and ``residual``."""
        residual = torch.clamp(self.leak * c["residual"] + self._gain * action, -self.cap, self.cap)
        command = torch.clamp(c["reference_joint_pos"][:, 1] + residual, self._lower, self._upper)
        return command, {"residual": residual, "last_action": action}

    def action_for(self, residual: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The action (N, J) that takes the residual (N, J) to ``target`` (N, J) in one step."""
        return (target - self.leak * residual) / self._gain


@dataclass
class JointPositionTargets:
    """Joint targets around a pose, and a gait clock: command = clamp(pose + a·gain, limits).

    The clock is the decoder's own state, so that a robot walks in the time that the policy learnt, with nothing to
    deliver it.

    Attributes:
        command: channel of joint targets with limits, (J,).
        pose: the channel (N, J), rad, that a zero action commands.
        scale: (J,) rad per unit of action.
        controlled: (A,) ids of the joints that the action moves; the others follow the pose.
        clock_hz: gait cycles per second.
        dt: control step, s.
    """

    command: Channel
    pose: str
    scale: torch.Tensor
    controlled: tuple[int, ...]
    clock_hz: float
    dt: float
    num_actions: int = field(init=False)
    state: tuple[Channel, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.num_actions = len(self.controlled)
        names = tuple(self.command.elements[j] for j in self.controlled)
        self.state = (
            Channel("last_action", (self.num_actions,), "1", elements=names),
            Channel("action_change", (self.num_actions,), "1", elements=names),
            Channel("last_target", self.command.shape, self.command.unit, elements=self.command.elements),
            Channel("gait_phase", (1,), "cycle"),
        )
        self._gain = torch.diag(self.scale)[list(self.controlled)]
        self._lower = torch.as_tensor(self.command.lower, dtype=torch.float32, device=self.scale.device)
        self._upper = torch.as_tensor(self.command.upper, dtype=torch.float32, device=self.scale.device)

    def decode(self, c: Channels, action: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Command (N, J) and next state, the phase in [0, 1)."""
        command = torch.clamp(c[self.pose] + action @ self._gain, self._lower, self._upper)
        phase = c["gait_phase"] + self.clock_hz * self.dt
        state = {
            "last_action": action,
            "action_change": action - c["last_action"],
            "last_target": command,
            "gait_phase": phase - torch.floor(phase),
        }
        return command, state

    def action_for(self, c: Channels, target: torch.Tensor) -> torch.Tensor:
        """The action (N, A) whose command is ``target`` (N, J), where that can be reached."""
        return ((target - c[self.pose]) / self.scale)[:, list(self.controlled)]
