"""Faults of a simulated network, drawn from seeded generators: the same seed gives the same faults."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from real.errors import TransportError
from real.transport.virtual_clock import nanoseconds

EVERYWHERE = "*"


@dataclass(frozen=True)
class Copy:
    """One copy of a message under way.

    Attributes:
        data: its CDR, perhaps corrupted.
        late_ns: added to the latency.
        ordered: it arrives behind the messages that its publisher sent earlier; else it may overtake them.
    """

    data: bytes
    late_ns: int = 0
    ordered: bool = True


Effect = Callable[[list[Copy], Random], list[Copy]]
"""What a fault makes of the copies of a message; the very list it got where it left them alone."""

_ORDER = ("cut", "drop", "corrupt", "delay", "reorder", "duplicate")


@dataclass(frozen=True)
class _Rule:
    kind: str
    effect: Effect
    random: Random


class Faults:
    """What happens to messages between their publisher and everybody who subscribes to it.

    Every fault takes a full topic name, or ``"*"`` for all topics, and acts on messages of the node ``publisher``
    (full name) or of all nodes. Setting a fault again replaces it; a share of 0 ends it. All faults that fit a
    message act on it, whether it is reliable or not: they stand for whatever a network, a driver or a restarted
    process may do. A lost message is lost for all its subscribers; a latched one is not sent again after `heal`.

    Attributes:
        counts: (kind, topic) → messages that the fault acted on, such as ``counts["drop", "/joint_states"]``.
    """

    def __init__(self, seed: int = 0) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._seed = seed
        self._rules: dict[tuple[str, str, str], _Rule] = {}
        self._fitting: dict[tuple[str, str], list[_Rule]] = {}

    def drop(self, topic: str, share: float, publisher: str | None = None) -> None:
        """Lose a share in [0, 1] of the messages."""
        _check_share(share)
        self._set("drop", topic, publisher, lambda copies, random: [] if random.random() < share else copies)

    def duplicate(self, topic: str, share: float, delay_s: float = 0.0, publisher: str | None = None) -> None:
        """Deliver a share in [0, 1] of the messages twice, the second time ``delay_s`` seconds later."""
        _check_share(share)
        late = nanoseconds(delay_s, "the delay of a duplicate")

        def effect(copies: list[Copy], random: Random) -> list[Copy]:
            if random.random() >= share:
                return copies
            return copies + [Copy(copy.data, copy.late_ns + late, ordered=False) for copy in copies]

        self._set("duplicate", topic, publisher, effect)

    def delay(self, topic: str, delay_s: float, jitter_s: float = 0.0, publisher: str | None = None) -> None:
        """Deliver messages later, in their order: ``delay_s`` plus a uniform draw from [0, ``jitter_s``), seconds."""
        late, jitter = nanoseconds(delay_s, "a delay"), nanoseconds(jitter_s, "a delay's jitter")

        def effect(copies: list[Copy], random: Random) -> list[Copy]:
            extra = late + int(random.random() * jitter)
            return [Copy(copy.data, copy.late_ns + extra, copy.ordered) for copy in copies]

        self._set("delay", topic, publisher, effect)

    def reorder(self, topic: str, share: float, by_s: float, publisher: str | None = None) -> None:
        """Hold a share in [0, 1] of the messages back by ``by_s`` seconds while later ones overtake them."""
        _check_share(share)
        late = nanoseconds(by_s, "the delay of a reordered message")

        def effect(copies: list[Copy], random: Random) -> list[Copy]:
            if random.random() >= share:
                return copies
            return [Copy(copy.data, copy.late_ns + late, ordered=False) for copy in copies]

        self._set("reorder", topic, publisher, effect)

    def corrupt(self, topic: str, share: float, publisher: str | None = None) -> None:
        """Flip bits of, or cut short, the CDR of a share in [0, 1] of the messages."""
        _check_share(share)

        def effect(copies: list[Copy], random: Random) -> list[Copy]:
            if random.random() >= share:
                return copies
            return [Copy(_mangle(copy.data, random), copy.late_ns, copy.ordered) for copy in copies]

        self._set("corrupt", topic, publisher, effect)

    def cut(self, topic: str, publisher: str | None = None) -> None:
        """Lose every message until `heal`."""
        self._set("cut", topic, publisher, lambda copies, random: [])

    def heal(self, topic: str, publisher: str | None = None) -> None:
        """End the `cut` with the same arguments. Raises TransportError where there is none."""
        key = ("cut", topic, publisher or EVERYWHERE)
        if key not in self._rules:
            raise TransportError(f"nothing to heal: {topic!r} of {publisher or 'all nodes'} is not cut")
        del self._rules[key]
        self._fitting.clear()

    def clear(self) -> None:
        """End all faults; `counts` stays."""
        self._rules.clear()
        self._fitting.clear()

    def apply(self, topic: str, publisher: str, data: bytes) -> list[Copy]:
        """The copies of a message that are under way once the faults have acted on it; none where it is lost."""
        copies = [Copy(data)]
        if not self._rules:
            return copies
        rules = self._fitting.get((topic, publisher))
        if rules is None:
            rules = self._fitting[topic, publisher] = self._find(topic, publisher)
        for rule in rules:
            changed = rule.effect(copies, rule.random)
            if changed is not copies:
                self.counts[rule.kind, topic] += 1
            if not changed:
                return []
            copies = changed
        return copies

    def _find(self, topic: str, publisher: str) -> list[_Rule]:
        fitting = [
            rule
            for (_, where, who), rule in self._rules.items()
            if where in (topic, EVERYWHERE) and who in (publisher, EVERYWHERE)
        ]
        return sorted(fitting, key=lambda rule: _ORDER.index(rule.kind))

    def _set(self, kind: str, topic: str, publisher: str | None, effect: Effect) -> None:
        for name, what in ((topic, "topic"), (publisher, "publishing node")):
            if name is not None and name != EVERYWHERE and not name.startswith("/"):
                raise TransportError(f"a fault takes the full name of a {what}, such as {'/' + name!r}, not {name!r}")
        who = publisher or EVERYWHERE
        self._rules[kind, topic, who] = _Rule(kind, effect, Random(f"{self._seed} {kind} {topic} {who}"))
        self._fitting.clear()


def _check_share(share: float) -> None:
    if not math.isfinite(share) or not 0 <= share <= 1:
        raise TransportError(f"a share of messages is a number from 0 to 1, not {share!r}")


def _mangle(data: bytes, random: Random) -> bytes:
    """Other bytes than ``data``: cut short at a random place, or with one to eight bits flipped."""
    if not data:
        return b"\0"
    if random.random() < 0.5:
        return data[: random.randrange(len(data))]
    changed = bytearray(data)
    bits = random.sample(range(8 * len(data)), random.randint(1, 8))
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
