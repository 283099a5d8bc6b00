import math

import numpy as np
import pytest
import torch

from layerpeel import PeeledProblem
from layerpeel._checks import UndefinedWarning
from layerpeel.geometry import Geometry, geometry_distance
from layerpeel.measurement import measure_features
from layerpeel.measurement.metrics.angles import angles
from layerpeel.measurement.metrics.block import classifier_block, feature_block
from layerpeel.measurement.metrics.kernels import kernel_energy
from layerpeel.measurement.metrics.one_vs_rest import one_vs_rest
from layerpeel.measurement.metrics.rank import ranks
from tests.measurement.collapsed import measured
from tests.measurement.test_measurement import imbalanced
from tests.measurement.test_metrics import blobs


def test_a_collapsed_layer_is_the_simplex():
    m = measured(shift=100.0)
    assert m.distance("simplex").classifier_gram < 1e-10
    difference = m.angles("simplex")
    assert max(difference.classifier_max, difference.duality_max) < 1e-5
    assert float(m.principal_angles().max()) < 1e-9
    for of in ("classifiers", "class_means"):
        energy = m.kernel_energy(of)
        assert abs(energy.excess) + energy.std < 1e-10
        assert m.ranks(of).numerical == 3
        distances = m.one_vs_rest(of, "sample", centred=True)
        np.testing.assert_allclose(distances, 4 / 3, rtol=1e-9)


def blurred():
    h, y, W, b = blobs(classes=5, width=6, shift=3.0)
    return measure_features(h, y, weight=W, bias=b)


def test_conventions_reach_the_functions():
    m = blurred()
    for centring, centred in (("sample", True), ("none", False)):
        M = m.vectors("class_means", centring)
        W = m.vectors("classifiers", centred=centred)
        args = (centring,)
        for of, rows in (("class_means", M), ("classifiers", W)):
            actual = m.kernel_energy(of, "riesz", *args, centred=centred, exponent=2.0)
            assert actual == kernel_energy(rows, "riesz", exponent=2.0)
            found = m.ranks(of, *args, centred=centred)
            assert found == ranks(rows, most=4 if centred else None)
            distances = m.one_vs_rest(of, *args, centred=centred)
            torch.testing.assert_close(distances, one_vs_rest(rows))
        geometry = m.geometry(centring, centred=centred)
        torch.testing.assert_close(geometry.logits, Geometry.of(W, M).logits)


def test_any_geometry_is_a_prediction():
    m = imbalanced()
    solved = PeeledProblem(list(m.class_counts), energy=m.energy()).solve().geometry
    predicted = solved.about(m.moments.count)
    assert m.distance(predicted) == geometry_distance(m.geometry(), predicted)
    expected = angles(m.geometry(), predicted)
    assert m.angles(predicted).classifier_mean == expected.classifier_mean
    with pytest.raises(ValueError, match="`frame` must be one of"):
        m.distance("etf")


def test_principal_angles_leave_absent_classes_out():
    h, y, W, b = blobs(classes=5, width=8, absent=(1,), shift=1e3)
    with pytest.warns(UndefinedWarning, match="1 of 5"):
        m = measure_features(h, y, weight=W, bias=b)
    found = m.principal_angles()
    # Means of four classes span three dimensions, also far from the origin.
    assert len(found) == 3
    kept = [0, 2, 3, 4]
    with_all = measure_features(
        h, (y > 1).long() * (y - 1), weight=W[kept], bias=b[kept]
    )
    assert len(with_all.principal_angles("none", centred=False)) == 4


def test_blocks_are_those_of_the_geometry():
    m = imbalanced()
    for block, expected in (
        (m.classifier_block, classifier_block(m.geometry(), m.groups)),
        (m.feature_block, feature_block(m.geometry(), m.groups)),
    ):
        np.testing.assert_allclose(
            list(vars(block).values()), list(vars(expected).values()), rtol=1e-10
        )


def test_vanished_classifiers_are_undefined_and_named():
    h, y, W, b = blobs(classes=4, width=6)
    m = measure_features(h, y, weight=0 * W, bias=b)
    for call, match in (
        (lambda: m.kernel_energy("classifiers").mean, "vanished"),
        (lambda: m.ranks("classifiers").effective, "Ranks but"),
        (lambda: float(m.one_vs_rest()[0]), "two directions"),
        (lambda: float(m.principal_angles()[0]), "Principal angles"),
    ):
        with pytest.warns(UndefinedWarning, match=match):
            assert math.isnan(call())
