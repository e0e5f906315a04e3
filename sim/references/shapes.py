"""Signed distance of points to an object made of primitives, with its gradient: grasp synthesis's touch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.objects import Geom, ObjectSpec

FloatArray = NDArray[np.float64]

_TINY = 1e-12


def signed_distance(shape: ObjectSpec, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distance (...,) in m of points (..., 3) in the object frame, negative inside, and its gradient (..., 3).

    The union of the geoms is the minimum of their distances: exact outside, a lower bound inside overlaps.
    """
    distance, normal = _geom_distance(shape.geoms[0], points)
    for geom in shape.geoms[1:]:
        d, n = _geom_distance(geom, points)
        nearer = d < distance
        distance = np.where(nearer, d, distance)
        normal = np.where(nearer[..., None], n, normal)
    return distance, normal


def _geom_distance(geom: Geom, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    p = points - np.array(geom.pos)
    if geom.type == "box":
        return _box(p, np.array(geom.size))
    if geom.type == "sphere":
        return _round(p, geom.size[0])
    axis = "xyz".index(geom.axis)
    if geom.type == "capsule":
        along = np.zeros_like(p)
        along[..., axis] = np.clip(p[..., axis], -geom.size[1], geom.size[1])
        return _round(p - along, geom.size[0])
    # A cylinder is a rectangle in (distance from the axis, height along it).
    radial = p.copy()
    radial[..., axis] = 0.0
    r = np.linalg.norm(radial, axis=-1)
    flat = np.stack([r, p[..., axis]], axis=-1)
    d, g = _box(flat, np.array(geom.size))
    normal = radial / np.maximum(r, _TINY)[..., None] * g[..., :1]
    normal[..., axis] = g[..., 1]
    return d, normal


def _round(p: FloatArray, radius: float) -> tuple[FloatArray, FloatArray]:
    length = np.linalg.norm(p, axis=-1)
    return length - radius, p / np.maximum(length, _TINY)[..., None]


def _box(p: FloatArray, half: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distance and gradient to a box of any dimension."""
    excess = np.abs(p) - half
    outside = np.maximum(excess, 0.0)
    length = np.linalg.norm(outside, axis=-1)
    deepest = excess.max(axis=-1)
    face = np.eye(p.shape[-1])[excess.argmax(axis=-1)]
    inside = deepest <= 0
    distance = np.where(inside, deepest, length)
    gradient = np.where(inside[..., None], face, outside / np.maximum(length, _TINY)[..., None])
    return distance, gradient * np.where(p < 0, -1.0, 1.0)
