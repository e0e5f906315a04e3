"""Stacks: what runs on one robot, read from one YAML file by the nodes, `robolearn real up` and the launch files.

A stack is found by name (a file of `real/stacks`) or by path. Every key has a default but `name` and `robot.model`;
unknown keys are refused. `load("panda_twin", {"safety.rate_hz": 100})` sets single keys.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from real.core.sources import ChannelSource, SourceError
from real.errors import StackError
from real.stack_schema import build, plain, setting, typed
from real.stack_sections import (
    CameraSection,
    ControllerSection,
    CriticSection,
    EpisodeSection,
    LimitsSection,
    PolicySection,
    RecorderSection,
    RobotSection,
    SafetySection,
    TeleopSection,
)
from robolearn.contract import Contract
from robolearn.errors import unknown

FOLDER = Path(__file__).with_name("stacks")
SHORT = {
    "bundle": "policy.bundle",
    "critic": "critic.critic",
    "task": "episode.task",
    "episodes": "episode.episodes",
    "instruction": "episode.instruction",
    "record": "recorder.folder",
}
"""Settings that go by a short name wherever a stack is overridden. The task is also the twin's."""


@dataclass(frozen=True)
class Stack:
    """Everything that the nodes of one robot need to know.

    Attributes:
        path: the file it was read from.
    """

    name: str = setting()
    robot: RobotSection = setting()
    namespace: str = "/"
    transport: str = setting("auto", choices=("auto", "dds", "ros"))
    domain: int | None = setting(None, at_least=0, at_most=232)
    distro: str | None = setting(None, choices=("humble", "jazzy", "kilted"))
    channels: Mapping[str, Mapping[str, Any]] = setting({})
    cameras: Mapping[str, CameraSection] = setting({})
    controllers: tuple[ControllerSection, ...] = ()
    limits: LimitsSection = LimitsSection()
    safety: SafetySection = SafetySection()
    policy: PolicySection = PolicySection()
    teleop: TeleopSection = TeleopSection()
    critic: CriticSection = CriticSection()
    episode: EpisodeSection = EpisodeSection()
    recorder: RecorderSection = RecorderSection()
    twin: Mapping[str, Any] | None = None
    path: Path = field(default=Path(), init=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"/?([A-Za-z_]\w*(/[A-Za-z_]\w*)*)?", self.namespace):
            raise ValueError(f"namespace is a name of ROS 2, such as /left, not {self.namespace!r}")
        self._check_channels()
        self._check_controllers()
        self._check_cameras()

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes that `robolearn real up` starts, in order; teleop is started by a person."""
        wanted = {
            "twin": self.twin is not None,
            "safety": True,
            "recorder": bool(self.recorder.folder),
            "critic": bool(self.critic.critic),
            "policy": bool(self.policy.bundle),
            "episode": True,
        }
        return tuple(name for name, needed in wanted.items() if needed)

    def sources(self, contract: Contract | None = None) -> dict[str, ChannelSource]:
        """Channel -> where it comes from.

        With a contract, joint sources get the driver's names of the joints, where `RobotSection.driver_names` gives
        others, and channels that the contract does not read are left out.
        """
        sources = {name: ChannelSource.from_dict(source) for name, source in self.channels.items()}
        if contract is None:
            return sources
        read = {channel.name: channel for channel in contract.inputs}
        return {name: self._named(source, read[name].elements) for name, source in sources.items() if name in read}

    def driver_name(self, joint: str) -> str:
        """What the driver calls a joint."""
        return self.robot.driver_names.get(joint, joint)

    def _named(self, source: ChannelSource, elements: tuple[str, ...]) -> ChannelSource:
        if source.joints or source.kind != "joint_states" or not self.robot.driver_names:
            return source
        return dataclasses.replace(source, joints=tuple(self.driver_name(joint) for joint in elements))

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back, defaults included."""
        return dict(plain(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], path: Path = Path()) -> Stack:
        """A stack from plain data. Raises StackError for an unknown or missing key or a value that cannot be."""
        stack = build(cls, data)
        object.__setattr__(stack, "path", path)
        return stack

    def _check_channels(self) -> None:
        for name, source in self.channels.items():
            try:
                ChannelSource.from_dict(source)
            except SourceError as error:
                raise ValueError(f"channels.{name}: {error}") from error

    def _check_controllers(self) -> None:
        seen: set[str] = set()
        for i, controller in enumerate(self.controllers):
            where = f"controllers[{i}]"
            if not controller.joints:
                raise ValueError(f"{where}.joints names no joint")
            for joint in controller.joints:
                if joint in seen:
                    raise ValueError(f"{where}: joint {joint!r} is commanded twice")
                seen.add(joint)
        topics = [controller.topic for controller in self.controllers]
        if len(set(topics)) < len(topics):
            raise ValueError(f"two controllers share the topic {max(topics, key=topics.count)!r}")

    def _check_cameras(self) -> None:
        wanted = {"safety.require_cameras": self.safety.require_cameras, "critic.cameras": self.critic.cameras}
        for where, names in wanted.items():
            for name in names:
                if name not in self.cameras:
                    raise ValueError(f"{where}: {unknown('camera', name, self.cameras)}")


