import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.program.factored._bound import lower_bound
from tests.program.factored.cases import FOUR, VARIANTS
from tests.program.reference import cvxpy_solve, make_program, objective

variants = pytest.mark.parametrize("case", VARIANTS.values(), ids=VARIANTS.keys())
NO_FEATURES = np.zeros((0, 4))


@variants
def test_bound_is_below_the_optimum_at_random_points_and_close_to_it_there(case):
    program = make_program(FOUR, **case)
    optimum, logits, bias = cvxpy_solve(program)
    assert lower_bound(program, logits, bias, NO_FEATURES) == pytest.approx(
        optimum, rel=2e-3
    )
    random = np.random.default_rng(0)
    for size in (0.01, 0.1, 1.0, 10.0):
        noise = size * random.normal(size=(4, 4))
        bound = lower_bound(program, logits + noise, bias + noise[0], NO_FEATURES)
        assert 0 <= bound <= optimum * (1 + 1e-7) + 1e-12


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from(sorted(VARIANTS)))
def test_bound_is_below_every_point(seed, nonnegative, name):
    random = np.random.default_rng(seed)
    program = make_program(FOUR, **VARIANTS[name], nonnegative=nonnegative)
    here, there = random.normal(size=(2, 4, 4)) * np.exp(random.normal(size=(2, 1, 1)))
    delta = program.feature_weights.numpy()
    # Unit features are nonnegative; their energy is an upper bound on the gauge.
    spent = np.linalg.norm(there * delta, axis=0).sum()
    if program.regulariser.budget is not None:
        there = there * min(1.0, program.regulariser.budget / spent)
    bias = np.zeros(4) if program.ridge is None else random.normal(size=4)
    attained = objective(program, there, bias)
    if nonnegative and program.regulariser.multiplier is not None:
        nuclear = np.linalg.norm(there * delta, "nuc")
        attained += program.regulariser.multiplier * (spent - nuclear)
    assert lower_bound(program, here, bias, np.eye(4)) <= attained + 1e-12


def test_several_layers_leave_the_least_of_the_loss():
    plain = make_program(FOUR, decay=(1e-3,) * 3)
    logits, bias = 3 * np.eye(4), np.zeros(4)
    assert lower_bound(plain, logits, bias, NO_FEATURES) == 0.0
    smooth = make_program(FOUR, decay=(1e-3,) * 3, smoothing=0.1)
    target = np.full(4, 0.025) + 0.9 * np.eye(4)[0]
    entropy = -np.sum(target * np.log(target))
    assert lower_bound(smooth, logits, bias, NO_FEATURES) == pytest.approx(entropy)
