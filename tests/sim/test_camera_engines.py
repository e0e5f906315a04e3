"""The renderers of both engines show the same: who is seen where, how far away, in which colour, of which worlds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import mujoco
import pytest
import torch

from sim.camera import BatchCameras, Frames
from sim.mujoco_cpu import MujocoCpu
from sim.opengl import RenderError
from sim.robots import get_robot
from sim.tasks.tracking_scene import compile_scene
from sim.world import Shard

mujoco_warp = pytest.importorskip("mujoco_warp", reason="needs the [gpu] extra; without a GPU it runs on the processor")
warp = pytest.importorskip("warp")

SHAPES = """
<mujoco>
  <statistic extent="1.5"/>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" rgb1=".7 .8 .9" rgb2=".3 .4 .5" width="32" height="192"/>
    <texture name="grid" type="2d" builtin="checker" rgb1=".2 .3 .4" rgb2=".6 .6 .6" width="64" height="64"/>
    <material name="grid" texture="grid" texrepeat="2 2"/>
    <mesh name="wedge" vertex="0 0 0  .25 0 0  0 .25 0  0 0 .3"/>
  </asset>
  <worldbody>
    <light name="lamp" pos="0 -1 2" dir="0 .4 -1"/>
    <camera name="front" pos="0 -1.1 .8" xyaxes="1 0 0 0 .6 .8" fovy="50"/>
    <camera name="side" pos="1.2 .3 .5" xyaxes="-.2425 .9701 0 -.3714 -.0928 .9238" fovy="40"/>
    <geom name="floor" type="plane" size="1 1 .1" material="grid"/>
    <geom type="mesh" mesh="wedge" pos=".2 -.25 .02" rgba="1 0 1 1"/>
    <body pos="-.3 .2 .12"><freejoint/><geom name="box" type="box" size=".1 .12 .08" rgba="1 0 0 1"/></body>
    <body pos="0 .2 .12"><freejoint/><geom type="sphere" size=".1" rgba="0 1 0 1"/></body>
    <body pos=".3 .2 .2"><freejoint/><geom type="capsule" size=".05 .1" rgba="0 0 1 1"/></body>
    <body pos="-.3 -.2 .15"><freejoint/><geom type="cylinder" size=".07 .1" rgba="1 1 0 1"/></body>
    <body pos="0 -.2 .12"><freejoint/><geom type="ellipsoid" size=".1 .06 .04" rgba="0 1 1 1"/></body>
  </worldbody>
</mujoco>"""
BARE = """
<mujoco>
  <worldbody>
    <camera name="front" pos="0 -1 .3" xyaxes="1 0 0 0 .3 1" fovy="60"/>
    <geom type="plane" size="0 0 .1"/>
    <geom type="hfield" hfield="hills" pos=".5 .8 0"/>
    <body pos="-.3 0 .2"><freejoint/><geom type="box" size=".1 .1 .1" group="1"/></body>
    <body pos=".2 0 .2"><freejoint/><geom type="sphere" size=".15" group="3"/><geom size=".1"/></body>
    <body pos=".5 0 .2"><freejoint/><geom type="capsule" size=".1 .1" rgba="1 0 0 0"/><site size=".2"/></body>
  </worldbody>
  <asset>
    <hfield name="hills" nrow="4" ncol="4" size=".4 .4 .3 .1" elevation="0 0 0 0  0 2 1 0  0 1 2 0  0 0 0 0"/>
  </asset>
</mujoco>"""


@dataclass
class WarpWorlds:
    """mujoco_warp's model and data of ``nworld`` worlds, as an engine holds them."""

    model: mujoco.MjModel
    nworld: int
    own: tuple[str, ...] = ()
    """Model fields of which each world has its own."""
    warp_model: Any = field(init=False)
    warp_data: Any = field(init=False)

    def __post_init__(self) -> None:
        data = mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, data)
        sizes = {name: self.nworld for name in self.own}
        self.warp_model = mujoco_warp.put_model(self.model, **({"batch_sizes": sizes} if sizes else {}))
        self.warp_data = mujoco_warp.put_data(self.model, data, nworld=self.nworld)

    def bind(self, name: str) -> torch.Tensor:
        return warp.to_torch(getattr(self.warp_data, name))

    def expand(self, name: str) -> torch.Tensor:
        return warp.to_torch(getattr(self.warp_model, name))


def scatter(model: mujoco.MjModel, count: int) -> torch.Tensor:
    """Positions (count, nq): free bodies and joints moved at random, seeded."""
    generator = torch.Generator().manual_seed(1)
    qpos = torch.tensor(model.qpos0).repeat(count, 1)
    for joint in range(model.njnt):
        first = model.jnt_qposadr[joint]
        if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE:
            qpos[:, first : first + 3] += 0.04 * torch.randn(count, 3, generator=generator)
            turned = qpos[:, first + 3 : first + 7] + 0.3 * torch.randn(count, 4, generator=generator)
            qpos[:, first + 3 : first + 7] = turned / turned.norm(dim=1, keepdim=True)
        else:
            qpos[:, first] += 0.05 * torch.randn(count, generator=generator)
    return qpos


