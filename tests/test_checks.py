import pytest
import torch

from layerpeel._checks import all_finite


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_one_entry_that_is_not_finite_is_seen(bad, dtype):
    values = torch.arange(-50.0, 50.0).reshape(10, 10).to(dtype)
    assert all_finite(values)
    values[3, 7] = bad
    assert not all_finite(values)


def test_other_numbers_and_empty_tensors_hold_nothing_bad():
    assert all_finite(torch.ones(0, 3))
    assert all_finite(torch.arange(3))
    assert all_finite(torch.tensor([True]))
