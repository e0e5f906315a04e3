"""The DDS domain that the environment asks for: its id, and which machines it may find."""

from __future__ import annotations

import os
from collections.abc import Mapping
from xml.sax.saxutils import quoteattr

from real.errors import TransportError
from robolearn.errors import unknown

RANGES = ("OFF", "LOCALHOST", "SUBNET", "SYSTEM_DEFAULT")
_MOST_PARTICIPANTS = 32
"""Processes of one machine that find each other without multicast; ROS 2 uses the same number."""
_RECEIVE = '<Internal><SocketReceiveBufferSize max="8MiB"/></Internal>'
"""Two 640×480 cameras at 30 Hz lose 8% of their images in Cyclone's own 1 MiB. The system may grant less."""
_LARGE = "<MaxMessageSize>65500B</MaxMessageSize><FragmentSize>65000B</FragmentSize>"
"""Loopback carries the largest UDP packets whole: an image costs 15 of them, not 700, and a third of the time."""


def domain_id(domain: int | str | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """The domain id: as given, else ``ROS_DOMAIN_ID``, else 0.

    Raises:
        TransportError: it is no whole number from 0 to 232, the last whose UDP ports exist.
    """
    given: int | str = environment.get("ROS_DOMAIN_ID", "").strip() or 0 if domain is None else domain
    try:
        number = int(given)
    except ValueError:
        number = -1
    if not 0 <= number <= 232:
        whence = "ROS_DOMAIN_ID" if domain is None else "domain"
        raise TransportError(f"{whence} is {given!r}; it must be a whole number from 0 to 232")
    return number


def discovery_range(environment: Mapping[str, str] = os.environ) -> str:
    """One of `RANGES` from ``ROS_LOCALHOST_ONLY`` and ``ROS_AUTOMATIC_DISCOVERY_RANGE``; SUBNET where neither is set.

    Raises:
        TransportError: a value that ROS 2 does not know.
    """
    only = environment.get("ROS_LOCALHOST_ONLY", "").strip()
    if only not in ("", "0", "1"):
        raise TransportError(f"ROS_LOCALHOST_ONLY is {only!r}; it must be 0 or 1")
    if only == "1":
        return "LOCALHOST"
    value = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").strip().upper() or "SUBNET"
    if value not in RANGES:
        raise TransportError("ROS_AUTOMATIC_DISCOVERY_RANGE: " + unknown("discovery range", value, RANGES))
    return value


def configuration(environment: Mapping[str, str] = os.environ) -> str:
    """Cyclone DDS's configuration for the environment's discovery range; ``CYCLONEDDS_URI`` comes last and wins.

    Raises:
        TransportError: a variable has an impossible value.
    """
    reach = discovery_range(environment)
    peers = [p for p in environment.get("ROS_STATIC_PEERS", "").split(";") if p.strip()]
    general, discovery = "", ""
    if reach == "OFF":
        general = "<AllowMulticast>false</AllowMulticast>"
        discovery = f"<ParticipantIndex>none</ParticipantIndex><Tag>ros_discovery_off_{os.getpid()}</Tag>"
    elif reach != "SYSTEM_DEFAULT":
        discovery = (
            "<ParticipantIndex>auto</ParticipantIndex>"
            f"<MaxAutoParticipantIndex>{_MOST_PARTICIPANTS}</MaxAutoParticipantIndex>"
        )
        if reach == "LOCALHOST":
            peers.insert(0, "localhost")
            general = (
                '<Interfaces><NetworkInterface name="lo" multicast="false"/></Interfaces>'
                f"<AllowMulticast>false</AllowMulticast>{_LARGE}"
            )
        if peers:
            listed = "".join(f"<Peer address={quoteattr(p.strip())}/>" for p in peers)
            discovery += f"<Peers>{listed}</Peers>"
    parts = [
        f'<CycloneDDS><Domain Id="any"><General>{general}</General>'
        f"<Discovery>{discovery}</Discovery>{_RECEIVE}</Domain></CycloneDDS>"
    ]
    if own := environment.get("CYCLONEDDS_URI", "").strip():
        parts.append(own)
    whole = ",".join(parts)
    if not whole.isascii():
        raise TransportError("CYCLONEDDS_URI and ROS_STATIC_PEERS may hold ASCII only, which Cyclone DDS reads")
    return whole
