"""What the GPU engine does besides time steps: derived fields brought up to date, as far as somebody reads them."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Container
from typing import Any

import mujoco
import numpy as np

from sim.gpu_device import GpuDevice

BODIES = frozenset(
    "xpos xquat xmat xipos ximat xanchor xaxis geom_xpos geom_xmat site_xpos site_xmat".split(),
)
"""Fields that `mujoco_warp.kinematics` brings up to date."""

FRAMES = BODIES | frozenset(
    "subtree_com cinert cdof cam_xpos cam_xmat light_xpos light_xdir flexvert_xpos flexedge_length flexedge_J "
    "ten_length ten_J ten_wrapadr ten_wrapnum wrap_obj wrap_xpos".split(),
)
"""Fields that `mujoco_warp.fwd_kinematics` brings up to date."""

POSITION = FRAMES | frozenset(
    "crb M ne nf nl nefc actuator_length actuator_moment moment_rownnz moment_rowadr moment_colind".split(),
)
"""Fields that `mujoco_warp.fwd_position` brings up to date."""

_MOVES_STATIC = frozenset({"geom_pos", "geom_quat", "body_pos", "body_quat"})


def _sensors(*names: str) -> list[int]:
    return [int(getattr(mujoco.mjtSensor, f"mjSENS_{name}")) for name in names]


_SPARSE_SENSORS = _sensors("CONTACT", "JOINTLIMITPOS", "TENDONLIMITPOS")
_NEED_CONSTRAINTS = _SPARSE_SENSORS + _sensors("ACTUATORPOS", "GEOMDIST", "GEOMNORMAL", "GEOMFROMTO")


class Refresh:
    """Brings fields that follow from positions, and position sensors, up to date with the state.

    Args:
        device: where to run.
        model: the compiled model.
        warp_model, data: the same for MuJoCo Warp, and the data of its worlds.
    """

    def __init__(self, device: GpuDevice, model: mujoco.MjModel, warp_model: Any, data: Any) -> None:
        self._device = device
        self._model = warp_model
        self._data = data
        self._wanted: set[str] = set()
        self._level: frozenset[str] = frozenset()
        sensors = np.flatnonzero(model.sensor_needstage == int(mujoco.mjtStage.mjSTAGE_POS))
        self._senses = len(sensors) > 0
        kinds = model.sensor_type[sensors]
        self._sensor_level = POSITION if np.isin(kinds, _NEED_CONSTRAINTS).any() else FRAMES
        # Warp writes these only where something is sensed, and expects zeros before
        sparse = [
            int(model.sensor_adr[i]) + k
            for i in sensors[np.isin(kinds, _SPARSE_SENSORS)]
            for k in range(model.sensor_dim[i])
        ]
        with device.scope():
            self._sparse = device.wp.array(sparse, dtype=int) if sparse else None
            self._loose = device.wp.full(model.nbody, 1, dtype=int)

    def want(self, name: str) -> bool:
        """From now on keep a field up to date as well; whether that is other work than before."""
        before = self._level, self._sensing
        self._wanted.add(name)
        needed = self._wanted & POSITION | (set(self._sensor_level) if self._sensing else set())
        self._level = next((level for level in (frozenset[str](), BODIES, FRAMES) if needed <= level), POSITION)
        return before != (self._level, self._sensing)

    def __call__(self) -> None:
        """Compute what is wanted, nothing twice."""
        mjw, model, data = self._device.mjw, self._model, self._data
        if self._level == POSITION:
            mjw.fwd_position(model, data, factorize=False)
        elif self._level == FRAMES:
            mjw.fwd_kinematics(model, data)
        elif self._level == BODIES:
            mjw.kinematics(model, data)
        if self._sensing:
            self._sense()

    def place_static(self, expanded: Container[str]) -> None:
        """Move geoms that are fixed to the world, where ``expanded`` fields may place them otherwise in each world.

        Warp does so once, when data are made. Its kinematics skips them as being welded to body 0; for a model in which
        no body is, it does not.
        """
        if any(name in expanded for name in _MOVES_STATIC):
            loose = copy.copy(self._model)
            loose.body_weldid = self._loose
            self._device.mjw.kinematics(loose, self._data)

    @property
    def idle(self) -> bool:
        """Whether nothing is wanted."""
        return not self._level and not self._sensing

    @property
    def _sensing(self) -> bool:
        return self._senses and "sensordata" in self._wanted

    def _sense(self) -> None:
        wp, data = self._device.wp, self._data
        if self._sparse is not None:
            clear = importlib.import_module("sim.gpu_kernels").clear_columns
            wp.launch(clear, (data.nworld, len(self._sparse)), inputs=[self._sparse], outputs=[data.sensordata])
        history = wp.clone(data.history)  # delayed sensors would note this reading, and again in the next step
        self._device.mjw.sensor_pos(self._model, data)
        wp.copy(data.history, history)
