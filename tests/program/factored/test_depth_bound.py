import numpy as np
import pytest

from layerpeel.program.factored._depth_bound import chord_program
from tests.program.reference import cvxpy_solve, make_program, objective


@pytest.mark.parametrize("depth", [2, 4])
def test_penalty_is_below_that_of_all_layers_at_all_points_below_an_objective(depth):
    program = make_program([5.0, 3.0, 1.0], decay=(2e-2,) * (depth + 1))
    below = chord_program(program, 2.0, 0.0)
    random = np.random.default_rng(0)
    points = [s * random.normal(size=(3, 3)) for s in np.geomspace(0.01, 100, 200)]
    reached = [point for point in points if objective(program, point) <= 2.0]
    assert len(reached) > 20
    for point in reached:
        assert objective(below, point) <= objective(program, point)
    # The convex optimum is below all of them, then.
    assert cvxpy_solve(below)[0] <= min(objective(program, p) for p in reached)


def test_chord_meets_the_penalty_at_the_largest_singular_value():
    program = make_program([1.0, 1.0], decay=(1e-2,) * 3)
    below = chord_program(program, 0.5, 0.1)
    top = (0.4 / (1.5 * 1e-2)) ** 1.5
    assert below.regulariser.multiplier * top == pytest.approx(0.4, rel=1e-13)
