"""Forward kinematics in torch against MuJoCo's."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from sim.kinematics import Kinematics, KinematicsError
from sim.robots import get_robot


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("base", ["floating", "fixed"])
def test_sites_are_where_mujoco_puts_them(side, base):
    robot = get_robot("allegro", side=side, base=base)
    model = robot.spec().compile()
    data = mujoco.MjData(model)
    sites = (*robot.fingertip_sites, robot.palm_site, *list(robot.keypoint_sites)[:3])
    kinematics = Kinematics(model, robot.joint_names, sites, frames=sites)
    joints = np.random.default_rng(0).uniform(robot.lower, robot.upper, (20, len(robot.joint_names)))
    position, rotation = kinematics(torch.tensor(joints, dtype=torch.float32))
    assert position.shape == (20, len(sites), 3) and rotation.shape == (20, len(sites), 3, 3)
    for n, values in enumerate(joints):
        data.qpos[:] = values
        mujoco.mj_kinematics(model, data)
        for k, site in enumerate(sites):
            np.testing.assert_allclose(position[n, k].numpy(), data.site(site).xpos, atol=2e-6)
            np.testing.assert_allclose(rotation[n, k].numpy().ravel(), data.site(site).xmat, atol=2e-6)


def test_it_is_differentiable():
    robot = get_robot("allegro")
    model = robot.spec().compile()
    kinematics = Kinematics(model, robot.joint_names, robot.fingertip_sites)
    joints = torch.tensor(robot.home.copy(), dtype=torch.float32)[None].requires_grad_()
    kinematics(joints)[0][0, 0].sum().backward()
    data = mujoco.MjData(model)
    data.qpos[:] = robot.home
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    jacobian = np.zeros((3, model.nv))
    mujoco.mj_jacSite(model, data, jacobian, None, model.site(robot.fingertip_sites[0]).id)
    np.testing.assert_allclose(joints.grad[0].numpy(), jacobian.sum(0), atol=1e-5)


TREE = """<mujoco><worldbody><body name="a" pos="0 0 1"><joint name="{name}" type="{kind}" {more}/>
<geom size=".1"/><site name="tip" pos=".1 0 0"/></body></worldbody></mujoco>"""


@pytest.mark.parametrize(
    ("text", "site", "message"),
    [
        (TREE.format(name="j", kind="ball", more=""), "tip", "joint 'j': only hinges and slides"),
        (TREE.format(name="j", kind="hinge", more='pos="0 0 .1"'), "tip", "joint 'j': only hinges and slides"),
        (TREE.format(name="j", kind="hinge", more='ref=".1"'), "tip", "joint 'j' has a reference position"),
        (TREE.format(name="other", kind="hinge", more=""), "tip", "joint 'other' moves a site"),
        (TREE.format(name="j", kind="hinge", more=""), "tipp", "no site 'tipp'"),
    ],
)
def test_what_it_does_not_cover_is_refused(text, site, message):
    with pytest.raises(KinematicsError, match=message):
        Kinematics(mujoco.MjModel.from_xml_string(text), ["j"], [site])


def test_a_site_on_the_world_and_one_behind_slides():
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><site name="base" pos="0 0 .5"/>
        <body name="a" pos="0 0 1" quat=".7071068 .7071068 0 0"><joint name="j" type="slide" axis="0 0 1"/>
        <geom size=".1"/><site name="tip" pos=".1 0 0"/></body></worldbody></mujoco>"""
    )
    position, _ = Kinematics(model, ["j"], ["base", "tip"])(torch.tensor([[0.25]]))
    np.testing.assert_allclose(position[0].numpy(), [[0, 0, 0.5], [0.1, -0.25, 1.0]], atol=1e-6)
