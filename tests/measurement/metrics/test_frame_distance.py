import math

import numpy as np
import pytest
import torch

from layerpeel.measurement.metrics import pairs
from layerpeel.measurement.metrics.frame_distance import (
    FRAMES,
    frame_target,
    product_distance,
)
from tests.measurement.metrics.vectors import random_rows


def slow(P, T):
    return np.linalg.norm(P / np.linalg.norm(P) - T / np.linalg.norm(T))


@pytest.mark.parametrize("rows", [1, 5, 256])
@pytest.mark.parametrize("constant", [0.0, -0.25, 0.5])
def test_agrees_with_whole_matrices(constant, rows, monkeypatch):
    monkeypatch.setattr(pairs, "_BLOCK_ROWS", rows)
    left, right = random_rows(20, 6), random_rows(20, 6, seed=1)
    diagonal = torch.arange(20).double()
    T = np.diag(np.arange(20.0)) + constant
    actual = product_distance(left, right, diagonal, constant)
    assert actual == pytest.approx(slow((left @ right.T).numpy(), T), rel=1e-12)


@pytest.mark.parametrize("classes", [2, 5])
def test_targets_of_the_frames(classes):
    targets = {"simplex": np.eye(classes) - 1 / classes, "orthogonal": np.eye(classes)}
    assert set(targets) == set(FRAMES)
    for frame, target in targets.items():
        diagonal, constant = frame_target(frame, classes)
        np.testing.assert_allclose(np.diag(diagonal) + constant, target)


def test_small_distances_keep_their_digits():
    # One entry off by 1e-9 of K = 4 on the diagonal: first order sqrt(1/K - 1/K^2).
    left = torch.eye(4).double()
    left[0, 0] += 1e-9
    distance = product_distance(left, torch.eye(4).double(), torch.ones(4).double())
    assert distance == pytest.approx(1e-9 * math.sqrt(1 / 4 - 1 / 16), rel=1e-5)


def test_nothing_has_no_distance():
    zero, ones = torch.zeros(3, 2).double(), torch.ones(3).double()
    assert math.isnan(product_distance(zero, zero, ones))


@pytest.mark.parametrize("scale", [1e200, 1e-170])
def test_no_scale_is_too_large_or_small(scale):
    left, right = random_rows(5, 3), random_rows(5, 3, seed=1)
    ones = torch.ones(5).double()
    expected = product_distance(left, right, ones, -0.2)
    actual = product_distance(scale * left, right / scale, ones, -0.2)
    assert actual == pytest.approx(expected, rel=1e-12)
