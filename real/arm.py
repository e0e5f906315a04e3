"""An arm, or its twin, as the one world of an `sim.env.Env`.

It takes the policy's place in a stack: it proposes commands to the safety node, in real time, and reads the channels
that the drivers publish. What a simulation can do with physics (write its state, vary its model) it cannot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from real.arm_channels import VELOCITIES, make_assembler, velocities
from real.arm_link import ArmLink
from real.arm_reset import ArmWorldError, Layout, Operator, Resetter
from real.core.assembler import Assembled, Missing
from real.core.limits import FloatArray
from real.core.modes import Mode
from real.msgs import store
from real.stack import Stack
from real.stack_robot import open_robot
from real.transport.handle import LATCHED, NodeHandle, QoS
from robolearn.contract import Channel, robot_hash
from sim.physics import PhysicsError
from sim.selection import Selection
from sim.world import Shard

__all__ = ["ArmWorld", "ArmWorldError", "Drove", "Layout"]

_SENSORS = QoS(depth=10, reliable=False)
_ARM_S = 2.0
"""How long the safety node may take to arm."""
_AGAIN_S = 0.2
_FRESH_S = 2.0
"""How long drivers may take to deliver every channel after a reset."""


@dataclass(frozen=True, eq=False)
class Drove:
    """Who drove the last step.

    Attributes:
        human: share of the step in which a person did, 0 to 1.
        start, end: (J,) rad or m, what the arm was commanded at its begin and at its end.
    """

    human: float
    start: FloatArray
    end: FloatArray


class RobotModel:
    """What stands in the place of a physics engine: a model to ask about, and nothing that can be written."""

    def __init__(self, model: Any) -> None:
        self.model, self.nworld, self.device = model, 1, torch.device("cpu")

    def __getattr__(self, name: str) -> Any:
        raise PhysicsError(f"an arm is no simulation: it has no {name!r}")


class ArmWorld:
    """See above; offers what `sim.world.World` does, with one world.

    Args:
        handle: an open node; in the stack's graph nobody else may be the policy.
        stack: the robot, its channels, and the sections ``policy`` and ``episode``.
        channels: what is read: the measured channels of a task.
        timestep: s of one of the steps that `step` counts.
        task: what a twin draws scenes of.
        operator: see `real.arm_reset.Operator`.
        patience: ``motion_s`` and ``operator_s`` of `real.arm_reset.Resetter`, where not its defaults.

    Attributes:
        drove: of the last `step`.
        late: steps that began more than a step late.
        fresh: nothing was commanded since the last `lay_out`.

    Raises:
        StackError: a robot that does not fit.
        SourceError: a channel that the stack does not say how to fill.
    """

    num_worlds = 1
    device = torch.device("cpu")
    dense = False

    def __init__(
        self,
        handle: NodeHandle,
        stack: Stack,
        channels: Sequence[Channel],
        timestep: float,
        task: str = "",
        operator: Operator | None = None,
        patience: Mapping[str, float] | None = None,
    ) -> None:
        messages, robot = store(stack.distro), open_robot(stack)
        self.timestep, self.joints, self._channels = timestep, robot.joints, tuple(channels)
        self.robot_hash = robot_hash(robot.mjcf)
        self.shards = (Shard(RobotModel(robot.model), 0, 1, robot.name),)
        self._link = ArmLink(handle, messages, robot.joints)
        self._resetter = Resetter(self._link, stack, task, robot.home, robot.joints, operator, **dict(patience or {}))
        self._assembler = make_assembler(stack, self._channels, robot)
        sources = stack.sources(self._assembler.contract)
        self._timed = {name for name, source in sources.items() if source.timed}
        self._max_age_s = stack.policy.max_age_s
        self._listen(handle, stack)
        self._command: FloatArray = np.full(len(robot.joints), np.nan)
        self._inputs: Assembled | None = None
        self._seen_at = -math.inf
        self._values: dict[str, torch.Tensor] = {}
        self._deadline = -math.inf
        self._reason = ""
        self._arming: float | None = None
        self._asked = -math.inf
        self.drove = Drove(0.0, self._command, self._command)
        self.late, self.fresh = 0, False

    def read(self, keep: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Channels as they were at the end of the last step or reset, name → (1, ...) float32."""
        return dict(self._values)

    def read_written(self) -> dict[str, torch.Tensor]:
        """What `read` gives."""
        return self.read()

    def command(self, ctrl: torch.Tensor) -> None:
        """Where the joints are to be at the end of the next `step`, (1, J) rad or m.

        Raises:
            ArmWorldError: not finite, or of another shape.
        """
        position = ctrl.detach().double().numpy().reshape(-1)
        if position.shape != self._command.shape or not np.isfinite(position).all():
            raise ArmWorldError(f"a command is (1, {len(self._command)}) finite numbers, not {tuple(ctrl.shape)}")
        self._command = position.copy()

    def step(self, nstep: int) -> None:
        """Propose the command and let ``nstep`` times `timestep` seconds pass, counted from the end of the last step.

        A step that begins later than a whole step is counted in `late` and not made up for. Whatever keeps the policy
        from driving makes the world `unusable`, but for a person's takeover, which the step goes on through.
        """
        link, period = self._link, nstep * self.timestep
        link.spin(link.now)
        link.count()
        start = link.limited.copy()
        if self._arming is not None:  # the caller's pause is not the safety node's
            self._arming = link.now
        if not self._reason and link.spin(link.now + 2 * _ARM_S, self._settled) and not self._reason:
            self._advance(period)
        self.drove = Drove(link.humans / max(link.told, 1), start, link.limited.copy())

    def lay_out(self, seed: int) -> Layout:
        """Bring arm and table to the start of an episode, and wait until every channel is there.

        Raises:
            ArmWorldError: what did not happen in time.
        """
        layout = self._resetter(seed)
        self._reason, self._arming, self.fresh = "", self._link.now, True
        self._deadline = -math.inf
        self.look()
        return layout

    def look(self) -> None:
        """Bring the channels up to date, waiting a little for those that are missing.

        Raises:
            ArmWorldError: they stay so.
        """
        link, got = self._link, list[Assembled | Missing]()

        def complete() -> bool:
            got[:] = [self._look_now()]
            return bool(got[0])

        if not link.spin(link.now + _FRESH_S, complete):
            raise ArmWorldError(f"no whole observation within {_FRESH_S:g} s: {got[0] if got else 'nothing came'}")
        assert isinstance(got[0], Assembled)
        self._show(got[0])

    def reset(self, select: Selection) -> None:
        """Nothing: the goal process has had the arm laid out, see `lay_out`."""

    def write(self, select: Selection, state: Mapping[str, torch.Tensor]) -> None:
        """Nothing: the arm stands where it was driven."""

    def forward(self, select: Selection) -> None:
        """Nothing: channels are measured."""

    def split(self, select: Selection) -> Sequence[tuple[Shard, Selection, slice]]:
        """As of a `sim.world.World`."""
        return [(self.shards[0], select, slice(0, 1))] if len(select) else []

    def vary(self, name: str) -> Any:
        """Raises PhysicsError: a robot's physics is what it is."""
        raise PhysicsError(f"an arm is no simulation: {name!r} cannot be varied")

    def unusable(self) -> torch.Tensor:
        """(1,) bool: something other than the policy and a person drives or stops the arm, or channels are missing."""
        return torch.tensor([bool(self._reason)])

    def reasons(self, select: Selection) -> list[str]:
        """Why, a short text."""
        return [self._reason] * len(select)

    def check(self) -> None:
        """At the end of a rollout, which may be followed by a pause: hold the arm; the next step arms again."""
        if self._link.mode == Mode.POLICY and not self._reason:
            self._link.ask("hold")
            self._link.spin(self._link.now + _ARM_S, lambda: self._link.mode != Mode.POLICY)
            self._arming = self._link.now

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the state of a robot cannot be kept."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The episode under way is lost."""
        self._fail("the state of an arm cannot be restored")

    def _listen(self, handle: NodeHandle, stack: Stack) -> None:
        sources = stack.sources(self._assembler.contract)
        latched = {topic for source in sources.values() if source.latched for topic in source.topics}
        for topic, kind in self._assembler.topics.items():
            handle.subscribe(topic, kind, self._feeder(topic), LATCHED if topic in latched else _SENSORS)

    def _feeder(self, topic: str) -> Any:
        return lambda message, received: self._assembler.feed(topic, message, received.monotonic)

    def _advance(self, period: float) -> None:
        link = self._link
        now = link.now
        if now - self._deadline > period:
            self.late += math.isfinite(self._deadline)
            self._deadline = now
        self._deadline += period
        self.fresh = False
        if link.mode == Mode.POLICY:
            seen = self._look_now() if now - self._seen_at > period else self._inputs
            stamp = seen.stamp_ns if isinstance(seen, Assembled) else 0  # what is long gone dates no command
            link.send(self._command, self._deadline - now, stamp)
        link.spin(self._deadline, lambda: bool(self._heed()))
        if self._reason:
            return
        inputs = self._look_now()
        self._show(inputs) if isinstance(inputs, Assembled) else self._fail(str(inputs))

    def _settled(self) -> bool:
        """Whether the step can go on: the policy or a person drives, or nobody ever will."""
        return bool(self._heed()) or self._link.mode in (Mode.POLICY, Mode.HUMAN)

    def _heed(self) -> str:
        """What the safety node's mode means for the episode; the reason where it ends it."""
        link, now = self._link, self._link.now
        if self._reason:
            return self._reason
        if link.silent:
            self._fail("the safety node is not heard")
        elif link.mode == Mode.POLICY:
            self._arming = None
        elif link.mode == Mode.HUMAN:
            self._arming = now
        elif link.mode != Mode.HOLD:
            self._fail(f"the safety node is in {link.mode.name}")
        elif link.held:
            self._fail("somebody asked to hold")
        elif self._arming is None:
            self._fail("the arm is held")
        elif now - self._arming > _ARM_S:
            self._fail("the safety node does not arm the policy")
        elif now - self._asked > _AGAIN_S:
            self._asked = now
            link.beat()
            link.spin(now + 0.02)  # another topic: the session shall be known before the request
            link.ask("arm")
        return self._reason

    def _fail(self, reason: str) -> None:
        """End the episode; the arm is held."""
        link = self._link
        self._reason = reason
        if link.mode == Mode.POLICY:
            link.ask("hold")
        link.spin(link.now + 0.05)  # the safety node's reason comes after its mode
        if link.mode not in (Mode.POLICY, Mode.HUMAN):
            self._reason = f"{reason} ({link.mode.name}: {link.why})"

    def _look_now(self) -> Assembled | Missing:
        inputs = self._assembler.assemble(self._link.now)
        if isinstance(inputs, Missing):
            return inputs
        old = {name: age for name, age in inputs.ages.items() if name in self._timed and age > self._max_age_s}
        return Missing({name: f"{age:.2f} s old" for name, age in old.items()}) if old else inputs

    def _show(self, inputs: Assembled) -> None:
        now, before = self._link.now, self._inputs
        values = dict(inputs.channels)
        for name, poses in VELOCITIES.items():
            if name not in values and any(channel.name == name for channel in self._channels):
                last = values[poses] if before is None or self.fresh else before.channels[poses]
                values[name] = velocities(last, values[poses], max(now - self._seen_at, 1e-3))
        self._inputs, self._seen_at = inputs, now
        self._values = {name: torch.as_tensor(np.array(v, np.float32))[None] for name, v in values.items()}