def pair(cpu: MujocoCpu, gpu: WarpWorlds, names: tuple[str, ...], **options: Any) -> tuple[BatchCameras, BatchCameras]:
    settings = {"height": 96, "width": 128, "depth": True, "segmentation": True, **options}
    try:
        return BatchCameras(cpu, names, threads=1, **settings), BatchCameras(gpu, names, **settings)
    except RenderError as error:
        pytest.skip(f"this machine cannot render: {error}")


def edges(labels: torch.Tensor) -> torch.Tensor:
    """Pixels (..., H, W) of which a neighbour has another label."""
    padded = torch.nn.functional.pad(labels.float(), (1, 1, 1, 1), mode="replicate")
    shifts = [(r, c) for r in range(3) for c in range(3)]
    height, width = labels.shape[-2:]
    return torch.stack([padded[..., r : r + height, c : c + width] != labels for r, c in shifts]).any(0)


def compare(a: Frames, b: Frames, worlds: slice = slice(None)) -> None:
    """Same things in the same places; where they differ it is at the rim of something."""
    assert a.rgb is not None and a.depth is not None and a.segmentation is not None
    assert b.rgb is not None and b.depth is not None and b.segmentation is not None
    seen, other = a.segmentation[worlds], b.segmentation[worlds]
    same = (seen == other).all(-1)
    assert same.float().mean() > 0.985
    rim = edges(seen[..., 0]) | edges(other[..., 0])
    assert not (~same & ~rim).any()
    there = same & (seen[..., 0] >= 0)
    assert there.float().mean() > 0.2
    error = (a.depth[worlds] - b.depth[worlds]).abs()
    assert error[there].median() < 1e-4  # m; planes, boxes and meshes agree exactly, round shapes have facets
    assert error[there].quantile(0.99) < 5e-3
    assert not error[same & ~there].any()  # nothing is at 0 in both
    assert (a.rgb[worlds].int() - b.rgb[worlds].int()).abs()[same & ~rim].float().mean() < 3


@pytest.mark.parametrize("text, names", [(SHAPES, ("front", "side")), (BARE, ("front",))])
def test_both_engines_show_the_same_of_every_shape(text, names):
    model = mujoco.MjModel.from_xml_string(text)
    cpu, gpu = MujocoCpu(model, 4, 1), WarpWorlds(model, 4)
    for worlds in (cpu, gpu):
        worlds.bind("qpos")[:] = scatter(model, 4)
    on_cpu, on_gpu = pair(cpu, gpu, names)
    with on_cpu:
        a, b = on_cpu.render(), on_gpu.render()
        for frames in (a, b):
            assert frames.rgb.shape == (4, len(names), 96, 128, 3) and frames.rgb.dtype == torch.uint8
            assert frames.depth.shape == (4, len(names), 96, 128) and frames.depth.dtype == torch.float32
            assert frames.segmentation.shape == (4, len(names), 96, 128, 2)
            assert frames.segmentation.dtype == torch.int32 and frames.age.tolist() == [0] * 4
        compare(a, b)
        seen = set(a.segmentation[..., 0].unique().tolist())
        visible = [i for i in range(model.ngeom) if model.geom_group[i] < 3 and model.geom_rgba[i, 3] > 0]
        assert seen == {-1, *visible} == set(b.segmentation[..., 0].unique().tolist())


def test_both_engines_show_the_same_of_the_tracking_scene():
    model = compile_scene(get_robot("allegro", side="right", base="floating"), "mug")
    qpos = scatter(model, 3)
    qpos[:, 2] += 0.15
    cpu, gpu = MujocoCpu(model, 3, 1), WarpWorlds(model, 3)
    for worlds in (cpu, gpu):
        worlds.bind("qpos")[:] = qpos
    on_cpu, on_gpu = pair(cpu, gpu, ("wrist", "front"), height=64, width=64)
    with on_cpu:
        compare(on_cpu.render(), on_gpu.render())


OWN = {
    "geom_size": ("geom", "box", [0.15, 0.05, 0.1]),
    "geom_rgba": ("geom", "box", [0.0, 1.0, 0.5, 1.0]),
    "cam_pos": ("camera", "front", [0.2, -0.9, 0.9]),
    "cam_quat": ("camera", "front", [0.9, 0.42, 0.1, 0.0606]),
    "cam_fovy": ("camera", "front", 35.0),
    "light_pos": ("light", "lamp", [1.0, 0.5, 1.5]),
    "light_dir": ("light", "lamp", [-0.6, 0.0, -0.8]),
    "light_diffuse": ("light", "lamp", [0.2, 0.8, 0.2]),
    "light_attenuation": ("light", "lamp", [0.5, 0.0, 0.5]),
    "light_type": ("light", "lamp", int(mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)),
    "mat_rgba": ("material", "grid", [0.3, 1.0, 0.3, 1.0]),
}


