"""Scenes of the tests of the GPU engine, and engines on Warp's CPU device that are about to move."""

from __future__ import annotations

import functools
from typing import Any

import mujoco
import numpy as np
import torch

from sim.mujoco_cpu import MujocoCpu
from sim.mujoco_gpu import MujocoGpu
from sim.robots import get_robot
from sim.tasks.tracking_scene import OBJECT, compile_scene

ARM = """
<mujoco>
  <compiler angle="radian"/>
  <option timestep="0.004" integrator="implicitfast"/>
  <worldbody>
    <light pos="0 0 2"/>
    <geom name="wall" type="box" pos=".5 0 .3" size=".05 .2 .3"/>
    <camera name="watch" pos="0 -1 .5" mode="targetbody" target="fore"/>
    <site name="hook" pos="0 0 1"/>
    <body name="goal" mocap="true" pos=".2 .1 .4"><site name="goal"/></body>
    <body name="upper" pos="0 0 .6">
      <joint name="shoulder" axis="0 1 0" damping=".02" range="-1.5 .45" limited="true"/>
      <geom name="upper" type="capsule" fromto="0 0 0 .2 0 0" size=".02"/>
      <body name="fore" pos=".2 0 0">
        <joint name="elbow" axis="0 1 0" damping=".01" armature=".001" frictionloss=".01" stiffness=".1"/>
        <geom name="fore" type="capsule" fromto="0 0 0 .15 0 0" size=".015"/>
        <site name="tip" pos=".15 0 0"/>
      </body>
    </body>
  </worldbody>
  <tendon>
    <fixed name="both" stiffness=".2" damping=".01">
      <joint joint="shoulder" coef="1"/><joint joint="elbow" coef="-1"/>
    </fixed>
    <spatial name="rope" range="0 .7" limited="true"><site site="hook"/><site site="tip"/></spatial>
  </tendon>
  <actuator>
    <position name="shoulder" joint="shoulder" kp="4" kv=".2" nsample="3" delay=".004"/>
    <motor name="pull" tendon="both" gear=".5"/>
    <general name="slow" joint="elbow" dyntype="filter" dynprm=".05" gainprm="1" biastype="affine" biasprm="0 -1 -.05"/>
  </actuator>
  <sensor>
    <framepos name="tip" objtype="site" objname="tip"/>
    <gyro name="gyro" site="tip"/>
    <tendonpos name="rope" tendon="rope"/>
    <accelerometer name="acc" site="tip"/>
    <jointlimitpos name="limit" joint="shoulder"/>
    <jointpos name="late" joint="elbow" nsample="4" delay=".008"/>
  </sensor>
</mujoco>
"""
BOX = """
<mujoco>
  <option timestep="0.005"/>
  <worldbody>
    <geom name="floor" type="plane" size="2 2 .1"/>
    <body name="box" pos="0 0 .0498">
      <freejoint/>
      <geom name="box" type="box" size=".05 .04 .05" mass=".3" friction=".8 .005 .0001"/>
    </body>
  </worldbody>
</mujoco>
"""
N = 4


@functools.cache
def model_of(name: str) -> mujoco.MjModel:
    """An arm with tendons, actuator dynamics and sensors; a box on a plane; the scene of hand-object tracking."""
    if name == "hand":
        return compile_scene(get_robot("allegro", side="right", base="floating"), "cube")
    return mujoco.MjModel.from_xml_string({"arm": ARM, "box": BOX}[name])


def start(model: mujoco.MjModel) -> np.ndarray:
    """A state to start from, (nq,): the arm bent, the box and the hand's object lying on the ground."""
    qpos = model.qpos0.copy()
    if model.nu == 3:
        qpos[:] = 0.4, -0.9
    if model.nu == 22:
        adr = model.joint(OBJECT).qposadr[0]
        qpos[adr : adr + 3] = 0.3, 0.0, 0.0349
        qpos[2] += 0.2
    return qpos


def inputs(model: mujoco.MjModel, steps: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Velocities (N, nv) and controls (steps, N, nu)."""
    rng = np.random.default_rng(0)
    controls = start(model)[: model.nu] if model.nu == 22 else 0.0
    drawn = rng.normal(0, 0.2, (N, model.nv)), controls + rng.normal(0, 0.1, (steps, N, model.nu))
    return torch.from_numpy(drawn[0]).float(), torch.from_numpy(drawn[1]).float()


def prepared(name: str, **settings: Any) -> MujocoGpu:
    """An engine whose worlds all have velocities and controls of their own."""
    physics = MujocoGpu(model_of(name), N, device="cpu", **settings)
    prepare(physics)
    return physics


def prepare(physics: MujocoGpu | MujocoCpu) -> None:
    model = physics.model
    velocities, controls = inputs(model)
    physics.bind("qpos").copy_(torch.from_numpy(start(model)).expand(N, -1))
    physics.bind("qvel").copy_(velocities)
    physics.bind("ctrl").copy_(controls[0])


def rollout(physics: MujocoGpu, steps: int) -> torch.Tensor:
    """States (steps, N, nq + nv) under controls of their own in every step."""
    out = []
    for control in inputs(physics.model, steps)[1]:
        physics.bind("ctrl").copy_(control)
        physics.step(2)
        out.append(torch.cat([physics.bind("qpos"), physics.bind("qvel")], 1))
    return torch.stack(out)


def host(model: mujoco.MjModel, physics: MujocoGpu, i: int) -> mujoco.MjData:
    """World ``i`` in plain MuJoCo."""
    data = mujoco.MjData(model)
    for name in ("qpos", "qvel", "act", "ctrl", "xfrc_applied", "qfrc_applied", "mocap_pos"):
        getattr(data, name)[:] = physics.bind(name)[i].numpy()
    return data


def largest_error(value: torch.Tensor, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest magnitude above 1."""
    difference = np.abs(value.numpy() - expected).max(initial=0.0)
    return float(difference / max(1.0, np.abs(expected).max(initial=0.0)))
