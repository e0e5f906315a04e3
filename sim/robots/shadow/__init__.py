"""Shadow hand, 20 actuators and 24 joints, from MuJoCo Menagerie or the gymnasium-robotics wheel.

Both models are brought to one form: joints numbered as on the real hand (FFJ1 is the distal joint, THJ5 and
WRJ2 the proximal ones), every actuator driving one joint, the palm frame and keypoints of the other hands.
On the index, middle, ring and little finger one actuator drives the middle joint and the distal joint
follows it.
"""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path

import mujoco
import numpy as np

from sim.robots.assets import Asset, locate
from sim.robots.errors import AssetNotAvailable, RobotModelError, UnknownRobot
from sim.robots.robot import Robot, robot_from_spec

ASSET = Asset(
    robot="shadow",
    licence="Apache-2.0",
    menagerie="shadow_hand",
    module="gymnasium_robotics",
    folder="envs/assets",
    install="pip install 'robolearn[assets]'",
)

WRIST_JOINTS = ("wrist_x", "wrist_y", "wrist_z", "wrist_rx", "wrist_ry", "wrist_rz")
_FINGERS = ("ff", "mf", "rf", "lf")
_TIP_OFFSET = {"ff": 0.026, "mf": 0.026, "rf": 0.026, "lf": 0.026, "th": 0.0275}
_KEYPOINTS = {
    "wrist": 0,
    **{f"th_{part}": 1 + i for i, part in enumerate(("cmc", "mcp", "ip", "tip"))},
    **{
        f"{finger}_{part}": 5 + 4 * f + i
        for f, finger in enumerate(_FINGERS)
        for i, part in enumerate(("mcp", "pip", "dip", "tip"))
    },
}
# Takes the palm body's axes (z along the fingers, y out of the back) to x along the fingers, z out of the back
_PALM_QUAT = (0.5, -0.5, -0.5, -0.5)
_GAINS = {
    "slide": 'kp="4000" kv="100" forcerange="-200 200"',
    "hinge": 'kp="80" kv="1.6" forcerange="-20 20"',
}
_RANGE = {"slide": "-1.5 1.5", "hinge": "-6.2832 6.2832"}


def make(side: str, base: str, path: str | os.PathLike[str] | None = None) -> Robot:
    """Return the Shadow hand; `path` is a folder of either model.

    Raises:
        AssetNotAvailable: neither model is on this machine.
        UnknownRobot: the model found has no hand of that side.
    """
    folder = locate(ASSET, path)
    return robot_from_spec(
        partial(build, folder, side, base),
        name="shadow",
        side=side,
        base=base,
        wrist_joints=WRIST_JOINTS if base == "floating" else (),
        fingertip_sites=(*(f"{f}_tip" for f in _FINGERS), "th_tip"),
        palm_site="palm",
        keypoint_sites=_KEYPOINTS,
    )


def build(folder: Path, side: str, base: str) -> mujoco.MjSpec:
    """Return a fresh specification of the hand whose files are in `folder`."""
    text = _read(folder, side)
    if base == "floating":
        text = _float(text)
    try:
        spec = mujoco.MjSpec.from_string(text)
        spec.modelname = f"shadow_{side}"
        spec.option.integrator, spec.option.timestep = mujoco.mjtIntegrator.mjINT_DISCRETE, 1 / 120
        _drive_middle_joints(spec)
        _add_sites(spec)
        _place(spec, base)
        spec.compile()
    except (ValueError, KeyError, AttributeError) as error:
        raise RobotModelError(f"the Shadow hand in {folder} cannot be used: {error}") from error
    return spec


def _read(folder: Path, side: str) -> str:
    """MJCF text of the hand alone, names without prefix, joints numbered from 1 at the fingertip."""
    if (folder / f"{side}_hand.xml").is_file():
        text = (folder / f"{side}_hand.xml").read_text()
        text = re.sub(r'meshdir="[^"]*"', f'meshdir="{folder / "assets"}"', text)
        return re.sub(r'"[rl]h_', '"', text)
    if not (folder / "hand" / "robot.xml").is_file():
        raise AssetNotAvailable(f"no {side}_hand.xml or hand/robot.xml of the Shadow hand in {folder}")
    if side != "right":
        raise UnknownRobot("the Shadow hand of gymnasium-robotics has no left hand; sides: right")
    inside = {
        name: _inside((folder / "hand" / f"{name}.xml").read_text()) for name in ("shared", "shared_asset", "robot")
    }
    text = f"""<mujoco>
      <compiler angle="radian" meshdir="{folder / "stls" / "hand"}" texturedir="{folder / "textures"}"/>
      {inside["shared"]}
      <asset>{inside["shared_asset"]}</asset>
      <worldbody>{inside["robot"]}</worldbody>
    </mujoco>"""
    text = re.sub(r"<size [^>]*>\s*</size>", "", text)
    text = re.sub(r"([A-Z]{2}J)(\d)", lambda m: f"{m[1]}{int(m[2]) + 1}", text)
    return text.replace("robot0:", "")