def names() -> list[str]:
    """Names of the stacks that are shipped."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> Stack:
    """Read a stack.

    Args:
        name_or_path: one of `names`, or a path that ends in .yaml or .yml.
        overrides: dotted key -> value, such as ``{"safety.rate_hz": 100, "bundle": "runs/a/bundle"}``; see `SHORT`.
            A relative path among them counts from the working folder.

    Raises:
        StackError: no such stack, a file that is no YAML, an unknown key, or a value that cannot be.
    """
    path = _find(str(name_or_path))
    data = _read(path)
    for key, value in (overrides or {}).items():
        _set(data, SHORT.get(key, key), value)
        if SHORT.get(key, key) == SHORT["task"] and isinstance(data.get("twin"), dict):
            data["twin"]["task"] = value  # the twin is a world of that task
    try:
        stack = Stack.from_dict(data, path)
    except StackError as error:
        raise StackError(f"stack {path.stem}: {error}") from error
    return stack


def section_keys(section: str) -> tuple[str, ...]:
    """Keys of a node's section; none where it has no section of its own or takes any key."""
    hint = {item.name: item for item in dataclasses.fields(Stack)}.get(section)
    made = hint.default if hint is not None else None
    return tuple(item.name for item in dataclasses.fields(made)) if dataclasses.is_dataclass(made) else ()


def _find(given: str) -> Path:
    if given.endswith((".yaml", ".yml")):
        path = Path(given)
        if not path.is_file():
            raise StackError(f"no stack file at {path}")
        return path.resolve()
    if given not in names():
        raise StackError(f"{unknown('stack', given, names())}; or give the path of a .yaml file")
    return FOLDER / f"{given}.yaml"


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StackError(f"{path} is no YAML: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise StackError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(data, dict):
        raise StackError(f"{path} is no stack: it holds {type(data).__name__}, not keys with values")
    _from_file(data.get("robot"), "model", path.parent, only=(".xml", ".mjcf"))
    _from_file(data.get("policy"), "bundle", path.parent)
    return data


def _from_file(section: Any, key: str, folder: Path, only: tuple[str, ...] = ("",)) -> None:
    """Let a relative path of a stack file count from that file, wherever it is read."""
    if isinstance(section, dict) and isinstance(section.get(key), str) and section[key].endswith(only) and section[key]:
        section[key] = str(folder / section[key])


def _set(data: dict[str, Any], dotted: str, value: Any) -> None:
    value = typed(Stack, dotted, value)
    *sections, key = dotted.split(".")
    for name in sections:
        inner = data.get(name)
        data[name] = dict(inner) if isinstance(inner, Mapping) else {}
        data = data[name]
    data[key] = value