def test_both_engines_honour_what_worlds_have_of_their_own_under_masks_as_well():
    model = mujoco.MjModel.from_xml_string(SHAPES)
    count = len(OWN) + 1
    cpu, gpu = MujocoCpu(model, count, 1), WarpWorlds(model, count, tuple(OWN))
    for worlds in (cpu, gpu):
        worlds.bind("qpos")[:] = scatter(model, 1)  # the same in every world
        for row, (name, (kind, element, value)) in enumerate(OWN.items()):
            live = worlds.expand(name)
            live[row, getattr(model, kind)(element).id] = torch.tensor(value, dtype=live.dtype)
    on_cpu, on_gpu = pair(cpu, gpu, ("side", "front"))
    with on_cpu:
        a, b = on_cpu.render(), on_gpu.render()
        compare(a, b)
        for frames in (a, b):
            for row, name in enumerate(OWN):
                assert (frames.rgb[row] != frames.rgb[-1]).any(), name
        kept = b.rgb.clone()
        mask = torch.arange(count) % 3 == 1
        for worlds in (cpu, gpu):
            worlds.bind("qpos")[:, 0] += 0.1
        a, b = on_cpu.render(mask), on_gpu.render(mask)
        assert b.age.tolist() == a.age.tolist() == [0 if k % 3 == 1 else 1 for k in range(count)]
        assert torch.equal(b.rgb[~mask], kept[~mask]) and (b.rgb[mask] != kept[mask]).flatten(1).any(1).all()
        compare(a, b)


def test_a_mask_on_the_gpu_engine_draws_what_drawing_all_would():
    model = mujoco.MjModel.from_xml_string(SHAPES)
    gpu = WarpWorlds(model, 5, ("geom_rgba",))
    gpu.expand("geom_rgba")[:, :, 0] = torch.rand(5, model.ngeom, generator=torch.Generator().manual_seed(0))
    gpu.bind("qpos")[:] = scatter(model, 5)
    options = {"height": 24, "width": 32, "depth": True, "segmentation": True}
    whole = BatchCameras(gpu, ("front", "side"), **options).render()
    for mask in ([0, 0, 1, 0, 1], [1, 0, 0, 0, 0], [0] * 5, [1] * 5):
        chosen = torch.tensor(mask, dtype=torch.bool)
        frames = BatchCameras(gpu, ("front", "side"), **options).render(chosen)
        for name in ("rgb", "depth", "segmentation"):
            assert torch.equal(getattr(frames, name)[chosen], getattr(whole, name)[chosen]), name
        assert not frames.rgb[~chosen].any() and (frames.segmentation[~chosen] == -1).all()
        assert frames.fresh.tolist() == chosen.tolist()


def test_a_world_of_nans_does_not_show_in_the_others():
    gpu = WarpWorlds(mujoco.MjModel.from_xml_string(SHAPES), 3)
    made = BatchCameras(gpu, ("front",), 24, 32, segmentation=True)
    healthy = made.render().rgb.clone()
    good = gpu.bind("qpos").clone()
    gpu.bind("qpos")[1] = float("nan")
    assert torch.equal(made.render().rgb[[0, 2]], healthy[[0, 2]])
    gpu.bind("qpos").copy_(good)
    assert torch.equal(made.render().rgb, healthy)


def test_kinds_of_picture_one_at_a_time():
    gpu = WarpWorlds(mujoco.MjModel.from_xml_string(SHAPES), 1)
    size = {"names": ("front",), "height": 24, "width": 32}
    every = BatchCameras(gpu, **size, depth=True, segmentation=True).render()
    for name in ("rgb", "depth", "segmentation"):
        frames = BatchCameras(gpu, **size, **{"rgb": False, name: True}).render()
        assert torch.equal(getattr(frames, name), getattr(every, name))
        assert [getattr(frames, other) is None for other in ("rgb", "depth", "segmentation")].count(True) == 2


def test_shards_of_the_gpu_engine_and_wrong_names():
    first = mujoco.MjModel.from_xml_string(SHAPES)
    second = mujoco.MjModel.from_xml_string(SHAPES.replace('rgba="1 0 0 1"', 'rgba="1 1 1 1"'))
    shards = [Shard(WarpWorlds(first, 2), 0, 2, "red"), Shard(WarpWorlds(second, 1), 2, 3, "white")]
    size = {"height": 24, "width": 32}
    frames = BatchCameras(shards, ("front",), **size).render(torch.tensor([False, True, True]))
    assert frames.age.tolist() == [-1, 0, 0] and not frames.rgb[0].any()
    assert (frames.rgb[1] != frames.rgb[2]).any()
    for shard, row in zip(shards, (1, 2), strict=True):
        assert torch.equal(frames.rgb[row], BatchCameras(shard.physics, ("front",), **size).render().rgb[0])
    with pytest.raises(RenderError, match="unknown camera 'sid'; did you mean 'side'"):
        BatchCameras(shards, ("sid",), **size)


def test_an_engine_without_a_renderer():
    class Other:
        model, nworld = mujoco.MjModel.from_xml_string(BARE), 1

        def bind(self, name: str) -> torch.Tensor:
            return torch.zeros(1)

    with pytest.raises(RenderError, match="engine Other of shard '' has no cameras"):
        BatchCameras(Other(), ("front",))
