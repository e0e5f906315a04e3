"""What a node on rclpy needs that is not the node: finding rclpy, and its words for QoS and endpoints."""

from __future__ import annotations

import importlib
from typing import Any

from real.errors import TransportError
from real.transport.arguments import RosArguments
from real.transport.handle import Endpoint, QoS
from real.transport.names import check_namespace, join


def policies(qos: QoS) -> dict[str, Any]:
    """`QoS` by the names of rclpy's policies. Raises TransportError for a history of nothing."""
    if qos.depth < 1:
        raise TransportError(f"the depth of a history is {qos.depth}; it must be 1 or more")
    return {
        "history": "KEEP_LAST",
        "depth": qos.depth,
        "reliability": "RELIABLE" if qos.reliable else "BEST_EFFORT",
        "durability": "TRANSIENT_LOCAL" if qos.transient_local else "VOLATILE",
    }


def qos_of(depth: int, reliability: str, durability: str) -> QoS:
    """The inverse of `policies`."""
    return QoS(depth=depth, reliable=reliability == "RELIABLE", transient_local=durability == "TRANSIENT_LOCAL")


def endpoint(info: Any, topic: str) -> Endpoint:
    """rclpy's TopicEndpointInfo as an `Endpoint`."""
    unknown_node = not info.node_name or "UNKNOWN" in info.node_name
    profile = info.qos_profile
    return Endpoint(
        node="" if unknown_node else join(check_namespace(info.node_namespace), info.node_name),
        topic=topic,
        type=info.topic_type,
        gid=bytes(info.endpoint_gid).hex(),
        qos=qos_of(profile.depth, profile.reliability.name, profile.durability.name),
    )


def initialisation(arguments: RosArguments) -> list[str]:
    """What `rclpy.init` is to be given; names, remaps and parameters are resolved already."""
    levels = [f"{logger}:={level}" for logger, level in arguments.log_levels.items()]
    levels += [arguments.log_level] if arguments.log_level else []
    found = [word for level in levels for word in ("--log-level", level)]
    found += ["--enclave", arguments.enclave] if arguments.enclave != "/" else []
    return ["--ros-args", *found] if found else []


def load(name: str) -> Any:
    """A module of a ROS 2 installation.

    Raises:
        TransportError: there is none, or it does not work.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise TransportError(f"ROS 2 is sourced but broken: {name} needs {error.name}, which is missing") from error
        raise TransportError(
            f"transport 'ros' needs {error.name}, which this Python does not find; source ROS 2 first "
            "(source /opt/ros/<distro>/setup.bash) or use transport 'dds'"
        ) from error
    except Exception as error:  # An installation for another Python or machine fails in ways of its own.
        raise TransportError(
            f"ROS 2 is sourced but broken: importing {name} fails with {type(error).__name__}: {one_line(error)}"
        ) from error


def interface(type: str) -> Any:
    """rclpy's class for a type such as ``sensor_msgs/msg/JointState``. Raises TransportError where it is not there."""
    package, kind, name = type.split("/")
    found = getattr(load(f"{package}.{kind}"), name, None)
    if found is None:
        raise TransportError(f"this ROS 2 installation has no {type}")
    return found


def one_line(error: Exception) -> str:
    """An exception's text without line breaks."""
    return " ".join(str(error).split())
