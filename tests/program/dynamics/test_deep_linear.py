import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from layerpeel import LayerpeelError
from layerpeel._json import json_text
from layerpeel.program.dynamics import deep_linear
from layerpeel.program.solution import Status


def data(width=3, samples=8, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((samples, width)) * np.linspace(0.4, 2.0, width)
    y = x @ np.linspace(1.0, -0.5, width) + 0.3 * generator.standard_normal(samples)
    return torch.from_numpy(x), torch.from_numpy(y)


def moments(x, y):
    return x.T @ x / len(x), x.T @ y / len(x)


def cut(flat, dims):
    layers, start = [], 0
    for inputs, outputs in itertools.pairwise(dims):
        layers.append(flat[start : start + inputs * outputs].reshape(outputs, inputs))
        start += inputs * outputs
    return layers


def masks(widths, rates):
    """Every dropout mask of the hidden layers, with its probability."""
    units = [
        rate for width, rate in zip(widths, rates, strict=True) for _ in range(width)
    ]
    for kept in itertools.product([False, True], repeat=len(units)):
        pairs = list(zip(kept, units, strict=True))
        values = [1 / (1 - rate) if keep else 0.0 for keep, rate in pairs]
        chance = math.prod(1 - rate if keep else rate for keep, rate in pairs)
        if chance:
            yield chance, torch.tensor(values, dtype=torch.float64)


def objective(layers, x, y, decays, widths, rates):
    """The expected loss by enumeration of all masks, less the mean of y squared."""
    total = torch.zeros((), dtype=torch.float64)
    for chance, values in masks(widths, rates):
        hidden, start = x, 0
        for layer, width in zip(layers, [*widths, 0], strict=True):
            hidden = hidden @ layer.T
            if width:
                hidden = hidden * values[start : start + width]
                start += width
        total = total + chance * (hidden[:, 0] - y).square().mean()
    decay = sum(
        g * layer.square().sum() for g, layer in zip(decays, layers, strict=True)
    )
    return total + decay - y.square().mean()


def best_of_starts(x, y, decays, widths, rates, starts=6):
    dims = [x.shape[1], *widths, 1]
    size = sum(a * b for a, b in itertools.pairwise(dims))
    generator = np.random.default_rng(1)

    def value_and_gradient(flat):
        point = torch.tensor(flat, requires_grad=True)
        value = objective(cut(point, dims), x, y, decays, widths, rates)
        value.backward()
        return float(value.detach()), point.grad.numpy()

    options = {"maxiter": 3000, "ftol": 0, "gtol": 1e-10}
    runs = [
        minimize(
            value_and_gradient,
            generator.standard_normal(size),
            jac=True,
            method="L-BFGS-B",
            options=options,
        )
        for _ in range(starts)
    ]
    best = min(runs, key=lambda run: run.fun)
    product = torch.eye(x.shape[1], dtype=torch.float64)
    for layer in cut(torch.from_numpy(best.x), dims):
        product = layer @ product
    return min(best.fun, 0.0), product[0]


CASES = {
    # decays, widths, dropout rates
    "ridge": ((0.2,), (), ()),
    "one hidden layer": ((0.1, 0.3), (2,), (0.0,)),
    "two hidden layers": ((0.1, 0.05, 0.2), (2, 2), (0.0, 0.0)),
    "three hidden layers": ((0.1, 0.05, 0.2, 0.1), (1, 2, 1), (0.0, 0.0, 0.0)),
    "dropout, one": ((0.1, 0.1), (3,), (0.4,)),
    "dropout, two": ((0.05, 0.1, 0.05), (2, 2), (0.2, 0.5)),
    "dropout on one of two": ((0.05, 0.1, 0.05), (2, 2), (0.3, 0.0)),
    "collapsed": ((2.0, 3.0, 2.0), (2, 2), (0.2, 0.2)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_is_the_best_of_direct_minimisation(case):
    decays, widths, rates = case
    x, y = data()
    network = deep_linear(
        *moments(x, y),
        weight_decay=decays,
        widths=widths,
        noise=[rate / (1 - rate) for rate in rates],
    )
    value, predictor = best_of_starts(x, y, decays, widths, rates)
    assert network.objective == pytest.approx(value, rel=1e-7, abs=1e-12)
    assert network.objective <= value + 1e-10
    if not network.collapsed:
        np.testing.assert_allclose(network.predictor, predictor, atol=1e-4)
    # The layers attain it, mask by mask.
    attained = objective(network.layers, x, y, decays, widths, rates)
    assert network.objective == pytest.approx(float(attained), rel=1e-12, abs=1e-14)
    dims = [(layer.shape[1], layer.shape[0]) for layer in network.layers]
    assert dims == list(itertools.pairwise([3, *widths, 1]))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 1000),
    st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=5),
    st.floats(0.0, 2.0),
)
def test_satisfies_the_fixed_point_equation(seed, decays, noise):
    A, b = moments(*data(seed=seed))
    hidden = len(decays) - 1
    widths = [2] * hidden
    network = deep_linear(
        A, b, weight_decay=decays, widths=widths, noise=[noise] * hidden
    )
    assert network.status.success
    assert 0 <= network.certificate.gap < 1e-10
    assert network.objective <= 0
    if network.collapsed:
        assert not network.predictor.any()
        return
    c = math.prod(decays) ** (1 / len(decays))
    norm = float(network.predictor.norm())
    ridge = c * norm ** (-2 * hidden / (hidden + 1))
    noisy = A * (1 + noise / 2) ** hidden
    eye = torch.eye(len(b), dtype=torch.float64)
    expected = torch.linalg.solve(noisy + ridge * eye, b)
    np.testing.assert_allclose(network.predictor, expected, rtol=1e-7, atol=1e-10)
    assert network.shrinkage == pytest.approx(ridge, rel=1e-8)
    product = eye
    for layer in network.layers:
        product = layer @ product
    np.testing.assert_allclose(product[0], network.predictor, rtol=1e-10)
    costs = [
        g * float(w.square().sum()) for g, w in zip(decays, network.layers, strict=True)
    ]
    assert costs == pytest.approx([costs[0]] * len(costs))


