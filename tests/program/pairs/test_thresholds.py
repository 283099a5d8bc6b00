import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.program import (
    Decay,
    Energy,
    PeeledProblem,
    collapse_threshold,
    nonnegative_collapse_threshold,
    vanishing_threshold,
)
from layerpeel.program.pairs.thresholds import (
    log_collapse_threshold,
    log_vanishing_threshold,
)
from tests.program.layer_peeled_reference import (
    counts_of,
    lower_bound,
    objective,
    residual,
)
from tests.program.reference import cvxpy_solve, make_program

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


@pytest.mark.parametrize(("majority", "minority"), SIZES)
@pytest.mark.parametrize("scale", [1e-12, 1e-8, 1e-3, 0.5, 5.0, 1e4])
def test_both_thresholds_have_all_their_digits(majority, minority, scale):
    tau = (majority + minority) * scale
    collapse = log_collapse_threshold(majority, minority, tau)
    assert collapse == pytest.approx(slow_collapse(majority, minority, tau), rel=1e-12)
    vanishing = log_vanishing_threshold(majority, minority, tau)
    slow = slow_vanishing(majority, minority, tau)
    assert vanishing == pytest.approx(slow, rel=1e-12)


def slow_vanishing(K_A, K_B, tau):
    """The published formula, to fifty digits."""
    with mp.workdps(50):
        K, tau = mp.mpf(K_A + K_B), mp.mpf(tau)
        if tau >= K_A * (K_A - 1) * mp.log1p(mp.sqrt(K / K_B)):
            return math.inf
        alpha = tau / (K_A - 1)
        y = alpha * (K_A - 1) / K_A
        D = 1 + (K_A - 1) * mp.exp(-alpha) + K_B * mp.exp(-y)
        first = (K_A * mp.exp(-alpha) + K_B * mp.exp(-y)) ** 2
        square = K / K_A * (first - K * K_B * mp.exp(-2 * y)) / D**2
        return float(-mp.log(square) / 2)


def slow_collapse(K_A, K_B, tau):
    """The published curve at fifty digits, its parameter by bisection."""

    def at(s):
        grown = K_A + K_B * mp.exp(s)
        nu = s * K_B * grown / K
        cos = mp.sqrt(1 - K * K_A / grown**2)
        rho = cos / mp.sqrt(K * K_B)
        alpha = nu * mp.sqrt(K / K_B) * cos
        alpha -= K_A * mp.log((1 - K_B * rho) / (K_A * rho))
        ratio = (K_A - 1 + K_B * rho + (1 - K_B * rho) * mp.exp(alpha)) / K_A
        return (K_A - 1) * alpha + nu, float(mp.log(ratio))

    with mp.workdps(50):
        K = mp.mpf(K_A + K_B)
        low, high = mp.mpf(10) ** -20, mp.mpf(tau)
        for _ in range(180):
            middle = mp.sqrt(low * high)
            low, high = (low, middle) if at(middle)[0] > tau else (middle, high)
        return at(low)[1]


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


@settings(max_examples=60, deadline=None)
@given(
    majority=st.integers(1, 200),
    minority=st.integers(2, 200),
    log_scale=st.floats(math.log(1e-12), math.log(1e3)),
    factor=st.floats(1.001, 10.0),
)
def test_thresholds_grow_with_the_energy_and_stay_in_order(
    majority, minority, log_scale, factor
):
    tau = (majority + minority) * math.exp(log_scale)
    here = log_collapse_threshold(majority, minority, tau)
    vanishing = log_vanishing_threshold(majority, minority, tau)
    assert 0 < here < vanishing
    assert log_collapse_threshold(majority, minority, factor * tau) > here
    further = log_vanishing_threshold(majority, minority, factor * tau)
    assert further > vanishing or math.isinf(vanishing)


# Weight decay: what stays fixed while the ratio grows, and the counts at a ratio.
FIXED = {
    "total": lambda N, R, K_A, K_B: (N * R / (K_A * R + K_B), N / (K_A * R + K_B)),
    "majority_samples": lambda n_A, R, K_A, K_B: (n_A, n_A / R),
    "minority_samples": lambda n_B, R, K_A, K_B: (n_B * R, n_B),
}


def minority_spread(K_A, K_B, counts, multiplier, per="sample"):
    """How far minority columns of the optimal logits differ, by a convex solver."""
    n_A, n_B = counts
    program = make_program(
        [n_A] * K_A + [n_B] * K_B, decay=(multiplier, multiplier), per=per
    )
    minority = cvxpy_solve(program)[1][:, K_A:]
    return np.linalg.norm(minority - minority.mean(axis=1, keepdims=True))


@pytest.mark.parametrize(("majority", "minority"), [(2, 2), (1, 3)])
@pytest.mark.parametrize(
    ("fixed", "samples"),
    [("total", 60.0), ("majority_samples", 20.0), ("minority_samples", 3.0)],
)
def test_weight_decay_merges_the_minority_from_the_threshold_on(
    majority, minority, fixed, samples
):
    decay = (0.015, 0.03)
    threshold = collapse_threshold(
        majority=majority, minority=minority, weight_decay=decay, **{fixed: samples}
    )
    assert threshold > 1.1

    def spread(factor):
        counts = FIXED[fixed](samples, factor * threshold, majority, minority)
        return minority_spread(majority, minority, counts, math.sqrt(0.015 * 0.03))

    assert spread(0.95) > 5e-3
    assert spread(1.05) < 1e-3


