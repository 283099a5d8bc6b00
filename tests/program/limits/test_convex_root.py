import numpy as np
import pytest
from scipy.optimize import brentq

from layerpeel.program.limits.convex_root import convex_root

FUNCTIONS = {
    "exponential": (lambda x: np.exp(x) - 2.0, np.exp),
    "steep": (lambda x: np.exp(x) + x - 1e30, lambda x: np.exp(x) + 1),
    "flat": (lambda x: np.logaddexp(0, x) - 1e-9, lambda x: 1 / (1 + np.exp(-x))),
    "line": (lambda x: 3 * x + 6, lambda x: np.full_like(x, 3.0)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("start", [80.0, 200.0])
def test_agrees_with_bracketing(name, start):
    value, slope = FUNCTIONS[name]
    root = convex_root(
        lambda x: (value(x), slope(x)), np.array([start, start / 2 + 40])
    )
    expected = brentq(lambda x: float(value(np.array(x))), -100, 100, xtol=1e-14)
    np.testing.assert_allclose(root, expected, rtol=1e-12)


def test_a_start_at_the_root_stays():
    root = convex_root(lambda x: (x, np.ones_like(x)), np.array([0.0, 4.0]))
    assert root.tolist() == [0.0, 0.0]
