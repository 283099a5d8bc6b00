import numpy as np
import pytest

from layerpeel.program.factored._descent import descend, polish


class Valley:
    """A curved valley with a flat direction and a bound, as factored programs have.

    Of three coordinates: `x0 * x1` alone counts, so a curve of minima is flat; `x2` is
    pressed against its bound. The least value is 1/2 at `x0 * x1 = 2`, `x2 = 1`.
    """

    lower = np.array([-np.inf, -np.inf, 1.0])

    def value_and_gradient(self, x):
        gap = x[0] * x[1] - 2
        value = gap**2 / 2 + gap**4 + x[2] ** 2 / 2
        slope = gap + 4 * gap**3
        return value, np.array([slope * x[1], slope * x[0], x[2]])

    def unit(self, x):
        return 1.0


def test_ends_at_the_bound_and_on_the_curve_of_minima():
    end = descend(Valley(), np.array([0.3, 2.0, 5.0]), 200)
    end = polish(Valley(), end)
    assert end.value == pytest.approx(0.5, rel=1e-14)
    assert end.x[0] * end.x[1] == pytest.approx(2.0, abs=1e-10)
    assert end.x[2] == 1.0
    assert end.gradient_norm <= 1e-10
    assert not end.exhausted


def test_polishing_gains_the_digits_that_values_cannot_see():
    start = descend(Valley(), np.array([0.3, 2.0, 5.0]), 200)
    nudged = descend(Valley(), start.x + np.array([1e-5, 0.0, 0.0]), 1)
    rough = nudged if nudged.gradient_norm > 1e-9 else start
    assert polish(Valley(), rough).gradient_norm <= max(1e-10, start.gradient_norm)


def test_step_limit_is_remembered():
    end = descend(Valley(), np.array([0.3, 9.0, 5.0]), 1)
    assert end.exhausted
    assert end.steps == 1
