"""Terms of reference tracking: a hand follows a recorded hand, and its object a recorded object.

Channels used here (N worlds, J joints, K fingertips, L frames of reference; frame 0 is now, frame 1 the next step):
``joint_pos`` (N, J), ``joint_vel`` (N, J), ``object_pose`` (N, 7), ``object_vel`` (N, 6), ``reference_joint_pos``
(N, L, J), ``reference_object_pose`` (N, L, 7), and the landmarks of `sim.terms.landmarks`; positions in the world.
"""

from __future__ import annotations

import torch
from torch.linalg import vector_norm

from sim.channels import Channels
from sim.rotations import quat_to_matrix, rotation_error

# Derived channels


def object_position_error(c: Channels) -> torch.Tensor:
    """(N, L, 3) m: reference minus actual object position, for every frame of reference."""
    return c["reference_object_pose"][..., :3] - c["object_pose"][:, None, :3]


def object_rotation_error(c: Channels) -> torch.Tensor:
    """(N, L, 3) rad: rotation vector from the actual to the reference object orientation."""
    return rotation_error(c["reference_object_pose"][..., 3:], c["object_pose"][:, 3:])


def object_distance(c: Channels) -> torch.Tensor:
    """(N,) m: distance of the object from its reference now."""
    return vector_norm(c["object_position_error"][:, 0], dim=-1)


def object_angle(c: Channels) -> torch.Tensor:
    """(N,) rad: angle of the object from its reference now."""
    return vector_norm(c["object_rotation_error"][:, 0], dim=-1)


def joint_error(c: Channels) -> torch.Tensor:
    """(N, J) rad or m: reference minus actual joint positions now."""
    return c["reference_joint_pos"][:, 0] - c["joint_pos"]


def fingertip_to_object(c: Channels) -> torch.Tensor:
    """(N, K) m: distance of each fingertip from the object's centre."""
    return vector_norm(c["fingertip_pos"] - c["object_pose"][:, None, :3], dim=-1)


def palm_to_object(c: Channels) -> torch.Tensor:
    """(N,) m: distance of the palm from the object's centre."""
    return vector_norm(c["palm_pos"] - c["object_pose"][:, :3], dim=-1)


def object_rotation(c: Channels) -> torch.Tensor:
    """(N, 3, 3): the object's rotation matrix in the world."""
    return quat_to_matrix(c["object_pose"][:, 3:])


DERIVED = {
    "object_rotation": object_rotation,
    "object_position_error": object_position_error,
    "object_rotation_error": object_rotation_error,
    "object_distance": object_distance,
    "object_angle": object_angle,
    "joint_error": joint_error,
    "fingertip_to_object": fingertip_to_object,
    "palm_to_object": palm_to_object,
}

# Observations


def channel(c: Channels, name: str, scale: float = 1.0) -> torch.Tensor:
    """A channel as it is, flattened to (N, d), times ``scale``."""
    value = c[name].flatten(1)
    return value if scale == 1.0 else value * scale


def object_in_palm(c: Channels) -> torch.Tensor:
    """(N, 3) m: object centre in the palm frame."""
    offset = c["object_pose"][:, :3] - c["palm_pos"]
    return (c["palm_rotation"] * offset.unsqueeze(-1)).sum(1)


def object_orientation(c: Channels) -> torch.Tensor:
    """(N, 6): two columns of the object's rotation matrix, a continuous code of rotations (Zhou et al. 2019)."""
    return c["object_rotation"][:, :, :2].transpose(1, 2).flatten(1)


def fingertips_in_object(c: Channels) -> torch.Tensor:
    """(N, 3K) m: fingertips in the object's frame."""
    offsets = c["fingertip_pos"] - c["object_pose"][:, None, :3]
    return (offsets @ c["object_rotation"]).flatten(1)


def upcoming_joint_error(c: Channels) -> torch.Tensor:
    """(N, (L-1)J): joints of the upcoming reference frames minus the joints now."""
    return (c["reference_joint_pos"][:, 1:] - c["joint_pos"][:, None]).flatten(1)


def upcoming_object_error(c: Channels) -> torch.Tensor:
    """(N, 6L): position (m) and rotation (rad) errors of the object against all reference frames."""
    return torch.cat([c["object_position_error"], c["object_rotation_error"]], dim=-1).flatten(1)


