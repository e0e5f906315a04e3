"""`robolearn doctor`: what this machine can do, and what to install for the rest."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from robolearn.errors import RobolearnError
from robolearn.files import json_line
from robolearn.settings import add_json
from robolearn.versions import package_version, processor, usable_cores

SUMMARY = "tell what this machine can do and what to install for the rest"

_RENDER = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='.3'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 16, 16) as renderer:
    renderer.update_scene(data)
    print("rendered", renderer.render().shape)
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        ok: whether it can be used here.
        detail: what was found.
        advice: what to do where it is not ok; empty if nothing is needed.
    """

    name: str
    ok: bool
    detail: str
    advice: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Only ``--json``."""
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """The verb; always 0: nothing that it finds missing keeps the base install from training on a CPU."""
    findings = examine()
    if args.json:
        print(json_line({"findings": [asdict(finding) for finding in findings]}))
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("", "what", "found", "for more"):
        table.add_column(title, overflow="fold")
    for f in findings:
        state = Text("yes", "green") if f.ok else Text("no", "yellow")
        table.add_row(state, Text(f.name), Text(f.detail), Text(f.advice))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0


def examine() -> list[Finding]:
    """Look at everything; takes a few seconds, changes nothing, never raises for what is missing."""
    return [
        _python(),
        Finding("processor", True, f"{processor()}, {usable_cores()} cores"),
        _memory(),
        _gpu(),
        _rendering(),
        _ffmpeg(),
        _ros(),
        *_extras(),
        _pins(),
    ]


def _python() -> Finding:
    version = sys.version.split()[0]
    recent = sys.version_info[:2] >= (3, 10)
    return Finding("python", recent, version, "" if recent else "install Python 3.10 or newer")


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError):
        return Finding("memory", False, "unknown")
    enough = total >= 4.0
    return Finding("memory", enough, f"{total:.1f} GiB", "" if enough else "training needs about 3 GiB: lower num_envs")


def _gpu() -> Finding:
    """The first GPU, and whether both torch and MuJoCo Warp can use it."""
    import torch

    from sim.gpu_device import open_device

    listed = _run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]).splitlines()
    if not torch.cuda.is_available():
        if not listed:
            return Finding("gpu", False, "none; training runs on the processor")
        advice = "install a CUDA build of torch"
        return Finding("gpu", False, f"{listed[0]}, but torch {torch.__version__} cannot use it", advice)
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    driver = f", driver {listed[0].rpartition(', ')[2]}" if listed else ""
    detail = f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB{driver}, torch with CUDA {torch.version.cuda}"
    try:
        open_device("cuda:0")
    except RobolearnError as error:
        return Finding("gpu", False, detail, str(error))
    engine = f"MuJoCo Warp {package_version('mujoco-warp')}, Warp {package_version('warp-lang')}"
    return Finding("gpu", True, f"{detail}, {engine}")


def _rendering() -> Finding:
    """Render one frame in a process of its own: a faulty driver can crash."""
    backend = os.environ.get("MUJOCO_GL", "unset")
    try:
        done = subprocess.run([sys.executable, "-c", _RENDER], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        detail = f"MUJOCO_GL={backend}: no frame within a minute"
        return Finding("rendering", False, detail, "update the graphics driver")
    if "rendered (16, 16, 3)" in done.stdout:
        return Finding("rendering", True, f"MUJOCO_GL={backend}: a 16x16 frame was rendered")
    reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    advice = "Debian and Ubuntu: apt-get install libegl1 libgl1-mesa-dri" if sys.platform == "linux" else ""
    return Finding("rendering", False, f"MUJOCO_GL={backend}: {reason}", advice)


def _ffmpeg() -> Finding:
    import imageio_ffmpeg

    try:
        path = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        return Finding("ffmpeg", False, str(error).splitlines()[0], "install ffmpeg, or set IMAGEIO_FFMPEG_EXE to one")
    version = _run([path, "-version"]).partition(" Copyright")[0]
    return Finding("ffmpeg", bool(version), version or f"{path} does not run")


def _ros() -> Finding:
    distribution = os.environ.get("ROS_DISTRO", "")
    if importlib.util.find_spec("rclpy") is not None:
        return Finding("ros 2", True, f"rclpy, distribution {distribution or 'unknown'}")
    if distribution:
        detail = f"{distribution} is sourced, but this Python has no rclpy"
        return Finding("ros 2", False, detail, "use the Python that it was built for")
    setups = sorted(Path("/opt/ros").glob("*/setup.bash")) if Path("/opt/ros").is_dir() else []
    if setups:
        return Finding("ros 2", False, "installed, not sourced", f"source {setups[-1]}")
    embedded = package_version("cyclonedds")
    return Finding("ros 2", False, f"none{'; embedded DDS ' + embedded if embedded else ''}")


def _extras() -> Iterator[Finding]:
    """One finding for each extra of the package."""
    try:
        requirements = importlib.metadata.requires("robolearn") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("extras", False, "robolearn is not installed in this Python", "make install")
        return
    extras: dict[str, list[str]] = {}
    for requirement in requirements:
        match = re.search(r"extra == ['\"](\w+)['\"]", requirement)
        if match:
            name = re.split(r"[\s;<>=!~\[(]", requirement, maxsplit=1)[0]
            extras.setdefault(match.group(1), []).append(name)
    for extra, names in extras.items():
        missing = [name for name in names if package_version(name) is None]
        have = ", ".join(f"{name} {package_version(name)}" for name in names if name not in missing)
        detail = f"missing: {', '.join(missing)}" if missing else have
        advice = f"pip install -c constraints.txt -e '.[{extra}]'" if missing else ""
        yield Finding(f"extra [{extra}]", not missing, detail, advice)


def _pins() -> Finding:
    """Installed versions against constraints.txt, where the package runs from a checkout."""
    path = Path(__file__).resolve().parent.parent / "constraints.txt"
    if not path.is_file():
        return Finding("pinned versions", True, "not a checkout: nothing to compare with")
    differ, same = [], 0
    for name, pinned in pins(path.read_text()).items():
        version = package_version(name)
        if version is None:
            continue
        if version.partition("+")[0] == pinned:  # +cpu and the like are builds of one version
            same += 1
        else:
            differ.append(f"{name} {version} (pinned {pinned})")
    if differ:
        return Finding("pinned versions", False, ", ".join(differ), "make install")
    return Finding("pinned versions", True, f"{same} packages as in constraints.txt")


def pins(text: str) -> dict[str, str]:
    """Name → version of the lines of a constraints file that hold for this Python."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"([\w.-]+)==([\w.!+]+)(?:; python_version (<|>=) \"3\.(\d+)\")?\s*$", line)
        if match is None:
            continue
        name, version, comparison, minor = match.groups()
        older = minor is not None and sys.version_info < (3, int(minor))
        if comparison is None or (comparison == "<") == older:
            found[name] = version
    return found


def _run(command: list[str]) -> str:
    """Standard output of a command, or nothing where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
