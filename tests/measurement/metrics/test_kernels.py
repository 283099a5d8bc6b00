import itertools
import math

import numpy as np
import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.geometry import simplex_etf
from layerpeel.measurement.metrics.kernels import KERNELS, kernel_energy
from tests.measurement.metrics.vectors import on_circle, random_rows, with_gaps

CHOICES = [("log", 1.0), ("riesz", 1.0), ("riesz", 2.5)]
KERNEL = {
    "log": lambda distance, s: -math.log(distance),
    "riesz": lambda distance, s: distance**-s,
}


def slow(vectors, kernel, s):
    units = [v / np.linalg.norm(v) for v in vectors.numpy().astype(np.longdouble)]
    distances = [
        float(np.linalg.norm(units[j] - units[k]))
        for j, k in itertools.combinations(range(len(units)), 2)
    ]
    return [KERNEL[kernel](distance, s) for distance in distances], min(distances)


@pytest.mark.parametrize(("kernel", "s"), CHOICES)
@pytest.mark.parametrize("classes", [2, 3, 40])
def test_simplex_in_closed_form(kernel, s, classes):
    rows = torch.arange(1, classes + 1).double()[:, None] * simplex_etf(classes)
    energy = kernel_energy(rows, kernel, exponent=s)
    distance = math.sqrt(2 * classes / (classes - 1))
    assert energy.mean == pytest.approx(KERNEL[kernel](distance, s), rel=1e-12)
    assert energy.simplex == pytest.approx(energy.mean, rel=1e-12)
    assert energy.least_distance == pytest.approx(distance)
    assert energy.std == pytest.approx(0, abs=1e-12)
    assert energy.excess == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("kernel", "s"), CHOICES)
@pytest.mark.parametrize("degrees", [(0, 90, 180, 270), (0, 91, 180, 271), (0, 1, 120)])
def test_chords_of_a_circle_in_closed_form(kernel, s, degrees):
    values = [
        KERNEL[kernel](2 * abs(math.sin(math.radians(a - b) / 2)), s)
        for a, b in itertools.combinations(degrees, 2)
    ]
    energy = kernel_energy(on_circle(*degrees), kernel, exponent=s)
    assert energy.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert energy.std == pytest.approx(np.std(values), abs=1e-12)
    assert energy.excess > 0


@pytest.mark.parametrize(("kernel", "s"), CHOICES)
@pytest.mark.parametrize(("classes", "width"), [(5, 9), (60, 6), (300, 2)])
def test_agrees_with_every_pair(kernel, s, classes, width):
    rows = random_rows(classes, width)
    values, least = slow(rows, kernel, s)
    for correction in (0, 1):
        energy = kernel_energy(rows, kernel, exponent=s, correction=correction)
        assert energy.mean == pytest.approx(np.mean(values), rel=1e-10)
        assert energy.std == pytest.approx(np.std(values, ddof=correction), rel=1e-10)
    assert energy.least_distance == pytest.approx(least, rel=1e-10)
    assert energy.excess >= 0


def test_nearly_parallel_vectors_keep_their_digits():
    energy = kernel_energy(on_circle(0, 1e-4, 180), "log")
    pairs = [math.radians(1e-4) / 2, math.pi / 2, math.pi / 2 - math.radians(1e-4) / 2]
    expected = [-math.log(2 * math.sin(angle)) for angle in pairs]
    assert energy.mean == pytest.approx(np.mean(expected), rel=1e-9)


def test_classes_without_samples_are_left_out():
    rows = random_rows(5, 4)
    assert kernel_energy(with_gaps(rows, 0, 3)) == kernel_energy(rows)


UNDEFINED = {
    "two classes": torch.ones(1, 3),
    "vanished": torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]),
    "coincide": torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]),
}


@pytest.mark.parametrize("cause", UNDEFINED)
def test_undefined_names_the_cause(cause):
    with pytest.warns(UndefinedWarning, match=cause):
        energy = kernel_energy(UNDEFINED[cause].double())
    assert np.isnan([energy.mean, energy.std, energy.excess]).all()


def test_choices_are_checked():
    assert all(len(text) > 20 for text in KERNELS.values())
    with pytest.raises(ValueError, match=r"`kernel` must be one of 'log', 'riesz'"):
        kernel_energy(simplex_etf(3), "gauss")
    with pytest.raises(ValueError, match="`exponent`"):
        kernel_energy(simplex_etf(3), "riesz", exponent=0.0)


def test_corrections():
    with pytest.raises(ValueError, match="`correction` must be an integer >= 0"):
        kernel_energy(simplex_etf(3), correction=-1)
    with pytest.warns(
        UndefinedWarning, match="`correction` is 3, and there are 3 pairs"
    ):
        energy = kernel_energy(simplex_etf(3), correction=3)
    assert np.isnan(energy.std)
    assert energy.excess == pytest.approx(0, abs=1e-12)