def test_decay_per_class_needs_no_number_of_samples():
    decay = Decay(0.05, features=0.05, per="class")
    threshold = collapse_threshold(majority=2, minority=2, weight_decay=decay)
    assert threshold == pytest.approx((1 / 0.05 - 2) / 2)
    assert minority_spread(2, 2, (0.95 * threshold, 1.0), 0.05, "class") > 5e-3
    assert minority_spread(2, 2, (1.05 * threshold, 1.0), 0.05, "class") < 1e-3


@given(
    st.integers(1, 50),
    st.integers(2, 50),
    st.sampled_from(sorted(FIXED)),
    st.floats(0.1, 1e6),
    st.floats(1e-9, 1e-2),
)
def test_weight_decay_solves_the_condition_on_the_counts(
    majority, minority, fixed, samples, decay
):
    # n_B <= N^2 lam_W lam_H, with equality at the threshold, unless it always holds.
    kwargs = {"weight_decay": (decay, decay), fixed: samples}
    value = collapse_threshold(majority=majority, minority=minority, **kwargs)

    def excess(ratio):
        n_A, n_B = FIXED[fixed](samples, ratio, majority, minority)
        return math.log((majority * n_A + minority * n_B) ** 2 * decay**2 / n_B)

    log_value = collapse_threshold(
        majority=majority, minority=minority, log=True, **kwargs
    )
    assert log_value == pytest.approx(math.log(value), abs=1e-12)
    if value > 1:
        assert excess(value) == pytest.approx(0, abs=1e-8)
        assert excess(value * 1.02) > 0
        # With the majority fixed, collapse has an end on the other side as well.
        other = (minority / majority) ** 2 / value if fixed == "majority_samples" else 1
        assert excess(math.sqrt(max(other, 1) * value)) < 1e-8
    else:
        assert all(excess(ratio) >= -1e-9 for ratio in (1.0, 1.5, 10.0, 1e4))


def test_weight_decay_beyond_all_floats():
    kwargs = {"majority": 2, "minority": 3, "weight_decay": (1e-200, 1e-200)}
    assert collapse_threshold(total=100, **kwargs) == math.inf
    expected = 400 * math.log(10) - math.log(100 * 2)
    assert collapse_threshold(total=100, log=True, **kwargs) == pytest.approx(expected)
    expected = 400 * math.log(10) - math.log(100 * 4)
    value = collapse_threshold(majority_samples=100, log=True, **kwargs)
    assert value == pytest.approx(expected)


def test_a_single_minority_class_never_merges_under_decay_either():
    kwargs = {"weight_decay": (1e-3, 1e-3), "total": 100}
    assert collapse_threshold(majority=5, minority=1, **kwargs) == math.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "Exactly one of `energy`"),
        ({"energy": (1, 1), "weight_decay": (1, 1)}, "Exactly one of `energy`"),
        ({"energy": (1, 1), "total": 5}, "no number of samples; got total"),
        ({"weight_decay": (0.1, 0.1)}, "exactly one of `total`.*got none"),
        (
            {"weight_decay": (0.1, 0.1), "total": 9, "minority_samples": 1},
            "got total, minority_samples",
        ),
        (
            {"weight_decay": Decay(0.1, features=0.1, per="class"), "total": 9},
            "a decay per class.*no number",
        ),
        ({"weight_decay": (0.1, 0.1, 0.1), "total": 9}, "one layer; got 2"),
        ({"weight_decay": (0.1, 0.1), "total": 0}, "`total` must be"),
        ({"weight_decay": (0.1,), "total": 9}, "`weight_decay` must be"),
    ],
    ids=str,
)
def test_rejects_what_does_not_determine_a_threshold(change, message):
    with pytest.raises(ValueError, match=message):
        collapse_threshold(majority=3, minority=3, **change)


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


@pytest.mark.parametrize(
    "threshold",
    [collapse_threshold, vanishing_threshold, nonnegative_collapse_threshold],
    ids=lambda threshold: threshold.__name__,
)
def test_an_energy_per_sample_is_refused(threshold):
    kwargs = {"majority": 5, "minority": 5}
    with pytest.raises(ValueError, match=r"`energy` must be per class: the threshold"):
        threshold(energy=Energy(1, 5, "sample"), **kwargs)
    per_class = threshold(energy=Energy(1, 5), **kwargs)
    assert per_class == threshold(energy=(1, 5), **kwargs)


def test_an_energy_per_sample_collapses_elsewhere():
    # Minority features are cheap per sample: the ratio is another.
    threshold = collapse_threshold(majority=5, minority=5, energy=(1, 5))
    counts = [1.1 * threshold] * 5 + [1.0] * 5
    for per, collapsed in (("class", True), ("sample", False)):
        solution = PeeledProblem(counts, energy=Energy(1, 5, per)).solve(1e-11)
        minority = solution.classifiers()[5:]
        assert bool((minority - minority[0]).norm() < 1e-6) == collapsed
