"""Small models of the tests of the GPU engine."""

from __future__ import annotations

import mujoco

ARM = """
<mujoco>
  <option timestep="0.004" integrator="implicitfast"/>
  <worldbody>
    <light pos="0 0 2"/>
    <geom name="wall" type="box" pos=".5 0 .3" size=".05 .2 .3"/>
    <camera name="watch" pos="0 -1 .5" mode="targetbody" target="fore"/>
    <site name="hook" pos="0 0 1"/>
    <body name="target" mocap="true" pos=".2 .1 .4"><geom type="sphere" size=".01" contype="0" conaffinity="0"/></body>
    <body name="upper" pos="0 0 .6">
      <joint name="shoulder" axis="0 1 0" damping=".02" range="-1.5 1.5" limited="true"/>
      <geom name="upper" type="capsule" fromto="0 0 0 .2 0 0" size=".02"/>
      <body name="fore" pos=".2 0 0">
        <joint name="elbow" axis="0 1 0" damping=".01" armature=".001" frictionloss=".01" stiffness=".1"/>
        <geom name="fore" type="capsule" fromto="0 0 0 .15 0 0" size=".015"/>
        <site name="tip" pos=".15 0 0"/>
      </body>
    </body>
  </worldbody>
  <tendon>
    <fixed name="both" stiffness=".2" damping=".01"><joint joint="shoulder" coef="1"/><joint joint="elbow" coef="-1"/></fixed>
    <spatial name="rope" range="0 1.2" limited="true"><site site="hook"/><site site="tip"/></spatial>
  </tendon>
  <equality><joint name="couple" joint1="elbow" joint2="shoulder" polycoef="0 .3" active="false"/></equality>
  <actuator>
    <position name="shoulder" joint="shoulder" kp="4" kv=".2"/>
    <motor name="pull" tendon="both" gear=".5"/>
    <general name="slow" joint="elbow" dyntype="filter" dynprm=".05" gainprm="1" biastype="affine" biasprm="0 -1 -.05"/>
  </actuator>
  <sensor>
    <framepos name="tip" objtype="site" objname="tip"/>
    <gyro name="gyro" site="tip"/>
    <tendonpos name="rope" tendon="rope"/>
    <accelerometer name="acc" site="tip"/>
  </sensor>
</mujoco>
"""
"""An arm with tendons, actuator dynamics, limits, a wall, a mocap target, and sensors of every stage."""

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
"""A box that lies on a plane."""


def arm() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(ARM)


def box() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(BOX)
