import pytest
import torch

from layerpeel._checks import NonFiniteError
from layerpeel.measurement.sources.finite import FiniteGuard


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16]
)
def test_rows_are_found_and_named_by_class(value, dtype):
    values = torch.ones(5, 3, dtype=dtype)
    values[1, 2] = values[4, 0] = values[4, 1] = value
    guard = FiniteGuard("features", 3)
    bad = guard.bad_rows(values, torch.tensor([0, 1, 1, 1, 2]))
    assert bad.tolist() == [False, True, False, False, True]
    with pytest.raises(NonFiniteError, match=r"2 of 5 samples.*b \(1\), c \(1\)\."):
        guard.check(list("abc"))


def test_the_largest_finite_numbers_pass():
    for dtype in (torch.float64, torch.float32, torch.float16):
        values = torch.full((2, 50), torch.finfo(dtype).max, dtype=dtype)
        guard = FiniteGuard("features", 2)
        assert not guard.bad_rows(values, torch.tensor([0, 1])).any()
        guard.check(["a", "b"])


def test_long_lists_start_with_the_worst_and_are_cut():
    guard = FiniteGuard("logits", 20)
    labels = torch.cat([torch.arange(20), torch.tensor([7, 7])])
    guard.bad_rows(torch.full((22, 1), torch.nan), labels)
    names = [f"class {k}" for k in range(20)]
    with pytest.raises(
        NonFiniteError, match=r"logits.*class: class 7 \(3\), .*\(12 more\)"
    ):
        guard.check(names)


def test_no_rows_are_none_that_are_bad():
    guard = FiniteGuard("features", 2)
    bad = guard.bad_rows(torch.empty(0, 3), torch.empty(0, dtype=torch.int64))
    assert bad.shape == (0,)
    guard.check(["a", "b"])
