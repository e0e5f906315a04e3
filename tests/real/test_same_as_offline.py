"""What runs on the robot's side gives what it gives offline: the same channels the same command, and the same pictures
the same potential."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from real.core.images import decode, fit
from real.msgs import store
from real.nodes.critic import CriticNode
from real.nodes.episode import EpisodeNode
from real.nodes.policy import PolicyNode
from real.nodes.recorder import RecorderNode
from real.nodes.recorder import settings_of as recorded
from real.nodes.safety import SafetyNode
from real.nodes.twin import TwinNode, settings_of
from real.recording.reading import episode_files, messages
from real.stack import load
from real.transport.handle import QoS
from real.transport.local import LocalBus
from robolearn.bundle import Bundle, export
from robolearn.contract import Channel, Contract
from sim.robots import get_robot
from vlm_rewards.frames import Frames
from vlm_rewards.potential import as_potential
from vlm_rewards.registry import load_critic

PANDA = get_robot("panda")


class Swing(torch.nn.Module):
    """A small policy with a memory, that looks at joints, objects and the goal."""

    def forward(
        self, joint_pos: torch.Tensor, object_poses: torch.Tensor, named: torch.Tensor, phase: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        seen = (object_poses[:, :, 0] * named).sum(1, keepdim=True)
        away = 0.05 * torch.sin(phase + seen) * torch.tensor([[1.0, 1, 1, 1, 1, 1, 1, 0]])
        lower, upper = (torch.tensor(limit, dtype=torch.float32) for limit in (PANDA.lower, PANDA.upper))
        target = torch.minimum(torch.maximum(joint_pos + away, lower), upper)
        return {"joint_pos_target": target, "phase": torch.remainder(phase + 0.2, 6.25)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    joints = tuple(PANDA.joint_names)
    contract = Contract(
        robot="panda",
        robot_hash="",
        inputs=(
            Channel("joint_pos", (8,), "rad or m", kind="state/joint/position", elements=joints),
            Channel("object_poses", (2, 7), "m+wxyz", "world", kind="state/body/pose"),
            Channel("named", (2,), elements=("first", "second")),
        ),
        commands=(
            Channel(
                "joint_pos_target",
                (8,),
                "rad or m",
                kind="target/joint/position",
                elements=joints,
                lower=tuple(PANDA.lower.tolist()),
                upper=tuple(PANDA.upper.tolist()),
            ),
        ),
        state=(Channel("phase", (1,)),),
        rate_hz=20.0,
    )
    folder = tmp_path_factory.mktemp("made") / "bundle"
    return export(Swing(), contract, folder, mjcf=PANDA.mjcf(), provenance={"seed": 0})


class Taped(Bundle):
    """A bundle that notes what it is given."""

    given: list[dict[str, np.ndarray]]

    def step(self, inputs: Any) -> Any:
        self.given.append({name: np.array(value) for name, value in inputs.items()})
        return super().step(inputs)


def test_channels_of_the_policy_node_give_the_bundle_the_same_commands_offline(bundle: Path) -> None:
    given = {"bundle": str(bundle), "twin.rendering": "none", "episode.auto_start": True, "episode.episodes": 1}
    stack, bus = load("panda_twin", {**given, "episode.time_out_s": 2.0, "episode.judge": "operator"}), LocalBus()
    chunks: list[Any] = []
    kind = "trajectory_msgs/msg/JointTrajectory"
    bus.node("ear").subscribe("policy/action_chunk", kind, lambda m, _: chunks.append(m), QoS(depth=64))
    TwinNode(bus.node("twin"), settings_of(stack))
    SafetyNode(bus.node("safety"), stack)
    policy = PolicyNode(bus.node("policy"), stack)
    policy.bundle.__class__, policy.bundle.given = Taped, []  # type: ignore[attr-defined]
    episode = EpisodeNode(bus.node("episode"), stack)
    assert bus.run_until(lambda: episode.finished, 60.0)
    taped = policy.bundle.given  # type: ignore[attr-defined]
    assert len(taped) == len(chunks) >= 35
    offline = Bundle.load(bundle)
    for channels, chunk in zip(taped, chunks, strict=True):
        [command] = offline.step(channels).values()
        sent = dict(zip(chunk.joint_names, chunk.points[0].positions, strict=True))
        np.testing.assert_allclose([sent[name] for name in PANDA.joint_names], command, atol=1e-5)
    spread = np.ptp([chunk.points[0].positions for chunk in chunks], axis=0)
    assert spread[:7].min() > 0.05  # it moved, and not by one command for all


def test_potentials_on_recorded_pictures_are_those_of_the_critic_node(tmp_path: Path) -> None:
    given = {"critic": "random_init", "critic.cameras": ["front"], "critic.rate_hz": 10.0, "record": str(tmp_path)}
    given |= {"twin.rendering": "inline", "twin.cameras": ["front"], "twin.width": 160, "twin.height": 120}
    given |= {"twin.camera_rate_hz": 15.0, "recorder.min_free_mb": 0, "episode.judge": "operator"}
    stack, bus = load("panda_twin", {**given, "instruction": "push the red cube to the pad"}), LocalBus()
    twin = TwinNode(bus.node("twin"), settings_of(stack))
    SafetyNode(bus.node("safety"), stack)
    recorder = RecorderNode(bus.node("recorder"), recorded(stack))
    CriticNode(bus.node("critic"), stack)
    EpisodeNode(bus.node("episode"), stack)
    operator = bus.node("operator")
    request = operator.publisher("episode/request", "std_msgs/msg/String")
    for word in ("start", "success"):
        bus.run(2.0)
        request.publish(store().new("std_msgs/msg/String", data=word))
    bus.run(2.0)
    recorder.close()
    twin.close()
    [path] = episode_files(tmp_path)
    pictures, answers, words = {}, [], ""
    for item in messages(path):
        message = store().deserialize(item.data, item.type)
        if item.type == "sensor_msgs/msg/Image":
            pictures[store().ns(message.header.stamp)] = fit(decode(message), 96, 96, "crop")
        elif item.topic == "/critic/value":
            row = message.interface_values[0]
            values = dict(zip(row.interface_names, row.values.tolist(), strict=True))
            answers.append((store().ns(message.header.stamp), values))
        elif item.topic == "/episode/instruction":
            words = message.data
    assert len(answers) >= 10 and words and all(values["valid"] for _, values in answers)
    critic = load_critic("random_init")
    potential = as_potential(critic, online=True)
    ask = potential.begin
    for stamp, values in answers:
        rgb = torch.from_numpy(pictures[stamp][None, None].copy())
        frames = Frames.now(rgb, ("front",), torch.tensor([1e-9 * stamp], dtype=torch.float64))
        offline = ask(torch.zeros(1, dtype=torch.long), frames, [words])
        assert float(offline.values[0]) == pytest.approx(values["progress"], abs=1e-6)
        assert float(critic.done(frames, [words]).values[0]) == pytest.approx(values["p_done"], abs=1e-6)
        ask = potential.read
    assert len({values["p_done"] for _, values in answers}) > 5  # noisy pictures are not all one answer
