import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.program.pairs.dual_conditions import (
    disagreement,
    newton_step,
    nuclear_norm,
    singular_value,
    state_at,
    violation,
)
from tests.program.pairs.reference import logarithms

SIZES = [(1, 1), (1, 4), (4, 1), (3, 7), (7, 3), (100, 40)]
# x of the majority, x of the minority, t: both spread, collapsed, tiny, huge.
PLACES = [(1.5, 0.4, 0.2), (2.0, -0.3, -0.8), (3e-9, 2e-9, 1e-9), (50.0, 40.0, -1.0)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_logits_are_stationary_at_the_multiplier(sizes, place):
    K_A, K_B = sizes
    x_A, x_B, t = place
    state = state_at(math, sizes, x_A, x_B, t)
    K = K_A + K_B
    # In each group, rho as it sees it, times its part of the singular vector.
    u = state.A.between * math.sqrt(K_B / K)
    v = state.B.between * math.sqrt(K_A / K)
    scalars = map(mp.mpf, (state.A.spread, state.B.spread, u, v))
    (a, b, c, d), _ = logarithms(K_A, K_B, *scalars)
    for m, x, own, spread in ((K_A, x_A, a, "A"), (K_B, x_B, c, "B")):
        if m == 1 or x <= 0:
            assert getattr(state, spread).spread == 0
        else:
            other = mp.exp(b) * K_B if spread == "A" else mp.exp(d) * K_A
            assert float(mp.log(m * mp.exp(own) + other)) == pytest.approx(-x, rel=1e-9)
    # The gradient between the groups is the multiplier times (cos, -sin).
    for log_b, o, x, part in ((b, K_B, x_A, state.cos), (d, K_A, x_B, state.sin)):
        assert float(log_b + mp.log(K * o) / 2) == pytest.approx(
            -x + math.log(part), abs=1e-9
        )
    assert state.sin / state.cos == pytest.approx(math.sqrt(K_A / K_B) * math.exp(t))
    assert math.hypot(state.cos, state.sin) == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("place", [PLACES[0], PLACES[1]], ids=str)
def test_newton_step_solves_the_linearised_conditions(sizes, place):
    x_A, x_B, t = place
    tau = 20.0

    def conditions(move_x, move_t):
        state = state_at(math, sizes, x_A + move_x, x_B + move_x, t + move_t)
        apart = disagreement(math, state, t + move_t)
        return np.array([apart, nuclear_norm(sizes, state) - tau])

    h = 1e-5
    slope_x = (conditions(h, 0) - conditions(-h, 0)) / (2 * h)
    slope_t = (conditions(0, h) - conditions(0, -h)) / (2 * h)
    expected = -np.linalg.solve(np.column_stack([slope_x, slope_t]), conditions(0, 0))
    state = state_at(math, sizes, x_A, x_B, t)
    step = newton_step(math, sizes, state, t, tau)
    np.testing.assert_allclose(step, expected, rtol=1e-6)


@settings(max_examples=50)
@given(
    st.sampled_from(SIZES),
    st.floats(1e-6, 30),
    st.floats(0, 3),
    st.floats(-1, 1),
    st.floats(0.01, 0.5),
)
def test_what_both_groups_say_turns_with_the_angle(sizes, x_A, log_ratio, t, turn):
    # The majority's part grows and the minority's falls: one angle at most agrees.
    def parts(angle):
        state = state_at(np, sizes, *np.array([[x_A], [x_A - log_ratio], [angle]]))
        return disagreement(np, state, np.array([angle])).item()

    with np.errstate(invalid="ignore", divide="ignore"):
        here, there = parts(t), parts(t + turn)
    if math.isfinite(here) and math.isfinite(there):
        assert there > here


def test_arrays_agree_with_numbers():
    x_A, x_B, t = np.array(PLACES).T
    together = state_at(np, (3, 7), x_A, x_B, t)
    for i, place in enumerate(PLACES):
        single = state_at(math, (3, 7), *place)
        for group in ("A", "B"):
            for name in vars(getattr(single, group)):
                one = getattr(getattr(single, group), name)
                many = getattr(getattr(together, group), name)[i]
                assert many == pytest.approx(one, rel=1e-13)
        rho = singular_value((3, 7), single)
        assert singular_value((3, 7), together)[i] == pytest.approx(rho, rel=1e-13)


def test_violation_is_zero_only_at_a_solution():
    # Balanced: x = log1p(expm1(spread) / K), t = 0.
    sizes, spread = (3, 4), 2.0
    x = math.log1p(math.expm1(spread) / 7)
    state = state_at(math, sizes, x, x, 0.0)
    assert state.A.spread == pytest.approx(spread)
    assert violation(math, sizes, state, 0.0, 6 * spread) < 1e-14
    assert violation(math, sizes, state, 0.0, 6.6 * spread) > 0.05
    tilted = state_at(math, sizes, x, x, 0.1)
    norm = nuclear_norm(sizes, tilted)
    assert violation(math, sizes, tilted, 0.1, norm) > 0.05
