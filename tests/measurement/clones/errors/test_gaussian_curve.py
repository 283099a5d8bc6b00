import math
from itertools import combinations

import pytest
import torch
from scipy.stats import multivariate_normal

from layerpeel._checks import MergeError, ShapeError, UndefinedWarning
from layerpeel.measurement.clones.chunks import draw_chunks
from layerpeel.measurement.clones.errors.chunk_errors import (
    ChunkClassifiers,
    chunk_errors,
)
from layerpeel.measurement.clones.errors.gaussian_curve import GaussianCurve
from tests.measurement.clones.errors.test_chunk_errors import problem
from tests.measurement.clones.layers import normal, seeded


def exact_moments(h, weight, bias, size):
    """Mean and covariance of logits over all chunks, one by one."""
    chunks = [list(chunk) for chunk in combinations(range(len(h)), size)]
    logits = torch.stack([weight[:, c] @ h[c] + bias for c in chunks])
    return logits.mean(0), logits.T.cov(correction=0)


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("size", [2, 5, 7])
def test_errors_are_gaussian_probabilities_of_the_exact_moments(classes, size):
    features, labels, weight, bias = problem(3, 8, classes)
    curve = GaussianCurve.of(features, labels, weight, bias, [size], points=4096)
    expected = []
    for h, y in zip(features, labels.tolist(), strict=True):
        mean, covariance = exact_moments(h, weight, bias, size)
        rivals = [k for k in range(classes) if k != y]
        turn = -torch.eye(classes).double()[rivals]
        turn[:, y] = 1
        margins = multivariate_normal(
            -turn @ mean, turn @ covariance @ turn.T, allow_singular=True, seed=0
        )
        expected.append(1 - margins.cdf([0.0] * len(rivals)))
    tolerance = 1e-12 if classes == 2 else 1e-3
    found = float(curve.errors[0])
    assert found == pytest.approx(sum(expected) / 3, abs=tolerance)


def test_two_classes_by_hand():
    h, weight = torch.tensor([[1.0, 2.0, 6.0]]), torch.tensor([[1.0] * 3, [0.0] * 3])
    curve = GaussianCurve.of(h, torch.tensor([1]), weight, None, [1, 2, 3])
    # One neuron has mean 3 and variance 14 / 2 = 7 before the finite population.
    expected = [
        0.5 * (1 + math.erf(w * 3 / math.sqrt(2 * w * (1 - w / 3) * 7))) for w in (1, 2)
    ]
    assert curve.errors.tolist() == pytest.approx([*expected, 1.0], abs=1e-12)


@pytest.mark.parametrize("classes", [2, 5, 10])
def test_the_curve_is_that_of_drawn_chunks(classes):
    features, labels, weight, bias = problem(300, 128, classes, seed=3)
    sizes = [16, 32, 64, 128]
    found = GaussianCurve.of(features, labels, weight, bias, sizes).errors
    for size, expected in zip(sizes, found.tolist(), strict=True):
        chunks = draw_chunks(128, size, 1000, seeded(size))
        drawn = chunk_errors(
            features, labels, ChunkClassifiers.of(weight, bias, chunks)
        )
        # The noise of the draws, and what is not Gaussian in the smallest chunks.
        allowed = 4 * float(drawn.std()) / 1000**0.5 + 0.004
        assert allowed < 0.025
        assert float(drawn.mean()) == pytest.approx(expected, abs=allowed)


def test_the_whole_layer_has_the_error_of_the_layer():
    features, labels, weight, bias = problem(200, 20, 4)
    found = GaussianCurve.of(features, labels, weight, bias, [20]).errors
    wrong = ((features @ weight.T + bias).argmax(1) != labels).double().mean()
    assert float(found[0]) == pytest.approx(float(wrong), abs=1e-12)


def test_exact_clones_have_no_spread():
    weight, h = torch.tensor([[1.0] * 8, [0.5] * 8]), torch.ones(3, 8)
    labels = torch.tensor([0, 0, 1])
    curve = GaussianCurve.of(h, labels, weight, None, [1, 4, 8])
    assert curve.errors.tolist() == pytest.approx([1 / 3] * 3, abs=1e-15)


def test_few_points_are_enough_on_average():
    features, labels, weight, bias = problem(400, 64, 10, seed=8)
    few, many = (
        GaussianCurve.of(features, labels, weight, bias, [8, 32], points=points).errors
        for points in (16, 512)
    )
    assert few.tolist() == pytest.approx(many.tolist(), abs=1e-3)


def test_batches_merge():
    features, labels, weight, bias = problem(90, 16, 3)
    whole = GaussianCurve.of(features, labels, weight, bias, [4, 8])
    merged = GaussianCurve.empty([4, 8])
    for part in (slice(0, 40), slice(40, 90)):
        merged = merged.merge(
            GaussianCurve.of(features[part], labels[part], weight, bias, [4, 8])
        )
    assert int(merged.count) == 90
    # Lattices start anew with each batch.
    assert torch.allclose(merged.errors, whole.errors, atol=1e-3)
    with pytest.raises(MergeError, match="same widths"):
        merged.merge(GaussianCurve.empty([4, 9]))


def test_what_does_not_fit_is_refused():
    features, labels, weight, bias = problem(5, 6, 3)
    with pytest.raises(ValueError, match="at most the 6"):
        GaussianCurve.of(features, labels, weight, bias, [7])
    with pytest.raises(ShapeError, match="K >= 2"):
        GaussianCurve.of(features, labels * 0, weight[:1], None, [2])
    with pytest.raises(ShapeError, match="K >= 2"):
        GaussianCurve.of(normal(5, 7), labels, weight, bias, [2])
    with pytest.warns(UndefinedWarning, match="no samples"):
        assert bool(GaussianCurve.empty([1]).errors.isnan().all())
