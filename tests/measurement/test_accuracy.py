"""Relative errors against exact arithmetic, and against two passes on more data."""

import mpmath
import numpy as np
import pytest
import torch

from layerpeel.measurement import ClassMoments, cdnv, nc1, nc1_quotient
from layerpeel.measurement.statistics import moments as moments_module
from layerpeel.measurement.statistics.accumulator import MomentsAccumulator
from tests.measurement.reference import careful_mean, gram, rank_pinv, sq

RTOL = 1e-9


def blobs(n, K, d, spread=0.1, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, K, (n,), generator=g)
    centres = torch.randn(K, d, generator=g, dtype=torch.float64)
    noise = torch.randn(n, d, generator=g, dtype=torch.float64)
    return centres[y] + spread * noise, y


def dead_units(h, y):
    h = h.clone()
    h[:, 0], h[:, 2] = 0, 7
    return h, y


def near_duplicates(h, y):
    h = h.clone()
    h[:, 1] = h[:, 0] * (1 + 1e-7)
    h[1:] = torch.where((y[1:] == y[:-1])[:, None], h[:-1] + 1e-7 * h[1:], h[1:])
    return h, y


def one_each(h, y):
    return h, torch.arange(len(y))


# Each makes features hard in its own way.
CASES = {
    "plain": lambda h, y: (h, y),
    "shift 1e4": lambda h, y: (h + 1e4, y),
    "scale 1e-6": lambda h, y: (h * 1e-6, y),
    "scale 1e6": lambda h, y: (h * 1e6, y),
    "scale 1e-6, shift of 1e4 scales": lambda h, y: (h * 1e-6 + 1e-2, y),
    "dead units": dead_units,
    "near-duplicates": near_duplicates,
    "an outlier comes first": lambda h, y: (
        torch.cat([h[:1] + 1e6, h[1:]]),
        y,
    ),
    "float32": lambda h, y: ((h + 1e4).float(), y),
}
hard = pytest.mark.parametrize("case", CASES)


def streamed(h, y, K, batch, light=False):
    stream = MomentsAccumulator(K, h.shape[1], light=light)
    for a, b in zip(h.split(batch), y.split(batch), strict=True):
        stream.add(a, b)
    return stream.value()


def exact(h, y, K):
    """Means, scatter and traces with fifty digits, one sample at a time."""
    d = h.shape[1]
    with mpmath.workdps(50):
        rows = [[mpmath.mpf(v) for v in row] for row in h.double().tolist()]
        groups = [
            [r for r, k in zip(rows, y.tolist(), strict=True) if k == c]
            for c in range(K)
        ]
        means = [
            [sum(column) / len(g) for column in zip(*g, strict=True)] for g in groups
        ]
        own = [
            [
                [sum((r[i] - m[i]) * (r[j] - m[j]) for r in g) for j in range(d)]
                for i in range(d)
            ]
            for g, m in zip(groups, means, strict=True)
        ]
        scatter = [
            [float(sum(s[i][j] for s in own)) for j in range(d)] for i in range(d)
        ]
        traces = [float(sum(s[i][i] for i in range(d))) for s in own]
        means = [[float(v) for v in m] for m in means]
    return (torch.tensor(v, dtype=torch.float64) for v in (means, scatter, traces))


def assert_near(actual, desired):
    """Relative to the largest entry: small ones are differences of large ones."""
    error = (actual - desired).abs().max()
    assert error <= RTOL * desired.abs().max(), float(error / desired.abs().max())


def assert_relative(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=RTOL)


def test_comparison_can_fail():
    with pytest.raises(AssertionError):
        assert_near(torch.ones(2).double() + 1e-8, torch.ones(2).double())


@hard
@pytest.mark.parametrize("light", [False, True], ids=["full", "light"])
def test_moments_agree_with_exact_arithmetic(case, light, monkeypatch):
    monkeypatch.setattr(moments_module, "_CHUNK_ROWS", 7)
    monkeypatch.setattr(moments_module, "_CHUNK_ROWS_PER_CLASS", 0)
    h, y = CASES[case](*blobs(40, 3, 4))
    means, scatter, traces = exact(h, y, 3)
    found = streamed(h, y, 3, batch=5, light=light)
    assert_near(found.mean, means)
    assert_relative(found.trace, traces)
    if not light:
        assert_near(found.scatter, scatter)
        assert_relative(found.scatter.trace(), scatter.trace())


@hard
def test_merged_parts_agree_with_exact_arithmetic(case):
    h, y = CASES[case](*blobs(40, 3, 4))
    means, scatter, traces = exact(h, y, 3)
    parts = [
        ClassMoments.of(a, b, 3) for a, b in zip(h.split(3), y.split(3), strict=True)
    ]
    found = ClassMoments.empty(3, 4)
    for part in parts:
        found = found.merge(part)
    assert_near(found.mean, means)
    assert_near(found.scatter, scatter)
    assert_relative(found.trace, traces)


@hard
@pytest.mark.parametrize(("K", "d"), [(3, 12), (20, 6)], ids=["K < d", "K > d"])
def test_metrics_agree_with_two_passes(case, K, d):
    h, y = CASES[case](*blobs(20_000, K, d))
    found = streamed(h, y, K, batch=300)
    groups = [h[y == k].double().numpy() for k in range(K)]
    means = np.stack([careful_mean(g) for g in groups])
    scatters = [gram(g - m) for g, m in zip(groups, means, strict=True)]
    variances = np.array([sq(g - m).mean() for g, m in zip(groups, means, strict=True)])
    assert_near(found.scatter, torch.from_numpy(sum(scatters)))
    assert_relative(found.class_variances, variances)
    centred = means - careful_mean(means)
    between = torch.from_numpy(centred)
    within = found.scatter / found.num_samples
    pinv = rank_pinv(gram(centred) / K, min(K - 1, d))
    if case not in ("dead units", "near-duplicates", "an outlier comes first"):
        # These have directions with next to no variance, whose inverse is rounding.
        expected = np.trace(sum(scatters) / len(h) @ pinv) / K
        assert_relative(nc1(within, between), expected)
    assert_relative(
        nc1_quotient(float(within.trace()), between),
        np.trace(sum(scatters)) / len(h) / sq(centred).mean(),
    )
    i, j = np.triu_indices(K, 1)
    pairs = (variances[i] + variances[j]) / (2 * sq(means[i] - means[j]))
    assert_relative(cdnv(found.class_means, found.class_variances), pairs.mean())


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_wide_features_agree_with_two_passes(shift):
    h, y = blobs(1000, 3, 150)
    h = h + shift
    found = streamed(h, y, 3, batch=300)
    groups = [h[y == k].numpy() for k in range(3)]
    scatters = [gram(g - careful_mean(g)) for g in groups]
    assert_near(found.scatter, torch.from_numpy(sum(scatters)))
    assert_relative(found.trace, [np.trace(s) for s in scatters])


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_one_sample_a_class_has_no_variability_at_all(shift):
    h, y = one_each(*blobs(30, 30, 5))
    found = streamed((h + shift).float(), y, 30, batch=4)
    assert not found.trace.any()
    assert not found.scatter.any()


def test_identical_samples_of_a_class_have_no_variability_at_all():
    h, y = blobs(10, 10, 5)
    h, y = (h.float() + 1e4).repeat(9, 1), torch.arange(10).repeat(9)
    found = streamed(h, y, 10, batch=7)
    assert float(found.trace.max()) <= 1e-22 * float(h.square().sum())
