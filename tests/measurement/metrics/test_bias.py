import numpy as np
import pytest
import torch

from layerpeel.geometry import simplex_etf
from layerpeel.measurement.metrics.bias import bias_distance
from tests.measurement.metrics.vectors import random_rows


def test_zero_where_the_bias_subtracts_the_global_mean():
    W, mean = simplex_etf(4, 6), 1e4 + random_rows(1, 6)[0]
    bias = -W @ mean
    assert bias_distance(W, bias, mean) < 1e-10
    e = torch.tensor([1e-3, 0, 0, 0]).double()
    assert bias_distance(W, bias + e, mean) == pytest.approx(1e-3, rel=1e-6)


def test_centring_ignores_what_softmax_ignores():
    W, mean = random_rows(4, 6), random_rows(1, 6, seed=1)[0]
    bias = 3.0 - W @ mean
    assert bias_distance(W, bias, mean) == pytest.approx(3 * np.sqrt(4))
    assert bias_distance(W, bias, mean, centred=True) < 1e-13
    moved = W + torch.ones(6).double()
    assert bias_distance(moved, bias, mean, centred=True) < 1e-13


def test_no_bias_is_a_bias_of_zero_and_agrees_with_a_loop():
    W, mean, b = random_rows(5, 3), random_rows(1, 3, 1)[0], random_rows(5, 1, 2)[:, 0]
    zero = torch.zeros(5).double()
    assert bias_distance(W, None, mean) == bias_distance(W, zero, mean)
    logits = (
        np.array([sum(w * m) for w in W.numpy() for m in [mean.numpy()]]) + b.numpy()
    )
    for centred in (False, True):
        expected = np.sqrt(((logits - centred * logits.mean()) ** 2).sum())
        actual = bias_distance(W, b, mean, centred=centred)
        assert actual == pytest.approx(expected, rel=1e-12)
