import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel._checks import NonFiniteError, ShapeError
from layerpeel.studies.loss_levels import plateaus

STEPS = [2 ** (k / 4) for k in range(41)]


def staircase(levels, stays, falls=2):
    """Losses that stay at each level for a number of records, and fall within a few."""
    losses = []
    for i, (level, stay) in enumerate(zip(levels, stays, strict=True)):
        losses += [level] * stay
        if i + 1 < len(levels):
            ratio = levels[i + 1] / level
            losses += [level * ratio ** (j / falls) for j in range(1, falls)]
    return losses


def test_a_staircase_has_a_plateau_per_stair():
    losses = staircase([1.0, 0.2, 0.03], [9, 13, 17])
    found = plateaus(STEPS[: len(losses)], losses)
    assert [p.loss for p in found] == [1.0, 0.2, 0.03]
    assert [(p.first, p.last) for p in found] == [(0, 8), (10, 22), (24, 40)]
    assert [p.is_last for p in found] == [False, False, True]
    assert all(p.fall == 0 and p.first < p.flattest < p.last for p in found)


@pytest.mark.parametrize(("power", "count"), [(0.07, 1), (0.08, 0)])
def test_the_share_per_doubling_decides(power, count):
    # A power law loses the share 1 - 2 ** -power per doubling: 4.7 % and 5.4 %.
    losses = [step**-power for step in STEPS]
    found = plateaus(STEPS, losses, fall=0.05)
    assert len(found) == count
    if count:
        assert found[0].fall == pytest.approx(1 - 2**-power)
        assert found[0].is_last


def test_a_rise_is_no_plateau_either():
    assert plateaus(STEPS, [step**0.08 for step in STEPS]) == ()
    assert len(plateaus(STEPS, [step**0.07 for step in STEPS])) == 1


@pytest.mark.parametrize(
    ("doublings", "count"), [(0.5, 3), (2.0, 3), (2.01, 2), (3.5, 1)]
)
def test_short_ones_are_left_out(doublings, count):
    losses = staircase([1.0, 0.2, 0.03], [9, 13, 17])
    assert len(plateaus(STEPS[: len(losses)], losses, doublings=doublings)) == count


def test_the_loss_is_that_where_it_is_flattest():
    # An inflection in log-log at step 16: the slope vanishes there alone.
    losses = [math.exp(-0.01 * math.log2(step / 16) ** 3) for step in STEPS]
    (found,) = plateaus(STEPS, losses)
    assert found.loss == pytest.approx(1.0, rel=1e-3)
    assert STEPS[found.flattest] == pytest.approx(16, rel=0.2)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=30),
    st.floats(0.01, 0.5),
    st.floats(1e-3, 1e3),
)
def test_every_plateau_is_flat_long_and_maximal(losses, fall, scale):
    steps = STEPS[: len(losses)]
    found = plateaus(steps, losses, fall=fall)
    most = -math.log(1 - fall)
    rates = [abs(math.log(b / a)) * 4 for a, b in pairwise(losses)]
    for p in found:
        assert all(rate <= most * (1 + 1e-9) for rate in rates[p.first : p.last])
        assert p.first == 0 or rates[p.first - 1] > most * (1 - 1e-9)
        assert p.is_last == (p.last == len(losses) - 1)
        assert p.is_last or rates[p.last] > most * (1 - 1e-9)
        assert p.last - p.first >= 2
    again = plateaus(steps, [scale * loss for loss in losses], fall=fall)
    if all(abs(rate - most) > 1e-6 for rate in rates):
        assert [(p.first, p.last) for p in again] == [(p.first, p.last) for p in found]


@pytest.mark.parametrize(
    ("steps", "losses", "options", "error", "message"),
    [
        ([1, 2], [1.0], {}, ShapeError, "one loss per step"),
        (torch.ones(1, 2), torch.ones(1, 2), {}, ShapeError, "one loss per step"),
        ([1, 2], [1.0, float("nan")], {}, NonFiniteError, "must be finite"),
        ([0, 2], [1.0, 1.0], {}, ValueError, "step 0"),
        ([2, 2], [1.0, 1.0], {}, ValueError, "ascend"),
        ([1, 2], [1.0, 0.0], {}, ValueError, "above 0"),
        ([1, 2], [1.0, 1.0], {"fall": 1.0}, ValueError, "between 0 and 1"),
        ([1, 2], [1.0, 1.0], {"doublings": 0}, ValueError, "doublings"),
    ],
)
def test_bad_input_is_named(steps, losses, options, error, message):
    with pytest.raises(error, match=message):
        plateaus(steps, losses, **options)


def test_few_records_have_none():
    assert plateaus([], []) == ()
    assert plateaus(torch.tensor([1]), torch.tensor([1.0])) == ()
