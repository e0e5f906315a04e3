"""Robots: names, limits, frames and masses, the mirror image, and where models of other people are found."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from pathlib import Path

import mujoco
import numpy as np
import pytest

from sim.robots import AssetNotAvailable, Robot, RobotModelError, UnknownRobot, get_hand, get_robot, list_robots

FINGERS = ("index", "middle", "ring")
VARIANTS = [(side, base) for side in ("right", "left") for base in ("floating", "fixed")]


def state(robot: Robot, joints: np.ndarray) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = robot.spec().compile()
    data = mujoco.MjData(model)
    data.qpos[[model.joint(n).qposadr[0] for n in robot.joint_names]] = joints
    mujoco.mj_forward(model, data)
    return model, data


@pytest.mark.parametrize(("side", "base"), VARIANTS)
def test_allegro_names_limits_and_actuators_agree(side: str, base: str) -> None:
    robot = get_robot("allegro", side, base)
    model, data = state(robot, robot.home)
    assert len(robot.finger_joints) == 16 and len(robot.wrist_joints) == (6 if base == "floating" else 0)
    assert robot.joint_names == robot.wrist_joints + robot.finger_joints
    assert robot.joint_names == tuple(model.joint(j).name for j in model.actuator_trnid[:, 0])
    limits = np.stack([robot.lower, robot.upper], axis=1)
    np.testing.assert_allclose(model.actuator_ctrlrange, limits, atol=1e-9)
    assert np.all(robot.effort[-16:] == 0.7)
    assert np.all((robot.lower < robot.home) & (robot.home < robot.upper))
    assert data.ncon == 0
    np.testing.assert_array_equal(model.key("home").ctrl, robot.home)
    assert [model.site(s).name for s in robot.fingertip_sites] == [
        *(f"{f}_tip" for f in FINGERS),
        "thumb_tip",
    ]
    assert sorted(robot.keypoint_sites.values()) == list(range(17))
    assert not robot.lower.flags.writeable
    assert get_robot("allegro", side, base) is robot


@pytest.mark.parametrize(("side", "base"), VARIANTS)
def test_palm_frame_is_the_world_frame_at_zero(side: str, base: str) -> None:
    robot = get_robot("allegro", side, base)
    _, data = state(robot, np.zeros(len(robot.joint_names)))
    np.testing.assert_allclose(data.site(robot.palm_site).xpos, 0.0, atol=1e-12)
    np.testing.assert_allclose(data.site(robot.palm_site).xmat.reshape(3, 3), np.eye(3), atol=1e-7)
    tips = {s: data.site(s).xpos for s in robot.fingertip_sites}
    assert tips["middle_tip"][0] > 0.1, "fingers point along x"
    assert (tips["index_tip"][1] > 0.03) == (side == "right"), "the index finger is on the thumb's side"
    bent = np.where([n.endswith("_mcp") for n in robot.joint_names], 0.5, 0.0)
    assert state(robot, bent)[1].site("middle_tip").xpos[2] < -0.03, "fingers close away from the back of the hand"


def test_masses_are_the_published_ones() -> None:
    model = get_robot("allegro").spec().compile()
    finger = 0.0119 + 0.065 + 0.0355 + 0.0096 + 0.0168
    thumb = 0.0176 + 0.0119 + 0.038 + 0.0388 + 0.0168
    assert model.body_mass.sum() == pytest.approx(0.4154 + 3 * finger + thumb)
    assert model.body("palm").mass[0] == pytest.approx(0.4154)


def test_left_hand_is_the_mirror_image() -> None:
    rng = np.random.default_rng(0)
    right, left = get_robot("allegro", "right", "fixed"), get_robot("allegro", "left", "fixed")
    abduction = np.array([n.endswith("_abd") for n in right.joint_names])
    for _ in range(5):
        joints = rng.uniform(right.lower, right.upper)
        _, a = state(right, joints)
        _, b = state(left, np.where(abduction, -joints, joints))
        np.testing.assert_allclose(b.site_xpos, a.site_xpos * [1, -1, 1], atol=1e-9)
        np.testing.assert_allclose(b.geom_xpos, a.geom_xpos * [1, -1, 1], atol=1e-9)


def test_wrist_joints_and_palm_pose_are_inverse_and_continuous() -> None:
    robot = get_robot("allegro")
    rng = np.random.default_rng(1)
    steps = np.cumsum(rng.normal(size=(200, 6)) * 0.05, axis=0)
    pose = robot.joints_to_wrist_pose(steps)
    np.testing.assert_allclose(robot.wrist_pose_to_joints(pose), steps, atol=1e-9)
    flipped = pose * np.where(np.arange(7) < 3, 1.0, rng.choice([-1.0, 1.0], (200, 1)))
    np.testing.assert_allclose(robot.wrist_pose_to_joints(flipped), steps, atol=1e-9)
    _, data = state(robot, np.concatenate([steps[-1], robot.home[6:]]))
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, pose[-1, 3:])
    np.testing.assert_allclose(data.site(robot.palm_site).xpos, pose[-1, :3], atol=1e-9)
    np.testing.assert_allclose(data.site(robot.palm_site).xmat, rotation, atol=1e-7)
    assert robot.wrist_pose_to_joints(pose[0]).shape == (6,)
    with pytest.raises(RobotModelError, match="base='floating'"):
        get_robot("allegro", base="fixed").wrist_pose_to_joints(pose)


def test_hand_holds_its_pose_and_survives_wild_commands() -> None:
    robot = get_robot("allegro")
    model, data = state(robot, robot.home)
    data.ctrl[:] = robot.home
    mujoco.mj_step(model, data, 60)
    np.testing.assert_allclose(data.qpos, robot.home, atol=1e-3)
    rng = np.random.default_rng(2)
    for _ in range(60):
        data.ctrl[6:] = rng.uniform(robot.lower[6:], robot.upper[6:])
        mujoco.mj_step(model, data, 5)
        assert np.abs(data.qvel).max() < 100
    assert not data.warning[mujoco.mjtWarning.mjWARN_BADQACC].number
    assert np.all(data.qpos > robot.lower - 0.1) and np.all(data.qpos < robot.upper + 0.1)


def test_specs_are_fresh_and_text_is_stable() -> None:
    robot = get_robot("allegro")
    assert robot.mjcf() == robot.mjcf()
    spec = robot.spec()
    spec.worldbody.add_body(name="extra")
    assert "extra" not in robot.mjcf()
    assert robot.mjcf() != get_robot("allegro", "left").mjcf()


def test_unknown_names_are_refused_with_the_valid_ones() -> None:
    with pytest.raises(UnknownRobot, match="unknown robot 'alegro'; did you mean 'allegro'"):
        get_robot("alegro")
    with pytest.raises(UnknownRobot, match="sides: left, right"):
        get_robot("allegro", "lefft")
    with pytest.raises(UnknownRobot, match="bases: fixed, floating"):
        get_robot("allegro", base="floor")
    with pytest.raises(UnknownRobot, match="takes no path"):
        get_robot("allegro", path="/nowhere")
    with pytest.raises(UnknownRobot, match="takes no side"):
        get_robot("g1", "left")
    with pytest.raises(UnknownRobot, match="unknown hand .g1.; hands: allegro, shadow"):
        get_hand("g1")
    assert list_robots() == ["allegro", "g1", "panda", "shadow"]


# --- models of other people
# -------------------------------------------------------------------------------------------


def stick_hand(folder: Path) -> Path:
    """A Shadow hand of sticks, laid out, named and driven as the one in MuJoCo Menagerie."""

    def chain(links: list[tuple[str, str, str, str]]) -> str:
        text = ""
        for body, joint, axis, pos in links:
            text += f'<body name="rh_{body}" pos="{pos}"><geom size=".005" contype="0" conaffinity="0"/>'
            text += f'<joint name="rh_{joint}" axis="{axis}" range="0 1.57"/>' if joint else ""
        return text + "</body>" * len(links)

    palm, motors, tendons = "", "", ""
    for x, f in ((0.033, "ff"), (0.011, "mf"), (-0.011, "rf"), (-0.033, "lf")):
        u = f.upper()
        links = [("lfmetacarpal", "LFJ5", "1 0 0", "-.033 0 .02")] if f == "lf" else []
        root = "0 0 .066" if f == "lf" else f"{x} 0 .095"
        links += [
            (f"{f}knuckle", f"{u}J4", "0 -1 0", root),
            (f"{f}proximal", f"{u}J3", "1 0 0", "0 0 0"),
            (f"{f}middle", f"{u}J2", "1 0 0", "0 0 .045"),
            (f"{f}distal", f"{u}J1", "1 0 0", "0 0 .025"),
        ]
        palm += chain(links)
        driven = (["LFJ5"] if f == "lf" else []) + [f"{u}J4", f"{u}J3"]
        motors += "".join(f'<position name="rh_A_{j}" joint="rh_{j}"/>' for j in driven)
        motors += f'<position name="rh_A_{u}J0" tendon="rh_{u}J0" ctrlrange="0 3.14"/>'
        pulled = "".join(f'<joint joint="rh_{u}J{i}" coef="1"/>' for i in (2, 1))
        tendons += f'<fixed name="rh_{u}J0">{pulled}</fixed>'
    thumb = ("base", "proximal", "hub", "middle", "distal")
    palm += chain([(f"th{b}", f"THJ{5 - i}", "1 0 0", f"0 0 {0.02 * i:g}") for i, b in enumerate(thumb)])
    motors += "".join(f'<position name="rh_A_THJ{i}" joint="rh_THJ{i}"/>' for i in (5, 4, 3, 2, 1))
    text = f"""<mujoco><compiler angle="radian" meshdir="assets" autolimits="true"/>
      <default><geom mass=".01"/><position kp="1" ctrlrange="0 1.57" forcerange="-1 1"/></default>
      <worldbody><body name="rh_forearm" quat="0 1 0 1"><geom size=".03" mass="3"/>
        <body name="rh_wrist" pos=".01 0 .213" quat="1 0 0 1"><geom size=".01"/>
          <joint name="rh_WRJ2" axis="0 1 0" range="-.5 .2"/>
          <body name="rh_palm" pos="0 0 .034"><geom size=".01"/>
            <joint name="rh_WRJ1" axis="1 0 0" range="-.7 .5"/>{palm}</body></body></body></worldbody>
      <tendon>{tendons}</tendon>
      <actuator>
        <position name="rh_A_WRJ2" joint="rh_WRJ2"/><position name="rh_A_WRJ1" joint="rh_WRJ1"/>{motors}
      </actuator>
    </mujoco>"""
    (folder / "shadow_hand").mkdir(parents=True)
    (folder / "shadow_hand" / "right_hand.xml").write_text(text)
    return folder / "shadow_hand"


def check_shadow(robot: Robot) -> None:
    model, data = state(robot, robot.home)
    assert len(robot.finger_joints) == 20 and model.nu == 20 + len(robot.wrist_joints)
    assert {"WRJ2", "FFJ4", "FFJ2", "LFJ5", "THJ5", "THJ1"} < set(robot.finger_joints)
    assert "FFJ1" not in robot.joint_names
    np.testing.assert_allclose(data.site("palm").xmat.reshape(3, 3), np.eye(3), atol=1e-6)
    np.testing.assert_allclose(data.site("palm").xpos, 0.0, atol=1e-9)
    assert data.site("mf_tip").xpos[0] > 0.08 and data.site("ff_tip").xpos[1] > 0.01
    assert sorted(robot.keypoint_sites.values()) == list(range(21))
    assert all(data.site(s) is not None for s in robot.keypoint_sites)
    goal = np.where([n[2:] in ("J3", "J2") for n in robot.joint_names], 0.8, robot.home)
    data.ctrl[:] = np.clip(goal, *model.actuator_ctrlrange.T)
    mujoco.mj_step(model, data, 120)
    assert np.isfinite(data.qpos).all() and data.joint("FFJ2").qpos[0] > 0.3


def test_missing_model_is_named_with_licence_and_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENAGERIE_ROOT", str(tmp_path))
    if importlib.util.find_spec("gymnasium_robotics") is None:
        with pytest.raises(AssetNotAvailable, match=r"Apache-2.0.*robolearn\[assets\].*MENAGERIE_ROOT"):
            get_robot("shadow", "right", "fixed")
    with pytest.raises(AssetNotAvailable, match="no folder"):
        get_robot("shadow", path=tmp_path / "nowhere")
    with pytest.raises(AssetNotAvailable, match="no right_hand.xml"):
        get_robot("shadow", path=tmp_path)


def test_models_are_found_by_path_then_menagerie_then_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sim.robots.shadow import ASSET, locate

    given, cached = stick_hand(tmp_path / "given"), tmp_path / "cache" / "models" / "shadow_hand-0123"
    cached.mkdir(parents=True)
    monkeypatch.setenv("MENAGERIE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MENAGERIE_ROOT", str(given.parent))
    assert locate(ASSET, tmp_path) == tmp_path
    assert locate(ASSET) == given
    monkeypatch.delenv("MENAGERIE_ROOT")
    (cached / ".complete").touch()
    assert locate(ASSET) == cached


@pytest.mark.parametrize("base", ["floating", "fixed"])
def test_shadow_of_menagerie_layout(base: str, tmp_path: Path) -> None:
    robot = get_robot("shadow", "right", base, path=stick_hand(tmp_path))
    check_shadow(robot)
    model, data = state(robot, robot.home)
    data.ctrl[list(robot.joint_names).index("FFJ2")] = 1.0
    mujoco.mj_step(model, data, 240)
    assert data.joint("FFJ1").qpos[0] == pytest.approx(data.joint("FFJ2").qpos[0], abs=0.1), "coupled"


@pytest.mark.skipif(
    importlib.util.find_spec("gymnasium_robotics") is None,
    reason="gymnasium-robotics is not installed ([assets])",
)
@pytest.mark.parametrize("base", ["floating", "fixed"])
def test_shadow_of_the_wheel(base: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MENAGERIE_ROOT", str(tmp_path))
    check_shadow(get_robot("shadow", "right", base))
    with pytest.raises(UnknownRobot, match="no left hand"):
        get_robot("shadow", "left", base)


def urdf(side: str) -> Path | None:
    try:
        found = importlib.metadata.distribution("example-robot-data")
    except importlib.metadata.PackageNotFoundError:
        return None
    folder = "cmeel.prefix/share/example-robot-data/robots/allegro_hand_description/urdf"
    path = Path(str(found.locate_file(f"{folder}/allegro_{side}_hand.urdf")))
    return path if path.is_file() else None


@pytest.mark.skipif(urdf("right") is None, reason="example-robot-data is not installed ([assets])")
@pytest.mark.parametrize("side", ["right", "left"])
def test_allegro_agrees_with_the_published_urdf(side: str) -> None:
    path = urdf(side)
    assert path is not None
    text = re.sub(r"<visual>.*?</visual>", "", path.read_text(), flags=re.DOTALL)
    compiler = '<mujoco><compiler fusestatic="false" balanceinertia="true"/></mujoco>'
    theirs = mujoco.MjModel.from_xml_string(text.replace("</robot>", compiler + "</robot>"))
    there = mujoco.MjData(theirs)
    robot = get_robot("allegro", side, "fixed")
    rng = np.random.default_rng(3)
    links = [f"link_{i}.0" for i in range(16)]
    adr = [theirs.joint(f"joint_{i}.0").qposadr[0] for i in range(16)]
    np.testing.assert_allclose(theirs.jnt_range[[theirs.joint(f"joint_{i}.0").id for i in range(16)], 0], robot.lower)
    np.testing.assert_allclose(theirs.jnt_range[[theirs.joint(f"joint_{i}.0").id for i in range(16)], 1], robot.upper)
    for _ in range(20):
        joints = rng.uniform(robot.lower, robot.upper)
        there.qpos[adr] = joints
        mujoco.mj_kinematics(theirs, there)
        model, here = state(robot, joints)
        palm = here.body("palm")
        for site, tip in zip(robot.fingertip_sites, (3, 7, 11, 15), strict=True):
            ours = palm.xmat.reshape(3, 3).T @ (here.site(site).xpos - palm.xpos)
            np.testing.assert_allclose(ours, there.body(f"link_{tip}.0_tip").xpos, atol=1e-5)
    bodies = [model.jnt_bodyid[model.joint(n).id] for n in robot.joint_names]
    for body, link, joint in zip(bodies, links, range(16), strict=True):
        tip_mass = theirs.body(f"{link}_tip").mass[0] if joint % 4 == 3 else 0.0
        assert model.body_mass[body] == pytest.approx(theirs.body(link).mass[0] + tip_mass, rel=1e-6)
