"""Open a node on the transport that is there: ROS 2's own client library, else embedded DDS."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence

from real.errors import TransportError
from real.msgs import MessageStore
from real.msgs import store as message_store
from real.transport.arguments import RosArguments, parse_ros_args
from real.transport.handle import NodeHandle
from robolearn.errors import unknown

TRANSPORTS = ("auto", "ros", "dds")


def open_node(
    name: str,
    *,
    namespace: str = "/",
    transport: str = "auto",
    args: Sequence[str] = (),
    domain: int | None = None,
    distro: str | None = None,
    store: MessageStore | None = None,
) -> NodeHandle:
    """A node of the ROS 2 graph.

    Args:
        name, namespace: before what ``args`` remaps.
        transport: ``"ros"``: rclpy; ``"dds"``: embedded DDS; ``"auto"``: rclpy where it is sourced and works, else DDS.
        args: like ``sys.argv[1:]``; what ``--ros-args`` begins is read, the rest ignored.
        domain: DDS domain id; None: ``ROS_DOMAIN_ID``, else 0.
        distro, store: whose messages; None: as `real.msgs.store` chooses.

    Raises:
        TransportError: an unknown transport, bad arguments, or a transport that cannot be opened.
    """
    if transport not in TRANSPORTS:
        raise TransportError(unknown("transport", transport, TRANSPORTS))
    arguments = parse_ros_args(args)
    messages = store or message_store(distro)
    if transport == "ros" or (transport == "auto" and importlib.util.find_spec("rclpy") is not None):
        try:
            return _ros(name, namespace, arguments, domain, messages)
        except TransportError as error:
            if transport == "ros":
                raise
            warnings.warn(f"{error}; using embedded DDS instead", stacklevel=2)
    return _dds(name, namespace, arguments, domain, messages)


def _ros(name: str, namespace: str, arguments: RosArguments, domain: int | None, store: MessageStore) -> NodeHandle:
    from real.transport.ros import RosNode

    return RosNode(name, namespace=namespace, arguments=arguments, domain=domain, store=store)


def _dds(name: str, namespace: str, arguments: RosArguments, domain: int | None, store: MessageStore) -> NodeHandle:
    try:
        from real.transport.dds import DDSNode
    except ImportError as error:
        raise TransportError(
            f"embedded DDS is missing ({error}); install it with: pip install 'robolearn[real]'"
        ) from error
    from real.transport.dds_config import domain_id
    from real.transport.names import check_namespace, join

    own, base = arguments.remaps.identity(check_namespace(namespace), name)
    return DDSNode(
        name,
        namespace=namespace,
        store=store,
        domain=domain_id(domain),
        remaps=arguments.remaps,
        parameters=arguments.parameters(join(own, base)),
        enclave=arguments.enclave,
    )
