import math

import numpy as np
import pytest
import torch

from layerpeel._tolerances import RESOLVED_GAP
from layerpeel.program import Certificate, PeeledProblem, Status
from tests.program.layer_peeled_reference import counts_of

ENERGY = (0.5, 8.0)
CASES = {
    "balanced": counts_of(4, 0, 10.0),
    "interior": counts_of(3, 4, 4.0),
    "collapsed": counts_of(3, 4, 1e6),
    "shuffled": [5.0, 40.0, 5.0, 40.0, 40.0],
    "one majority class": counts_of(1, 3, 7.0),
    "one minority class": counts_of(3, 1, 7.0),
    "two classes": [9.0, 1.0],
}
cases = pytest.mark.parametrize("counts", CASES.values(), ids=CASES.keys())


def solve(counts, energy=ENERGY):
    return PeeledProblem(counts, energy=energy).solve()


@cases
def test_energies_are_met_with_equality(counts):
    solution = solve(counts)
    assert solution.classifiers().square().sum(1).mean() == pytest.approx(ENERGY[0])
    assert solution.class_means().square().sum(1).mean() == pytest.approx(ENERGY[1])


@cases
def test_factors_have_the_geometry_and_the_logits(counts):
    solution = solve(counts)
    classifiers, means = solution.classifiers(), solution.class_means()
    pairs = [
        (classifiers @ classifiers.T, solution.geometry.classifier_gram),
        (means @ means.T, solution.geometry.feature_gram),
        (classifiers @ means.T, solution.logits),
        (solution.geometry.logits, solution.logits),
    ]
    for actual, desired in pairs:
        assert actual.dtype == torch.float64
        np.testing.assert_allclose(actual, desired, rtol=0, atol=1e-13)


@cases
def test_gram_matrices_are_roots_of_the_logits(counts):
    solution = solve(counts)
    logits, balance = solution.logits, math.sqrt(ENERGY[0] / ENERGY[1])
    classifier_root = solution.geometry.classifier_gram / balance
    feature_root = solution.geometry.feature_gram * balance
    np.testing.assert_allclose(
        classifier_root @ classifier_root, logits @ logits.T, atol=1e-12
    )
    np.testing.assert_allclose(
        feature_root @ feature_root, logits.T @ logits, atol=1e-12
    )


def test_width_pads_with_zeros_down_to_the_rank():
    solution = solve(CASES["collapsed"])  # rank 2 within the majority, 1 between
    wide, narrow = solution.classifiers(9), solution.classifiers(3)
    assert wide.shape == (7, 9)
    assert torch.equal(wide[:, :3], narrow)
    assert not wide[:, 3:].any()
    for vectors in (solution.classifiers, solution.class_means):
        with pytest.raises(ValueError, match=r"at least 3, the rank.*got 2"):
            vectors(2)


def test_collapsed_classifiers_and_features_are_equal_to_the_last_bit():
    solution = solve(CASES["collapsed"])
    for rows in (solution.classifiers()[3:], solution.class_means()[3:]):
        assert torch.equal(rows, rows[:1].expand_as(rows))
        assert rows.any()
    assert solution.geometry.block_cosine([3, 4, 5, 6]) == pytest.approx(1, abs=1e-15)


def test_vanished_classifiers_have_zero_norm_and_no_cosine():
    solution = solve(counts_of(7, 3, 6.0), energy=(1.0, 5.0))
    geometry = solution.geometry
    assert not geometry.classifier_norms[7:].any()
    assert not geometry.feature_norms[7:].any()
    assert geometry.classifier_cosines[7:].isnan().all()
    assert geometry.feature_cosines[:, 7:].isnan().all()
    assert geometry.block_cosine(list(range(7))) == pytest.approx(-1 / 6)


def test_classes_keep_their_places():
    shuffled, sorted_ = (
        solve([5.0, 40.0, 5.0, 40.0, 40.0]),
        solve([40.0] * 3 + [5.0] * 2),
    )
    order = [3, 0, 4, 1, 2]
    assert torch.equal(shuffled.logits, sorted_.logits[order][:, order])


def test_objective_is_finite_in_logarithm_where_it_underflows():
    solution = solve([2.0, 2.0, 1.0, 1.0], energy=(1e6, 1e6))
    assert solution.objective == 0.0
    assert -1.4e6 < solution.stats["log_objective"] < -6e5
    # Two groups are proved in the logarithm of the loss.
    assert solution.status is Status.CERTIFIED
    assert 0 <= solution.certificate.gap < 1e-10


def test_gaps_are_honest_where_rounding_of_the_logits_shows():
    # Rounding of logits of 1e6 and more counts in the gap of more than two groups.
    counts = [3.0, 3.0, 2.0, 2.0, 1.0, 1.0]
    gaps = {}
    for energy in (1e6, 1e8):
        solution = solve(counts, energy=(energy, energy))
        gaps[energy] = solution.certificate.gap
        assert solution.status.success == (gaps[energy] <= 1e-8)
    assert 1e-10 < gaps[1e6] < 1e-8 < gaps[1e8] < 1e-2


def test_repr_is_short_and_says_how_it_ended():
    text = repr(solve(CASES["interior"]))
    assert "CERTIFIED" in text
    assert "tensor" not in text


@pytest.mark.parametrize(
    ("objective", "bound", "gap", "absolute"),
    [
        (2.0, 1.5, 0.25, 0.5),
        (2e-12, 1e-12, 0.5, 1e-12),
        (0.0, 0.0, 0.0, 0.0),
    ],
)
def test_gap_is_relative_to_the_objective(objective, bound, gap, absolute):
    certificate = Certificate(objective, bound)
    assert certificate.gap == pytest.approx(gap)
    assert certificate.absolute_gap == pytest.approx(absolute)


def test_status_is_what_a_gap_proves():
    assert Status.of_gap(1e-9, gap_tol=1e-8) is Status.CERTIFIED
    assert Status.of_gap(1e-7, gap_tol=1e-8) is Status.STATIONARY
    assert Status.of_gap(math.nan, gap_tol=1e-8) is Status.NONFINITE
    assert Status.of_gap(math.inf, gap_tol=1e-8) is Status.NONFINITE
    assert [s.name for s in Status if s.success] == ["CLOSED_FORM", "CERTIFIED"]
    assert all(s.value.endswith(".") for s in Status)


def test_values_are_frozen():
    solution = solve(CASES["interior"])
    with pytest.raises(AttributeError):
        solution.status = Status.MAX_STEPS
    with pytest.raises(TypeError):
        solution.stats["evaluations"] = 0


def test_no_gap_below_rounding_is_claimed():
    assert Certificate(2.0, 2.0).gap == RESOLVED_GAP
    assert Certificate(2.0, 2.0, scaled_gap=1e-30).gap == RESOLVED_GAP
    assert Certificate(2.0, math.nextafter(2.0, 3.0)).gap == RESOLVED_GAP
    assert Certificate(0.0, 0.0, scaled_gap=1e-30).gap == RESOLVED_GAP
    # Zero is attained exactly, and what is unknown stays so.
    assert Certificate(0.0, 0.0).gap == 0.0
    assert math.isnan(Certificate(math.nan, math.nan).gap)
