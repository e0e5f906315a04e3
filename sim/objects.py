"""Objects to manipulate: named compounds of primitive geoms, in a training and a held-out set.

The object frame has its origin at the centre of the main geom and z up when the object stands on a table.
Density is DexTrack's 500 kg/m^3; an object's contact parameters win over the hand's and the table's (MuJoCo
`priority`), so that randomising the object's friction randomises every contact it has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import mujoco
import numpy as np
from numpy.typing import NDArray

from robolearn.errors import RobolearnError, unknown

KINDS = ("box", "cylinder", "sphere", "handled")
SPLITS = ("train", "heldout")
FEATURE_SIZE = len(KINDS) + 9

_GEOM_TYPES = {
    "box": (mujoco.mjtGeom.mjGEOM_BOX, 3),
    "cylinder": (mujoco.mjtGeom.mjGEOM_CYLINDER, 2),
    "sphere": (mujoco.mjtGeom.mjGEOM_SPHERE, 1),
    "capsule": (mujoco.mjtGeom.mjGEOM_CAPSULE, 2),
}
_LARGEST = 0.5
_SLIDING, _TORSION, _ROLLING = 1.0, 0.01, 0.001


class ObjectError(RobolearnError):
    """An unknown object, or one whose shape cannot be built."""


@dataclass(frozen=True)
class Geom:
    """One axis-aligned primitive of an object.

    `size` in m is MuJoCo's: box half extents (3), cylinder and capsule (radius, half length along z), sphere
    (radius). `pos` in m is its centre in the object frame. `axis` turns z of a cylinder or capsule to "x",
    "y" or "z".
    """

    type: str
    size: tuple[float, ...]
    pos: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axis: str = "z"

    def half_extents(self) -> NDArray[np.float64]:
        """(3,) half extents in m along the object's axes."""
        if self.type == "box":
            return np.array(self.size)
        if self.type == "sphere":
            return np.full(3, self.size[0])
        half = np.full(3, self.size[0])
        half["xyz".index(self.axis)] = self.size[1] + (self.size[0] if self.type == "capsule" else 0.0)
        return half

    def quat(self) -> tuple[float, float, float, float]:
        """wxyz rotation that turns z to `axis`."""
        c = math.sqrt(0.5)
        return {"x": (c, 0.0, c, 0.0), "y": (c, -c, 0.0, 0.0), "z": (1.0, 0.0, 0.0, 0.0)}[self.axis]


