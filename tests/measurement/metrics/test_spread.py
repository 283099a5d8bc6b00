import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerpeel.measurement.metrics.spread import Spread

NUMBERS = st.lists(st.floats(-1e3, 1e3), max_size=20)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_any_grouping_is_the_whole(a, b, c):
    parts = [Spread.of(torch.tensor(x, dtype=torch.float64)) for x in (a, b, c)]
    left = parts[0].merge(parts[1]).merge(parts[2])
    right = parts[2].merge(parts[1]).merge(parts[0])
    values = np.array(a + b + c)
    for spread in (left, right):
        assert spread.count == len(values)
        if len(values):
            assert spread.mean == pytest.approx(values.mean(), abs=1e-9)
            assert spread.std() == pytest.approx(values.std(), abs=1e-6)


@pytest.mark.parametrize("correction", [0, 1])
def test_standard_deviation_far_from_zero(correction):
    values = 1e8 + torch.arange(6).double()
    spread = Spread.over(values.split(4))
    assert spread.std(correction) == pytest.approx(np.std(range(6), ddof=correction))


def test_too_few_numbers_have_no_spread():
    assert math.isnan(Spread().std())
    assert math.isnan(Spread.of(torch.ones(1).double()).std(1))
    assert Spread.of(torch.ones(1).double()).std() == 0