def test_status_says_what_is_proved():
    A, b = moments(*data())
    statuses = [deep_linear(A, b, weight_decay=(0.1,) * m).status for m in (1, 2, 3)]
    assert statuses == [Status.CLOSED_FORM, Status.CLOSED_FORM, Status.CERTIFIED]


def test_fewer_samples_than_dimensions():
    A, b = moments(*data(width=6, samples=3))
    network = deep_linear(A, b, weight_decay=(1e-3,) * 3)
    assert network.certificate.gap < 1e-10
    eye = torch.eye(6, dtype=torch.float64)
    expected = torch.linalg.solve(A + network.shrinkage * eye, b)
    np.testing.assert_allclose(network.predictor, expected, rtol=1e-6)


EYE = torch.eye(2, dtype=torch.float64)
ONES = torch.ones(2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight_decay": ()}, "at least one layer"),
        ({"weight_decay": (0.1, 0.0)}, r"weight_decay\[1\]"),
        ({"weight_decay": (0.1, 0.1), "noise": (0.1,)}, "`widths` must be given"),
        ({"weight_decay": (0.1, 0.1), "widths": (2, 2)}, "each of the 1 hidden"),
        ({"weight_decay": (0.1, 0.1), "widths": (0,)}, r"widths\[0\]"),
        ({"weight_decay": (0.1, 0.1), "widths": (2,), "noise": (-1.0,)}, "variance"),
        ({"covariance": torch.diag(ONES * -1)}, "semidefinite"),
        ({"covariance": EYE + torch.tensor([[0, 1.0], [0, 0]]).double()}, "symmetric"),
        ({"covariance": torch.zeros(2, 2).double()}, "range"),
        ({"correlation": ONES * torch.nan}, "finite"),
    ],
)
def test_says_what_is_wrong(arguments, message):
    defaults = {"covariance": EYE, "correlation": ONES, "weight_decay": (0.1,)}
    with pytest.raises(ValueError, match=message):
        deep_linear(**{**defaults, **arguments})


def test_shapes_are_checked():
    with pytest.raises(LayerpeelError, match=r"shape \(p, p\)"):
        deep_linear(EYE[:1], ONES, weight_decay=(0.1,))


def test_is_drawn_and_written():
    network = deep_linear(EYE, 3 * ONES, weight_decay=(0.5,) * 3)
    _, ax = network.plot()
    curve, _ = ax.lines
    assert curve.get_ydata().min() == pytest.approx(network.objective, rel=1e-3)
    assert '"predictor"' in json_text(network.to_dict())
    collapsed = deep_linear(EYE, ONES, weight_decay=(9.0,) * 3)
    assert '"Infinity"' in json_text(collapsed.to_dict())


def test_moments_may_be_arrays_or_carry_gradients():
    A, b = np.eye(2), [3.0, 4.0]
    expected = [2.4, 3.2]
    assert deep_linear(A, b, weight_decay=(0.25,)).predictor.tolist() == expected
    trained = torch.tensor(b, dtype=torch.float64, requires_grad=True)
    found = deep_linear(torch.eye(2), trained, weight_decay=[0.25])
    assert found.predictor.tolist() == expected