@dataclass(frozen=True)
class ObjectSpec:
    """A rigid object: its main geom first, then the geoms of its handle, if any. Hashable."""

    name: str
    kind: str
    geoms: tuple[Geom, ...]
    density: float = 500.0
    """kg/m^3."""
    split: str = field(default="train", compare=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ObjectError(f"object {self.name!r}: {unknown('kind', self.kind, KINDS)}")
        if not self.geoms:
            raise ObjectError(f"object {self.name!r} has no geoms")
        if not (math.isfinite(self.density) and self.density > 0):
            raise ObjectError(f"object {self.name!r}: density must be a positive number of kg/m^3, got {self.density}")
        for i, geom in enumerate(self.geoms):
            _check(f"object {self.name!r}, geom {i}", geom)

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper corner (3,), (3,) in m of the object's box, in its own frame."""
        centres = np.array([g.pos for g in self.geoms])
        halves = np.array([g.half_extents() for g in self.geoms])
        return (centres - halves).min(axis=0), (centres + halves).max(axis=0)

    @property
    def rest_height(self) -> float:
        """Height in m of the object frame above the table the object stands on."""
        return float(-self.bounds()[0][2])

    @property
    def mass(self) -> float:
        """kg, geoms counted as MuJoCo does: overlaps twice."""
        return self.density * sum(_volume(g) for g in self.geoms)

    def features(self) -> NDArray[np.float32]:
        """Shape code (FEATURE_SIZE,): kind one-hot, half extents of the main geom, centre and half extents of
        the handle's box (zeros without a handle). Lengths are in units of 5 cm, to be of order one.
        """
        code = np.zeros(FEATURE_SIZE, dtype=np.float32)
        code[KINDS.index(self.kind)] = 1.0
        lengths = np.zeros((3, 3))
        lengths[0] = self.geoms[0].half_extents()
        if len(self.geoms) > 1:
            low, high = replace(self, geoms=self.geoms[1:]).bounds()
            lengths[1:] = (low + high) / 2, (high - low) / 2
        code[len(KINDS) :] = lengths.ravel() / 0.05
        return code

    def scaled(self, factor: float) -> ObjectSpec:
        """The same object with every length multiplied by `factor`."""
        geoms = []
        for geom in self.geoms:
            x, y, z = geom.pos
            size = tuple(factor * s for s in geom.size)
            geoms.append(replace(geom, size=size, pos=(factor * x, factor * y, factor * z)))
        return replace(self, geoms=tuple(geoms))

    def add_to(self, spec: mujoco.MjSpec, body_name: str = "object") -> mujoco.MjsBody:
        """Add the object to a scene as a free body. Its joint has the body's name; geoms are `<name>_<i>`."""
        body = spec.worldbody.add_body(name=body_name, pos=[0, 0, self.rest_height])
        body.add_freejoint(name=body_name)
        for i, geom in enumerate(self.geoms):
            body.add_geom(
                name=f"{body_name}_{i}",
                type=_GEOM_TYPES[geom.type][0],
                size=[*geom.size, 0.0, 0.0][:3],
                pos=geom.pos,
                quat=geom.quat(),
                density=self.density,
                # A ball needs rolling friction to stay where it was put.
                condim=6 if self.kind == "sphere" else 4,
                friction=[_SLIDING, _TORSION, _ROLLING],
                priority=1,
                rgba=[0.85, 0.45, 0.2, 1.0] if i == 0 else [0.7, 0.35, 0.15, 1.0],
            )
        return body


def get_object(name: str) -> ObjectSpec:
    """Return an object by name.

    Raises:
        ObjectError: no object of that name.
    """
    if name not in _OBJECTS:
        raise ObjectError(unknown("object", name, _OBJECTS))
    return _OBJECTS[name]


def list_objects(split: str | None = None) -> list[str]:
    """Names of all objects, or of those of split "train" or "heldout".

    Raises:
        ObjectError: no split of that name.
    """
    if split is not None and split not in SPLITS:
        raise ObjectError(unknown("split", split, SPLITS))
    return [o.name for o in _OBJECTS.values() if split in (None, o.split)]


def _check(where: str, geom: Geom) -> None:
    if geom.type not in _GEOM_TYPES:
        raise ObjectError(f"{where}: {unknown('geom type', geom.type, _GEOM_TYPES)}")
    count = _GEOM_TYPES[geom.type][1]
    if len(geom.size) != count:
        raise ObjectError(f"{where}: a {geom.type} has {count} sizes, got {len(geom.size)}")
    if not all(math.isfinite(s) and 0 < s <= _LARGEST for s in geom.size):
        raise ObjectError(f"{where}: sizes must lie between 0 and {_LARGEST} m, got {tuple(geom.size)}")
    if len(geom.pos) != 3 or not all(math.isfinite(p) and abs(p) <= _LARGEST for p in geom.pos):
        raise ObjectError(f"{where}: pos must be 3 numbers of at most {_LARGEST} m, got {tuple(geom.pos)}")
    if geom.axis not in ("x", "y", "z"):
        raise ObjectError(f"{where}: {unknown('axis', geom.axis, 'xyz')}")


def _volume(geom: Geom) -> float:
    if geom.type == "box":
        return 8.0 * math.prod(geom.size)
    r = geom.size[0]
    ball = 4.0 / 3.0 * math.pi * r**3
    if geom.type == "sphere":
        return ball
    return 2.0 * math.pi * r**2 * geom.size[1] + (ball if geom.type == "capsule" else 0.0)


def _box(name: str, x: float, y: float, z: float, split: str = "train") -> ObjectSpec:
    return ObjectSpec(name, "box", (Geom("box", (x / 2, y / 2, z / 2)),), split=split)


def _cylinder(name: str, diameter: float, height: float, split: str = "train") -> ObjectSpec:
    return ObjectSpec(name, "cylinder", (Geom("cylinder", (diameter / 2, height / 2)),), split=split)


def _sphere(name: str, diameter: float, split: str = "train") -> ObjectSpec:
    return ObjectSpec(name, "sphere", (Geom("sphere", (diameter / 2,)),), split=split)


def _handled(name: str, main: Geom, reach: float, height: float, split: str = "train") -> ObjectSpec:
    """A vessel with a D-shaped handle on its +x side that reaches out by `reach` and is `height` tall (m)."""
    side = float(main.half_extents()[0])
    rod = 0.006
    half = reach / 2
    bars = [Geom("capsule", (rod, half), (side + half, 0.0, s * height / 2), "x") for s in (1.0, -1.0)]
    grip = Geom("capsule", (rod, height / 2), (side + reach, 0.0, 0.0))
    return ObjectSpec(name, "handled", (main, *bars, grip), split=split)


def _catalogue(objects: Iterable[ObjectSpec]) -> dict[str, ObjectSpec]:
    return {o.name: o for o in objects}


_OBJECTS = _catalogue(
    [
        _box("cube", 0.055, 0.055, 0.055),
        _box("carton", 0.050, 0.050, 0.100),
        _box("brick", 0.050, 0.080, 0.060),
        _cylinder("can", 0.066, 0.100),
        _cylinder("jar", 0.060, 0.070),
        _cylinder("tube", 0.050, 0.120),
        _sphere("ball", 0.070),
        _sphere("small_ball", 0.060),
        _handled("mug", Geom("cylinder", (0.032, 0.040)), reach=0.028, height=0.045),
        _handled("jug", Geom("box", (0.027, 0.027, 0.048)), reach=0.030, height=0.055),
        _box("block", 0.060, 0.052, 0.080, split="heldout"),
        _cylinder("tin", 0.056, 0.090, split="heldout"),
        _sphere("orange", 0.065, split="heldout"),
        _handled("cup", Geom("cylinder", (0.029, 0.048)), reach=0.025, height=0.05, split="heldout"),
        ObjectSpec(
            "bottle",
            "handled",
            (Geom("cylinder", (0.029, 0.040)), Geom("cylinder", (0.013, 0.020), (0.0, 0.0, 0.060))),
            split="heldout",
        ),
    ]
)
