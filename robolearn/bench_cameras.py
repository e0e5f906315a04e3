"""Camera speed: pictures of all worlds in batch, against one `mujoco.Renderer` that goes from world to world."""

from __future__ import annotations

import contextlib
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import mujoco
import torch

from robolearn.bench_sim import BenchError
from robolearn.threads import one_thread
from sim.camera import BatchCameras
from sim.engines import Engine
from sim.env import Env
from sim.opengl import cannot_render
from sim.tasks import make_env


def bench_cameras(
    task: str = "dex_track",
    num_envs: int = 64,
    height: int = 64,
    width: int = 64,
    seconds: float = 3.0,
    cameras: Sequence[str] = ("front", "wrist"),
    depth: bool = False,
    segmentation: bool = False,
    threads: int = 0,
    repeats: int = 5,
    world: str = "auto",
    device: str = "cuda",
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure pictures/s of worlds that move, alternating the contestants so that a noisy machine hits them alike.

    * ``batch``: `BatchCameras.render` of all worlds.
    * ``masked``: the same for every eighth world.
    * ``renderer``: one `mujoco.Renderer` as it comes (with shadows and multisampling), RGB alone, world by world.

    Args:
        task: name of the task.
        num_envs: worlds.
        height, width: of a picture, pixels.
        seconds: of rendering by each contestant, all measurements together; each makes one picture at least.
        cameras: names of the task's cameras.
        depth, segmentation: whether to make these beside RGB.
        threads: to draw on, 0 for as many as step the worlds.
        repeats: measurements of each contestant.
        world: the engine: cpu, gpu, or auto.
        device: of the GPU engine.
        progress: told what is being done.

    Returns:
        Pictures/s (medians) and the ratio ``batch/renderer`` (median of paired ratios).

    Raises:
        BenchError: impossible numbers.
        RenderError: an unknown camera, or no way to render.
    """
    for name, value in (("num_envs", num_envs), ("repeats", repeats)):
        if value < 1:
            raise BenchError(f"bench cameras: {name} must be at least 1, got {value}")
    if not 0 < seconds < float("inf"):
        raise BenchError(f"bench cameras: seconds must be greater than 0, got {seconds}")
    progress(f"making {num_envs} worlds of {task}")
    engine = Engine(world, threads, device).resolved()
    env = make_env(task, num_envs, seed=0, engine=engine)
    kinds = {"depth": depth, "segmentation": segmentation}
    mask = torch.arange(num_envs, device=env.device) % 8 == 0
    rates: dict[str, list[float]] = {"batch": [], "masked": [], "renderer": []}
    with (
        BatchCameras(env.world, cameras, height, width, threads=threads, **kinds) as batch,
        contextlib.closing(_OneByOne(env, cameras, height, width)) as renderer,
    ):
        contestants: dict[str, Callable[[], int]] = {
            "batch": lambda: _in_batch(batch, None),
            "masked": lambda: _in_batch(batch, mask),
            "renderer": renderer.draw,
        }
        for contestant in contestants.values():
            contestant()  # shaders are compiled on first use
        for k in range(repeats):
            progress(f"measurement {k + 1} of {repeats}")
            _move(env)
            for name, contestant in contestants.items():
                rates[name].append(_rate(contestant, seconds / repeats))
    return {
        "benchmark": "cameras",
        "task": task,
        "world": engine.name,
        "num_envs": num_envs,
        "shards": len(env.world.shards),
        "cameras": list(cameras),
        "height": height,
        "width": width,
        **kinds,
        **{f"{name}_pictures_per_s": statistics.median(values) for name, values in rates.items()},
        "batch/renderer": statistics.median(a / b for a, b in zip(rates["batch"], rates["renderer"], strict=True)),
    }


def _rate(contestant: Callable[[], int], seconds: float) -> float:
    """Pictures per second, of as many calls as fit."""
    pictures, spent = 0, 0.0
    while spent < seconds:
        start = time.perf_counter()
        pictures += contestant()
        spent += time.perf_counter() - start
    return pictures / spent


@one_thread()
@torch.inference_mode()
def _move(env: Env) -> None:
    action = torch.zeros(env.num_envs, env.num_actions, device=env.device)
    for _ in range(20):
        env.step(action)


def _in_batch(cameras: BatchCameras, mask: torch.Tensor | None) -> int:
    frames = cameras.render(mask)
    return int(frames.fresh.sum()) * len(frames.names)  # waits for the device


class _OneByOne:
    """A `mujoco.Renderer` that goes over up to 8 worlds of the first model, as a loop over environments would."""

    def __init__(self, env: Env, names: Sequence[str], height: int, width: int) -> None:
        physics = env.world.shards[0].physics
        self._model = copy.copy(physics.model)
        self._data = mujoco.MjData(self._model)
        self._qpos = physics.bind("qpos")
        self._names = names
        extent = self._model.vis.global_
        extent.offheight, extent.offwidth = max(extent.offheight, height), max(extent.offwidth, width)
        try:
            self._renderer = mujoco.Renderer(self._model, height, width)
        except Exception as error:  # each GL backend raises a type of its own
            raise cannot_render(error) from error

    def draw(self) -> int:
        """Draw; return the number of pictures."""
        states = self._qpos[:8].cpu().numpy()
        for qpos in states:
            self._data.qpos[:] = qpos
            mujoco.mj_kinematics(self._model, self._data)
            mujoco.mj_camlight(self._model, self._data)
            for name in self._names:
                self._renderer.update_scene(self._data, name)
                self._renderer.render()
        return len(states) * len(self._names)

    def close(self) -> None:
        self._renderer.close()