# Rewards after DexTrack (arXiv 2502.09614, released code): see each function's weight in the task


def dextrack_hand(c: Channels, wrist: int) -> torch.Tensor:
    """(N,) 0.6|Δwrist position|₁ + 0.1|Δwrist rotation|₁ + 0.1|Δfinger joints|₁, to be weighted negatively."""
    error = c["joint_error"].abs()
    half = wrist // 2
    return 0.6 * error[:, :half].sum(1) + 0.1 * error[:, half:wrist].sum(1) + 0.1 * error[:, wrist:].sum(1)


def dextrack_approach(c: Channels) -> torch.Tensor:
    """(N,) m: min(Σ_tips d, 2.4)·[d_palm ≤ 0.12] + 2·min(d_palm, 0.5), to be weighted negatively."""
    palm = c["palm_to_object"]
    tips = c["fingertip_to_object"].sum(1).clamp_max(0.6 * 4)
    return tips * (palm <= 0.12) + 2.0 * palm.clamp_max(0.5)


def dextrack_contact(c: Channels) -> torch.Tensor:
    """(N,) 0 or 1: the hand is around the object, C = [Σ_tips d ≤ 0.48 m] ∧ [d_palm ≤ 0.12 m]."""
    return ((c["fingertip_to_object"].sum(1) <= 0.12 * 4) & (c["palm_to_object"] <= 0.12)).float()


def dextrack_object(c: Channels) -> torch.Tensor:
    """(N,) C·(−2‖Δp‖ − 0.33 θ): the object's pose error, once the hand is around it."""
    return dextrack_contact(c) * (-2.0 * c["object_distance"] - 0.33 * c["object_angle"])


def dextrack_bonus(c: Channels) -> torch.Tensor:
    """(N,) C·[‖Δp‖ ≤ 5 cm] / (1 + 10‖Δp‖)."""
    distance = c["object_distance"]
    return dextrack_contact(c) * (distance <= 0.05) / (1.0 + 10.0 * distance)


# Rewards in exponential form (as DeepMimic, Peng et al. 2018, and its followers)


def object_position_exp(c: Channels, sharpness: float) -> torch.Tensor:
    """(N,) exp(−sharpness·‖Δp‖), sharpness in 1/m."""
    return torch.exp(-sharpness * c["object_distance"])


def object_rotation_exp(c: Channels, sharpness: float) -> torch.Tensor:
    """(N,) exp(−sharpness·θ), sharpness in 1/rad."""
    return torch.exp(-sharpness * c["object_angle"])


def wrist_exp(c: Channels, wrist: int, sharpness: float) -> torch.Tensor:
    """(N,) exp(−sharpness·(‖Δwrist position‖ + 0.3‖Δwrist rotation‖))."""
    error = c["joint_error"]
    half = wrist // 2
    distance, angle = vector_norm(error[:, :half], dim=1), vector_norm(error[:, half:wrist], dim=1)
    return torch.exp(-sharpness * (distance + 0.3 * angle))


def finger_exp(c: Channels, wrist: int, sharpness: float) -> torch.Tensor:
    """(N,) exp(−sharpness·mean|Δfinger joints|)."""
    return torch.exp(-sharpness * c["joint_error"][:, wrist:].abs().mean(1))


def squared(c: Channels, name: str) -> torch.Tensor:
    """(N,) mean square of a channel, to be weighted negatively."""
    return c[name].square().flatten(1).mean(1)


def scrambled(c: Channels) -> torch.Tensor:
    """(N,) in (-1, 1): a chaotic function of the joint positions, which tells nothing about the task.

    Its mean is zero: a positive one would pay for not being terminated, and early termination knows the task. It is a
    pure function still, so that the control run repeats and resumes like any other.
    """
    return torch.frac(torch.sin(c["joint_pos"].sum(1) * 1e4) * 4e4)


# Terminations


def object_lost(c: Channels, distance: float, angle: float) -> torch.Tensor:
    """(N,) bool: the object is further than ``distance`` (m) or ``angle`` (rad) from its reference."""
    return (c["object_distance"] > distance) | (c["object_angle"] > angle)
