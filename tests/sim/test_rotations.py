"""Quaternion arithmetic against scipy, at small angles, on the double cover, and under differentiation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from sim import rotations as rot

RNG = np.random.default_rng(0)


def random_quats(n: int = 200) -> torch.Tensor:
    q = RNG.standard_normal((n, 4))
    return torch.from_numpy(q / np.linalg.norm(q, axis=1, keepdims=True))


def scipy(q: torch.Tensor) -> Rotation:
    return Rotation.from_quat(q.numpy(), scalar_first=True)


def same_rotation(q: torch.Tensor, expected: Rotation, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose((scipy(q) * expected.inv()).magnitude(), 0, atol=tolerance)


def test_product_and_inverse():
    a, b = random_quats(), random_quats()
    same_rotation(rot.quat_multiply(a, b), scipy(a) * scipy(b))
    same_rotation(rot.quat_conjugate(a), scipy(a).inv())
    # one quaternion against many
    same_rotation(rot.quat_multiply(a[:1], b), Rotation.from_quat(a[0].numpy(), scalar_first=True) * scipy(b))


def test_rotation_vectors_there_and_back():
    q = random_quats()
    np.testing.assert_allclose(rot.quat_to_rotvec(q).numpy(), scipy(q).as_rotvec(), atol=1e-9)
    r = torch.from_numpy(RNG.uniform(-1.7, 1.7, (200, 3)))
    same_rotation(rot.quat_from_rotvec(r), Rotation.from_rotvec(r.numpy()))
    np.testing.assert_allclose(rot.quat_to_rotvec(rot.quat_from_rotvec(r)).numpy(), r.numpy(), atol=1e-9)


def test_both_quaternions_of_a_rotation_are_one_rotation():
    q = random_quats()
    assert torch.equal(rot.quat_to_rotvec(q), rot.quat_to_rotvec(-q))
    assert torch.allclose(rot.quat_to_matrix(q), rot.quat_to_matrix(-q), atol=1e-15)
    assert (rot.quat_to_rotvec(q).norm(dim=-1) <= np.pi + 1e-12).all()
    zero = rot.rotation_error(q[:, None], -q).norm(dim=-1)
    assert (zero < 1e-7).all()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-6), (torch.float64, 1e-9)])
@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-8, 9e-7, 1.1e-6, 1e-5, 1e-3, 3.14, np.pi])
def test_from_no_angle_to_a_half_turn(angle, dtype, tolerance):
    axis = torch.tensor([0.6, -0.48, 0.64], dtype=dtype)
    q = rot.quat_from_rotvec(angle * axis)
    assert q.norm() == pytest.approx(1, abs=1e-6)
    back = rot.quat_to_rotvec(q)
    assert torch.isfinite(back).all()
    # at a half turn both directions are right
    assert min((back - angle * axis).norm(), (back + angle * axis).norm() if angle > 3.1 else np.inf) <= (
        tolerance * max(angle, 1e-3)
    )


def test_error_turns_actual_into_target():
    target, actual = random_quats(), random_quats()
    error = rot.rotation_error(target[:, None], actual)[:, 0]
    same_rotation(target, Rotation.from_rotvec(error.numpy()) * scipy(actual), 1e-9)


def test_matrix():
    q = random_quats()
    np.testing.assert_allclose(rot.quat_to_matrix(q).numpy(), scipy(q).as_matrix(), atol=1e-12)


def test_one_actual_rotation_has_several_targets():
    targets, actual = random_quats().reshape(-1, 2, 4), random_quats()
    errors = rot.rotation_error(targets, actual[: len(targets)])
    for k in range(2):
        one = rot.rotation_error(targets[:, k : k + 1], actual[: len(targets)])
        np.testing.assert_allclose(errors[:, k].numpy(), one[:, 0].numpy(), atol=1e-12)


def test_gradients_are_finite_at_the_identity_and_at_a_half_turn():
    for q in ([1.0, 0, 0, 0], [-1.0, 0, 0, 0], [0.0, 1, 0, 0]):
        quat = torch.tensor(q, requires_grad=True)
        rot.quat_to_rotvec(quat).sum().backward()
        assert torch.isfinite(quat.grad).all()
        pair = torch.tensor(q, requires_grad=True)
        rot.rotation_error(pair[None], torch.tensor([1.0, 0, 0, 0])).square().sum().backward()
        assert torch.isfinite(pair.grad).all()
    vector = torch.zeros(3, requires_grad=True)
    quat = rot.quat_from_rotvec(vector)
    quat[1].backward()
    assert vector.grad.tolist() == [0.5, 0, 0]
    vector = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: rot.quat_to_rotvec(rot.quat_from_rotvec(r)), vector)
