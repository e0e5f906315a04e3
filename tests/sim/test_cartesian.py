"""Actions that move an arm's tool: where it goes in a simulation, what a zero action does, and the exported graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from robolearn.bundle import Bundle, export
from robolearn.contract import Channel, Contract
from sim.channels import Channels
from sim.robots import get_robot
from sim.terms.cartesian import ToolTargets, ToolTargetsError
from sim.terms.landmarks import arm_landmarks

ROBOT = get_robot("panda")
LANDMARKS = arm_landmarks(ROBOT)
LOWER, UPPER = (0.3, -0.3, 0.02), (0.65, 0.3, 0.4)
DT = 0.05


def targets(**settings: Any) -> ToolTargets:
    return ToolTargets(ROBOT, **{"scale": 0.02, "lower": LOWER, "upper": UPPER, "dt": DT, **settings})


def blank(decoder: ToolTargets, count: int) -> dict[str, torch.Tensor]:
    return {c.name: torch.zeros(count, *c.shape) for c in decoder.state}


def decode(
    decoder: ToolTargets, joint_pos: torch.Tensor, state: dict[str, torch.Tensor], action: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return decoder.decode(Channels({"joint_pos": joint_pos, **state}, LANDMARKS), action)


def home(count: int = 1) -> torch.Tensor:
    return torch.tensor(ROBOT.home.copy()).float().expand(count, -1)


class Arm:
    """A decoder that drives the arm in MuJoCo."""

    def __init__(self, decoder: ToolTargets, start: np.ndarray | None = None) -> None:
        self.decoder, self.state = decoder, blank(decoder, 1)
        self.model = ROBOT.spec().compile()
        self.data = mujoco.MjData(self.model)
        self.data.ctrl[:] = ROBOT.home if start is None else start
        self.data.qpos[:] = [*self.data.ctrl, self.data.ctrl[7]]
        mujoco.mj_kinematics(self.model, self.data)

    @property
    def tool(self) -> np.ndarray:
        return self.data.site("tool").xpos.copy()

    @property
    def target(self) -> np.ndarray:
        return self.state["tool_target"][0].numpy()

    def step(self, *action: float) -> np.ndarray:
        joints = torch.tensor(self.data.qpos[:8]).float()[None]
        command, self.state = decode(self.decoder, joints, self.state, torch.tensor([action]).float())
        self.data.ctrl[:] = command[0].numpy()
        mujoco.mj_step(self.model, self.data, 10)
        mujoco.mj_kinematics(self.model, self.data)
        return self.data.ctrl.copy()


def test_the_landmarks_of_an_arm_are_mujocos() -> None:
    arm = Arm(targets())
    arm.data.qpos[:8] = np.random.default_rng(0).uniform(ROBOT.lower, ROBOT.upper)
    mujoco.mj_kinematics(arm.model, arm.data)
    c = Channels({"joint_pos": torch.tensor(arm.data.qpos[None, :8]).float()}, LANDMARKS)
    np.testing.assert_allclose(c["tool_pos"][0], arm.tool, atol=2e-6)
    np.testing.assert_allclose(c["tool_rotation"][0].ravel(), arm.data.site("tool").xmat, atol=2e-6)


def test_the_tool_follows_fifty_random_actions_from_random_places() -> None:
    decoder, rng = targets(gripper=True), np.random.default_rng(0)
    places = torch.tensor(rng.uniform(LOWER, UPPER, (10, 3))).float()
    starts = decoder.solve(decoder.arm.rest.expand(10, -1), places)
    for place, start in zip(places, starts, strict=True):
        arm = Arm(decoder, np.append(start.numpy(), 0.02))
        np.testing.assert_allclose(arm.tool, place, atol=1e-3)
        action = rng.uniform(-1, 1, 4)
        moved = 0.0
        for step in range(50):
            action = rng.uniform(-1, 1, 4) if step % 5 == 0 else action
            arm.step(*action)
            moved = max(moved, float(np.abs(arm.target - place.numpy()).max()))
            assert (arm.target >= np.float32(LOWER)).all() and (arm.target <= np.float32(UPPER)).all()
            assert np.linalg.norm(arm.tool - arm.target) < 0.06, "on the way"
        for _ in range(15):
            arm.step(0, 0, 0, action[3])
        assert moved > 0.05
        assert np.linalg.norm(arm.tool - arm.target) < 0.002
        np.testing.assert_allclose(arm.data.site("tool").xmat.reshape(3, 3), np.diag([1, -1, -1]), atol=5e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_zero_action_holds_the_tool_where_the_episode_began(seed: int) -> None:
    decoder = targets()
    place = torch.tensor(np.random.default_rng(seed).uniform(LOWER, UPPER)).float()[None]
    start = decoder.solve(decoder.arm.rest[None], place)[0].numpy()
    arm = Arm(decoder, np.append(start, 0.0))
    for _ in range(100):
        command = arm.step(0, 0, 0)
    assert np.linalg.norm(arm.tool - place[0].numpy()) < 1e-3
    np.testing.assert_allclose(command[:7], start, atol=2e-3)
    assert command[7] == 0.0


def test_an_action_of_one_moves_the_target_by_the_scale_and_more_does_not_move_it_further() -> None:
    decoder = targets(axes=("y", "x"), scale=0.01)
    assert decoder.num_actions == 2 and decoder.state[0].elements == ("y", "x")
    _, state = decode(decoder, home(3), blank(decoder, 3), torch.tensor([[1.0, 0.0], [0.0, -0.5], [-7.0, 7.0]]))
    moved = state["tool_target"] - torch.tensor([0.42, 0.0, 0.28])
    expected = torch.tensor([[0.0, 0.01, 0.0], [-0.005, 0.0, 0.0], [0.01, -0.01, 0.0]])
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)


def test_a_flat_box_brings_the_tool_to_its_height() -> None:
    arm = Arm(targets(axes=("x", "y"), lower=(0.3, -0.3, 0.05), upper=(0.65, 0.3, 0.05)))
    for _ in range(40):
        arm.step(0.2, 0.2)
    np.testing.assert_allclose(arm.tool, [0.42 + 40 * 0.004, 40 * 0.004, 0.05], atol=0.006)


def test_yaw_turns_the_tool_about_the_vertical() -> None:
    arm = Arm(targets(yaw=0.6))
    for _ in range(40):
        arm.step(0, 0, 0)
    turn = np.array([[np.cos(0.6), -np.sin(0.6), 0], [np.sin(0.6), np.cos(0.6), 0], [0, 0, 1]])
    np.testing.assert_allclose(arm.data.site("tool").xmat.reshape(3, 3), turn @ np.diag([1, -1, -1]), atol=5e-3)
    np.testing.assert_allclose(arm.tool, [0.42, 0, 0.28], atol=1e-3)


@pytest.mark.parametrize(("action", "opening"), [(-1, 0.0), (-5, 0.0), (0, 0.02), (0.5, 0.03), (1, 0.04)])
def test_the_last_action_opens_the_gripper_in_proportion(action: float, opening: float) -> None:
    arm = Arm(targets(axes=("x", "y"), gripper=True))
    for _ in range(12):
        command = arm.step(0, 0, action)
    assert command[7] == pytest.approx(opening, abs=1e-7)
    np.testing.assert_allclose(arm.data.qpos[7:], opening, atol=5e-4)


def test_commands_keep_limits_and_speeds_whatever_is_asked() -> None:
    decoder = targets(scale=0.5, gripper=True)
    generator = torch.Generator().manual_seed(0)
    wild = 100 * torch.randn(64, 8, generator=generator)
    state = blank(decoder, 64)
    lower, upper, speed = (torch.tensor(v.copy()).float() for v in (ROBOT.lower, ROBOT.upper, ROBOT.speed))
    last = torch.clamp(wild, lower, upper)
    for _ in range(30):
        command, state = decode(decoder, wild, state, 10 * torch.randn(64, 4, generator=generator))
        assert (command >= lower).all() and (command <= upper).all()
        assert ((command - last).abs() <= speed * DT + 1e-6).all()
        torch.testing.assert_close(state["last_target"], command, atol=0, rtol=0)
        last = command


def test_after_the_first_step_the_measured_joints_do_not_matter() -> None:
    decoder, action = targets(), torch.tensor([[0.3, -0.2, 0.1]])
    _, state = decode(decoder, home(), blank(decoder, 1), action)
    first = decode(decoder, home(), state, action)[0]
    assert torch.equal(first, decode(decoder, home() + 0.3, state, action)[0])


class Through(torch.nn.Module):
    """A policy that is nothing but the decoder."""

    def __init__(self, decoder: ToolTargets) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, **values: torch.Tensor) -> dict[str, torch.Tensor]:
        command, state = self.decoder.decode(Channels(values, LANDMARKS), values["action"])
        return {self.decoder.command.name: command, **state}


def test_the_exported_graph_gives_the_decoders_commands(tmp_path: Path) -> None:
    decoder = targets(gripper=True)
    contract = Contract(
        robot="panda",
        robot_hash="",
        inputs=(
            Channel("joint_pos", (8,), "rad or m", kind="state/joint/position", elements=ROBOT.joint_names),
            Channel("action", (4,), "1"),
        ),
        commands=(decoder.command,),
        state=decoder.state,
        rate_hz=1 / DT,
    )
    rng, state, largest = np.random.default_rng(0), blank(decoder, 1), 0.0
    episode = [
        {
            "joint_pos": (ROBOT.home + rng.normal(0, 0.02, 8)).astype(np.float32),
            "action": rng.uniform(-1.5, 1.5, 4).astype(np.float32),
        }
        for _ in range(200)
    ]
    mjcf, path, made = ROBOT.mjcf(), tmp_path / "bundle", {"seed": 0, "commit": ""}
    export(Through(decoder), contract, path, mjcf=mjcf, provenance=made, samples=episode[:8])
    bundle = Bundle.load(path, robot=mjcf)
    for inputs in episode:
        result = bundle.step(inputs)["joint_pos_target"]
        joints, action = (torch.from_numpy(inputs[name])[None] for name in ("joint_pos", "action"))
        command, state = decode(decoder, joints, state, action)
        largest = max(largest, float(np.abs(result - command[0].numpy()).max()))
        for name, values in bundle.state.items():
            np.testing.assert_allclose(values, state[name][0].numpy(), atol=1e-5, err_msg=name)
    assert largest <= 1e-5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"axes": ("x", "w")}, "axes are some of x, y, z, each once, not x, w"),
        ({"axes": ("x", "x")}, "not x, x"),
        ({"axes": ()}, "not none"),
        ({"lower": (0.7, -0.3, 0.02)}, "is empty or not of three axes"),
        ({"upper": (0.7, 0.3)}, "is empty or not of three axes"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolTargetsError, match=message):
        targets(**settings)
