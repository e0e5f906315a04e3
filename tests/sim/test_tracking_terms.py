"""Terms of reference tracking against slow scalar versions of their formulas."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from sim.channels import Channels
from sim.robots import get_robot
from sim.tasks.tracking_scene import compile_scene
from sim.terms import tracking
from sim.terms.landmarks import hand_landmarks

N, K, J, L, WRIST = 400, 4, 22, 4, 6


def random_channels(seed: int = 0) -> Channels:
    """Hands around, near and far from objects, so that every condition of the reward is met and missed."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g)

    def quats(*shape: int) -> torch.Tensor:
        q = normal(*shape, 4)
        return q / q.norm(dim=-1, keepdim=True)

    position = 0.3 * normal(N, 3)
    spread = 10 ** torch.empty(N, 1, 1).uniform_(-2.0, 0.3, generator=g)
    raw = {
        "joint_pos": normal(N, J),
        "joint_vel": normal(N, J),
        "object_pose": torch.cat([position, quats(N)], 1),
        "reference_joint_pos": normal(N, L, J),
        "reference_object_pose": torch.cat([position[:, None] + spread * normal(N, L, 3), quats(N, L)], 2),
        "fingertip_pos": position[:, None] + 0.5 * spread * normal(N, K, 3),
        "palm_pos": position + 0.5 * spread[:, 0] * normal(N, 3),
        "palm_rotation": torch.from_numpy(Rotation.random(N, rng=seed).as_matrix()).float(),
        "last_action": normal(N, J),
    }
    return Channels(raw, tracking.DERIVED)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Angle between quaternions wxyz."""
    w, x, y, z = (float(v) for v in a)
    s, i, j, k = float(b[0]), *(-float(v) for v in b[1:])
    real = w * s - x * i - y * j - z * k
    vector = (w * i + x * s + y * k - z * j, w * j - x * k + y * s + z * i, w * k + x * j - y * i + z * s)
    return 2 * math.atan2(math.hypot(*vector), abs(real))


def dextrack_reward(c: dict[str, np.ndarray]) -> tuple[dict[str, float], bool]:
    """The published reward of one world, term by term, and whether the hand is around the object."""
    q, want = c["joint_pos"], c["reference_joint_pos"][0]
    hand = 0.0
    for j in range(J):
        hand += (0.6 if j < 3 else 0.1) * abs(float(want[j]) - float(q[j]))
    object_pos = c["object_pose"][:3]
    palm = distance(c["palm_pos"], object_pos)
    tips = sum(distance(tip, object_pos) for tip in c["fingertip_pos"])
    approach = (min(tips, 0.6 * 4) if palm <= 0.12 else 0.0) + 2 * min(palm, 0.5)
    around = tips <= 0.12 * 4 and palm <= 0.12
    apart = distance(c["reference_object_pose"][0, :3], object_pos)
    turned = angle(c["reference_object_pose"][0, 3:], c["object_pose"][3:])
    terms = {
        "hand": -0.5 * hand,
        "approach": -0.3 * approach,
        "object": (-2 * apart - 0.33 * turned) if around else 0.0,
        "bonus": 1 / (1 + 10 * apart) if around and apart <= 0.05 else 0.0,
    }
    return terms, around


def rows(c: Channels) -> list[dict[str, np.ndarray]]:
    names = [name for name in c if name not in tracking.DERIVED]
    return [{name: c[name][i].numpy() for name in names} for i in range(N)]


def test_the_published_reward_term_by_term(small):
    c = random_channels()
    declared = small(2, reward="dextrack").task.rewards
    expected = [dextrack_reward(row) for row in rows(c)]
    for name, term in declared.items():
        value = term.weight * term.func(c, **term.params)
        np.testing.assert_allclose(value.numpy(), [terms[name] for terms, _ in expected], atol=2e-5, err_msg=name)
    contact = np.array([around for _, around in expected])
    bonus = np.array([terms["bonus"] for terms, _ in expected])
    assert 0.1 < contact.mean() < 0.9 and 0.02 < (bonus > 0).mean() < contact.mean()
    np.testing.assert_array_equal(tracking.dextrack_contact(c).numpy(), contact)


def test_the_rewards_of_a_step_are_those_of_the_state_it_led_to(small):
    env = small(6, reward="dextrack", start_fraction=0.0, terminate_distance=1e9, terminate_angle=1e9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        step = env.step(torch.randn(6, env.num_actions, generator=generator))
        c = env.channels
        for i in set(range(6)) - set(step.final_ids.tolist()):
            row = {name: c[name][i].numpy() for name in ("joint_pos", "object_pose", "reference_joint_pos")}
            row |= {name: c[name][i].numpy() for name in ("reference_object_pose", "fingertip_pos", "palm_pos")}
            for name, value in dextrack_reward(row)[0].items():
                assert step.rewards[name][i].item() == pytest.approx(value, abs=1e-5)


def test_exponential_rewards():
    c = random_channels(1)
    for i, row in enumerate(rows(c)[:50]):
        error = row["reference_joint_pos"][0].astype(float) - row["joint_pos"]
        apart = distance(row["reference_object_pose"][0, :3], row["object_pose"][:3])
        turned = angle(row["reference_object_pose"][0, 3:], row["object_pose"][3:])
        wrist = distance(error[:3], np.zeros(3)) + 0.3 * distance(error[3:6], np.zeros(3))
        fingers = sum(abs(e) for e in error[6:]) / 16
        squared = sum(float(a) ** 2 for a in row["last_action"]) / J
        for value, expected in (
            (tracking.object_position_exp(c, 30.0), math.exp(-30 * apart)),
            (tracking.object_rotation_exp(c, 3.0), math.exp(-3 * turned)),
            (tracking.wrist_exp(c, WRIST, 10.0), math.exp(-10 * wrist)),
            (tracking.finger_exp(c, WRIST, 3.0), math.exp(-3 * fingers)),
            (tracking.squared(c, "last_action"), squared),
        ):
            assert value[i].item() == pytest.approx(expected, rel=2e-3, abs=1e-6)


def test_errors_vanish_only_where_poses_coincide():
    c = random_channels(2)
    same = {name: c[name].clone() for name in c}
    same["object_pose"] = same["reference_object_pose"][:, 0].clone()
    same["object_pose"][1::2, 3:] *= -1  # the other quaternion of the same rotation
    same["joint_pos"] = same["reference_joint_pos"][:, 0].clone()
    there = Channels({k: v for k, v in same.items() if k not in tracking.DERIVED}, tracking.DERIVED)
    for name in ("object_distance", "object_angle"):
        assert there[name].abs().max() < 2e-3 and (c[name] > 1e-3).all(), name
    assert not there["joint_error"].any()
    assert (tracking.object_position_exp(there, 30.0) > 0.999).all()
    assert not tracking.object_lost(there, 0.01, 0.01).any()


@pytest.mark.parametrize("moved, turned, lost", [(0.09, 1.1, False), (0.11, 0, True), (0, 1.3, True)])
def test_an_object_is_lost_beyond_either_bound(moved, turned, lost):
    reference = torch.zeros(1, 1, 7)
    reference[..., 3] = 1
    pose = torch.tensor([[0, 0, moved, math.cos(turned / 2), 0, math.sin(turned / 2), 0]], dtype=torch.float32)
    c = Channels({"object_pose": pose, "reference_object_pose": reference}, tracking.DERIVED)
    assert tracking.object_lost(c, 0.10, 1.2).tolist() == [lost]


def test_observations_are_the_quantities_they_name():
    c = random_channels(3)
    turn = Rotation.from_quat(c["object_pose"][:, 3:].numpy(), scalar_first=True)
    to_object = c["object_pose"][:, :3].numpy() - c["palm_pos"].numpy()
    in_palm = np.einsum("nji,nj->ni", c["palm_rotation"].numpy(), to_object)
    np.testing.assert_allclose(tracking.object_in_palm(c).numpy(), in_palm, atol=1e-5)
    columns = turn.as_matrix()[:, :, :2].transpose(0, 2, 1).reshape(N, 6)
    np.testing.assert_allclose(tracking.object_orientation(c).numpy(), columns, atol=1e-5)
    tips = c["fingertip_pos"].numpy() - c["object_pose"][:, None, :3].numpy()
    local = np.stack([turn.inv().apply(tips[:, k]) for k in range(K)], axis=1)
    np.testing.assert_allclose(tracking.fingertips_in_object(c).numpy(), local.reshape(N, -1), atol=1e-5)
    ahead = tracking.upcoming_joint_error(c).view(N, L - 1, J)
    for frame in range(1, L):
        assert torch.equal(ahead[:, frame - 1], c["reference_joint_pos"][:, frame] - c["joint_pos"])
    error = tracking.upcoming_object_error(c).view(N, L, 6)
    for frame in range(L):
        wanted = Rotation.from_quat(c["reference_object_pose"][:, frame, 3:].numpy(), scalar_first=True)
        np.testing.assert_allclose(error[:, frame, 3:].numpy(), (wanted * turn.inv()).as_rotvec(), atol=2e-3)
        moved = c["reference_object_pose"][:, frame, :3] - c["object_pose"][:, :3]
        np.testing.assert_allclose(error[:, frame, :3].numpy(), moved.numpy(), atol=1e-6)


@pytest.mark.parametrize("side", ["right", "left"])
def test_landmarks_are_where_the_engine_has_them(side):
    robot = get_robot("allegro", side=side)
    model = compile_scene(robot, "mug")
    data = mujoco.MjData(model)
    q = np.random.default_rng(0).uniform(robot.lower, robot.upper, (20, len(robot.joint_names)))
    c = Channels({"joint_pos": torch.from_numpy(q).float()}, hand_landmarks(robot))
    for i in range(20):
        for name, value in zip(robot.joint_names, q[i], strict=True):
            data.joint(name).qpos = value
        mujoco.mj_kinematics(model, data)
        for k, site in enumerate(robot.fingertip_sites):
            np.testing.assert_allclose(c["fingertip_pos"][i, k].numpy(), data.site(site).xpos, atol=2e-6)
        palm = data.site(robot.palm_site)
        np.testing.assert_allclose(c["palm_pos"][i].numpy(), palm.xpos, atol=2e-6)
        np.testing.assert_allclose(c["palm_rotation"][i].numpy(), palm.xmat.reshape(3, 3), atol=2e-6)
