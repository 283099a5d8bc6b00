import math

import pytest
import torch

from layerpeel.edits.spread import Spread, relative
from tests.edits.networks import normal


def spread_of(*parts):
    spread = Spread()
    for part in parts:
        spread.add(part)
    return spread


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_batches_add_up_far_from_the_origin(offset):
    rows = normal(50, 3) + offset
    expected = float((rows - rows.mean(0)).square().sum())
    energy = spread_of(*rows.split(7)).energy
    assert energy == pytest.approx(expected, rel=1e-9)


def test_changes_are_relative_to_all_outputs_together():
    first, second = normal(20, 2), 3 * normal(20, 4, seed=1)
    total = sum(float((z - z.mean(0)).square().sum()) for z in (first, second))
    found = relative(2.0, [spread_of(first), spread_of(second)])
    assert found == pytest.approx(2.0 / math.sqrt(total))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_constant_outputs_have_no_scale(dtype):
    rows = torch.full((9, 2), 0.1, dtype=dtype)
    spread = spread_of(rows, rows * (1 + torch.finfo(dtype).eps))
    assert relative(0.0, [spread]) == 0
    assert relative(torch.finfo(dtype).eps, [spread]) == 0
    assert relative(1e-3, [spread]) == math.inf
