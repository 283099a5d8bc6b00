import torch

from layerpeel.measurement import UnitRange


def test_range_is_that_of_all_samples():
    g = torch.Generator().manual_seed(0)
    h = torch.randn(40, 5, generator=g)
    total = UnitRange.empty(5)
    for part in h.split(7):
        total = total.merge(UnitRange.of(part))
    assert total.low.tolist() == [min(column) for column in h.T.tolist()]
    assert total.high.tolist() == [max(column) for column in h.T.tolist()]


def test_dead_units_are_constant_zeros():
    h = torch.tensor([[0.0, -0.0, 1.0, -3.0, 0.0], [0.0, 0.0, 1.0, -3.0, 1e-30]])
    seen = UnitRange.of(h)
    assert seen.dead.tolist() == [True, True, False, False, False]
    assert seen.constant.tolist() == [True, True, True, True, False]


def test_no_data_has_no_dead_units():
    assert not UnitRange.empty(3).constant.any()


def test_low_precision_is_exact():
    h = torch.tensor([[0.1], [0.2]], dtype=torch.bfloat16)
    assert UnitRange.of(h).high.item() == float(h[1, 0])
