"""Cameras in batch on the CPU engine: what they show, of which worlds, how old it is, and what they refuse."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from sim.camera import BatchCameras, look_at
from sim.engines import Engine
from sim.mujoco_cpu import MujocoCpu
from sim.opengl import RenderError
from sim.robots import get_robot
from sim.tasks.tracking_scene import OBJECT, make_world
from sim.world import Shard

ROOT = Path(__file__).parents[2]
SCENE = """
<mujoco>
  <visual><quality numslices="8" numstacks="4" numquads="2" offsamples="0" shadowsize="0"/></visual>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" rgb1=".9 .9 1" rgb2=".2 .2 .4" width="16" height="96"/>
    <texture name="grid" type="2d" builtin="checker" rgb1=".2 .3 .4" rgb2=".8 .8 .8" width="32" height="32"/>
    <material name="grid" texture="grid" texrepeat="4 4"/>
    <mesh name="wedge" vertex="0 0 0  .2 0 0  0 .2 0  0 0 .25"/>
  </asset>
  <worldbody>
    <light name="lamp" pos="0 -1 2" dir="0 .4 -1"/>
    <camera name="front" pos="0 -1 0" xyaxes="1 0 0 0 0 1" fovy="45"/>
    <camera name="top" pos="0 0 1.5" fovy="50"/>
    <geom name="floor" type="plane" size="1 1 .1" pos="0 0 -.3" material="grid"/>
    <geom name="wedge" type="mesh" mesh="wedge" pos=".3 .2 -.3" rgba="1 0 1 1"/>
    <site name="mark" size=".1" pos="-.2 0 .2"/>
    <body name="box"><freejoint/><geom name="box" type="box" size=".05 .05 .05" rgba="1 0 0 1"/></body>
  </worldbody>
