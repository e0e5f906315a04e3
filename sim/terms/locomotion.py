"""Terms of locomotion: a legged robot moves at a commanded velocity.

Channels used here (N worlds, J joints, F = 2 feet, left then right; the body that carries the joints is the base):
measured ``joint_pos``, ``joint_vel`` (N, J), ``imu_orientation`` (N, 4) wxyz and ``imu_ang_vel`` (N, 3) rad/s in the
base's frame; the goal's ``velocity_command`` (N, 3): ahead and left, m/s, and turning, rad/s; the decoder's
``last_action``, ``action_change`` (N, J) and ``gait_phase`` (N, 1); privileged ``base_pose`` (N, 7) and ``base_vel``
(N, 6) (linear in the world, angular in the base's frame), ``foot_contact`` (N, F) counts, and the feet's landmarks.

The plan of a gait: a foot stands for `STANCE` of its cycle and swings for the rest, the right half a cycle after the
left; whoever is told to stand keeps both down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.linalg import vector_norm

from sim.channels import Channels
from sim.rotations import quat_to_matrix

STANCE = 0.55
"""Share of the cycle for which a foot stands."""
STILL = 0.1
"""m/s and rad/s: a smaller command means to stand."""

# Derived channels


def projected_gravity(c: Channels) -> torch.Tensor:
    """(N, 3): the direction of gravity in the base's frame; (0, 0, -1) upright."""
    return -quat_to_matrix(c["imu_orientation"])[:, 2]


def base_rotation(c: Channels) -> torch.Tensor:
    """(N, 3, 3): the base's rotation matrix in the world."""
    return quat_to_matrix(c["base_pose"][:, 3:])


def heading_velocity(c: Channels) -> torch.Tensor:
    """(N, 3) m/s: the base's velocity ahead, left and up, ahead being its x axis projected on the floor."""
    ahead = c["base_rotation"][:, :2, 0]
    cosine, sine = (ahead / vector_norm(ahead, dim=1, keepdim=True).clamp_min(1e-6)).unbind(1)
    x, y, z = c["base_vel"][:, :3].unbind(1)
    return torch.stack([cosine * x + sine * y, cosine * y - sine * x, z], dim=1)


def turn_rate(c: Channels) -> torch.Tensor:
    """(N,) rad/s: the base's angular velocity about the vertical."""
    return (c["base_rotation"][:, 2] * c["base_vel"][:, 3:]).sum(1)


def moving(c: Channels) -> torch.Tensor:
    """(N,) bool: the command is more than standing."""
    return vector_norm(c["velocity_command"], dim=1) > STILL


def foot_phase(c: Channels) -> torch.Tensor:
    """(N, 2): where each foot is in its cycle, in [0, 1); it stands below `STANCE`."""
    phase = torch.cat([c["gait_phase"], c["gait_phase"] + 0.5], dim=1)
    return phase - torch.floor(phase)


def planned_stance(c: Channels) -> torch.Tensor:
    """(N, 2) bool: the feet that should be down."""
    return (c["foot_phase"] < STANCE) | ~c["moving"].unsqueeze(1)


def standing_feet(c: Channels) -> torch.Tensor:
    """(N, 2) bool: the feet that are down."""
    return c["foot_contact"] > 0


def velocity_error(c: Channels) -> torch.Tensor:
    """(N,) m/s: distance of the velocity ahead and left from the commanded one."""
    return vector_norm(c["heading_velocity"][:, :2] - c["velocity_command"][:, :2], dim=1)


def turn_error(c: Channels) -> torch.Tensor:
    """(N,) rad/s: difference of the turn rate from the commanded one."""
    return (c["turn_rate"] - c["velocity_command"][:, 2]).abs()


DERIVED = {
    "projected_gravity": projected_gravity,
    "base_rotation": base_rotation,
    "heading_velocity": heading_velocity,
    "turn_rate": turn_rate,
    "moving": moving,
    "foot_phase": foot_phase,
    "planned_stance": planned_stance,
    "standing_feet": standing_feet,
    "velocity_error": velocity_error,
    "turn_error": turn_error,
}


@dataclass(frozen=True)
class Gait:
    """Joint positions of a walk by the clock: a coarse plan to learn from, with nothing in it that keeps a balance.

    Attributes:
        standing: (J,) rad, the pose with both feet down.
        lift: (2, J) rad added for a foot in the middle of its swing, left then right.
        sway: (J,) rad added to lean over the left foot in the middle of its stance, taken away over the right.
        reach: (3, 2, J) rad for each unit of the commanded velocity (ahead, left, turn): how far a foot is put out
            where its stance begins; it is as far behind where that ends.
    """

    standing: torch.Tensor
    lift: torch.Tensor
    sway: torch.Tensor
    reach: torch.Tensor

    def still(self, c: Channels) -> torch.Tensor:
        """(N, J) rad: the standing pose in every world."""
        return self.standing.expand(len(c["joint_pos"]), -1)

    def __call__(self, c: Channels) -> torch.Tensor:
        """(N, J) rad: the walk at the commanded velocity."""
        swing = torch.sin(math.pi * swing_progress(c)) @ self.lift
        side = torch.sin(2.0 * math.pi * c["gait_phase"]) * self.sway
        reached = c["velocity_command"].unsqueeze(2) * foot_progress(c).unsqueeze(1)  # (N, 3, 2)
        step = reached.flatten(1) @ self.reach.flatten(0, 1)
        return self.standing + (swing + side + step) * c["moving"].unsqueeze(1)


