import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from layerpeel.measurement.clones.reconstruction.nested import nested_r_squared
from layerpeel.measurement.clones.reconstruction.reconstruction import reconstruct
from layerpeel.measurement.clones.reconstruction.rounding import (
    constant_neurons,
    rounding_scatter,
)
from layerpeel.measurement.statistics.covariance import Covariance
from tests.measurement.clones.layers import degenerate, normal, seeded

FLOATS = [torch.float32, torch.float64]
PLACES = [0.0, 1e2, 1e4, 1e6]


def eps_of(dtype):
    return torch.finfo(dtype).eps


def merged(rows, batch=13):
    whole = Covariance.empty(rows.shape[1])
    for part in rows.split(batch):
        whole = whole.merge(Covariance.of(part))
    return whole


def copied(samples, rank, place, seed, dtype, copies=3):
    """Neurons with a mean of ``place`` deviations, then their copies, moved and mixed."""
    base = normal(samples, rank, seed=seed) + place
    mixing = normal(rank, rank, seed=seed + 50) / rank**0.5
    kinds = [base, 3 - 2 * base, base @ mixing][:copies]
    return torch.cat(kinds, dim=1).to(dtype)


def regressed(fitted, chunk, scored):
    """Held-out R^2 of the regression of least norm, by numpy on the data."""
    fitted, scored = fitted.double().numpy(), scored.double().numpy()
    mean = fitted.mean(0)
    x, y = (fitted - mean)[:, chunk], fitted - mean
    coefficients = np.linalg.lstsq(x, y, rcond=1e-9)[0]
    predicted = (scored - mean)[:, chunk] @ coefficients + mean
    return r2_score(scored, predicted, multioutput="variance_weighted")


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 11),
    place=st.sampled_from(PLACES),
    dtype=st.sampled_from(FLOATS),
    samples=st.sampled_from([6, 40]),
    told=st.booleans(),
)
def test_held_out_scores_far_from_the_origin(seed, size, place, dtype, samples, told):
    rows = normal(samples + 30, 12, seed=seed) @ normal(12, 12, seed=seed + 1)
    rows = (rows + place).to(dtype)
    fitted, scored = rows[:samples], rows[samples:]
    chunk = torch.randperm(12, generator=seeded(seed))[:size].tolist()
    eps = eps_of(dtype) if told and place <= 1e4 else eps_of(torch.float64)
    found = reconstruct(merged(fitted), chunk, eps=eps)
    assert found.rank == min(size, samples - 1)
    # The mean is known to its own rounding, relative to the deviation.
    apart = 1e-8 * max(1.0, place / 1e4)
    for other in (fitted, scored):
        expected = regressed(fitted, chunk, other)
        got = found.r_squared(held_out=merged(other, 7))
        assert got == pytest.approx(expected, rel=apart, abs=apart)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("place", PLACES)
def test_fewer_samples_than_neurons_are_those_of_scikit_learn(place, dtype):
    rows = (normal(50, 30) + place).to(dtype)
    fitted, scored, chunk = rows[:15], rows[15:], [*range(20)]
    found = reconstruct(merged(fitted, 4), chunk)
    assert found.rank == 14
    x, y = fitted.double(), scored.double()
    # Its own cutoff is so low that the direction lost to centring may pass it.
    model = LinearRegression(tol=1e-9).fit(x[:, chunk], x)
    expected = r2_score(y, model.predict(y[:, chunk]), multioutput="variance_weighted")
    got = found.r_squared(held_out=merged(scored))
    assert got == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("samples", "rank"), [(60, 2), (300, 6), (900, 40)])