</mujoco>"""
MODEL = mujoco.MjModel.from_xml_string(SCENE)
BOX = MODEL.geom("box").id
GEOM = int(mujoco.mjtObj.mjOBJ_GEOM)


@pytest.fixture(scope="module", autouse=True)
def opengl():
    try:
        BatchCameras(MujocoCpu(MODEL, 1, 1), ("front",), 8, 8, threads=1).close()
    except RenderError as error:
        pytest.skip(f"this machine cannot render: {error}")


@pytest.fixture
def cameras():
    """``cameras(worlds, ...)`` on one thread, closed when the test ends."""
    made = []

    def make(worlds, names=("front",), height=48, width=64, **options):
        made.append(BatchCameras(worlds, names, height, width, **{"threads": 1, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()


def engine(count: int, model: mujoco.MjModel = MODEL) -> MujocoCpu:
    """Worlds with their boxes 5 cm apart along x."""
    made = MujocoCpu(model, count, 1)
    made.bind("qpos")[:, 0] = 0.05 * torch.arange(count)
    return made


def red(images: torch.Tensor) -> torch.Tensor:
    return (images[..., 0].int() - images[..., 1] > 60) & (images[..., 0].int() - images[..., 2] > 60)


def test_things_are_drawn_where_they_are(cameras):
    """Seen from -y at 1 m: x to the right, z up, 45 degrees of height."""
    worlds = engine(4)
    worlds.bind("qpos")[:, 2] = torch.tensor([0.0, 0.1, 0.2, -0.1], dtype=torch.float64)
    frames = cameras(worlds, height=60, width=80, depth=True, segmentation=True).render()
    assert frames.rgb.shape == (4, 1, 60, 80, 3) and frames.rgb.dtype == torch.uint8
    assert frames.depth.shape == (4, 1, 60, 80) and frames.depth.dtype == torch.float32
    assert frames.segmentation.shape == (4, 1, 60, 80, 2) and frames.segmentation.dtype == torch.int32
    per_metre = 60 / (2 * np.tan(np.radians(22.5)))
    for i, (x, _, z) in enumerate(worlds.bind("qpos")[:, :3].tolist()):
        box = frames.segmentation[i, 0, ..., 0] == BOX
        rows, columns = torch.nonzero(box, as_tuple=True)
        assert columns.double().mean() == pytest.approx(39.5 + per_metre * x, abs=1)
        assert rows.double().mean() == pytest.approx(29.5 - per_metre * z, abs=1)
        coloured = red(frames.rgb[i, 0])
        assert coloured.sum() > 0.7 * box.sum() and not (coloured & ~box).any()  # the rest is in the dark
        nearest = frames.depth[i, 0][box].min()
        assert nearest == pytest.approx(0.95, abs=1e-3)  # the box's face, along the optical axis from edge to edge
        assert frames.depth[i, 0][box].median() == pytest.approx(0.95, abs=1e-3)
    nothing = frames.segmentation[..., 0] < 0
    assert nothing.any() and (frames.depth[nothing] == 0).all() and (frames.depth[~nothing] > 0.5).all()
    assert set(frames.segmentation[..., 1].unique().tolist()) == {-1, GEOM}


@pytest.mark.parametrize("height, width", [(48, 64), (33, 50), (1, 7)])
def test_pictures_are_those_of_mujocos_own_renderer(cameras, height, width):
    worlds = engine(3)
    frames = cameras(worlds, ("top", "front"), height, width, depth=True, segmentation=True).render()
    data = mujoco.MjData(MODEL)
    option = mujoco.MjvOption()
    option.sitegroup[:] = 0
    with mujoco.Renderer(MODEL, height, width) as renderer:
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_HAZE):
            renderer.scene.flags[flag] = 0
        for i in range(3):
            data.qpos[:] = worlds.bind("qpos")[i]
            mujoco.mj_forward(MODEL, data)
            for v, name in enumerate(("top", "front")):
                renderer.update_scene(data, name, option)
                np.testing.assert_array_equal(frames.rgb[i, v], renderer.render())
                renderer.enable_segmentation_rendering()
                segmentation = renderer.render()
                np.testing.assert_array_equal(frames.segmentation[i, v], segmentation)
                renderer.disable_segmentation_rendering()
                renderer.enable_depth_rendering()
                there = segmentation[..., 0] >= 0
                np.testing.assert_allclose(frames.depth[i, v][there], renderer.render()[there], rtol=1e-5)
                renderer.disable_depth_rendering()


def test_a_scene_of_many_things_keeps_them_apart(cameras):
    spots = [(x / 10, y / 10) for x in range(20) for y in range(15)]
    geoms = "".join(f'<geom type="box" size=".04 .04 .04" pos="{x} {y} 0"/>' for x, y in spots)
    camera = '<camera name="front" pos=".95 .7 2" fovy="45"/>'
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{camera}{geoms}</worldbody></mujoco>")
    seen = cameras(MujocoCpu(model, 1, 1), height=150, width=200, rgb=False, segmentation=True).render().segmentation
    ids = seen[0, 0, ..., 0]
    per_metre = 150 / (2 * np.tan(np.radians(22.5))) / 1.96
    for number, (x, y) in enumerate(spots):
        assert ids[round(74.5 - per_metre * (y - 0.7)), round(99.5 + per_metre * (x - 0.95))] == number


def test_only_the_worlds_of_the_mask_are_drawn(cameras):
    worlds = engine(5)
    made = cameras(worlds, depth=True, segmentation=True)
    frames = made.render(torch.tensor([True, False, True, False, False]))
    assert frames.age.tolist() == [0, -1, 0, -1, -1] and frames.fresh.tolist() == [True, False, True, False, False]
    assert red(frames.rgb).flatten(1).any(1).tolist() == [True, False, True, False, False]
    assert not frames.rgb[1].any() and (frames.segmentation[1] == -1).all() and not frames.depth[1].any()
    first = frames.rgb.clone()
    worlds.bind("qpos")[:, 0] -= 0.15
    frames = made.render(torch.tensor([False, True, True, False, False]))
    assert frames.age.tolist() == [1, 0, 0, -1, -1]
    assert (frames.rgb[0] == first[0]).all() and (frames.rgb[2] != first[2]).any() and red(frames.rgb[1]).any()
    frames = made.render(torch.zeros(5, dtype=torch.bool))
    assert frames.age.tolist() == [2, 1, 1, -1, -1] and not frames.fresh.any()
    assert made.render().age.tolist() == [0] * 5


def test_pictures_come_at_the_interval_and_tell_their_age(cameras):
    worlds = engine(2)
    made = cameras(worlds, every=3)
    ages, drawn = [], []
    for _ in range(7):
        worlds.bind("qpos")[:, 0] += 0.02
        frames = made.render()
        ages.append(frames.age.tolist())
        drawn.append(frames.rgb.clone())
    assert ages == [[k, k] for k in (0, 1, 2, 0, 1, 2, 0)]
    assert all(torch.equal(drawn[k], drawn[k - k % 3]) for k in range(7))
    assert not torch.equal(drawn[0], drawn[3]) and not torch.equal(drawn[3], drawn[6])
    worlds.bind("qpos")[:, 0] += 0.02
    frames = made.refresh(torch.tensor([False, True]))  # reset in between
    assert frames.age.tolist() == [0, 0] and torch.equal(frames.rgb[0], drawn[6][0])
    assert not torch.equal(frames.rgb[1], drawn[6][1])
    assert [made.render().age.tolist() for _ in range(3)] == [[1, 1], [2, 2], [0, 0]]


def test_saved_cameras_go_on_where_they_were(cameras):
    worlds = engine(2)
    made = cameras(worlds, every=2)
    made.render()
    made.render(torch.tensor([True, False]))
    saved = made.state_dict()
    worlds.bind("qpos")[:, 0] += 0.1
    expected = made.render(torch.tensor([False, True]))
    again = cameras(worlds, every=2)
    again.load_state_dict(saved)
    frames = again.render(torch.tensor([False, True]))
    assert torch.equal(frames.rgb, expected.rgb) and frames.age.tolist() == expected.age.tolist() == [2, 0]
    with pytest.raises(RenderError, match="saved rgb pictures"):
        cameras(worlds, height=20).load_state_dict(saved)


def test_worlds_show_their_own_model(cameras):
    """Fields expanded after the cameras were made, each seen as in a world whose model has that value."""
    changed = {
        "geom_size": ("geom", "box", [0.1, 0.02, 0.03]),
        "geom_rgba": ("geom", "box", [0.0, 0.0, 1.0, 1.0]),
        "cam_pos": ("camera", "front", [0.1, -0.7, 0.1]),
        "cam_quat": ("camera", "front", [0.8, 0.6, 0.0, 0.0]),
        "cam_fovy": ("camera", "front", 20.0),
        "light_pos": ("light", "lamp", [1.0, 0.0, 0.5]),
        "light_diffuse": ("light", "lamp", [0.1, 0.9, 0.1]),
        "mat_rgba": ("material", "grid", [0.2, 1.0, 0.2, 1.0]),
        "body_mass": ("body", "box", 3.0),
    }
    worlds = MujocoCpu(MODEL, len(changed) + 1, 1)
    made = cameras(worlds, depth=True)
    plain = made.render().rgb.clone()
    for row, (name, (kind, element, value)) in enumerate(changed.items()):
        live = worlds.expand(name)
        live[row, getattr(MODEL, kind)(element).id] = torch.tensor(value, dtype=live.dtype)
    frames = made.render()
    assert torch.equal(frames.rgb[-1], plain[-1])
    for row, (name, (kind, element, value)) in enumerate(changed.items()):
        model = mujoco.MjModel.from_xml_string(SCENE)
        getattr(model, name)[getattr(model, kind)(element).id] = value
        expected = cameras(MujocoCpu(model, 1, 1), depth=True).render()
        assert torch.equal(frames.rgb[row], expected.rgb[0]), name
        assert torch.equal(frames.depth[row], expected.depth[0]), name
        assert torch.equal(frames.rgb[row], plain[row]) == (name == "body_mass"), name


def test_shards_of_several_models_share_one_tensor(cameras):
    other = mujoco.MjModel.from_xml_string(
        SCENE.replace("0 0 .25", "0 0 .4").replace('rgba="1 0 0 1"', 'rgba="0 1 0 1"').replace("<site", "<geom", 1)
    )
    shards, start = [], 0
    for model, count in ((MODEL, 2), (other, 3), (MODEL, 1)):
        shards.append(Shard(engine(count, model), start, start + count, f"at {start}"))
        start += count
    mask = torch.tensor([True, True, False, True, True, True])
    for threads in (1, 3):
        frames = cameras(shards, ("front", "top"), threads=threads, segmentation=True).render(mask)
        assert frames.rgb.shape[:2] == (6, 2) and frames.age.tolist() == [0, 0, -1, 0, 0, 0]
        for shard in shards:
            alone = cameras(shard.physics, ("front", "top"), segmentation=True).render()
            rows = mask[shard.rows]
            assert torch.equal(frames.rgb[shard.rows][rows], alone.rgb[rows])
            assert torch.equal(frames.segmentation[shard.rows][rows], alone.segmentation[rows])
    assert not frames.rgb[2].any()


def test_pictures_show_the_state_after_a_step_without_refresh(cameras):
    worlds = engine(2)
    worlds.bind("qvel")[:, 0] = torch.tensor([2.0, -2.0], dtype=torch.float64)
    made = cameras(worlds, segmentation=True)
    worlds.step(20, refresh=False)
    seen = made.render().segmentation[:, 0, ..., 0] == BOX
    for i in range(2):
        column = torch.nonzero(seen[i])[:, 1].double().mean()
        x = worlds.bind("qpos")[i, 0].item()
        assert column == pytest.approx(31.5 + x * 48 / (2 * np.tan(np.radians(22.5))), abs=1)


def test_rendering_leaves_the_worlds_alone(cameras):
    states = []
    for watched in (False, True):
        worlds = engine(3)
        worlds.expand("geom_size")
        worlds.bind("qvel")[:] = 0.3
        made = cameras(worlds, segmentation=True)
        for _ in range(5):
            worlds.step(4)
            before = worlds.bind("geom_xpos").clone()
            if watched:
                made.render()
            assert torch.equal(worlds.bind("geom_xpos"), before)
        states.append(worlds.state_dict()["state"])
    assert torch.equal(*states)


def test_a_plane_is_not_seen_from_behind(cameras):
    worlds = engine(2)
    heights = worlds.expand("cam_pos")
    heights[:, MODEL.camera("front").id, 2] = torch.tensor([-0.25, -0.35], dtype=heights.dtype)
    seen = cameras(worlds, segmentation=True).render().segmentation[..., 0] == MODEL.geom("floor").id
    assert seen[0].any() and not seen[1].any()


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_cameras_of_hand_object_tracking(cameras, side):
    """Both see the object beside the hand; the wrist's moves with the palm."""
    world = make_world(get_robot("allegro", side=side), [("cube", 2), ("mug", 1)], Engine(threads=1))
    for shard in world.shards:
        qpos = shard.physics.bind("qpos")
        qpos[:, 0], qpos[:, 2] = -0.09, 0.14
    made = cameras(world, ("front", "wrist"), segmentation=True)
    frames = made.render()
    kept = frames.rgb.clone()
    for shard in world.shards:
        model = shard.physics.model
        things = torch.as_tensor(np.flatnonzero(model.geom_bodyid == model.body(OBJECT).id))
        palm = model.geom("palm").id
        for seen in frames.segmentation[shard.rows, ..., 0]:
            assert (torch.isin(seen, things).flatten(1).sum(1) > 20).all()
            assert (seen[0] == palm).any()
    for shard in world.shards:
        shard.physics.bind("qpos")[0, 5] += 0.3
    frames = made.render()
    changed = (frames.rgb != kept).flatten(2).any(2)
    assert changed.tolist() == [[True, True], [False, False], [True, True]]


