"""Sparse and dense selections of worlds do the same."""

from __future__ import annotations

import pytest
import torch

from sim.selection import Selection

MASK = torch.tensor([False, True, False, False, True, True])


@pytest.mark.parametrize("shape", [(6,), (6, 2), (6, 2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.long])
def test_writing_and_filling_touch_the_chosen_rows_alone(shape, dtype):
    values = torch.arange(torch.Size(shape).numel()).view(shape).to(dtype)
    written, filled = values.clone(), values.clone()
    written[MASK] += 100
    filled[MASK] = 7
    for dense in (False, True):
        select = Selection.of(MASK, dense)
        rows, target = select.take(values), values.clone()
        select.write(target, (rows + 100).double())
        assert torch.equal(target, written) and target.dtype == dtype
        target = values.clone()
        select.fill(target, 7)
        assert torch.equal(target, filled)
        assert select.chosen().tolist() == [1, 4, 5]


def test_taken_rows_are_copies():
    values = torch.zeros(6)
    for dense in (False, True):
        rows = Selection.of(MASK, dense).take(values)
        rows += 1
        assert not values.any()


def test_parts_count_worlds_from_their_range():
    bounds = [0, 2, 4, 6]
    rows = torch.arange(6) * 10
    for dense in (False, True):
        select = Selection.of(MASK, dense)
        found = {
            s: (local.chosen().tolist(), select.take(rows)[where][local.mask if dense else slice(None)].tolist())
            for s, local, where in select.parts(bounds)
        }
        found = {s: parts for s, parts in found.items() if parts[0]}
        assert found == {0: ([1], [10]), 2: ([0, 1], [40, 50])}


def test_nothing_and_everything():
    assert len(Selection.of(torch.zeros(3, dtype=torch.bool), dense=False)) == 0
    assert list(Selection.of(torch.zeros(3, dtype=torch.bool), dense=False).parts([0, 3])) == []
    assert Selection.all(3).chosen().tolist() == [0, 1, 2]
