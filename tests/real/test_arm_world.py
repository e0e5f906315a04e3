"""The arm as a world: tasks of the simulation on a twin that is driven through a real safety node, in virtual time."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from real.arm_channels import velocities
from real.arm_env import ArmEnv, make_arm_env
from real.arm_reset import ArmWorldError, Layout
from real.nodes.safety import SafetyNode
from real.nodes.twin import TwinNode, settings_of
from real.stack import Stack, load
from real.transport.local import LocalBus
from robolearn.bundle import Bundle, export
from robolearn.judge import judge
from robolearn.policy_graph import PolicyGraph
from sim.experts.arm import scripted


class Cell:
    """A twin and a safety node, a place for the policy, and an operator."""

    def __init__(self, task: str = "arm_reach", twin: bool = True, **more: Any) -> None:
        settings = {"task": task, "twin.rendering": "none", "twin.gap": "none", "safety.rate_hz": 100.0, **more}
        self.stack = load("panda_twin", settings)
        self.bus = LocalBus(seed=0)
        self.twin = TwinNode(self.bus.node("twin"), settings_of(self.stack))
        self.safety = SafetyNode(self.bus.node("safety"), self.stack)
        self.handle, self.person = self.bus.node("policy"), self.bus.node("operator")
        self._ask = self.person.publisher("safety/request", "std_msgs/msg/String")
        self._joy = self.person.publisher("teleop/deadman", "sensor_msgs/msg/Joy")
        self._twist = self.person.publisher("teleop/twist", "geometry_msgs/msg/TwistStamped")
        self.task = task
        if not twin:
            self.stack = Stack.from_dict({**self.stack.to_dict(), "twin": None})

    def env(self, **more: Any) -> ArmEnv:
        return make_arm_env(self.task, self.handle, self.stack, **more)

    def ask(self, word: str) -> None:
        self._ask.publish(self.bus.store.new("std_msgs/msg/String", data=word))

    def drive(self, z: float, seconds: float) -> None:
        """A person holds the deadman and moves the tool up, m/s, for so long."""
        new, end = self.bus.store.new, self.bus.clock.monotonic() + seconds

        def hold() -> None:
            held = self.bus.clock.monotonic() < end
            self._joy.publish(new("sensor_msgs/msg/Joy", buttons=[int(held), 0, 0, 0]))
            twist = new("geometry_msgs/msg/TwistStamped")
            twist.twist.linear.z = z
            self._twist.publish(twist)
            if not held:
                timer.cancel()

        timer = self.person.timer(0.02, hold)

    @property
    def safe(self) -> bool:
        return not any(self.twin.cell.driver.violations.values())


def gently(env: ArmEnv) -> Any:
    """The simulation's expert at less than half its speed: this arm follows later than that of a simulation."""
    return 0.4 * scripted(env)


def test_an_expert_of_the_simulation_does_the_task_and_episodes_follow_each_other() -> None:
    cell = Cell()
    env = cell.env(seed=3)
    said, seeds, ended = [], [], 0
    for _ in range(80):
        step = env.step(gently(env))
        said.append(env.instructions()[0])
        seeds.append(cell.twin.cell.scene.seed)
        assert step.reward.shape == (1,) and env.diverged == 0
        if step.terminated.any() or step.truncated.any():
            ended += 1
            assert step.episodes["success"].tolist() == [1.0]
            assert 0.0 < float(step.episodes["progress"]) <= 1.0 and step.final_obs["policy"].shape == (
                1,
                env.observation_dims["policy"],
            )
            if ended == 2:
                break
    assert ended == 2 and len(set(seeds)) >= 2 and cell.safe and all(said)
    assert cell.twin.cell.scene.instruction == env.instructions()[0]


def test_evaluation_runs_on_it_unchanged() -> None:
    cell = Cell()
    verdict = judge(cell.env(seed=1), lambda env, obs: scripted(env))
    assert verdict.mean("success") == 1.0 and verdict.count("diverged") == 0


def test_zero_actions_keep_the_tool_where_it_is_in_real_time() -> None:
    cell = Cell()
    env = cell.env()
    begun, at = cell.bus.clock.monotonic(), env.channels["tool_pos"].clone()
    for _ in range(10):
        env.step(torch.zeros(1, 3))
    assert float((env.channels["tool_pos"] - at).norm()) < 4e-3
    assert cell.bus.clock.monotonic() - begun == pytest.approx(1.0, abs=0.1)
    assert env.world.late == 0


class Leading(torch.nn.Module):
    """A policy: a fixed linear one, so that commands depend on every term."""

    hidden_size = 0

    def __init__(self, width: int) -> None:
        super().__init__()
        weights = torch.rand(width, 3, generator=torch.Generator().manual_seed(0)) - 0.5
        self.weights = torch.nn.Parameter(0.1 * weights)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return torch.tanh(obs @ self.weights)


