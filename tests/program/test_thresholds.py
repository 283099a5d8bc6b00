import math

import numpy as np
import pytest

from layerpeel.program import (
    PeeledProblem,
    collapse_threshold,
    vanishing_threshold,
)
from tests.program.layer_peeled_reference import (
    counts_of,
    lower_bound,
    objective,
    residual,
)

PUBLISHED = [
    # K_A, K_B, R0 at E_W = 1, E_H = 5
    (3, 7, 245.497, 5e-4),
    (5, 5, 12.192, 5e-4),
    (7, 3, 4.0005, 5e-5),
]
SIZES = [(1, 2), (1, 9), (2, 2), (3, 7), (5, 5), (7, 3), (9, 2), (40, 60)]


@pytest.mark.parametrize(("majority", "minority", "threshold", "digits"), PUBLISHED)
def test_published_collapse_thresholds(majority, minority, threshold, digits):
    energy = (1.0, 5.0)
    value = collapse_threshold(majority=majority, minority=minority, energy=energy)
    assert value == pytest.approx(threshold, abs=digits)
    log_value = collapse_threshold(
        majority=majority, minority=minority, energy=energy, log=True
    )
    assert math.exp(log_value) == pytest.approx(value, rel=1e-13)


@pytest.mark.parametrize(("majority", "minority"), SIZES)
@pytest.mark.parametrize("energy", [(1.0, 0.01), (1.0, 1.0), (2.0, 6.0)], ids=str)
def test_dual_condition_holds_at_the_threshold(majority, minority, energy):
    # Minority spread is free at pi_B = mu, and a majority column of the softmax gives
    # mu / pi_A = 1 - p_own + p_other.
    threshold = collapse_threshold(majority=majority, minority=minority, energy=energy)
    counts = counts_of(majority, minority, threshold)
    gradient = residual(PeeledProblem(counts, energy=energy).solve().logits)
    if majority > 1:
        assert 1 / (gradient[1, 0] - gradient[0, 0]) == pytest.approx(
            threshold, rel=1e-9
        )
    norm = np.linalg.norm(gradient * np.array(counts), 2)
    assert norm == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize(("majority", "minority"), SIZES)
def test_grows_with_the_energy_and_depends_on_the_product_alone(majority, minority):
    def log_threshold(*energy):
        return collapse_threshold(
            majority=majority, minority=minority, energy=energy, log=True
        )

    values = [log_threshold(e, e) for e in 10.0 ** np.arange(-14, 7)]
    assert values[0] > 0
    assert (np.diff(values) > 0).all()
    assert log_threshold(0.5, 8.0) == pytest.approx(log_threshold(2.0, 2.0), rel=1e-12)


def test_leading_growth_at_large_energies():
    value = collapse_threshold(majority=4, minority=6, energy=(1e4, 1e4), log=True)
    assert value == pytest.approx(10 * 1e4 / (3 + math.sqrt(0.6)), rel=1e-2)


def test_small_energies_keep_their_digits():
    # To first order in tau: R0 - 1 = s with tau = s ((K_A - 1) K + K_B).
    energy = 1e-10
    tau = 10 * energy
    value = collapse_threshold(
        majority=4, minority=6, energy=(energy, energy), log=True
    )
    assert value == pytest.approx(tau / (3 * 10 + 6), rel=1e-8)


def test_overflow_is_infinite_and_its_logarithm_is_not():
    kwargs = {"majority": 5, "minority": 5, "energy": (1e6, 1e6)}
    assert collapse_threshold(**kwargs) == math.inf
    assert 1e6 < collapse_threshold(**kwargs, log=True) < 1e7


def test_a_single_minority_class_never_merges():
    assert collapse_threshold(majority=5, minority=1, energy=(1, 1)) == math.inf
    assert (
        collapse_threshold(majority=5, minority=1, energy=(1, 1), log=True) == math.inf
    )


def test_published_vanishing_threshold():
    value = vanishing_threshold(majority=7, minority=3, energy=(1.0, 5.0))
    assert value == pytest.approx(5.7053, abs=5e-5)


@pytest.mark.parametrize(
    ("majority", "product", "digits"),
    [(3, 0.223, 5e-4), (5, 3.107, 5e-4), (7, 19.03, 5e-3), (9, 105.4, 5e-2)],
)
def test_minority_vanishes_at_a_finite_ratio_up_to_a_published_energy(
    majority, product, digits
):
    def threshold(product):
        return vanishing_threshold(
            majority=majority, minority=10 - majority, energy=(1.0, product)
        )

    assert math.isfinite(threshold(product - digits))
    assert threshold(product + digits) == math.inf


@pytest.mark.parametrize(
    ("majority", "minority", "energy"),
    [(7, 3, 5.0), (5, 5, 3.0), (2, 1, 0.3), (3, 4, 0.2), (30, 2, 50.0)],
)
def test_zero_minority_is_optimal_from_the_threshold_on(majority, minority, energy):
    threshold = vanishing_threshold(
        majority=majority, minority=minority, energy=(1.0, energy)
    )
    K = majority + minority
    tau = K * math.sqrt(energy)
    zero = np.zeros((K, K))
    spread = tau / (majority - 1)
    zero[:majority, :majority] = spread * (np.eye(majority) - 1 / majority)

    def gap(ratio):
        counts = counts_of(majority, minority, ratio)
        return 1 - lower_bound(zero, counts, tau) / objective(zero, counts)

    assert gap(1.001 * threshold) < 1e-12
    assert gap(0.999 * threshold) > 1e-9


def test_collapse_comes_before_vanishing():
    for K_A in range(2, 9):
        for K_B in range(2, 9):
            for energy in (1e-3, 0.1, 1.0):
                kwargs = {"majority": K_A, "minority": K_B, "energy": (1.0, energy)}
                assert collapse_threshold(**kwargs) < vanishing_threshold(**kwargs)


def test_a_single_majority_class_keeps_the_minority():
    assert vanishing_threshold(majority=1, minority=4, energy=(1e-9, 1e-9)) == math.inf


@pytest.mark.parametrize("function", [collapse_threshold, vanishing_threshold])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"majority": 0}, "`majority` must be an integer >= 1; got 0"),
        ({"minority": 0}, "`minority` must be an integer >= 1; got 0"),
        ({"energy": (0.0, 1.0)}, r"energy\.classifiers"),
        ({"energy": (1.0, math.nan)}, r"energy\.features"),
        ({"energy": (1.0,)}, "pair"),
    ],
    ids=str,
)
def test_rejects_bad_input(function, change, message):
    kwargs = {"majority": 3, "minority": 3, "energy": (1.0, 1.0)} | change
    with pytest.raises(ValueError, match=message):
        function(**kwargs)
