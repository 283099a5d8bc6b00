import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

import layerpeel as lp
from layerpeel.measurement.clones.layer.array_data import array_data
from layerpeel.measurement.clones.profile.error_curves import (
    GAUSSIAN_CLASSES,
    ErrorCurves,
    error_curves,
)
from layerpeel.measurement.clones.profile.protocol import Protocol
from layerpeel.measurement.clones.profile.reconstruction_curves import (
    reconstruction_curves,
)
from layerpeel.measurement.statistics.covariance import Covariance
from tests.measurement.clones import slow
from tests.measurement.clones.layers import normal


def layer(classes=3, samples=120, width=16):
    h = normal(samples, width).relu() + 0.1
    weight, bias = normal(classes, width, seed=1), normal(classes, seed=2)
    y = (h @ weight.T + bias + 2 * normal(samples, classes, seed=3)).argmax(1)
    if classes == 1:
        y = (h @ weight.T + bias > 0).long()[:, 0]
    return h, y, weight, bias


def curves(h, y, weight, bias, batch_size=50):
    grid = Protocol.of("dyadic", 4, "all", None, paper=False, progress=False).grid(
        h.shape[1]
    )
    found = reconstruction_curves(grid, Covariance.of(h), None, (weight, bias))
    data = array_data(h, y, weight=weight, bias=bias, batch_size=batch_size)
    return grid, error_curves(grid, data, found.folded)


@pytest.mark.parametrize("classes", [1, 2, 3, 7])
@pytest.mark.parametrize("batch_size", [7, 500])
def test_counts_what_each_chunk_gets_wrong(classes, batch_size):
    h, y, weight, bias = layer(classes)
    grid, found = curves(h, y, weight, bias, batch_size)
    rows, v, b = h.numpy(), weight.numpy(), bias.numpy()
    for i, w in enumerate(grid.widths[:-1]):
        for j, chunk in enumerate(grid.chunks[w]):
            for reading, table in found.errors.items():
                s = chunk.numpy()
                expected = slow.error(rows, rows, y.numpy(), v, b, s, reading)
                assert float(table[i, j]) == expected
    full = float((slow.decisions(rows @ v.T + b) != y.numpy()).mean())
    assert found.full == full
    assert all(t[-1].tolist() == [full] * 4 for t in found.errors.values())


def test_with_two_classes_the_expected_error_is_that_of_a_normal_margin():
    h, y, weight, bias = layer(2)
    grid, found = curves(h, y, weight, bias)
    for i, w in enumerate(grid.widths[:-1]):
        chances = []
        for row, label in zip(h.numpy(), y.tolist(), strict=True):
            contributions = (weight[label] - weight[1 - label]).numpy() * row
            mean = w * contributions.mean() + float(bias[label] - bias[1 - label])
            spread = math.sqrt(w * (1 - w / 16) * contributions.var(ddof=1))
            chances.append(norm.cdf(-mean / spread))
        assert float(found.expected[i]) == pytest.approx(np.mean(chances), rel=1e-9)
    assert float(found.expected[-1]) == pytest.approx(found.full)


@pytest.mark.parametrize("classes", [3, 5])
def test_the_expected_error_is_that_of_many_chunks(classes):
    h = normal(80, 32) + 0.3
    weight, bias = normal(classes, 32, seed=1), normal(classes, seed=2)
    y = (h @ weight.T + bias + 3 * normal(80, classes, seed=3)).argmax(1)
    grid, found = curves(h, y, weight, bias)
    g = np.random.default_rng(0)
    rows, v, b = h.numpy(), weight.numpy(), bias.numpy()
    for i, w in enumerate(grid.widths):
        if w < 8:  # of so few neurons logits are not normal
            continue
        wrong = []
        for _ in range(800):
            s = g.choice(32, w, replace=False)
            logits = rows[:, s] @ v[:, s].T + b
            wrong.append((logits.argmax(1) != y.numpy()).mean())
        assert float(found.expected[i]) == pytest.approx(np.mean(wrong), abs=0.02)


@pytest.mark.parametrize("classes", [1, GAUSSIAN_CLASSES + 1])
def test_a_single_logit_and_very_many_classes_have_no_expected_error(classes):
    h, y, weight, bias = layer(classes)
    _, found = curves(h, y, weight, bias)
    assert bool(found.expected.isnan().all())
    assert not math.isnan(found.full)


def test_without_a_classifier_nothing_is_known():
    grid = Protocol.of([2, 3], 4, "all", None, paper=False, progress=False).grid(5)
    found = ErrorCurves.unknown(grid)
    assert math.isnan(found.full)
    assert found.expected.shape == (2,)
    assert bool(found.expected.isnan().all())
    assert {tuple(t.shape) for t in found.errors.values()} == {(2, 4)}


def test_errors_on_held_out_data_fold_what_the_training_set_taught():
    h, y, weight, bias = layer()
    other, other_y = normal(60, 16, seed=8), torch.arange(60) % 3
    found = lp.clone_profile_features(
        h,
        y,
        weight=weight,
        bias=bias,
        eval_features=other,
        eval_labels=other_y,
        widths=[5],
        repeats=6,
    )
    grid = Protocol.of([5], 6, "all", None, paper=False, progress=False).grid(16)
    for j, chunk in enumerate(grid.chunks[5]):
        expected = slow.error(
            h.numpy(),
            other.numpy(),
            other_y.numpy(),
            weight.numpy(),
            bias.numpy(),
            chunk.numpy(),
            "folded",
        )
        assert float(found.held_out.folded[0, j]) == expected
