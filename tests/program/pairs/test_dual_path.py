import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.program.pairs.certificate import certify_two_groups
from layerpeel.program.pairs.dual_path import _Path, place, solve_two_groups
from layerpeel.program.pairs.thresholds import (
    log_collapse_threshold,
    log_vanishing_threshold,
)
from layerpeel.program.pairs.two_groups import TwoGroups
from tests.program.layer_peeled_reference import counts_of, lower_bound, objective
from tests.program.pairs.reference import frequencies, polish

SIZES = [(1, 1), (1, 5), (5, 1), (2, 2), (3, 7), (7, 3)]
ENERGIES = [1e-6, 0.3, math.sqrt(5), 40.0]  # sqrt(E_W E_H)
RATIOS = [1 + 1e-6, 3.0, 1e5, 1e12]


def dense_gap(program):
    """Relative gap of the solution, recomputed densely; and its nuclear norm."""
    K_A, K_B = program.majority, program.minority
    logits = solve_two_groups(program)
    matrix = logits.spectrum(tuple(range(K_A)), tuple(range(K_A, K_A + K_B))).matrix
    counts = counts_of(K_A, K_B, math.exp(program.log_ratio))
    bound = lower_bound(matrix, counts, program.tau)
    norm = np.linalg.svd(matrix.numpy(), compute_uv=False).sum()
    return 1 - bound / objective(matrix, counts), norm, logits


@pytest.mark.parametrize(("majority", "minority"), SIZES)
@pytest.mark.parametrize("scale", ENERGIES)
def test_is_optimal_at_every_ratio(majority, minority, scale):
    tau = (majority + minority) * scale
    for ratio in RATIOS:
        program = TwoGroups(majority, minority, math.log(ratio), tau)
        gap, norm, logits = dense_gap(program)
        assert gap < 1e-10
        assert norm == pytest.approx(tau, rel=1e-12)
        assert min(logits.alpha, logits.beta, logits.rho) >= 0


@pytest.mark.parametrize(("majority", "minority"), SIZES)
@pytest.mark.parametrize("scale", ENERGIES)
@pytest.mark.parametrize("shift", [-1e-2, -1e-7, 0.0, 1e-7])
def test_is_optimal_next_to_both_thresholds(majority, minority, scale, shift):
    tau = (majority + minority) * scale
    for threshold in (log_collapse_threshold, log_vanishing_threshold):
        log_ratio = threshold(majority, minority, tau) * (1 + shift)
        if log_ratio < 50:
            gap, _, _ = dense_gap(TwoGroups(majority, minority, log_ratio, tau))
            assert gap < 1e-10


EXTREMES = [
    # K_A, K_B, log R, sqrt(E_W E_H)
    (3, 7, 1e-12, 1e-12),
    (7, 3, 1.2e-13, 1e-12),
    (5, 1, 2e-13, 1e-12),
    (1, 5, 2e-12, 1e-12),
    (10_000, 10_000, 1e-16, 1e-12),
    (2, 10_000, 1e-3, 1e-3),
    (2, 10_000, math.log(1e12), 1e-2),
    (1, 10_000, 20.0, 3e-3),
    (10_000, 2, 1e-4, 3.0),
    (100, 37, 20.0, 1e6),
    (3, 7, 1.0, 1e6),
    (1, 1, math.log(1e12), 1e6),
    (2, 2, 1e-12, 1e6),
    (10_000, 10_000, 3.0, 1e6),
    (1, 10_000, 1e-9, 1e4),
    (10_000, 1, math.log(1e12), 1e5),
]


METHODS = {"solve": solve_two_groups, "search": lambda program: _Path(program).search()}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
@pytest.mark.parametrize("case", EXTREMES, ids=str)
def test_scalars_have_all_their_digits(case, method):
    K_A, K_B, log_ratio, scale = case
    logits = method(TwoGroups(K_A, K_B, log_ratio, (K_A + K_B) * scale))
    assert logits.rho > 0
    *exact, log_mu = polish(logits)
    found = logits.alpha, logits.beta, logits.rho * logits.cos, logits.rho * logits.sin
    for number, truth in zip(found, exact, strict=True):
        assert number == pytest.approx(float(truth), rel=1e-11)
    # A spread of zero is optimal if a class weighs at most the multiplier.
    if K_B > 1:
        assert (logits.beta == 0) == (frequencies(logits.program)[1] <= log_mu)


@settings(max_examples=80, deadline=None)
@given(
    majority=st.integers(1, 10_000) | st.integers(1, 12),
    minority=st.integers(1, 10_000) | st.integers(1, 12),
    log_ratio=st.floats(1e-15, math.log(1e12)) | st.floats(-30, 0).map(math.exp),
    log_scale=st.floats(math.log(1e-12), math.log(1e6)),
)
def test_is_certified_over_eighteen_decades_of_energy(
    majority, minority, log_ratio, log_scale
):
    tau = (majority + minority) * math.exp(log_scale)
    logits = solve_two_groups(TwoGroups(majority, minority, log_ratio, tau))
    certificate, log_objective = certify_two_groups(logits)
    assert certificate.gap <= 1e-15
    assert math.isfinite(log_objective)
    assert logits.nuclear_norm == pytest.approx(tau, rel=1e-15)
    assert min(logits.alpha, logits.beta, logits.rho) >= 0