def test_copies_are_recognised_far_from_the_origin(samples, rank, place, dtype):
    rows = copied(samples, rank, place, 0, dtype)
    covariance, eps = merged(rows), eps_of(dtype)
    order = torch.randperm(3 * rank, generator=seeded(1))
    assert reconstruct(covariance, order, eps=eps).rank == rank
    half = reconstruct(covariance, [*range(rank)], eps=eps)
    assert half.rank == rank
    assert half.residual_correlation() == 0
    assert half.residual_correlation(held_out=merged(rows[: samples // 2])) == 0
    curve = nested_r_squared(covariance, order, eps=eps)
    assert int((curve.diff() > 1e-12).sum()) < rank


@pytest.mark.parametrize("place", PLACES)
def test_a_copy_that_lost_its_mean_has_the_rounding_of_what_it_is_made_of(place):
    base = normal(200, 6) + place
    difference = (base[:, :1] - base[:, 1:2]).float()
    near = torch.cat([base.float(), difference], dim=1)
    order = torch.tensor([0, 1, 6, 2, 3, 4, 5])
    rounded = (base.float()[:, :1] - base.float()[:, 1:2] - difference).double()
    assert bool((rounded.abs() > 0).any())
    covariance, eps = Covariance.of(near), eps_of(torch.float32)
    assert reconstruct(covariance, order, eps=eps).rank == 6
    assert reconstruct(covariance, order[:3], eps=eps).rank == 2
    curve = nested_r_squared(covariance, order, eps=eps)
    assert float(curve[2]) == float(curve[1])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 20), st.sampled_from(PLACES))
def test_a_random_combination_is_no_direction_of_its_own(seed, width, place):
    base = normal(60, width, seed=seed) + place
    mixed = base @ normal(width, 1, seed=seed + 1)
    covariance = merged(torch.cat([mixed, base], dim=1))
    order = torch.randperm(width + 1, generator=seeded(seed))
    assert reconstruct(covariance, order).rank == width
    curve = nested_r_squared(covariance, order)
    assert float(curve[-2]) == float(curve[-1]) == 1.0


def test_what_is_no_copy_survives_rounding():
    # At 1e4 deviations, float32 leaves a thousandth of noise: of a tenth, nothing.
    base = normal(500, 5) + 1e4
    near = torch.cat([base, base + 0.1 * normal(500, 5, seed=1)], dim=1).float()
    covariance, eps = Covariance.of(near), eps_of(torch.float32)
    assert reconstruct(covariance, [*range(10)], eps=eps).rank == 10
    curve = nested_r_squared(covariance, torch.arange(10), eps=eps)
    assert bool((curve.diff() > 1e-4).all())


@pytest.mark.parametrize("place", PLACES)
def test_constant_and_dead_neurons_far_from_the_origin(place):
    rows = degenerate(500) + place
    rows[:, 7] = 0
    covariance = merged(rows.float())
    assert constant_neurons(covariance).nonzero().flatten().tolist() == [6, 7]
    # Sums in another order move a constant by a unit in its last place.
    ulp = torch.from_numpy(np.spacing(rows[:, 6].float().numpy()))
    flicker = rows.float()
    flicker[::3, 6] += ulp[::3]
    covariance, eps = merged(flicker), eps_of(torch.float32)
    assert constant_neurons(covariance).nonzero().flatten().tolist() == [7]
    assert constant_neurons(covariance, eps).nonzero().flatten().tolist() == [6, 7]
    assert reconstruct(covariance, [6, 7], eps=eps).rank == 0
    assert reconstruct(covariance, [*range(9)], eps=eps).rank == 5


def test_rounding_counts_only_where_it_is_more_than_a_share_of_the_deviation():
    near, eps = Covariance.of(normal(50, 9)), eps_of(torch.float32)
    assert float(rounding_scatter(near, eps).max()) == 0
    far = Covariance.of(normal(50, 9) + 1e3)
    assert float(rounding_scatter(far, eps_of(torch.float64)).max()) == 0
    expected = eps**2 * (normal(50, 9) + 1e3).square().sum(0)
    assert torch.allclose(rounding_scatter(far, eps), expected)
    empty = rounding_scatter(Covariance.empty(3), eps)
    assert empty.tolist() == [0.0] * 3
