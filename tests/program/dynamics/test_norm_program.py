import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.program.dynamics.norm_program import NormProgram


def values_on_grid(program, points=40001):
    """The objective along the family of predictors, without any tangent or root."""
    scale = program.variances.max()
    kappa = scale * np.logspace(-10, 10, points)
    v = program.correlations / (program.variances + kappa[:, None])
    fit = (program.variances * v**2 - 2 * program.correlations * v).sum(axis=1)
    norms = np.linalg.norm(v, axis=1)
    power = 2 / (program.hidden + 1)
    return norms, fit + (program.hidden + 1) * program.penalty * norms**power


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.floats(1e-4, 1e3), st.floats(-3.0, 3.0)), min_size=1, max_size=6
    ),
    st.floats(-8, 3),
    st.integers(0, 6),
)
def test_is_the_least_of_a_grid_and_certified(rows, log_penalty, hidden):
    variances, correlations = map(np.array, zip(*rows, strict=True))
    program = NormProgram(variances, correlations, math.exp(log_penalty), hidden)
    found = program.solve()
    least = min(0.0, values_on_grid(program)[1].min())
    # The grid is finite: it can miss the minimum, but not beat it.
    assert found.lower_bound * (1 + 1e-9) - 1e-300 <= least
    assert found.objective <= least + 1e-12 * abs(least)
    assert found.lower_bound <= found.objective
    assert found.objective - found.lower_bound <= 1e-10 * abs(found.objective)


def test_compares_several_local_minima():
    """Two nonzero local minima; which is best changes with the penalty."""
    variances, correlations = np.array([1e-4, 1.0]), np.array([0.01, 1.0])
    chosen = []
    for penalty in (0.0177828, 0.0316228):
        program = NormProgram(variances, correlations, penalty, hidden=3)
        norms, values = values_on_grid(program)
        falling = np.diff(values) < 0
        minima = 1 + np.flatnonzero(falling[:-1] & ~falling[1:])
        assert len(minima) == 2
        best = minima[values[minima].argmin()]
        found = program.solve()
        norm = program.norms(np.array([found.kappa]))[0]
        assert norm == pytest.approx(norms[best], rel=1e-2)
        assert found.objective == pytest.approx(values[best], rel=1e-6)
        chosen.append(norm)
    assert chosen[0] > 50 * chosen[1]


@pytest.mark.parametrize("hidden", [2, 3, 5])
@pytest.mark.parametrize("variance", [0.2, 1.0, 30.0])
def test_isotropic_threshold(hidden, variance):
    D, c = hidden, 0.3
    factor = ((D - 1) * c / variance) ** ((D + 1) / (2 * D))
    threshold = variance * D / (D - 1) * factor
    for share, zero in [
        (0.98, True),
        (1 - 1e-9, True),
        (1 + 1e-9, False),
        (1.02, False),
    ]:
        program = NormProgram(
            np.full(2, variance), threshold * share * np.array([0.6, 0.8]), c, D
        )
        assert math.isinf(program.solve().kappa) is zero


def test_one_hidden_layer_threshold():
    for size, zero in [(0.98, True), (1.0, True), (1.02, False)]:
        program = NormProgram(np.array([0.1, 7.0]), size * np.array([0.6, 0.8]), 1.0, 1)
        assert math.isinf(program.solve().kappa) is zero


def test_no_correlation_predicts_zero():
    for hidden in range(4):
        program = NormProgram(np.array([1.0, 0.0]), np.zeros(2), 0.1, hidden)
        assert program.solve().objective == 0
