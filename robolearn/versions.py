"""What a result was made with: versions of the software, the commit of the code, the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from robolearn import __version__

_PACKAGES = ("torch", "mujoco", "numpy", "scipy", "onnxruntime", "leapp")


def package_version(name: str) -> str | None:
    """Version of an installed distribution, or None; nothing is imported."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, Any]:
    """Provenance of a result: ``python``, packages, ``commit``, ``commit_dirty``, ``machine``."""
    commit, dirty = git_commit()
    return {
        "robolearn": __version__,
        "python": platform.python_version(),
        **{name: package_version(name) for name in _PACKAGES},
        "commit": commit,
        "commit_dirty": dirty,
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """Operating system, processor and number of cores this process may use."""
    return {"system": platform.platform(), "processor": processor(), "cores": usable_cores()}


def processor() -> str:
    """Model name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores this process may run on, which a container or a scheduler can make fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def git_commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout that this package lies in and whether it has changes; (None, None) elsewhere."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None, None

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    status = git("status", "--porcelain", "--untracked-files=no")
    return commit, None if commit is None or status is None else bool(status)