def foot_progress(c: Channels) -> torch.Tensor:
    """(N, 2): 1 where a foot is put down, falling to -1 where it is lifted, and smoothly back."""
    stance = 1.0 - 2.0 * (c["foot_phase"] / STANCE).clamp_max(1.0)
    swing = 1.0 - torch.cos(math.pi * swing_progress(c))
    return stance + swing


def swing_progress(c: Channels) -> torch.Tensor:
    """(N, 2) in [0, 1]: how much of its swing each foot has done; 0 where it stands."""
    return ((c["foot_phase"] - STANCE) / (1.0 - STANCE)).clamp_min(0.0)


# Observations


def joint_offset(c: Channels) -> torch.Tensor:
    """(N, J) rad: joint positions minus the standing pose."""
    return c["joint_pos"] - c["standing_pose"]


def gait_clock(c: Channels) -> torch.Tensor:
    """(N, 2): the gait phase on the unit circle, without a jump at the end of a cycle."""
    angle = 2.0 * math.pi * c["gait_phase"]
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)


def base_height(c: Channels) -> torch.Tensor:
    """(N, 1) m: height of the base."""
    return c["base_pose"][:, 2:3]


def foot_height(c: Channels) -> torch.Tensor:
    """(N, 2) m: heights of the soles."""
    return c["foot_pos"][:, :, 2]


# Rewards in exponential form


def velocity_exp(c: Channels, scale: float) -> torch.Tensor:
    """(N,) exp(−(e/scale)²) of the velocity error e, scale in m/s (Rudin et al. 2022)."""
    return torch.exp(-(c["velocity_error"] / scale).square())


def turn_exp(c: Channels, scale: float) -> torch.Tensor:
    """(N,) exp(−(e/scale)²) of the turn rate's error e, scale in rad/s."""
    return torch.exp(-(c["turn_error"] / scale).square())


def upright_exp(c: Channels, scale: float) -> torch.Tensor:
    """(N,) exp(−‖g_xy‖²/scale²), g being gravity in the base's frame: 1 upright."""
    return torch.exp(-c["projected_gravity"][:, :2].square().sum(1) / scale**2)


def height_exp(c: Channels, height: float, scale: float) -> torch.Tensor:
    """(N,) exp(−((h − height)/scale)²) of the base's height h, m."""
    return torch.exp(-((c["base_pose"][:, 2] - height) / scale).square())


def pose_exp(c: Channels, joints: torch.Tensor, scale: float) -> torch.Tensor:
    """(N,) exp(−‖q − plan‖/scale) of the joints with ids ``joints``, scale in rad."""
    return torch.exp(-vector_norm((c["joint_pos"] - c["gait_pose"])[:, joints], dim=1) / scale)


def gait_match(c: Channels) -> torch.Tensor:
    """(N,) in [0, 1]: share of the feet that are down, or up, as planned (after Siekmann et al. 2021)."""
    return (c["standing_feet"] == c["planned_stance"]).float().mean(1)


def swing_exp(c: Channels, height: float, scale: float) -> torch.Tensor:
    """(N,) mean over the feet of exp(−((z − plan)/scale)²); a swinging foot's plan is half a sine, ``height`` m."""
    plan = height * torch.sin(math.pi * swing_progress(c)) * ~c["planned_stance"]
    return torch.exp(-((c["foot_pos"][:, :, 2] - plan) / scale).square()).mean(1)


# Penalties, to be weighted negatively


def foot_slip(c: Channels) -> torch.Tensor:
    """(N,) m²/s²: squared horizontal speed of the feet that are down, summed."""
    return (c["foot_vel"][:, :, :2].square().sum(2) * c["standing_feet"]).sum(1)


def bounce(c: Channels) -> torch.Tensor:
    """(N,) m²/s²: squared vertical velocity of the base."""
    return c["base_vel"][:, 2].square()


def sway(c: Channels) -> torch.Tensor:
    """(N,) rad²/s²: squared roll and pitch rates of the base."""
    return c["imu_ang_vel"][:, :2].square().sum(1)


def near_limits(c: Channels, lower: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    """(N,) rad: how far joints are beyond soft limits (J,), summed."""
    q = c["joint_pos"]
    return ((lower - q).clamp_min(0.0) + (q - upper).clamp_min(0.0)).sum(1)


def power(c: Channels) -> torch.Tensor:
    """(N,) W: mechanical power, as the sum of |torque · joint velocity|, of the nominal motors."""
    return (c["motor_torque"] * c["joint_vel"]).abs().sum(1)


# Terminations


def fell(c: Channels, tilt: float, height: float) -> torch.Tensor:
    """(N,) bool: the base leans by more than ``tilt`` (rad) or is lower than ``height`` (m)."""
    return (-c["projected_gravity"][:, 2] < math.cos(tilt)) | (c["base_pose"][:, 2] < height)


def fell_cost(c: Channels, tilt: float, height: float) -> torch.Tensor:
    """(N,) 1 where it fell."""
    return fell(c, tilt, height).float()