def test_names_sizes_and_masks_that_cannot_be(cameras):
    worlds = engine(2)
    with pytest.raises(RenderError, match="unknown camera 'fromt'; did you mean 'front'. cameras: front, top"):
        cameras(worlds, ("top", "fromt"))
    bare = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
    with pytest.raises(RenderError, match="unknown camera 'front'; cameras: none"):
        cameras([Shard(worlds, 0, 2, "a"), Shard(MujocoCpu(bare, 1, 1), 2, 3, "b")])
    for wrong, message in (
        ({"names": ()}, "one or more different cameras"),
        ({"names": ("front", "front")}, "one or more different cameras"),
        ({"height": 0}, "height .* between 1 and"),
        ({"width": 10**6}, "width .* between 1 and"),
        ({"rgb": False}, "at least one of rgb, depth and segmentation"),
        ({"every": 0}, "every must be at least 1"),
        ({"threads": -1}, "threads must be at least 0"),
    ):
        with pytest.raises(RenderError, match=message):
            cameras(worlds, **wrong)
    with pytest.raises(RenderError, match="at least one shard"):
        cameras([])
    made = cameras(worlds)
    for mask in (torch.ones(3, dtype=torch.bool), torch.ones(2), torch.tensor([0, 1])):
        with pytest.raises(RenderError, match=r"mask of worlds is \(2,\) bool, got"):
            made.render(mask)
    made.close()
    made.close()
    with pytest.raises(RenderError, match="closed"):
        made.refresh()


