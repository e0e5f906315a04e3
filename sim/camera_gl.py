"""Cameras of CPU worlds, drawn by OpenGL: one context for each thread, whatever the number of worlds and models.

In software rendering the time of small pictures goes into the triangles that round shapes are made of; bringing the
scene up to date and copying pixels takes a tenth. So shapes are drawn as finely as the pictures can show and no finer,
without shadows, reflections and multisampling.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import mujoco
import numpy as np
import torch

from robolearn.versions import usable_cores
from sim.mujoco_cpu import MujocoCpu
from sim.opengl import cannot_render, draw_in_calling_threads, drawn_in_software
from sim.physics import quiet_mujoco
from sim.pictures import Pictures, Request
from sim.world import Shard

_ASSETS = ("mesh_", "hfield_", "tex_", "mat_", "skin_")
"""Prefixes of the model fields that an OpenGL context holds a copy of."""
_FLAGS = mujoco.mjtRndFlag
_UNSEEN = [int(_FLAGS.mjRND_SHADOW), int(_FLAGS.mjRND_REFLECTION), int(_FLAGS.mjRND_HAZE)]
_BY_IDENTITY = [int(_FLAGS.mjRND_SEGMENT), int(_FLAGS.mjRND_IDCOLOR)]
_THINGS = int(mujoco.mjtCatBit.mjCAT_STATIC) | int(mujoco.mjtCatBit.mjCAT_DYNAMIC)


@dataclass(frozen=True)
class Job:
    """One world to draw: world ``world`` of engine ``engine``, into row ``row`` of the pictures."""

    engine: int
    world: int
    row: int


class OpenGLCameras:
    """Draws the worlds of CPU shards.

    Args:
        shards: their worlds are drawn as they stand at the call, per-world model fields included; the layout of
            textures on materials (``mat_texid``, ``mat_texrepeat``, ``mat_texuniform``) is the model's in every world.
        request: which pictures.
        threads: 0 means as many as step the worlds, and one where OpenGL is drawn in software: Mesa's llvmpipe draws
            one picture at a time anyway, and now and then crashes where two threads ask it to.

    Raises:
        RenderError: an unknown camera, or no OpenGL on this machine.
    """

    def __init__(self, shards: Sequence[Shard], request: Request, threads: int = 0) -> None:
        quiet_mujoco()
        draw_in_calling_threads()
        self._shards = tuple(shards)
        engines = [shard.physics for shard in shards if isinstance(shard.physics, MujocoCpu)]
        for engine in engines:
            request.cameras(engine.model)
        self._threads: list[_PaintingThread] = []
        # not at exit: the display may be gone by then, and the threads end with the process anyway
        weakref.finalize(self, _stop, self._threads).atexit = False
        first = _PaintingThread(engines, request)  # one after the other: the first one initialises the display
        self._threads.append(first)
        if not threads:
            threads = 1 if first.in_software else max(engine.nthread for engine in engines) or usable_cores()
        for _ in range(threads - 1):
            self._threads.append(_PaintingThread(engines, request))

    def draw(self, mask: torch.Tensor | None, into: Pictures) -> None:
        """Draw the worlds of ``mask`` (N,) bool over the worlds of all shards, or all, into their rows."""
        jobs: SimpleQueue[Job] = SimpleQueue()
        for engine, shard in enumerate(self._shards):
            wanted = range(shard.physics.nworld) if mask is None else torch.nonzero(mask[shard.rows]).flatten().tolist()
            for world in wanted:
                jobs.put(Job(engine, world, shard.start + world))
        busy = [thread.start_painting(jobs, into) for thread in self._threads]
        try:
            for done in busy:
                done.result()
        finally:
            _drain(jobs)  # after Ctrl-C or an error nobody shall go on painting
            wait(busy)

    def close(self) -> None:
        """Free the OpenGL contexts; nothing can be drawn afterwards."""
        _stop(self._threads)
        for thread in self._threads:
            thread.join()
        self._threads.clear()


def _drain(jobs: SimpleQueue[Job]) -> None:
    with contextlib.suppress(Empty):
        while True:
            jobs.get_nowait()


def _stop(threads: Sequence[_PaintingThread]) -> None:
    for thread in threads:
        thread.stop()


class _PaintingThread(threading.Thread):
    """A thread with an OpenGL context of its own: a context can be used by one thread at a time.

    The painter lives on the thread's stack alone, where an exit of the interpreter leaves it in peace.

    Attributes:
        in_software: whether the processor draws, for want of a graphics card.

    Raises:
        RenderError: no OpenGL on this machine.
    """

    def __init__(self, engines: Sequence[MujocoCpu], request: Request) -> None:
        super().__init__(name="camera", daemon=True)
        self._inbox: SimpleQueue[tuple[SimpleQueue[Job], Pictures, Future[None]] | None] = SimpleQueue()
        self._made = (engines, request)
        self._ready: Future[bool] = Future()
        self.start()
        self.in_software = self._ready.result()

    def run(self) -> None:
        try:
            painter = _Painter(*self._made)
        except BaseException as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(drawn_in_software())
        while (order := self._inbox.get()) is not None:
            jobs, into, done = order
            try:
                painter.paint(jobs, into)
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)
        painter.close()

    def start_painting(self, jobs: SimpleQueue[Job], into: Pictures) -> Future[None]:
        """Paint jobs until none is left; the future tells when, or what went wrong."""
        done: Future[None] = Future()
        self._inbox.put((jobs, into, done))
        return done

    def stop(self) -> None:
        """End when what has been asked for is done."""
        self._inbox.put(None)


class _Painter:
    """One OpenGL context. Made, used and closed in one thread."""

    def __init__(self, engines: Sequence[MujocoCpu], request: Request) -> None:
        self._engines = engines
        self._request = request
        self._scenes: dict[int, _Scene] = {}
        self._uploads: dict[bytes, mujoco.MjrContext] = {}
        self._bound: mujoco.MjrContext | None = None
        self._rect = mujoco.MjrRect(0, 0, request.width, request.height)
        self._colour = np.empty((request.height, request.width, 3), np.uint8)
        self._z = np.empty((request.height, request.width), np.float32)
        try:
            self._gl = mujoco.GLContext(request.width, request.height)
            self._gl.make_current()
        except Exception as error:  # each GL backend raises a type of its own
            raise cannot_render(error) from error
        try:
            self._scene(0)
        except BaseException:
            self.close()
            raise

    def paint(self, jobs: SimpleQueue[Job], into: Pictures) -> None:
        """Draw jobs until none is left."""
        out = {name: value.numpy() for name, value in into.named().items()}
        while True:
            try:
                job = jobs.get_nowait()
            except Empty:
                return
            scene = self._scene(job.engine)
            scene.load(self._engines[job.engine], job.world)
            for view in range(len(self._request.names)):
                scene.look(view)
                if "rgb" in out:
                    self._render(scene, self._colour, None)
                    out["rgb"][job.row, view] = self._colour[::-1]
                if "depth" in out or "segmentation" in out:
                    self._identify(scene)
                if "depth" in out:
                    out["depth"][job.row, view] = scene.metres(self._z)[::-1]
                if "segmentation" in out:
                    out["segmentation"][job.row, view] = scene.objects(self._colour)[::-1]

    def close(self) -> None:
        for upload in self._uploads.values():
            upload.free()
        self._scenes, self._uploads, self._bound = {}, {}, None
        self._gl.free()

    def _render(self, scene: _Scene, colour: np.ndarray, z: np.ndarray | None) -> None:
        if self._bound is not scene.upload:
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, scene.upload)
            self._bound = scene.upload
        mujoco.mjr_render(self._rect, scene.scene, scene.upload)
        mujoco.mjr_readPixels(colour, z, self._rect, scene.upload)

    def _identify(self, scene: _Scene) -> None:
        """Draw again with each object's number as its colour; the sky, which would count as a thing, is left out."""
        scene.scene.flags[_BY_IDENTITY] = 1
        self._render(scene, self._colour, self._z)
        scene.scene.flags[_BY_IDENTITY] = 0

    def _scene(self, engine: int) -> _Scene:
        """The scene of an engine's model; models with the same assets share one upload of them."""
        if engine not in self._scenes:
            model = copy.copy(self._engines[engine].model)
            _economise(model, self._request)
            key = _assets(model)
            if key not in self._uploads:
                self._uploads[key] = _upload(model)
            self._scenes[engine] = _Scene(model, self._request.cameras(model), self._uploads[key])
        return self._scenes[engine]


