"""Cameras in a process of their own, as a real camera's driver is one: drawing cannot hold up the robot's state.

The twin writes lines of JSON to the process's standard input: where a scene's compiled model is, and states of it. A
state that does not fit into the pipe at once is left out. The process ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import mujoco
import numpy as np

from real.msgs import store
from real.stack import Stack
from real.stack_schema import build, plain
from real.transport.handle import NodeHandle
from real.transport.open import open_node
from real.twin.pictures import Pictures
from real.twin.settings import TwinSettings
from robolearn.errors import RobolearnError

NAME = "twin_cameras"
_POLL_S = 0.008
_KEPT = 2
"""Models whose files are kept: the process may not have read the last one yet."""


class CameraProcess:
    """`real.twin.pictures.PictureSink` that hands states to a process, which draws and publishes.

    Args:
        start: the first line for the process: settings, and how to open a node.

    Attributes:
        skipped: states that were left out because the process did not keep up.
    """

    def __init__(self, start: dict[str, Any]) -> None:
        self.skipped = 0
        self._folder = tempfile.TemporaryDirectory(prefix="twin_cameras_")
        self._models: list[Path] = []
        self._number = 0
        command = [sys.executable, "-m", "real.twin.camera_process"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert self._process.stdin is not None
        self._pipe = self._process.stdin.fileno()
        os.write(self._pipe, _line(start))
        os.set_blocking(self._pipe, False)

    def scene(self, model: mujoco.MjModel) -> None:
        path = Path(self._folder.name) / f"{self._number}.mjb"
        self._number += 1
        mujoco.mj_saveModel(model, str(path), None)
        self._models.append(path)
        while len(self._models) > _KEPT:
            self._models.pop(0).unlink()
        self._send({"model": str(path)})

    def show(self, qpos: np.ndarray, stamp_ns: int, now: float) -> None:
        self._send({"qpos": qpos.tolist(), "stamp": stamp_ns, "now": now})

    def tick(self, now: float) -> None:
        """Nothing to do: the process sends."""

    def report(self) -> dict[str, Any]:
        return {"cameras_running": self._process.poll() is None, "camera_states_skipped": self.skipped}

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def _send(self, order: dict[str, Any]) -> None:
        try:
            os.write(self._pipe, _line(order))  # less than PIPE_BUF, so that it is written whole or not at all
        except (BlockingIOError, BrokenPipeError):
            self.skipped += 1


def start_cameras(settings: TwinSettings, stack: Stack, argv: Sequence[str] | None = None) -> CameraProcess:
    """A process with the cameras of a stack's twin, in the namespace and with the remaps of ``argv``."""
    opened = {
        "namespace": stack.namespace,
        "transport": stack.transport,
        "domain": stack.domain,
        "distro": stack.distro,
        "args": list(sys.argv[1:] if argv is None else argv),
    }
    return CameraProcess({"settings": plain(settings), "open": opened})


class CameraNode:
    """The process's node.

    Args:
        handle: its place in the graph.
        settings: of the twin.
        pipe: file descriptor of the orders.
        distro: whose messages.

    Attributes:
        finished: the twin has gone.
    """

    def __init__(self, handle: NodeHandle, settings: TwinSettings, pipe: int, distro: str | None) -> None:
        self.finished = False
        self._handle, self._pipe = handle, pipe
        self._rest = b""
        self._pictures = Pictures(handle, settings, store(distro))
        os.set_blocking(pipe, False)
        handle.timer(_POLL_S, self._tick)

    def close(self) -> None:
        """Free the OpenGL context."""
        self._pictures.close()

    def _tick(self) -> None:
        latest = None
        for order in self._orders():
            if "model" in order:
                latest = None
                with contextlib.suppress(ValueError):  # it was replaced before it was read: another one follows
                    self._pictures.scene(mujoco.MjModel.from_binary_path(order["model"]))
            else:
                latest = order
        if latest is not None:
            self._pictures.show(np.array(latest["qpos"]), latest["stamp"], latest["now"])
        self._pictures.tick(self._handle.clock.monotonic())

    def _orders(self) -> list[dict[str, Any]]:
        """Orders that have come since the last call."""
        try:
            while data := os.read(self._pipe, 1 << 16):
                self._rest += data
            self.finished = True
        except BlockingIOError:
            pass
        *lines, self._rest = self._rest.split(b"\n")
        return [json.loads(line) for line in lines]


def _line(order: dict[str, Any]) -> bytes:
    return json.dumps(order).encode() + b"\n"


def _first_line(pipe: int) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\n"):
        byte = os.read(pipe, 1)
        if not byte:
            raise SystemExit(0)
        data += byte
    return dict(json.loads(data))


def main() -> int:
    """Draw and publish until standard input ends."""
    cv2.setNumThreads(1)  # the other cores are the robot's
    pipe = sys.stdin.fileno()
    start = _first_line(pipe)
    opened = start["open"]
    try:
        settings = build(TwinSettings, start["settings"], "twin")
        handle = open_node(NAME, **opened)
        node = CameraNode(handle, settings, pipe, opened["distro"])
        try:
            handle.spin(until=lambda: node.finished)
        finally:
            node.close()
            handle.close()
    except RobolearnError as error:
        print(f"[{NAME}] {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