def test_a_world_of_nans_does_not_break_the_others(cameras):
    worlds = engine(3)
    made = cameras(worlds, depth=True, segmentation=True)
    healthy = made.render().rgb.clone()
    worlds.bind("qpos")[1] = np.nan
    frames = made.render()
    assert torch.equal(frames.rgb[[0, 2]], healthy[[0, 2]])


@pytest.mark.parametrize(
    "position, target", [((1, 2, 3), (0, 0, 0.5)), ((0, -1, 0), (0, 1, 0)), ((3, 0, -1), (0, 1, 2))]
)
def test_look_at_puts_the_target_in_the_middle_and_up_up(position, target):
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, look_at(position, target))
    x, y, z = rotation.reshape(3, 3).T
    forward = np.subtract(target, position) / np.linalg.norm(np.subtract(target, position))
    np.testing.assert_allclose(-z, forward, atol=1e-12)
    assert x[2] == pytest.approx(0, abs=1e-12) and y[2] > 0


def test_look_at_refuses_a_direction_without_upright():
    for target in ((0, 0, 5), (0, 0, 1)):
        with pytest.raises(RenderError, match="cannot look at"):
            look_at((0, 0, 1), target)


def test_forgotten_cameras_free_their_threads():
    def painting() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "camera"}

    before = painting()
    made = BatchCameras(engine(2), ("front",), 8, 8, threads=2)
    made.render()
    mine = painting() - before
    assert len(mine) == 2
    del made
    gc.collect()
    for thread in mine:
        thread.join(timeout=20)
        assert not thread.is_alive()


RUN = """
import robolearn, mujoco
from sim.camera import BatchCameras
from sim.mujoco_cpu import MujocoCpu
from sim.opengl import RenderError
text = '<mujoco><worldbody><camera name="front"/><geom size=".1"/></worldbody></mujoco>'
worlds = MujocoCpu(mujoco.MjModel.from_xml_string(text), 2, 1)
try:
    cameras = BatchCameras(worlds, ("front",), 8, 8, threads=2)
    print(tuple(cameras.render().rgb.shape))
except RenderError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "backend, printed", [("egl", "(2, 1, 8, 8, 3)"), ("disabled", "cannot render"), ("glfw", "cannot render")]
)
def test_a_process_ends_quietly(tmp_path, backend, printed):
    """Cameras that nobody closed, and a machine without OpenGL: one line, nothing on standard error."""
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "LP_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN],
        cwd=tmp_path,
        env={**env, "MUJOCO_GL": backend, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1 and lines[0].startswith(printed)
    assert not list(tmp_path.iterdir())
