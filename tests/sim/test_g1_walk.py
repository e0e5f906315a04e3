"""Walking at commanded velocities: terms against the engine, commands, metrics, and the environment."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from robolearn.contract import robot_hash
from robolearn.errors import RobolearnError
from robolearn.judge import judge, zero_action
from sim.channels import Channels
from sim.robots import get_robot
from sim.selection import Selection
from sim.tasks.walk_commands import CommandRanges, StartNoise, VelocityCommands
from sim.tasks.walk_metrics import WalkMetrics
from sim.tasks.walk_rewards import SWING_HEIGHT, gait_of
from sim.tasks.walk_scene import Motors, scene_spec, standing_state
from sim.terms import locomotion
from sim.terms.landmarks import foot_landmarks

N = 200
ROBOT = get_robot("g1")
CPU = torch.device("cpu")
RANGES = CommandRanges([-0.5, 1.0], [-0.3, 0.3], [-0.5, 0.5], [10, 25], 0.2)


@pytest.fixture
def walk(small):
    return lambda num_envs=6, **settings: small(num_envs, task="g1_walk", **settings)


def random_channels(seed: int = 0) -> Channels:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=shape)).float()

    quat = Rotation.random(N, rng=seed).as_quat(scalar_first=True)
    raw = {
        "joint_pos": torch.from_numpy(rng.uniform(ROBOT.lower, ROBOT.upper, (N, 29))).float(),
        "joint_vel": 3 * normal(N, 29),
        "imu_orientation": torch.from_numpy(quat).float(),
        "imu_ang_vel": normal(N, 3),
        "base_pose": torch.cat([normal(N, 3), torch.from_numpy(quat).float()], 1),
        "velocity_command": normal(N, 3) * (torch.arange(N) % 3 > 0).unsqueeze(1),
        "gait_phase": torch.rand(N, 1, generator=torch.Generator().manual_seed(seed)),
        "foot_contact": torch.from_numpy(rng.integers(0, 5, (N, 2))).float(),
    }
    raw["base_vel"] = torch.cat([normal(N, 3), raw["imu_ang_vel"]], 1)
    derived = {**locomotion.DERIVED, **foot_landmarks(get_robot("g1", base="fixed"))}
    return Channels(raw, derived)


# Terms


def test_velocities_and_gravity_follow_their_definitions() -> None:
    c = random_channels()
    for i in range(N):
        world = Rotation.from_quat(c["base_pose"][i, 3:].numpy(), scalar_first=True)
        np.testing.assert_allclose(c["projected_gravity"][i], world.inv().apply([0, 0, -1]), atol=1e-5)
        ahead = world.apply([1, 0, 0]) * [1, 1, 0]
        ahead /= np.linalg.norm(ahead)
        left = np.cross([0, 0, 1], ahead)
        velocity = c["base_vel"][i, :3].numpy()
        given = [velocity @ ahead, velocity @ left, velocity[2]]
        np.testing.assert_allclose(c["heading_velocity"][i], given, atol=1e-4)
        spin = world.apply(c["base_vel"][i, 3:].numpy())
        assert float(c["turn_rate"][i]) == pytest.approx(spin[2], abs=1e-5)
        command = c["velocity_command"][i].numpy()
        assert float(c["velocity_error"][i]) == pytest.approx(math.dist(given[:2], command[:2]), abs=1e-4)
        assert float(c["turn_error"][i]) == pytest.approx(abs(spin[2] - command[2]), abs=1e-5)


def test_feet_are_where_the_engine_has_them_and_move_as_it_says() -> None:
    c = random_channels(1)
    model = ROBOT.spec().compile()
    data = mujoco.MjData(model)
    six = np.zeros(6)
    for i in range(40):
        data.qpos[:] = torch.cat([c["base_pose"][i], c["joint_pos"][i]]).numpy()
        data.qvel[:] = torch.cat([c["base_vel"][i], c["joint_vel"][i]]).numpy()
        mujoco.mj_forward(model, data)
        for f, site in enumerate(ROBOT.foot_sites):
            np.testing.assert_allclose(c["foot_pos"][i, f], data.site(site).xpos, atol=1e-5)
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_SITE, model.site(site).id, six, 0)
            np.testing.assert_allclose(c["foot_vel"][i, f], six[3:], atol=5e-3)


def test_motor_torque_is_the_engines() -> None:
    model = scene_spec(ROBOT).compile()
    data = mujoco.MjData(model)
    motors = Motors.of(ROBOT, CPU)
    rng = np.random.default_rng(0)
    for _ in range(20):
        data.qpos[7:] = rng.uniform(ROBOT.lower, ROBOT.upper)
        data.qvel[6:] = rng.normal(0, 5, 29)
        data.ctrl[:] = rng.uniform(ROBOT.lower, ROBOT.upper)
        mujoco.mj_forward(model, data)
        given = [torch.from_numpy(v).float() for v in (data.ctrl, data.qpos[7:], data.qvel[6:])]
        np.testing.assert_allclose(motors.torque(*given), data.actuator_force, rtol=1e-4, atol=1e-3)


def test_feet_take_turns_by_the_clock_unless_told_to_stand() -> None:
    command = torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]).repeat_interleave(100, 0)
    phase = torch.linspace(0, 0.99, 100).repeat(2).unsqueeze(1)
    c = Channels({"velocity_command": command, "gait_phase": phase}, locomotion.DERIVED)
    walking, standing = c["planned_stance"][:100], c["planned_stance"][100:]
    assert standing.all()
    assert walking.any(1).all(), "never both feet in the air"
    share = walking.float().mean(0)
    assert share.tolist() == pytest.approx([locomotion.STANCE] * 2, abs=0.02)
    assert walking.all(1).float().mean() == pytest.approx(2 * locomotion.STANCE - 1, abs=0.03)
    assert torch.equal(walking[:50, 0], walking[50:, 1]) and torch.equal(walking[50:, 0], walking[:50, 1])


def test_the_planned_gait_carries_the_base_at_the_commanded_velocity() -> None:
    hz, dt = 1.25, 0.002
    phase = torch.arange(0, 1, hz * dt).unsqueeze(1)
    n = len(phase)
    derived = {**random_channels().derived, "gait_pose": gait_of(ROBOT, hz, CPU)}

    def planned(*command: float) -> Channels:
        raw = {"velocity_command": torch.tensor([command]).expand(n, 3), "gait_phase": phase}
        pose = Channels(raw, derived)["gait_pose"]
        upright = torch.tensor([0, 0, 0, 1.0, 0, 0, 0]).expand(n, 7)
        still = {"base_pose": upright, "base_vel": torch.zeros(n, 6), "joint_vel": torch.gradient(pose, dim=0)[0] / dt}
        return Channels({**raw, **still, "joint_pos": pose}, derived)

    standing = planned(0.0, 0.0, 0.0)
    np.testing.assert_allclose(standing["joint_pos"], np.tile(ROBOT.home, (n, 1)), atol=1e-6)
    for command in ((0.6, 0.0, 0.0), (-0.4, 0.0, 0.0), (0.0, 0.3, 0.0)):
        c = planned(*command)
        inside = (c["foot_phase"] > 0.02) & (c["foot_phase"] < locomotion.STANCE - 0.02)
        carried = -torch.stack([c["foot_vel"][inside[:, foot], foot].mean(0) for foot in range(2)]).mean(0)
        assert carried[:2].tolist() == pytest.approx(command[:2], abs=0.05)
    walking = planned(0.6, 0.0, 0.0)
    height = walking["foot_pos"][..., 2] - standing["foot_pos"][..., 2]
    assert 0.7 * SWING_HEIGHT < height.max() < 1.5 * SWING_HEIGHT
    assert height[walking["planned_stance"]].abs().max() < 0.03
    index = {name: i for i, name in enumerate(ROBOT.joint_names)}
    for side in ("left", "right"):
        pitch = sum(walking["joint_pos"][:, index[f"{side}_{j}_joint"]] for j in ("hip_pitch", "knee", "ankle_pitch"))
        assert pitch.abs().max() < 1e-5, "the sole stays level"
    assert (walking["joint_pos"] > torch.tensor(ROBOT.lower)).all()
    turning = planned(0.0, 0.0, 0.5)["joint_pos"][:, index["left_hip_yaw_joint"]]
    stance = phase[:, 0] < locomotion.STANCE
    assert -torch.gradient(turning)[0][stance].mean().item() / dt == pytest.approx(0.5, abs=0.05)


def test_rewards_are_largest_where_they_should_be() -> None:
    c = random_channels(2)
    perfect = Channels(
        {
            **{name: c[name] for name in ("joint_pos", "joint_vel", "velocity_command", "gait_phase")},
            "imu_orientation": torch.tensor([1.0, 0, 0, 0]).expand(N, 4),
            "imu_ang_vel": torch.zeros(N, 3),
            "base_pose": torch.tensor([0, 0, 0.75, 1.0, 0, 0, 0]).expand(N, 7),
            "base_vel": torch.cat(
                [c["velocity_command"][:, :2], torch.zeros(N, 3), c["velocity_command"][:, 2:]], dim=1
            ),
            "foot_contact": torch.zeros(N, 2),
        },
        c.derived,
    )
    perfect["foot_contact"] = perfect["planned_stance"].float()
    one = torch.ones(N)
    assert torch.allclose(locomotion.velocity_exp(perfect, 0.4), one, atol=1e-5)
    assert torch.allclose(locomotion.turn_exp(perfect, 0.5), one, atol=1e-5)
    assert torch.allclose(locomotion.upright_exp(perfect, 0.3), one)
    assert torch.allclose(locomotion.height_exp(perfect, 0.75, 0.1), one)
    assert torch.equal(locomotion.gait_match(perfect), one)
    assert not locomotion.fell(perfect, 1.0, 0.45).any()
    for value in (locomotion.velocity_exp(c, 0.4), locomotion.turn_exp(c, 0.5), locomotion.gait_match(c)):
        assert ((value >= 0) & (value <= 1)).all() and value.mean() < 0.7
    lean = torch.acos(-c["projected_gravity"][:, 2].clamp(-1, 1))
    low = c["base_pose"][:, 2] < 0.45
    assert torch.equal(locomotion.fell(c, 1.0, 0.45), (lean > 1.0) | low)
    lower, upper = torch.full((29,), -0.5), torch.full((29,), 0.5)
    beyond = (c["joint_pos"].abs() - 0.5).clamp_min(0).sum(1)
    assert torch.allclose(locomotion.near_limits(c, lower, upper), beyond, atol=1e-5)


# Commands


def commands(num_worlds: int = 500, **settings) -> VelocityCommands:
    given = {"episode_steps": 100, "num_worlds": num_worlds, "start": StartNoise(), **settings}
    return VelocityCommands(standing_state(ROBOT), RANGES, **given)


def test_commands_stay_in_range_change_in_time_and_some_are_to_stand() -> None:
    goal = commands()
    goal.reset(Selection.all(500), torch.Generator().manual_seed(0))
    seen = []
    for _ in range(100):
        seen.append(goal.read()["velocity_command"])
        assert not goal.timed_out().any()
        goal.advance()
    assert goal.timed_out().all()
    values = torch.stack(seen)
    for axis, (low, high) in enumerate((RANGES.ahead, RANGES.left, RANGES.turn)):
        assert low <= values[..., axis].min() < 0.9 * low and 0.9 * high < values[..., axis].max() <= high
    still = (values == 0).all(-1)
    assert still.float().mean().item() == pytest.approx(RANGES.standing, abs=0.06)
    assert (values.norm(dim=-1)[~still] >= locomotion.STILL).all()
    changed = (values[1:] != values[:-1]).any(-1)
    for world in range(500):
        times = [0, *(changed[:, world].nonzero().squeeze(1) + 1).tolist()]
        holds = np.diff(times)
        assert (holds >= RANGES.hold_steps[0]).all()  # two commands in a row may be to stand
    assert np.median(np.diff(times)) <= RANGES.hold_steps[1]


def test_fixed_commands_are_the_same_in_every_episode() -> None:
    goal, other = commands(4, fixed_seed=3), commands(4, fixed_seed=4)
    generator = torch.Generator().manual_seed(0)
    for process in (goal, other):
        process.reset(Selection.all(4), generator)
    first = goal.read()["velocity_command"]
    assert not torch.equal(first, other.read()["velocity_command"])
    for _ in range(30):
        goal.advance()
    later = goal.read()["velocity_command"]
    goal.reset(Selection(torch.tensor([1, 3])), generator)
    now = goal.read()["velocity_command"]
    assert torch.equal(now[[1, 3]], first[[1, 3]]) and torch.equal(now[[0, 2]], later[[0, 2]])
    assert torch.equal(goal.read(torch.tensor([2]))["velocity_command"], later[[2]])


def test_clocks_and_plans_are_restored() -> None:
    goal, copy = commands(4), commands(4)
    goal.reset(Selection.all(4), torch.Generator().manual_seed(0))
    for _ in range(17):
        goal.advance()
    copy.load_state_dict(goal.state_dict())
    for _ in range(60):
        assert torch.equal(goal.read()["velocity_command"], copy.read()["velocity_command"])
        goal.advance(), copy.advance()


def test_a_masked_reset_is_the_same_as_one_of_ids() -> None:
    sparse, dense = commands(6), commands(6)
    for goal in (sparse, dense):
        goal.reset(Selection.all(6), torch.Generator().manual_seed(0))
        goal.advance()
    mask = torch.tensor([True, False, False, True, False, True])
    sparse.reset(Selection.of(mask, dense=False), torch.Generator().manual_seed(1))
    dense.reset(Selection.of(mask, dense=True), torch.Generator().manual_seed(1))
    assert torch.equal(dense.step, sparse.step) and dense.step.tolist() == [0, 1, 1, 0, 1, 0]
    kept = ~mask
    assert torch.equal(dense.read()["velocity_command"][kept], sparse.read()["velocity_command"][kept])


def test_starts_are_near_standing_and_look_anywhere() -> None:
    exact = commands(3).reset(Selection.all(3), torch.Generator().manual_seed(0))
    assert torch.equal(exact["qpos"], standing_state(ROBOT).expand(3, -1)) and not exact["qvel"].any()
    goal = commands(2000, start=StartNoise(0.05, 0.3, turned=True))
    start = goal.reset(Selection.all(2000), torch.Generator().manual_seed(0))
    heading = Rotation.from_quat(start["qpos"][:, 3:7].numpy(), scalar_first=True).as_euler("ZYX")
    assert np.abs(heading[:, 1:]).max() < 1e-6 and abs(np.cos(heading[:, 0]).mean()) < 0.05
    assert start["qvel"][:, :2].std().item() == pytest.approx(0.3, rel=0.05) and not start["qvel"][:, 2:].any()
    joints = start["qpos"][:, 7:] - start["ctrl"]
    assert joints.std().item() == pytest.approx(0.05, rel=0.02)
    np.testing.assert_allclose(start["ctrl"][0], ROBOT.home, atol=1e-6)


# Metrics


def test_success_is_to_stay_up_and_to_follow() -> None:
    goal = commands(5)
    goal.reset(Selection.all(5), torch.Generator().manual_seed(0))
    metrics = WalkMetrics(goal, 5, 0.02)
    velocity = torch.tensor([0.1, 0.29, 0.31, 0.1, 0.0])
    turn = torch.tensor([0.1, 0.39, 0.1, 0.41, 0.0])
    for _ in range(99):
        metrics.update(Channels({"velocity_error": velocity, "turn_error": turn}))
        goal.advance()
    saved = metrics.state_dict()
    early = metrics.finish(Selection(torch.tensor([4])))
    assert (early["fell"].item(), early["success"].item()) == (1.0, 0.0)
    assert early["upright_s"].item() == pytest.approx(99 * 0.02)
    metrics.load_state_dict(saved)
    metrics.update(Channels({"velocity_error": velocity, "turn_error": turn}))
    goal.advance()
    result = metrics.finish(Selection.all(5))
    assert result["success"].tolist() == [1, 1, 0, 0, 1] and not result["fell"].any()
    assert torch.allclose(result["velocity_error"], velocity, atol=1e-5)
    assert torch.allclose(result["turn_error"], turn, atol=1e-5)
    assert metrics.finish(Selection.all(5))["upright_s"].tolist() == [0] * 5


# The environment


def test_the_policy_reads_what_a_robot_measures_and_commands_joints(walk) -> None:
    env = walk()
    assert env.contract.names("inputs") == (
        *("joint_pos", "joint_vel", "imu_orientation", "imu_ang_vel"),
        "velocity_command",
    )
    assert env.contract.names("state") == ("last_action", "action_change", "last_target", "gait_phase")
    assert env.contract.robot == "g1" and env.contract.rate_hz == pytest.approx(50)
    command = env.contract.channel("joint_pos_target")
    assert command.elements == ROBOT.joint_names and command.lower == tuple(ROBOT.lower)
    assert env.observation_dims["critic"] > env.observation_dims["policy"]


def test_zero_action_is_the_standing_pose_and_actions_move_targets_by_their_scale(walk) -> None:
    env = walk(2, around="standing", action_scale=0.25, stiffness=1.0)
    ctrl = env.world.shards[0].physics.bind("ctrl")
    env.step(zero_action(env, {}))
    np.testing.assert_allclose(ctrl.numpy(), np.tile(ROBOT.home, (2, 1)), atol=1e-6)
    motors = Motors.of(ROBOT, CPU)
    env.step(torch.full((2, 29), 0.1))
    moved = ctrl[0] - torch.tensor(ROBOT.home)
    assert torch.allclose(moved.float(), 0.1 * 0.25 * motors.effort / motors.stiffness, atol=1e-5)
    assert torch.equal(env.channels["action_change"], torch.full((2, 29), 0.1))
    assert torch.allclose(env.channels["gait_phase"], torch.full((2, 1), 2 * 0.02 * 1.25), atol=1e-6)
    env.step(torch.full((2, 29), 1e6))
    np.testing.assert_allclose(ctrl[0].numpy(), ROBOT.upper, atol=1e-6)
    target = torch.tensor(ROBOT.home).float().expand(2, -1) + 0.05
    action = env.task.action.action_for(env.channels, target)
    assert torch.allclose(env.task.action.decode(env.channels, action)[0], target, atol=1e-6)
    env.step(action)
    assert torch.equal(env.channels["last_target"], ctrl.float()) and torch.allclose(ctrl.float(), target, atol=1e-6)


def test_a_zero_action_around_the_gait_walks_by_the_clock(walk) -> None:
    env = walk(30)
    planned = env.channels["gait_pose"].clone()
    moving = env.channels["moving"].clone()
    env.step(zero_action(env, {}))
    sent = env.world.shards[0].physics.bind("ctrl").float()
    assert torch.allclose(sent, planned, atol=1e-6)
    off = (sent - torch.tensor(ROBOT.home).float()).abs().max(1).values
    assert (off[moving] > 1e-3).all() and (off[~moving] < 1e-6).all() and moving.any() and (~moving).any()
    still = env.task.baselines["stand still"][""](env)
    assert torch.allclose(env.task.action.decode(env.channels, still)[0], env.channels["standing_pose"], atol=1e-6)


def test_stiffer_motors_are_another_robot_that_falls_later(walk) -> None:
    settings = {"evaluation": True, "around": "standing", "episode_s": 5.0}
    soft, stiff = walk(4, stiffness=1.0, **settings), walk(4, stiffness=9.0, **settings)
    assert soft.contract.robot_hash == robot_hash(ROBOT.mjcf()) != stiff.contract.robot_hash
    models = [env.world.shards[0].physics.model for env in (soft, stiff)]
    np.testing.assert_allclose(models[1].actuator_gainprm[:, 0], 9 * models[0].actuator_gainprm[:, 0])
    np.testing.assert_allclose(models[1].actuator_biasprm[:, 1], 9 * models[0].actuator_biasprm[:, 1])
    np.testing.assert_allclose(models[1].actuator_biasprm[:, 2], 3 * models[0].actuator_biasprm[:, 2])
    np.testing.assert_array_equal(models[1].actuator_forcerange, models[0].actuator_forcerange)
    assert judge(stiff, zero_action).mean("fell") == 0.0


@pytest.mark.parametrize(("controlled", "count"), [("all", 29), ("lower", 15), ("legs", 12)])
def test_the_policy_moves_the_joints_it_is_given(walk, controlled: str, count: int) -> None:
    env = walk(2, around="standing", controlled=controlled)
    assert env.num_actions == count
    env.step(torch.ones(2, count))
    ctrl = env.world.shards[0].physics.bind("ctrl")[0].float().numpy()
    moved = np.abs(ctrl - ROBOT.home) > 1e-6
    assert moved.sum() == count
    assert moved[ROBOT.joint_names.index("left_knee_joint")]
    assert moved[ROBOT.joint_names.index("left_elbow_joint")] == (controlled == "all")
    assert moved[ROBOT.joint_names.index("waist_yaw_joint")] == (controlled != "legs")


def test_without_a_policy_it_falls_and_the_episode_ends(walk) -> None:
    env = walk(8, episode_s=10.0, evaluation=True, split="heldout", around="standing")
    verdict = judge(env, zero_action)
    assert verdict.mean("fell") == 1.0 and verdict.mean("success") == 0.0
    assert 0.8 < verdict.mean("upright_s") < 3.0
    env.reset()
    assert env.channels["foot_contact"].shape == (8, 2)
    for _ in range(10):
        step = env.step(zero_action(env, {}))
    assert (env.channels["foot_contact"] == 4).all() and (env.channels["foot_pos"][..., 2].abs() < 0.01).all()
    for _ in range(200):
        step = env.step(zero_action(env, {}))
        if len(step.final_ids):
            break
    ended = step.terminated
    assert ended.any() and not step.truncated.any()
    assert (step.rewards["fall"][ended] < 0).all() and (step.rewards["fall"][~ended] == 0).all()


def test_every_contestant_gets_the_same_commands(walk) -> None:
    env = walk(5, evaluation=True, split="heldout", episode_s=1.0)

    def recorded() -> torch.Tensor:
        seen: list[torch.Tensor] = []

        def act(env, obs):
            seen.append(env.channels["velocity_command"].clone())
            return zero_action(env, obs)

        judge(env, act)
        return torch.stack(seen[:40])

    first = recorded()
    assert torch.equal(first, recorded())
    other = walk(5, evaluation=True, split="train", episode_s=1.0)
    assert not torch.equal(other.channels["velocity_command"], first[0])


def test_one_seed_is_one_run_and_it_continues_bit_for_bit(walk) -> None:
    settings = {"sensor_noise": True, "command_delay": [0, 2], "episode_s": 0.6}
    a, b = walk(5, seed=4, **settings), walk(5, seed=4, **settings)
    generator = torch.Generator().manual_seed(0)
    actions = 0.5 * torch.randn(60, 5, 29, generator=generator)
    for action in actions[:40]:
        x, y = a.step(action), b.step(action)
        assert all(torch.equal(x.obs[g], y.obs[g]) for g in x.obs) and torch.equal(x.reward, y.reward)
    fresh = walk(5, seed=9, **settings)
    fresh.load_state_dict(a.state_dict())
    ended = 0
    for action in actions[40:]:
        x, y = a.step(action), fresh.step(action)
        assert all(torch.equal(x.obs[g], y.obs[g]) for g in x.obs) and torch.equal(x.reward, y.reward)
        ended += len(x.final_ids)
    assert ended


def test_noise_reaches_the_policy_alone(walk) -> None:
    clean, noisy = walk(300), walk(300, sensor_noise=True)
    x, y = clean.step(zero_action(clean, {})), noisy.step(zero_action(noisy, {}))
    assert torch.equal(x.obs["critic"], y.obs["critic"]) and torch.equal(x.reward, y.reward)
    seen = noisy.state_dict()["seen"]
    for name, std in (("joint_pos", 0.01), ("joint_vel", 0.5), ("imu_ang_vel", 0.1)):
        error = seen[name] - noisy.channels[name]
        assert error.std().item() == pytest.approx(std, rel=0.1), name
    turn = (Rotation.from_quat(seen["imu_orientation"].numpy(), scalar_first=True)
            * Rotation.from_quat(noisy.channels["imu_orientation"].numpy(), scalar_first=True).inv())  # fmt: skip
    assert turn.as_rotvec().std() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(seen["velocity_command"], noisy.channels["velocity_command"])


def test_randomisers_touch_the_soles_and_the_load(walk) -> None:
    env = walk(64)
    physics = env.world.shards[0].physics
    model = physics.model
    friction, mass = physics.expand("geom_friction"), physics.expand("body_mass")
    soles = [g for g in range(model.ngeom) if "_sole_" in model.geom(g).name]
    ratio = friction[:, :, 0] / torch.from_numpy(model.geom_friction[:, 0])
    assert (ratio[:, soles].std(1) < 1e-9).all() and 0.5 <= ratio[:, soles].min() < 0.7
    others = [g for g in range(model.ngeom) if g not in soles]
    assert (ratio[:, others] == 1).all()
    changed = (mass / torch.from_numpy(model.body_mass).clamp_min(1e-9) != 1).any(0).nonzero().squeeze(1).tolist()
    assert [model.body(b).name for b in changed if b] == ["torso_link"]
    assert env.channels["randomization"].shape == (64, 3)


def test_the_baselines_act(walk) -> None:
    env = walk(4, evaluation=True, split="heldout")
    for variants in env.task.baselines.values():
        for function in variants.values():
            action = function(env)
            assert action.shape == (4, 29) and torch.isfinite(action).all()


def test_the_random_control_pays_for_nothing(walk) -> None:
    env = walk(200, reward="random")
    assert set(env.task.rewards) == {"random"}
    rewards = torch.stack([env.step(zero_action(env, {})).reward for _ in range(20)])
    assert abs(rewards.mean().item()) < 0.05 < rewards.std().item()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward": "wlak"}, "unknown reward 'wlak'; did you mean 'walk'"),
        ({"around": "gate"}, "unknown around 'gate'; did you mean 'gait'"),
        ({"controlled": "leg"}, "unknown controlled 'leg'; did you mean 'legs'"),
        ({"randomize": {"object_mass": [1, 2]}}, "unknown randomizer 'object_mass'"),
        ({"randomize": {"base_mass": [1]}}, "randomize.base_mass must be two numbers"),
        ({"rate_hz": 60.0}, "their product must be 200"),
        ({"ahead": [1.0, -1.0]}, r"g1_walk.ahead must be \[low, high\]"),
        ({"hold_s": [0.0, 2.0]}, "hold_s must be positive"),
        ({"episode_s": math.nan}, "g1_walk.episode_s must be greater than 0, got nan"),
        ({"standing": 1.5}, "between 0 and 1"),
        ({"robot": "allegro"}, "'allegro' does not stand on two feet"),
        ({"split": "heldout_objects"}, "unknown split 'heldout_objects'; did you mean 'heldout'"),
    ],
)
def test_impossible_settings_are_refused(walk, settings, message: str) -> None:
    with pytest.raises(RobolearnError, match=message):
        walk(2, **settings)
