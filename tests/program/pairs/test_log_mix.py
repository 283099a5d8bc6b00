import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerpeel.program.pairs.log_mix import log_mix

weights = st.floats(1e-6, 1e6)


@given(
    st.floats(-1e6, 1e6) | st.floats(-1e-3, 1e-3) | st.floats(-1e-300, 1e-300), weights
)
def test_agrees_with_sixty_digits(h, c):
    with mp.workdps(60):
        inside = 1 + mp.mpf(c) * mp.expm1(h)
        if inside < 1e-3:
            return
        expected = mp.log1p(mp.mpf(c) * mp.expm1(mp.mpf(h)))
    # Where 1 + c (e^h - 1) is small, the rounding of c e^h is all that is lost.
    assert log_mix(math, h, c) == pytest.approx(
        float(expected), rel=1e-12, abs=1e-12 * min(1.0, abs(h)) * max(c, 1 / c)
    )


@given(st.floats(-5, 600), st.floats(1e-3, 1.0))
def test_the_inverse_has_the_inverse_weight(h, c):
    assert log_mix(math, log_mix(math, h, c), 1 / c) == pytest.approx(
        h, rel=1e-9, abs=1e-11
    )


def test_arrays_agree_with_numbers():
    h = np.array([-3.0, -1e-12, 0.0, 1e-12, 0.5, 40.0, 1e8])
    for c in (0.1, 1.0, 7.0):
        valid = 1 + c * np.expm1(np.minimum(h, 1)) > 0
        expected = [log_mix(math, float(x), c) for x in h[valid]]
        np.testing.assert_allclose(log_mix(np, h[valid], c), expected, rtol=1e-15)
