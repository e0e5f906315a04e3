"""Messages of many topics in, the channels of a policy out.

What a message says is copied into channels only if all of it is right; a refused one is counted and the last good
values stay until they are stale. Names decide where a joint's value goes, never its place in the message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from real.core.images import ImageError
from real.core.kinematics import ToolKinematics
from real.core.readers import Refused, stamp_ns
from real.core.slots import Slot, make_slots
from real.core.sources import ChannelSource, SourceError
from real.core.staleness import digest
from robolearn.contract import Channel, Contract, ContractError
from robolearn.errors import unknown


@dataclass(frozen=True)
class Assembled:
    """The inputs of one step of a policy.

    Attributes:
        channels: every input of the contract, of its shape and dtype, in contract order.
        stamp_ns: the observation's stamp: the oldest of the messages that change all the time; 0: none is stamped.
        ages: channel → seconds since the oldest of its messages came; 0 for constants.
    """

    channels: dict[str, np.ndarray]
    stamp_ns: int
    ages: dict[str, float]


@dataclass(frozen=True)
class Missing:
    """Why there is no step now; it is false where `Assembled` is true.

    Attributes:
        reasons: channel → what is missing, in words.
    """

    reasons: dict[str, str]

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return "; ".join(f"{channel}: {reason}" for channel, reason in self.reasons.items())


class Assembler:
    """Keeps the last good message of every topic.

    Attributes:
        topics: topic → ROS type: what to subscribe to.
        refused: topic → messages refused.
        refusal: topic → why the last of them was, in words.
    """

    def __init__(
        self,
        contract: Contract,
        sources: Mapping[str, ChannelSource],
        kinematics: ToolKinematics | None = None,
    ) -> None:
        """Bind channels to sources.

        Args:
            contract: the policy's.
            sources: channel → where it comes from; those of channels that the policy does not read are not used.
            kinematics: of the robot; needed for ``tool_pose``, and tells joints in degrees.

        Raises:
            SourceError: a channel without a source, or a source that cannot fill its channel.
        """
        self.contract = contract
        self._slots: dict[str, tuple[Slot, ...]] = {}
        self._by_topic: dict[str, list[Slot]] = {}
        self.topics: dict[str, str] = {}
        for channel in contract.inputs:
            if channel.name not in sources:
                raise SourceError(f"input {channel.name!r} has no source: {unknown('source', channel.name, sources)}")
            try:
                slots = make_slots(channel, sources[channel.name], kinematics)
            except SourceError as error:
                raise SourceError(f"channel {channel.name!r}: {error}") from error
            self._slots[channel.name] = slots
            for slot in slots:
                self._bind(slot)
        self._sources = {name: sources[name] for name in self._slots}
        self.refused = dict.fromkeys(self.topics, 0)
        self.refusal: dict[str, str] = {}

    def feed(self, topic: str, message: Any, received: float) -> str:
        """Take a message.

        Args:
            topic: as the sources name it.
            message: of the type that `topics` says.
            received: when it came, monotonic s.

        Returns:
            Why it was refused; empty where it was taken.

        Raises:
            SourceError: no source has that topic.
        """
        if topic not in self._by_topic:
            raise SourceError(unknown("topic", topic, self._by_topic))
        slots = self._by_topic[topic]
        try:
            values = [slot.read(message) for slot in slots]
        except (Refused, ImageError) as error:
            self.refused[topic] += 1
            self.refusal[topic] = str(error)
            return str(error)
        stamp = stamp_ns(message)
        content = digest(message.data) if self.topics[topic].endswith("Image") else None
        for slot, value in zip(slots, values, strict=True):
            slot.value, slot.stamp_ns = value, stamp
            slot.freshness.seen(received, stamp, content)
        return ""

    def assemble(self, now: float) -> Assembled | Missing:
        """The channels as they are at monotonic time ``now``, s, or what of them is missing or stale.

        The arrays are the caller's.
        """
        reasons = {name: why for name in self._slots if (why := self._why(name, now))}
        if reasons:
            return Missing(reasons)
        channels: dict[str, np.ndarray] = {}
        for channel in self.contract.inputs:
            try:
                channels[channel.name] = _cast(channel, [slot.get() for slot in self._slots[channel.name]])
            except ContractError as error:
                reasons[channel.name] = str(error)
        if reasons:
            return Missing(reasons)
        stamps = [s.stamp_ns for name in self._slots if self._sources[name].timed for s in self._slots[name]]
        ages = {
            name: max((s.freshness.age(now) for s in slots if s.topic), default=0.0)
            for name, slots in self._slots.items()
        }
        return Assembled(channels, min((s for s in stamps if s), default=0), ages)

    def preflight(self, now: float) -> list[str]:
        """What keeps the policy from running now, one line for a person each; empty: nothing."""
        lines = []
        for name in self._slots:
            if why := self._why(name, now):
                lines.append(f"channel {name!r}: {why}")
        lines += [
            f"topic {topic!r}: {self.refused[topic]} messages refused, the last because {why}"
            for topic, why in self.refusal.items()
        ]
        return lines

    def _bind(self, slot: Slot) -> None:
        if not slot.topic:
            return
        type_name = slot.source.message_type
        if self.topics.setdefault(slot.topic, type_name) != type_name:
            raise SourceError(f"topic {slot.topic!r} cannot be both {self.topics[slot.topic]} and {type_name}")
        self._by_topic.setdefault(slot.topic, []).append(slot)

    def _why(self, name: str, now: float) -> str:
        whys = [slot.freshness.why(now) for slot in self._slots[name] if slot.topic]
        return "; ".join(why for why in whys if why)


def _cast(channel: Channel, parts: list[np.ndarray]) -> np.ndarray:
    """The parts as the channel's array, of its own memory; a value that its dtype cannot hold is a ContractError."""
    value = (parts[0] if len(parts) == 1 else np.stack(parts)).reshape(channel.shape)
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is refused below
        array = value.astype(channel.numpy_dtype)
    if channel.numpy_dtype.kind != "f" and not np.array_equal(array, value):
        raise ContractError(f"channel {channel.name!r}: a value given is no {channel.dtype}")
    return channel.check(array)
