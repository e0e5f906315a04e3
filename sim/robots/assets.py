"""Where robot models that are not shipped with the platform come from. Nothing is ever downloaded."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from sim.robots.errors import AssetNotAvailable


@dataclass(frozen=True)
class Asset:
    """A robot model of other people, and the places it may be."""

    robot: str
    licence: str
    menagerie: str
    """Folder in MuJoCo Menagerie."""
    module: str
    """Module of the wheel that carries the model, and the model's folder in it."""
    folder: str
    install: str
    """Command that installs the wheel."""


def locate(asset: Asset, path: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of a model: an explicit path, else Menagerie, else the installed wheel.

    Menagerie is the checkout `MENAGERIE_ROOT` or what is already in its download cache. The wheel is found
    without importing it.

    Raises:
        AssetNotAvailable: it is nowhere; the message names the licence, the install command and the
        alternatives.
    """
    if path is not None:
        folder = Path(path)
        if not folder.is_dir():
            raise AssetNotAvailable(f"no folder {folder} with a model of robot {asset.robot!r}")
        return folder
    found = [p for p in (_menagerie(asset), _wheel(asset)) if p is not None]
    if not found:
        raise AssetNotAvailable(
            f"robot {asset.robot!r} ({asset.licence}) is not installed; run: {asset.install}  "
            f"(offline: set MENAGERIE_ROOT to a checkout of mujoco_menagerie, pass path=<model folder>, "
            f"or use robot 'allegro', which needs no files)"
        )
    return found[0]


def _menagerie(asset: Asset) -> Path | None:
    root = os.environ.get("MENAGERIE_ROOT")
    if root:
        folder = Path(root) / asset.menagerie
        return folder if folder.is_dir() else None
    complete = sorted((_menagerie_cache() / "models").glob(f"{asset.menagerie}-*/.complete"))
    return complete[-1].parent if complete else None


def _menagerie_cache() -> Path:
    """The cache of the `mujoco-menagerie` package."""
    given = os.environ.get("MENAGERIE_CACHE_DIR")
    if given:
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/mujoco_menagerie"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "mujoco_menagerie"


def _wheel(asset: Asset) -> Path | None:
    spec = importlib.util.find_spec(asset.module)
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / asset.folder
        if folder.is_dir():
            return folder
    return None