@pytest.mark.parametrize(("majority", "minority"), [(1, 3), (2, 2), (3, 7), (7, 3)])
@pytest.mark.parametrize("scale", [0.3, 0.9, 4.0, 40.0])
def test_collapses_exactly_from_the_threshold_on(majority, minority, scale):
    tau = (majority + minority) * scale
    threshold = log_collapse_threshold(majority, minority, tau)

    def beta(factor):
        log_ratio = threshold + math.log(factor)
        return solve_two_groups(TwoGroups(majority, minority, log_ratio, tau)).beta

    assert beta(0.98) > 0
    assert beta(1.02) == 0.0


@pytest.mark.parametrize(("majority", "minority"), [(1, 3), (2, 2), (3, 7), (7, 3)])
def test_tiny_energies_collapse_exactly_from_the_threshold_on(majority, minority):
    tau = (majority + minority) * 1e-12
    threshold = log_collapse_threshold(majority, minority, tau)

    def beta(factor):
        log_ratio = threshold * factor
        return solve_two_groups(TwoGroups(majority, minority, log_ratio, tau)).beta

    assert beta(0.98) > 0
    assert beta(1.02) == 0.0


@pytest.mark.parametrize("scale", [1e-12, 1e-3, math.sqrt(5)])
def test_vanishes_exactly_from_the_threshold_on(scale):
    tau = 10 * scale
    threshold = log_vanishing_threshold(7, 3, tau)
    below = solve_two_groups(TwoGroups(7, 3, threshold * 0.999, tau))
    above = solve_two_groups(TwoGroups(7, 3, threshold * 1.001, tau))
    assert below.rho > 0
    assert (above.beta, above.rho) == (0.0, 0.0)


@pytest.mark.parametrize(("majority", "minority"), [(100, 1), (1, 100), (3, 5), (1, 1)])
@pytest.mark.parametrize("log_ratio", [1e-11, 690.0])
def test_extreme_energies_stay_finite_within_the_budget(majority, minority, log_ratio):
    for scale in (1e-300, 1e-12, 1e6, 1e150):
        tau = (majority + minority) * scale
        logits = solve_two_groups(TwoGroups(majority, minority, log_ratio, tau))
        assert logits.nuclear_norm == pytest.approx(tau, rel=1e-12)
        assert min(logits.alpha, logits.beta, logits.rho) >= 0


@pytest.mark.parametrize(("majority", "minority"), [(3, 7), (7, 3), (1, 5), (5, 1)])
def test_place_leads_back_to_the_multiplier(majority, minority):
    program = TwoGroups(majority, minority, 0.1, 10.0)
    logits = solve_two_groups(program)
    x, t = place(logits)
    *_, log_mu = polish(logits)
    assert x == pytest.approx(float(frequencies(program)[0] - log_mu), rel=1e-12)
    tangent = math.sqrt(majority / minority) * math.exp(t)
    assert logits.sin / logits.cos == pytest.approx(tangent, rel=1e-12)


@pytest.mark.parametrize(
    "case",
    [(5, 5, 0.0, 2.0), (5, 5, 7.0, 2.2), (3, 7, 2.0, 2.2), (1, 4, 1.0, 1.0)],
    ids=str,
)
def test_newton_takes_few_steps_to_what_the_search_finds(case):
    K_A, K_B, log_ratio, scale = case
    program = TwoGroups(K_A, K_B, log_ratio, (K_A + K_B) * scale)
    found, searched = _Path(program).newton(), _Path(program).search()
    assert found is not None
    assert found.evaluations < 25
    assert found.scalars == pytest.approx(searched.scalars, rel=1e-12)


@pytest.mark.parametrize("case", [(3, 3, 20.0, 1.0), (1, 8, 7.0, 1.0)], ids=str)
def test_what_newton_cannot_find_is_searched(case):
    K_A, K_B, log_ratio, scale = case
    program = TwoGroups(K_A, K_B, log_ratio, (K_A + K_B) * scale)
    assert _Path(program).newton() is None
    assert certify_two_groups(solve_two_groups(program))[0].gap < 1e-15


def test_cost_does_not_depend_on_the_number_of_classes():
    few = solve_two_groups(TwoGroups(3, 3, math.log(5), 6.0))
    many = solve_two_groups(TwoGroups(3000, 3000, math.log(5), 6000.0))
    assert many.evaluations < 2 * few.evaluations


def test_the_reference_tells_a_wrong_solution():
    logits = solve_two_groups(TwoGroups(3, 7, 1.0, 10.0))
    wrong = logits.scaled_to(11.0, 0)
    alpha, *_ = polish(wrong)
    assert abs(wrong.alpha / alpha - 1) > 1e-3
    assert mp.mp.dps >= 50