def _inside(text: str) -> str:
    match = re.search(r"<mujoco[^>]*>(.*)</mujoco>", text, re.DOTALL)
    if not match:
        raise RobotModelError("a file of the Shadow hand has no <mujoco> element")
    return match[1]


def _float(text: str) -> str:
    """Put the hand on a body with six wrist joints, driven by the first six actuators."""
    joints, motors = [], []
    for i, name in enumerate(WRIST_JOINTS):
        kind = "slide" if i < 3 else "hinge"
        axis = " ".join(str(int(i % 3 == k)) for k in range(3))
        joints.append(f'<joint name="{name}" type="{kind}" axis="{axis}" range="{_RANGE[kind]}" limited="true"/>')
        motors.append(f'<position name="{name}" joint="{name}" ctrlrange="{_RANGE[kind]}" {_GAINS[kind]}/>')
    text = text.replace("<worldbody>", f'<worldbody><body name="base">{"".join(joints)}')
    text = text.replace("</worldbody>", "</body></worldbody>")
    return text.replace("<actuator>", f"<actuator>{''.join(motors)}", 1)


def _drive_middle_joints(spec: mujoco.MjSpec) -> None:
    """Where an actuator pulls the sum of a finger's last two joints, drive one and couple the other."""
    for finger in _FINGERS:
        middle, distal = f"{finger.upper()}J2", f"{finger.upper()}J1"
        for actuator in spec.actuators:
            if actuator.trntype == mujoco.mjtTrn.mjTRN_TENDON and actuator.target == f"{finger.upper()}J0":
                actuator.trntype, actuator.target = mujoco.mjtTrn.mjTRN_JOINT, middle
                actuator.ctrlrange = [0.0, np.pi / 2]
                coupling = spec.add_equality(name=distal, type=mujoco.mjtEq.mjEQ_JOINT, name1=distal, name2=middle)
                coupling.data[:2] = [0.0, 1.0]


def _add_sites(spec: mujoco.MjSpec) -> None:
    palm = spec.body("palm")
    root = spec.body("mfknuckle")
    palm.add_site(name="palm", pos=root.pos, quat=_PALM_QUAT)
    palm.add_site(name="wrist", pos=[0.0, 0.0, 0.0])
    for finger in _FINGERS:
        for part, body in (("mcp", "proximal"), ("pip", "middle"), ("dip", "distal")):
            spec.body(f"{finger}{body}").add_site(name=f"{finger}_{part}")
    for part, body in (("cmc", "thbase"), ("mcp", "thmiddle"), ("ip", "thdistal")):
        spec.body(body).add_site(name=f"th_{part}")
    for finger, offset in _TIP_OFFSET.items():
        spec.body(f"{finger}distal").add_site(name=f"{finger}_tip", pos=[0.0, 0.0, offset])


def _place(spec: mujoco.MjSpec, base: str) -> None:
    """Move the hand so that at rest the palm frame is the world frame, and add the keyframe "home"."""
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    root = next(b for b in spec.bodies if b.parent is not None and b.name not in ("world", "base"))
    site, body = data.site("palm"), data.body(root.name)
    to_palm = site.xmat.reshape(3, 3).T
    turned = to_palm @ body.xmat.reshape(3, 3)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, turned.ravel())
    root.pos, root.quat = to_palm @ (body.xpos - site.xpos), quat
    root.alt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT
    for b in spec.bodies[1:]:
        b.gravcomp = 1.0
    if base == "floating":
        forearm = spec.body("forearm")
        for geom in list(forearm.geoms):
            spec.delete(geom)
        # Without its forearm the hand is light enough for the wrist motors, as floating hands are made.
        forearm.explicitinertial = True
        forearm.mass, forearm.inertia, forearm.ipos = 0.1, [1e-4] * 3, [0.0, 0.0, 0.2]
    home = np.clip(model.qpos0, model.jnt_range[:, 0], model.jnt_range[:, 1])
    ctrl = home[model.jnt_qposadr[model.actuator_trnid[:, 0]]]
    spec.add_key(name="home", qpos=home, ctrl=ctrl)
