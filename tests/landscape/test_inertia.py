import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerpeel._checks import NonFiniteError
from layerpeel.landscape import Inertia, zero_tolerance
from tests.landscape.networks import normal


def spectrum(*values):
    return torch.tensor(values, dtype=torch.float64)


@given(
    st.lists(st.sampled_from([-3.0, -1e-6, 0.0, 1e-6, 2.0]), min_size=1, max_size=12)
)
def test_exact_spectra_are_counted(values):
    found = Inertia.of(spectrum(*values))
    signs = [(v > 0) - (v < 0) for v in values]
    assert found == Inertia(signs.count(-1), signs.count(0), signs.count(1))
    assert found.size == len(values)


@given(st.integers(0, 5), st.integers(0, 5), st.integers(1, 5), st.integers(0, 99))
def test_congruences_keep_the_inertia(negative, zero, positive, seed):
    signs = spectrum(*[-1.0] * negative, *[0.0] * zero, *[1.0] * positive)
    basis = torch.linalg.qr(normal(len(signs), len(signs), seed=seed))[0]
    scale = 1 + normal(len(signs), seed=seed).abs()
    values = torch.linalg.eigvalsh((basis * scale * signs) @ basis.T)
    assert Inertia.of(values).signs == (negative, zero, positive)


def test_the_gradient_leaves_small_ones_undecided():
    values = spectrum(-1.0, -1e-5, 0.0, 1e-17, 1e-5, 3.0)
    assert Inertia.of(values) == Inertia(2, 2, 2)
    found = Inertia.of(values, gradient_norm=1e-5)
    assert found == Inertia(1, 2, 1, undecided=2)
    assert found.signs == (1, 2, 1)
    assert str(found) == "(1, 2, 1) and 2 undecided"


def test_zero_is_relative_to_the_largest_and_to_the_error_that_was_seen():
    values = spectrum(-1e-12, 1e3)
    assert Inertia.of(values) == Inertia(0, 1, 1)
    assert Inertia.of(values / 1e3) == Inertia(0, 1, 1)
    assert Inertia.of(spectrum(-1e-12, 1.0)) == Inertia(1, 0, 1)
    assert Inertia.of(spectrum(-1e-12, 1.0), error=1e-12) == Inertia(0, 1, 1)
    assert Inertia.of(spectrum(-1e-12, 1.0), tolerance=2.0) == Inertia(0, 2, 0)
    assert zero_tolerance(values, 1.0) == 2.0


def test_inertias_of_blocks_add_up():
    assert Inertia(0, 0, 7) + Inertia(1, 1, 1, 2) == Inertia(1, 1, 8, 2)


def test_no_number_has_no_sign():
    with pytest.raises(NonFiniteError, match="overflows"):
        Inertia.of(spectrum(1.0, float("nan")))