class _Scene:
    """One model's copy, into which worlds are loaded, and what is to be drawn of them."""

    def __init__(self, model: mujoco.MjModel, cameras: Sequence[int], upload: mujoco.MjrContext) -> None:
        self.upload = upload
        self.scene = mujoco.MjvScene(model, 2 * (model.ngeom + model.nflex + model.nskin) + 100)
        self.scene.flags[_UNSEEN] = 0
        self._model = model
        self._data = mujoco.MjData(model)
        self._planes = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE)
        self._cameras = [_fixed_camera(i) for i in cameras]
        self._options = mujoco.MjvOption()
        # a camera sees surfaces, not marks that help a person
        self._options.sitegroup[:] = 0
        for mark in (mujoco.mjtVisFlag.mjVIS_TENDON, mujoco.mjtVisFlag.mjVIS_RANGEFINDER):
            self._options.flags[mark] = 0

    def load(self, engine: MujocoCpu, world: int) -> None:
        """Take over the state and the model of a world, and place everything that can be seen."""
        model, data = self._model, self._data
        engine.materialize(world, model, data)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)
        mujoco.mj_flex(model, data)

    def look(self, view: int) -> None:
        """Turn to a camera."""
        mujoco.mjv_updateScene(self._model, self._data, self._options, None, self._cameras[view], _THINGS, self.scene)
        self._hide_backs(self._data.cam_xpos[self._cameras[view].fixedcamid])

    def _hide_backs(self, eye: np.ndarray) -> None:
        """Leave out planes seen from behind, which MuJoCo would draw as a veil over everything: rays pass there."""
        normals = self._data.geom_xmat[self._planes, 2::3]
        behind = ((eye - self._data.geom_xpos[self._planes]) * normals).sum(axis=1) < 0
        if behind.any():
            hidden = self._planes[behind]
            for geom in self.scene.geoms[: self.scene.ngeom]:
                if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and geom.objid in hidden:
                    geom.type = mujoco.mjtGeom.mjGEOM_NONE

    def metres(self, z: np.ndarray) -> np.ndarray:
        """Depth along the optical axis from the depth buffer, which holds 1 at the near plane, 0 at the far one."""
        camera = self.scene.camera[0]
        # in single precision, as in the projection matrix, whose rounding is thus undone
        near, far = np.float32(camera.frustum_near), np.float32(camera.frustum_far)
        span = far - near
        if camera.orthographic:
            depth = far - z * span
        else:
            depth = far * near / span / (z + (np.float32(0.5) * ((far + near) / span) - np.float32(0.5)))
        return np.where(z > 0, depth, np.float32(0))

    def objects(self, colour: np.ndarray) -> np.ndarray:
        """(H, W, 2) object id and type of colours (H, W, 3) that encode one more than a number in the scene."""
        table = np.full((self.scene.ngeom + 1, 2), -1, np.int32)
        for geom in self.scene.geoms[: self.scene.ngeom]:
            table[geom.segid + 1] = geom.objid, geom.objtype
        table[0] = -1  # nothing, and what has no number
        number = colour[..., 0].astype(np.intp)
        if len(table) > 2**8:
            number += colour[..., 1] * np.intp(2**8) + colour[..., 2] * np.intp(2**16)
        return table.take(number, axis=0)