@torch.no_grad()
def test_an_exported_policy_gives_the_commands_that_the_arm_gets(tmp_path: Path) -> None:
    cell = Cell()
    env = cell.env()
    policy: Any = Leading(env.observation_dims["policy"])
    graph = PolicyGraph(env, policy)
    provenance = {"seed": 0, "commit": "test", "metrics": {}}
    seen = [{c.name: env.channels[c.name][0].numpy().copy() for c in graph.contract.inputs}]
    made = export(graph, graph.contract, tmp_path / "b", mjcf=env.task.robot_mjcf, provenance=provenance, samples=seen)
    bundle = Bundle.load(made)
    got: list[Any] = []
    cell.person.subscribe("policy/action_chunk", "trajectory_msgs/msg/JointTrajectory", lambda m, r: got.append(m))
    obs = env.reset()
    for _ in range(6):
        seen = {c.name: env.channels[c.name][0].numpy().copy() for c in bundle.contract.inputs}
        expected = bundle.step(seen)["joint_pos_target"]
        obs = env.step(policy(obs["policy"])).obs
        assert list(got[-1].joint_names) == list(env.world.joints)
        np.testing.assert_allclose(np.asarray(got[-1].points[0].positions), expected, atol=1e-5)
    assert len(got) == 6


def test_a_takeover_goes_on_and_tells_what_was_done_instead() -> None:
    cell = Cell()
    env = cell.env()
    env.step(torch.zeros(1, 3))
    before = env.channels["tool_pos"].clone()
    cell.drive(z=0.1, seconds=0.55)
    shares, actions = [], []
    for _ in range(12):
        step = env.step(torch.zeros(1, 3))
        assert not step.terminated.any()
        shares.append(float(step.log["real/human"]))
        actions.append(env.executed_action[0])
    driven = [a for a, share in zip(actions, shares, strict=True) if share == 1.0]
    assert max(shares) == 1.0 and shares[-1] == 0.0 and len(driven) >= 3
    assert all(a[2] > 0.1 and abs(float(a[0])) < 0.1 for a in driven)  # 0.1 m/s up is 0.25 of an action
    assert actions[-1].abs().max() == 0.0
    lifted = float((env.channels["tool_pos"] - before)[0, 2])
    assert 0.03 < lifted < 0.08  # the policy stays where the person led it
    assert cell.safety.arbiter.mode.name == "POLICY" and cell.safe


def test_a_stalled_driver_ends_the_episode_with_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    cell = Cell()
    env = cell.env()
    env.step(torch.zeros(1, 3))
    cell.bus.after(0.05, lambda: cell.bus.pause("twin"))
    cell.bus.after(0.6, lambda: cell.bus.resume("twin"))
    with caplog.at_level(logging.WARNING):
        ended = next(s for s in (env.step(torch.zeros(1, 3)) for _ in range(4)) if s.terminated.any())
    assert env.diverged == 1 and ended.episodes["diverged"].tolist() == [1.0]
    assert "joint states are stale" in caplog.text
    assert not env.step(torch.zeros(1, 3)).terminated.any()  # the next episode goes on


def test_an_operators_hold_is_not_overruled() -> None:
    cell = Cell()
    env = cell.env(patience={"operator_s": 3.0})
    env.step(torch.zeros(1, 3))
    cell.bus.after(0.05, lambda: cell.ask("hold"))
    with pytest.raises(ArmWorldError, match="somebody asked to hold"):
        env.step(torch.zeros(1, 3))
    assert cell.safety.arbiter.mode.name == "HOLD" and env.diverged == 1


def test_a_pause_after_a_rollout_costs_no_episode() -> None:
    cell = Cell()
    env = cell.env()
    env.step(torch.zeros(1, 3))
    env.check()
    cell.bus.run(5.0)
    assert cell.safety.arbiter.mode.name == "HOLD"
    for _ in range(3):
        assert not env.step(torch.zeros(1, 3)).terminated.any()
    assert cell.safety.arbiter.mode.name == "POLICY"


def test_a_person_lays_out_the_table() -> None:
    cell = Cell(twin=False)
    asked: list[str] = []

    def operator(words: str) -> Layout | None:
        asked.append(words)
        return Layout(1, "reach the spoon") if len(asked) > 5 else None

    env = cell.env(operator=operator)
    assert env.instructions() == ["reach the spoon"] and env.channels["named"].tolist() == [[0.0, 1.0]]
    assert "lay out the table" in asked[0]
    poses = env.channels["object_poses"][0, :, :3]
    distance = (poses - env.channels["tool_pos"]).norm(dim=1)
    torch.testing.assert_close(env.channels["start_reach"][0], distance, atol=0.01, rtol=0.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"operator": lambda words: None, "patience": {"operator_s": 1.0}}, "the operator did not answer"),
        ({"operator": lambda words: Layout(2)}, "objects: 0, 1"),
        ({}, "nobody says which object is named"),
    ],
)
def test_a_table_that_nobody_lays_out(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ArmWorldError, match=message):
        Cell(twin=False).env(**given)


def test_resets_say_what_did_not_happen() -> None:
    cell = Cell()
    cell.bus.kill("safety")
    with pytest.raises(ArmWorldError, match="the safety node is not heard"):
        cell.env(patience={"operator_s": 1.0})


@pytest.mark.parametrize(
    ("task", "message"), [("arm_reac", "did you mean 'arm_reach'"), ("g1_walk", "unknown task on an arm")]
)
def test_other_tasks_are_refused(task: str, message: str) -> None:
    cell = Cell()
    with pytest.raises(ArmWorldError, match=message):
        make_arm_env(task, cell.handle, cell.stack)


def test_velocities_of_poses() -> None:
    half = np.sqrt(0.5)
    before = np.array([[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]])
    after = np.array([[0.1, 0.0, -0.2, half, 0.0, 0.0, half]])  # a quarter turn about z
    np.testing.assert_allclose(velocities(before, after, 0.5), [[0.2, 0.0, -0.4, 0.0, 0.0, np.pi]], atol=1e-9)
