import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel._checks import MergeError, ShapeError, UndefinedWarning
from layerpeel.measurement.statistics.affine_fit import AffineFit


def reference(x, y):
    """Correlation, slope, intercept and residual of one unit, in 50 digits."""
    with mpmath.workdps(50):
        x, y = ([mpmath.mpf(float(v)) for v in values] for values in (x, y))
        n = len(x)
        mx, my = sum(x) / n, sum(y) / n
        xx = sum((a - mx) ** 2 for a in x)
        yy = sum((b - my) ** 2 for b in y)
        xy = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
        slope = xy / xx
        intercept = my - slope * mx
        left = sum((b - slope * a - intercept) ** 2 for a, b in zip(x, y, strict=True))
        total = sum(b**2 for b in y)
        values = xy / mpmath.sqrt(xx * yy), slope, intercept, mpmath.sqrt(left / total)
        return tuple(map(float, values))


def data(n=50, d=4, shift=0.0, scale=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = (torch.randn(n, d, generator=g, dtype=torch.float64) + shift) * scale
    return x, torch.tanh(x - shift * scale)


def folded(x, y, sizes):
    total = AffineFit.empty(x.shape[1])
    for a, b in zip(x.split(sizes), y.split(sizes), strict=True):
        total = total.merge(AffineFit.of(a, b))
    return total


@pytest.mark.parametrize("shift", [0.0, 1e4], ids="shift={}".format)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6], ids="scale={}".format)
@pytest.mark.parametrize("sizes", [[50], [1] * 50, [3, 0, 47]], ids=len)
def test_any_split_agrees_with_exact_arithmetic(shift, scale, sizes):
    x, y = data(shift=shift, scale=scale)
    fit = folded(x, y, sizes)
    for unit in range(4):
        rho, slope, intercept, residual = reference(x[:, unit], y[:, unit])
        assert fit.correlation[unit].item() == pytest.approx(rho, rel=1e-10)
        assert fit.slope[unit].item() == pytest.approx(slope, rel=1e-9)
        size = max(abs(intercept), y.abs().max().item())
        assert fit.intercept[unit].item() == pytest.approx(intercept, abs=1e-9 * size)
        assert fit.residual[unit].item() == pytest.approx(residual, rel=1e-6, abs=1e-7)


def test_affine_units_are_found_exactly():
    x, _ = data(shift=100.0)
    fit = AffineFit.of(x, -3 * x + 2)
    torch.testing.assert_close(fit.correlation, -torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(fit.slope, torch.full((4,), -3.0, dtype=torch.float64))
    torch.testing.assert_close(
        fit.intercept, torch.full((4,), 2.0, dtype=torch.float64)
    )
    assert fit.linearity() == pytest.approx(1, abs=1e-14)
    assert fit.residual.max() < 1e-7


def test_linearity_of_relu_on_normal_inputs_is_its_closed_form():
    # Cov(x, relu x) = 1/2 and Var(relu x) = (1 - 1/pi) / 2 for standard normal x;
    # quantiles in place of a sample make the moments exact to the step width.
    p = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    x = torch.special.ndtri(p)[:, None]
    expected = 0.5 / math.sqrt((1 - 1 / math.pi) / 2)
    assert AffineFit.of(x, x.relu()).linearity() == pytest.approx(expected, abs=1e-5)


def test_minimum_and_median_leave_out_constant_units():
    x = torch.tensor(
        [[-1.0, 1.0, -1.0, 5.0], [1.0, 2.0, -2.0, 5.0], [2.0, 4.0, -3.0, 5.0]]
    )
    fit = AffineFit.of(x, x.relu())
    assert fit.constant.tolist() == [False, False, True, True]
    assert fit.one_sided.tolist() == [False, True, True, True]
    rho = np.corrcoef(x[:, 0], x[:, 0].relu())[0, 1]
    assert fit.linearity() == pytest.approx(rho, rel=1e-12)
    assert fit.median_linearity() == pytest.approx(rho, rel=1e-12)  # the lower middle
    assert fit.slope.isnan().tolist() == [False, False, False, True]


def test_units_constant_in_every_batch_but_not_overall_are_not_constant():
    x = torch.tensor([[0.1], [0.1], [0.7]])
    fit = folded(x, 2 * x, [2, 1])
    assert not fit.constant.any()
    assert fit.linearity() == pytest.approx(1)


@pytest.mark.parametrize("value", [0.1, 1e4 + 1 / 3, -7e-9])
def test_constant_columns_are_exactly_so(value):
    x = torch.full((1000, 1), value, dtype=torch.float64)
    fit = AffineFit.of(x, x)
    assert fit.input_scatter.item() == 0
    assert fit.correlation.isnan().all()


def test_linearity_of_constant_units_is_undefined():
    fit = AffineFit.of(torch.ones(4, 2), torch.ones(4, 2))
    for metric in (fit.linearity, fit.median_linearity):
        with pytest.warns(UndefinedWarning, match="every unit is constant"):
            assert math.isnan(metric())


pairs = st.lists(st.tuples(*[st.integers(-20, 20)] * 4), max_size=9)


def fit_of(table):
    values = torch.tensor(table, dtype=torch.float64).reshape(-1, 4)
    return AffineFit.of(values[:, :2], values[:, 2:])


def assert_close(a, b):
    for name, part in a.parts().items():
        torch.testing.assert_close(part, b.parts()[name], rtol=1e-11, atol=1e-10)


@settings(max_examples=50, deadline=None)
@given(pairs, pairs, pairs)
def test_merge_is_associative_and_commutative_and_additive(a, b, c):
    x, y, z = map(fit_of, (a, b, c))
    assert_close(x.merge(y), y.merge(x))
    assert_close(x.merge(y).merge(z), x.merge(y.merge(z)))
    assert_close(x.merge(y).merge(z), fit_of(a + b + c))
    assert_close(AffineFit.empty(2).merge(x), x)


def test_low_precision_inputs_are_summed_in_float64():
    x = torch.arange(1, 3001, dtype=torch.float16)[:, None]  # the sum exceeds float16
    fit = AffineFit.of(x, x)
    assert fit.correlation.item() == pytest.approx(1, abs=1e-14)
    assert fit.input_mean.dtype == torch.float64


def test_refuses_other_shapes():
    with pytest.raises(ShapeError, match=r"\(3, 2\) and \(3, 1\)"):
        AffineFit.of(torch.zeros(3, 2), torch.zeros(3, 1))
    with pytest.raises(MergeError, match=r"\(2,\) and shape \(3,\)"):
        AffineFit.empty(2).merge(AffineFit.empty(3))
