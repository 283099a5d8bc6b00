import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from layerpeel.program.decay import Decay
from layerpeel.program.factored import DeepETF, deep_etf
from tests.program.reference import make_program, objective

# Classes, layers, objective at decays 2e-3 and one sample per class.
KNOWN = [
    (3, 2, 0.023758),
    (4, 2, 0.035635),
    (5, 2, 0.047511),
    (6, 2, 0.059386),
    (10, 2, 0.106875),
    (4, 3, 0.034437),
    (5, 3, 0.045914),
    (6, 3, 0.057392),
]
SHAPES = [(K, M) for K in (2, 3, 4, 6) for M in (2, 3, 5)]


def frame(num_classes):
    return np.eye(num_classes) - 1 / num_classes


def program_of(num_classes, depth, load):
    return make_program([1.0] * num_classes, decay=(load,) * (depth + 1))


@pytest.mark.parametrize(("K", "M", "expected"), KNOWN)
def test_known_objectives(K, M, expected):
    etf = deep_etf(K, 1, (2e-3,) * (M + 1))
    assert etf.objective == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(("K", "M"), SHAPES)
def test_scale_is_the_least_along_the_frame(K, M):
    etf = deep_etf(K, 7, Decay(*[1e-3] * M, features=1e-2))
    program = make_program([7.0] * K, decay=(1e-3,) * M + (1e-2,))
    best = minimize_scalar(
        lambda scale: objective(program, scale * frame(K)),
        bounds=(1.0, 30.0),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert etf.scale == pytest.approx(best.x, abs=1e-6)
    assert etf.objective == pytest.approx(best.fun, rel=1e-12)


def test_one_layer_has_an_explicit_scale():
    etf = deep_etf(10, 100, (5e-4, 1e-3))
    expected = math.log(1 / math.sqrt(100 * 5e-4 * 1e-3) - 9)
    assert etf.scale == pytest.approx(expected, rel=1e-13)
    assert etf.is_local_optimum
    collapse = 1 / (10 * math.sqrt(100))
    assert etf.vanishing_decay == pytest.approx(collapse, rel=1e-12)
    assert etf.breakeven_decay == etf.stability_decay == etf.vanishing_decay


def test_decay_per_class_does_not_count_samples():
    decay = Decay(1e-3, 1e-3, features=1e-3, per="class")
    assert deep_etf(5, 100, decay).objective == deep_etf(5, 1, (1e-3,) * 3).objective


@pytest.mark.parametrize(("K", "M"), SHAPES)
def test_frame_exists_up_to_the_vanishing_decay(K, M):
    limit = DeepETF(K, M, 1.0).vanishing_decay
    scales = np.linspace(1e-3, 20, 20001)
    slopes = {}
    for share in (0.999, 1.001):
        penalty = share * limit * (K - 1) * scales ** (2 / (M + 1) - 1)
        odds = (K - 1) * np.exp(-scales)
        slopes[share] = penalty - odds / (1 + odds)
    assert (slopes[0.999] < 0).any()
    assert (slopes[1.001] > 0).all()
    assert DeepETF(K, M, 0.999 * limit).scale > 0
    assert DeepETF(K, M, 1.001 * limit).scale == 0.0
    assert DeepETF(K, M, 1.001 * limit).objective == pytest.approx(math.log(K))


@pytest.mark.parametrize(("K", "M"), SHAPES)
def test_frame_is_as_good_as_nothing_at_the_breakeven_decay(K, M):
    limit = DeepETF(K, M, 1.0).breakeven_decay
    assert DeepETF(K, M, limit).objective == pytest.approx(math.log(K), rel=1e-9)
    assert DeepETF(K, M, 0.99 * limit).beats_zero
    assert not DeepETF(K, M, 1.01 * limit).beats_zero


def least_curvature(K, M, load, scale):
    """The least eigenvalue of the Hessian at the frame, by finite differences.

    In all perturbations whose columns sum to zero; the others raise the rank.
    """
    program = program_of(K, M, load)
    basis = np.linalg.svd(frame(K))[0][:, : K - 1]
    size, step = (K - 1) * K, 2e-3

    def value(x):
        logits = scale * frame(K) + basis @ x.reshape(K - 1, K)
        return objective(program, logits)

    shifts = step * np.eye(size)
    hessian = np.empty((size, size))
    for i in range(size):
        for j in range(i + 1):
            up, down = shifts[i] + shifts[j], shifts[i] - shifts[j]
            change = value(up) - value(down) - value(-down) + value(-up)
            hessian[i, j] = hessian[j, i] = change / (4 * step**2)
    return np.linalg.eigvalsh(hessian)[0]


@pytest.mark.parametrize(("K", "M"), [(2, 3), (3, 2), (3, 5), (4, 2), (4, 5), (5, 3)])
def test_frame_is_a_local_optimum_up_to_the_stability_decay(K, M):
    limit = DeepETF(K, M, 1.0).stability_decay
    below, above = (DeepETF(K, M, share * limit) for share in (0.98, 1.02))
    assert below.is_local_optimum
    assert least_curvature(K, M, below.load, below.scale) > 0
    assert not above.is_local_optimum
    if above.scale > 0:
        assert least_curvature(K, M, above.load, above.scale) < 0


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((1, 1, (1e-3, 1e-3)), "num_classes"),
        ((3, 0, (1e-3, 1e-3)), "samples_per_class"),
        ((3, 1, (1e-3, -1e-3)), "weight_decay"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}"):
        deep_etf(*arguments)
