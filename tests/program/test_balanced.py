import math

import numpy as np
import pytest

from layerpeel import simplex_etf
from layerpeel.program import PeeledProblem, Status
from tests.program.layer_peeled_reference import lower_bound, objective, solve_sdp


@pytest.mark.parametrize("num_classes", [2, 3, 10, 200])
@pytest.mark.parametrize("energy", [(1.0, 5.0), (7.0, 0.01)], ids=str)
def test_is_a_simplex_frame_with_the_values_of_the_theorem(num_classes, energy):
    K, scale = num_classes, math.sqrt(energy[0] * energy[1])
    solution = PeeledProblem([17] * K, energy=energy).solve()
    expected = scale * (K * np.eye(K) - 1) / (K - 1)
    np.testing.assert_allclose(solution.logits, expected, rtol=1e-13, atol=1e-13)
    loss = math.log1p((K - 1) * math.exp(-K / (K - 1) * scale))
    assert solution.objective == pytest.approx(loss, rel=1e-13)
    assert solution.status is Status.CLOSED_FORM
    assert 0 <= solution.certificate.gap < 1e-12


def test_published_check_value():
    solution = PeeledProblem([1] * 10, energy=(1.0, 5.0)).solve()
    assert solution.objective == pytest.approx(0.5597815, abs=5e-8)


def test_frame_and_duality():
    solution = PeeledProblem([3.5] * 6, energy=(4.0, 9.0)).solve()
    classifiers, means = solution.classifiers(), solution.class_means()
    frame = 2 * simplex_etf(6)
    np.testing.assert_allclose(
        classifiers @ classifiers.T, frame @ frame.T, rtol=0, atol=1e-13
    )
    np.testing.assert_allclose(means / 3, classifiers / 2, rtol=0, atol=1e-13)


def test_agrees_with_the_semidefinite_program():
    value, gram = solve_sdp([1.0] * 4, (2.0, 0.5))
    solution = PeeledProblem([1.0] * 4, energy=(2.0, 0.5)).solve()
    assert solution.objective == pytest.approx(value, rel=1e-8)
    np.testing.assert_allclose(
        solution.geometry.classifier_gram, gram[4:, 4:], atol=1e-4
    )


def test_bound_agrees_with_the_dense_one():
    solution = PeeledProblem([2.0] * 5, energy=(1.0, 3.0)).solve()
    dense = lower_bound(solution.logits, [2.0] * 5, 5 * math.sqrt(3))
    assert solution.certificate.lower_bound == pytest.approx(dense, rel=1e-12)
    assert objective(solution.logits, [2.0] * 5) == pytest.approx(
        solution.objective, rel=1e-13
    )
