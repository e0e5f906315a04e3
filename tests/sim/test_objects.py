"""Objects: the catalogue, their models, shape codes and refusals."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest

from sim.objects import FEATURE_SIZE, Geom, ObjectError, ObjectSpec, get_object, list_objects


def test_catalogue_has_kinds_and_disjoint_splits() -> None:
    train, heldout = list_objects("train"), list_objects("heldout")
    assert len(train) >= 8 and len(heldout) >= 4
    assert {get_object(n).kind for n in train} == {"box", "cylinder", "sphere", "handled"}
    assert not set(train) & set(heldout)
    assert list_objects() == train + heldout
    shapes = [get_object(n).geoms for n in list_objects()]
    assert len(set(shapes)) == len(shapes), "held-out objects have other shapes"


@pytest.mark.parametrize("name", list_objects())
def test_object_rests_on_the_table_and_has_its_mass(name: str) -> None:
    shape = get_object(name)
    spec = mujoco.MjSpec()
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1])
    shape.add_to(spec)
    model = spec.compile()
    data = mujoco.MjData(model)
    assert model.body("object").mass[0] == pytest.approx(shape.mass, rel=1e-6)
    assert 0.03 < shape.mass < 0.25
    assert model.njnt == 1 and model.joint("object").type[0] == mujoco.mjtJoint.mjJNT_FREE
    mujoco.mj_step(model, data, 250)
    assert data.qpos[2] == pytest.approx(shape.rest_height, abs=1e-3)
    np.testing.assert_allclose(data.qpos[3:], [1, 0, 0, 0], atol=2e-2)
    assert np.all(model.geom_condim[1:] >= 4) and np.all(model.geom_priority[1:] == 1)


def test_features_have_one_size_and_tell_objects_apart() -> None:
    codes = np.stack([get_object(n).features() for n in list_objects()])
    assert codes.shape == (len(list_objects()), FEATURE_SIZE) and codes.dtype == np.float32
    assert len(np.unique(codes, axis=0)) == len(codes)
    assert np.all(np.abs(codes) < 3)
    assert np.all((codes[:, -3:] > 0).any(axis=1) == [get_object(n).kind == "handled" for n in list_objects()])


def test_bounds_follow_turned_geoms_and_scale() -> None:
    shape = ObjectSpec("rod", "handled", (Geom("capsule", (0.01, 0.04), (0.1, 0.0, 0.0), axis="x"),))
    low, high = shape.bounds()
    np.testing.assert_allclose(low, [0.05, -0.01, -0.01])
    np.testing.assert_allclose(high, [0.15, 0.01, 0.01])
    np.testing.assert_allclose(shape.scaled(2.0).bounds()[1], [0.3, 0.02, 0.02])
    assert shape.scaled(2.0).mass == pytest.approx(8 * shape.mass)
    spec = mujoco.MjSpec()
    shape.add_to(spec, "rod")
    model = spec.compile()
    axis = np.zeros(3)
    mujoco.mju_rotVecQuat(axis, np.array([0.0, 0.0, 1.0]), model.geom("rod_0").quat)
    assert abs(axis[0]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("geoms", "density", "message"),
    [
        ((Geom("box", (0.02, -0.02, 0.02)),), 500.0, "between 0 and 0.5 m"),
        ((Geom("sphere", (math.nan,)),), 500.0, "between 0 and 0.5 m"),
        ((Geom("sphere", (3.0,)),), 500.0, "between 0 and 0.5 m"),
        ((Geom("cylinder", (0.02,)),), 500.0, "a cylinder has 2 sizes, got 1"),
        ((Geom("spere", (0.02,)),), 500.0, "did you mean 'sphere'"),
        ((Geom("capsule", (0.02, 0.02), axis="q"),), 500.0, "unknown axis 'q'"),
        ((Geom("sphere", (0.02,), (math.inf, 0.0, 0.0)),), 500.0, "pos must be"),
        ((Geom("sphere", (0.02,)),), 0.0, "density must be a positive"),
        ((), 500.0, "no geoms"),
    ],
)
def test_impossible_objects_are_refused(geoms: tuple[Geom, ...], density: float, message: str) -> None:
    with pytest.raises(ObjectError, match=message):
        ObjectSpec("thing", "box", geoms, density)


def test_unknown_names_are_refused_with_the_valid_ones() -> None:
    with pytest.raises(ObjectError, match="unknown object 'cub'; did you mean 'cube'"):
        get_object("cub")
    with pytest.raises(ObjectError, match="splits: heldout, train"):
        list_objects("test")
    with pytest.raises(ObjectError, match="unknown kind 'ball'"):
        ObjectSpec("thing", "ball", (Geom("sphere", (0.02,)),))
