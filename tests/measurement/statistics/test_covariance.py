import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel._checks import MergeError, ShapeError
from layerpeel.measurement.statistics.covariance import Covariance


def reference(h):
    """Two passes in extended precision."""
    h = h.double().numpy().astype(np.longdouble)
    centred = h - h.mean(0)
    return h.mean(0).astype(np.float64), (centred.T @ centred).astype(np.float64)


def data(n=60, d=5, shift=0.0, scale=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    h = torch.randn(n, d, generator=g, dtype=torch.float64)
    h[:, 1] = h[:, 0] + 1e-6 * h[:, 1]  # near duplicates
    h[:, 2] = 0  # a dead unit
    return (h + shift) * scale


def assert_close(a, b):
    for name, part in a.parts().items():
        torch.testing.assert_close(part, b.parts()[name], rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("shift", [0.0, 1e4], ids="shift={}".format)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6], ids="scale={}".format)
@pytest.mark.parametrize("sizes", [[60], [1] * 60, [7, 0, 53]], ids=len)
def test_any_split_agrees_with_two_passes(shift, scale, sizes):
    h = data(shift=shift, scale=scale)
    total = Covariance.empty(5)
    for part in h.split(sizes):
        total = total.merge(Covariance.of(part))
    mean, scatter = reference(h)
    np.testing.assert_allclose(total.mean, mean, rtol=1e-12, atol=1e-12 * scale)
    size = np.abs(scatter).max()
    np.testing.assert_allclose(total.scatter, scatter, rtol=0, atol=1e-9 * size)
    assert total.scatter[2].tolist() == [0.0] * 5
    assert total.variance == pytest.approx(np.trace(scatter) / 60, rel=1e-9)


def test_blocks_agree_with_two_passes():
    h = data(n=2000, d=300)
    centred = h - h.mean(0)
    torch.testing.assert_close(
        Covariance.of(h).scatter, centred.T @ centred, rtol=1e-10, atol=1e-9
    )


def test_the_size_is_that_of_features_as_they_are():
    h = data(shift=7.0)
    expected = h.square().sum(1).mean().sqrt()
    assert Covariance.of(h).size == pytest.approx(float(expected), rel=1e-12)


def test_eigenvalues_are_those_of_the_centred_data():
    h = data(shift=3.0)
    centred = h - h.mean(0)
    expected = torch.linalg.svdvals(centred).square() / 60
    torch.testing.assert_close(
        Covariance.of(h).eigenvalues, expected, rtol=1e-12, atol=1e-12
    )
    assert Covariance.empty(3).eigenvalues.isnan().all()


samples = st.lists(st.tuples(*[st.integers(-20, 20)] * 2), max_size=9)


def covariance_of(table):
    return Covariance.of(torch.tensor(table, dtype=torch.float64).reshape(-1, 2))


@settings(max_examples=50, deadline=None)
@given(samples, samples, samples)
def test_merge_is_associative_and_commutative_and_additive(a, b, c):
    x, y, z = map(covariance_of, (a, b, c))
    assert_close(x.merge(y), y.merge(x))
    assert_close(x.merge(y).merge(z), x.merge(y.merge(z)))
    assert_close(x.merge(y).merge(z), covariance_of(a + b + c))
    assert_close(Covariance.empty(2).merge(x), x)
    assert_close(x.merge(Covariance.empty(2)), x)


def test_a_measurement_taken_apart_is_put_together():
    whole = Covariance.of(data())
    assert_close(Covariance.from_parts(whole.parts()), whole)


def test_refuses_other_shapes():
    with pytest.raises(ShapeError, match=r"\(n, d\).*\(4,\)"):
        Covariance.of(torch.zeros(4))
    with pytest.raises(MergeError, match="`mean`"):
        Covariance.empty(2).merge(Covariance.empty(3))
