import itertools
import math

import numpy as np
import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.measurement import ClassMoments, measure_features
from layerpeel.measurement.metrics.resolution import resolution, resolved_means
from layerpeel.measurement.statistics.conventions import CENTRINGS, centred_means
from tests.measurement.metrics.vectors import random_rows

SHIFTS = (0.0, 1.0, 1e6)
UNDEFINED = {
    "nc1": lambda m: m.nc1(),
    "nc1 about classes": lambda m: m.nc1("class"),
    "quotient": lambda m: m.nc1_quotient(),
    "cdnv": lambda m: m.cdnv(),
    "nc2": lambda m: m.nc2_means().gram,
    "nc3": lambda m: m.nc3(),
    "nc3 by rows": lambda m: m.nc3(normalisation="rows"),
    "product": lambda m: m.nc3_product(),
    "nc5": lambda m: m.nc5(np.arange(7.0)),
    "energy of kernels": lambda m: m.kernel_energy().mean,
    "effective rank": lambda m: m.ranks().effective,
    "principal angles": lambda m: float(m.principal_angles()[0]),
}


def permuted(classes, shift, separate=()):
    """The same samples in every class, in another order; some classes moved away."""
    g = torch.Generator().manual_seed(0)
    h = random_rows(97, 7) + shift
    rows = [h[torch.randperm(len(h), generator=g)] for _ in range(classes)]
    for k in separate:
        rows[k] = rows[k] + 3 * (1 + k)
    y = torch.arange(classes).repeat_interleave(len(h))
    order = torch.randperm(len(y), generator=g)
    return torch.cat(rows)[order], y[order]


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("name", UNDEFINED)
def test_the_same_samples_in_every_class_leave_nothing_to_measure(name, shift):
    h, y = permuted(4, shift)
    m = measure_features(h, y, weight=random_rows(4, 7, seed=1))
    with pytest.warns(UndefinedWarning, match="undefined"):
        assert math.isnan(UNDEFINED[name](m))


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_coinciding_pair_makes_no_direction(shift):
    h, y = permuted(4, shift, separate=(2, 3))
    m = measure_features(h, y, weight=random_rows(4, 7, seed=1))
    # The means lie on a line, along which the inverse of S_B is that of one direction.
    means = 3 * np.array([0.0, 0, 3, 4])
    spread = 4 * np.square(means - means.mean()).mean() * 7
    line = np.ones(7) / np.sqrt(7)
    within = np.cov(h[y == 0].numpy().T, bias=True)
    assert m.nc1() == pytest.approx(line @ within @ line / spread, rel=1e-6)
    assert m.ranks().numerical == 1
    with pytest.warns(UndefinedWarning, match="distinct means"):
        assert math.isnan(m.cdnv())


def test_an_outside_mean_in_the_centre_has_no_direction():
    h, y = permuted(3, 1e6, separate=(1, 2))
    m = measure_features(h, y, weight=random_rows(3, 7))
    centre = h.flip(0).mean(0)
    with pytest.warns(UndefinedWarning, match="vanished"):
        assert math.isnan(m.nc5(centre))


@pytest.mark.parametrize("centring", CENTRINGS)
def test_means_that_differ_are_as_they_were(centring):
    h, y = random_rows(60, 5), torch.arange(60) % 4
    moments = ClassMoments.of(1e-3 * h + 1e6, y, 6)
    expected = centred_means(moments, centring)
    found = resolved_means(moments, centring)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_the_resolution_is_a_few_units_of_the_size(scale):
    means = torch.tensor([[3.0, 4.0], [0.0, 1.0]]).double()
    zero = torch.zeros(2).double()
    moments = ClassMoments(zero + 5, scale * means, None, zero)
    assert resolution(moments) == pytest.approx(64 * 2.0**-52 * 5 * scale)


def test_spread_counts_where_it_is_a_number():
    h = torch.tensor([[-2.0], [2.0], [5.0]]).double()
    moments = ClassMoments.of(h, torch.tensor([0, 0, 2]), 3)
    assert resolution(moments) == pytest.approx(64 * 2.0**-52 * 5)
    wide = ClassMoments(moments.count, moments.mean, None, moments.trace * torch.inf)
    assert resolution(wide) == resolution(moments)
    only = ClassMoments.of(h[:2], torch.tensor([0, 0]), 3)
    assert resolution(only) == pytest.approx(64 * 2.0**-52 * 2)
    assert resolution(ClassMoments.empty(3, 2)) == 0


def test_nothing_random_coincides():
    for seed, shift in itertools.product(range(5), SHIFTS):
        h = random_rows(40, 6, seed=seed) + shift
        moments = ClassMoments.of(h, torch.arange(40) % 5, 5)
        assert bool(resolved_means(moments).any(1).all())
