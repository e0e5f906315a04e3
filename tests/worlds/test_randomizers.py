"""Randomisers on both engines: equal draws make equal worlds, which move alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sim.physics import Physics
from sim.randomize import RandomizeError
from sim.selection import Selection
from sim.world import World
from tests.sim.randomize_scene import ALL, DERIVED, FIELDS, generator, make, masked, one, world

pytest.importorskip("mujoco_warp", reason="the GPU engine needs the extra [gpu]")
from sim.mujoco_gpu import MujocoGpu  # noqa: E402 - after the check that it can be imported

DERIVED_FIELDS = ("body_subtreemass", "body_invweight0", "dof_invweight0")


@pytest.fixture(scope="module")
def pair() -> tuple[World, World]:
    """The same worlds on both engines, with everything randomised."""
    worlds = world("mug", free_com=True), world("mug", free_com=True, engine=MujocoGpu)
    for w in worlds:
        draws = make(*FIELDS)
        for k, draw in enumerate(draws.values()):
            draw.apply(w, ALL, generator(k))
            draw.apply(w, Selection(torch.tensor([1, 4])) if w is worlds[0] else masked(1, 4), generator(100))
            draw.apply(w, ALL, generator(k))
    return worlds


def engines(pair: tuple[World, World]) -> tuple[Physics, Physics]:
    return pair[0].shards[0].physics, pair[1].shards[0].physics


@pytest.mark.parametrize("field", [*sorted({f for name in FIELDS for f in one(name).fields}), *DERIVED_FIELDS])
def test_fields_agree(pair, field):
    cpu, gpu = (engine.expand(field) for engine in engines(pair))
    assert gpu.shape == cpu.shape and gpu.dtype == torch.float32
    np.testing.assert_allclose(gpu.numpy(), cpu.numpy(), rtol=1e-5, atol=1e-7)
    assert field in ("geom_rbound",) or not torch.equal(gpu, gpu[:1].expand_as(gpu))


def test_worlds_move_alike(pair):
    for engine in engines(pair):
        for name, values in {"qpos": [0.03, 0.02, 0.3, 0.9, 0.1, -0.3, 0.3], "ctrl": [0.4, -0.8]}.items():
            engine.bind(name)[:, : len(values)] = torch.tensor(values, dtype=engine.bind(name).dtype)
        engine.bind("qvel")[:, 3:6] = torch.tensor([3.0, 2.0, 1.0])
        engine.step(25)
    for name, tolerance in (("qpos", 1e-5), ("qvel", 1e-3)):
        cpu, gpu = (engine.bind(name).double().numpy() for engine in engines(pair))
        np.testing.assert_allclose(gpu, cpu, atol=tolerance)
        places = np.ptp(cpu, axis=0)[[0, 1, 2, -2, -1]]  # gravity turns nothing in free fall
        assert (places > 10 * tolerance).all()  # the worlds differ by far more than the engines


def test_pushes_act_on_both(pair):
    draws = [one("object_push", range=[0.5, 0.5], interval_s=[0.1, 0.1]) for _ in pair]
    gained = []
    for w, draw in zip(pair, draws, strict=True):
        g = generator(5)
        draw.apply(w, ALL, g)
        draw.advance(w, 0.1, g)
        before = w.shards[0].physics.bind("qvel")[:, :3].clone()
        w.step(1)
        gained.append((w.shards[0].physics.bind("qvel")[:, :3] - before).double().numpy())
    assert torch.equal(draws[0].factor, draws[1].factor)
    np.testing.assert_allclose(gained[1], gained[0], atol=2e-4)


@pytest.mark.parametrize("name", DERIVED)
def test_constants_are_not_derived_at_resets(pair, name):
    pair[1].dense = True
    with pytest.raises(RandomizeError, match="at: start"):
        one(name, at="reset").prepare(pair[1])
    pair[1].dense = False
