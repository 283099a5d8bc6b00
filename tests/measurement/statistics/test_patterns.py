import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel._checks import MergeError, ShapeError
from layerpeel.measurement.statistics.patterns import UnitPatterns


def reference(rows):
    """Unit by unit, in plain Python."""
    columns = list(zip(*rows, strict=True))
    on = [sum(value > 0 for value in column) for column in columns]
    return on, [min(column) for column in columns], [max(column) for column in columns]


def assert_same(a, b):
    assert a.parts().keys() == b.parts().keys()
    for name, part in a.parts().items():
        assert torch.equal(part, b.parts()[name]), name


rows = st.lists(st.tuples(*[st.integers(-3, 3)] * 2), max_size=8)


def patterns_of(table):
    return UnitPatterns.of(torch.tensor(table, dtype=torch.float32).reshape(-1, 2))


@settings(max_examples=60, deadline=None)
@given(rows, rows, rows)
def test_merge_is_exact_for_any_split(a, b, c):
    x, y, z = map(patterns_of, (a, b, c))
    assert_same(x.merge(y), y.merge(x))
    assert_same(x.merge(y).merge(z), x.merge(y.merge(z)))
    assert_same(x.merge(y).merge(z), patterns_of(a + b + c))
    assert_same(x.merge(UnitPatterns.empty(2)), x)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-5, 5, width=16)] * 3), min_size=1, max_size=9))
def test_counts_and_ranges_are_those_of_a_loop(table):
    seen = UnitPatterns.of(torch.tensor(table, dtype=torch.float16))
    on, low, high = reference(table)
    assert seen.count.item() == len(table)
    assert (seen.on.tolist(), seen.low.tolist(), seen.high.tolist()) == (on, low, high)


@pytest.mark.parametrize("on", [0, 1, 3, 5, 10])
def test_entropy_is_that_of_a_coin(on):
    values = torch.tensor([[1.0]] * on + [[-1.0]] * (10 - on))
    p = on / 10
    bits = -sum(q * math.log2(q) for q in (p, 1 - p) if q)
    assert UnitPatterns.of(values).entropy.item() == pytest.approx(bits, abs=1e-15)


def test_kinds_of_units():
    h = torch.tensor([[0.0, 1.0, -1.0, 2.0, 0.0], [0.0, 1.0, -2.0, 3.0, 1e-30]])
    seen = UnitPatterns.of(h)
    assert seen.dead.tolist() == [True, False, False, False, False]
    assert seen.constant.tolist() == [True, True, False, False, False]
    assert seen.always_on.tolist() == [False, True, False, True, False]
    assert seen.never_on.tolist() == [True, False, True, False, False]


def test_no_data_says_nothing():
    none = UnitPatterns.of(torch.zeros(0, 3))
    assert none.entropy.isnan().all()
    for units in (none.dead, none.always_on, none.never_on):
        assert not units.any()


def test_nan_is_never_on_and_is_seen():
    seen = UnitPatterns.of(torch.tensor([[1.0, torch.nan], [2.0, 1.0]]))
    assert seen.on.tolist() == [2, 1]
    assert seen.high.isnan().tolist() == [False, True]


def test_refuses_other_shapes():
    with pytest.raises(ShapeError, match=r"\(n, d\).*\(2, 3, 4\)"):
        UnitPatterns.of(torch.zeros(2, 3, 4))
    with pytest.raises(MergeError, match=r"`on`.*\(2,\).*\(3,\)"):
        UnitPatterns.empty(2).merge(UnitPatterns.empty(3))