def _upload(model: mujoco.MjModel) -> mujoco.MjrContext:
    try:
        upload = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
    except mujoco.FatalError as error:
        raise cannot_render(error) from error
    upload.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
    return upload


def _fixed_camera(number: int) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
    camera.fixedcamid = number
    return camera


def _economise(model: mujoco.MjModel, request: Request) -> None:
    """Set a buffer of the pictures' size, and shapes as fine as it can show.

    A circle drawn with n corners strays from its radius r by 5 r / n². With n = 2 √side, a circle across a quarter
    of the picture strays by a sixth of a pixel, whatever the picture's size.
    """
    model.vis.global_.offwidth, model.vis.global_.offheight = request.width, request.height
    quality = model.vis.quality
    slices = max(8, math.ceil(2 * math.sqrt(max(request.width, request.height))))
    quality.numslices = min(quality.numslices, slices)
    quality.numstacks = min(quality.numstacks, math.ceil(slices / 2))
    quality.offsamples = quality.shadowsize = 0


def _assets(model: mujoco.MjModel) -> bytes:
    """A fingerprint of what a context uploads of a model."""
    digest = hashlib.sha256()
    for name in sorted(n for n in dir(model) if n.startswith(_ASSETS)):
        value = getattr(model, name)
        if isinstance(value, np.ndarray):
            digest.update(f"{name}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    quality = model.vis.quality
    digest.update(repr((quality.numslices, quality.numstacks, quality.numquads)).encode())
    return digest.digest()
