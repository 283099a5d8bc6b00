import numpy as np
import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.geometry import simplex_etf
from layerpeel.measurement.metrics import pairs
from layerpeel.measurement.metrics.margins import MARGINS, class_margins
from tests.measurement.metrics.vectors import random_rows, with_gaps


def slow(W, b, M, unit):
    if unit == "cosine":
        W, M = (a / np.linalg.norm(a, axis=1)[:, None] for a in (W, M))
        b = 0 * b
    return [
        min(
            (z[k] - z[j]) / (np.linalg.norm(W[k] - W[j]) if unit == "boundary" else 1)
            for j in range(len(W))
            if j != k
        )
        for k, z in enumerate(M @ W.T + b)
    ]


@pytest.mark.parametrize("rows", [1, 256])
@pytest.mark.parametrize("unit", MARGINS)
@pytest.mark.parametrize(("classes", "width"), [(2, 3), (5, 4), (40, 3)])
def test_agrees_with_every_pair(unit, classes, width, rows, monkeypatch):
    monkeypatch.setattr(pairs, "_BLOCK_ROWS", rows)
    W, M = random_rows(classes, width), random_rows(classes, width, seed=1)
    b = random_rows(classes, 1, seed=2)[:, 0]
    actual = class_margins(W, b, M, unit)
    expected = slow(W.numpy(), b.numpy(), M.numpy(), unit)
    np.testing.assert_allclose(actual, expected, rtol=1e-10)


@pytest.mark.parametrize(("unit", "expected"), [("logits", 6), ("cosine", 1)])
def test_simplex_in_closed_form(unit, expected):
    K = 4
    margins = class_margins(2 * simplex_etf(K), None, 3 * simplex_etf(K), unit)
    np.testing.assert_allclose(margins, expected * K / (K - 1), rtol=1e-12)


def test_distance_to_the_boundary_is_that_of_the_midpoint():
    # Between m and its neighbour halfway: half their distance, sqrt(2K/(K - 1)) / 2.
    K, scale = 4, 3.0
    margins = class_margins(
        7 * simplex_etf(K), None, scale * simplex_etf(K), "boundary"
    )
    np.testing.assert_allclose(
        margins, scale * np.sqrt(2 * K / (K - 1)) / 2, rtol=1e-12
    )


def test_a_larger_bias_moves_margins_by_as_much():
    frame, e = simplex_etf(3), 0.25
    bias = torch.tensor([e, 0, 0]).double()
    margins = class_margins(frame, bias, frame)
    np.testing.assert_allclose(margins, [1.5 + e, 1.5 - e, 1.5 - e])
    assert class_margins(frame, 10 * bias, frame).tolist()[1] < 0
    np.testing.assert_allclose(class_margins(frame, bias, frame, "cosine"), 1.5)


@pytest.mark.parametrize("unit", MARGINS)
def test_absent_classes_are_nan_and_still_rivals(unit):
    frame = simplex_etf(4, 5)
    margins = class_margins(frame, None, with_gaps(frame[:3], 1), unit)
    assert margins.isnan().tolist() == [False, True, False, False]
    rivals = class_margins(frame, None, frame[[0, 0, 1, 2]], unit)
    np.testing.assert_allclose(margins[[0, 2, 3]], rivals[[0, 2, 3]])


UNDEFINED = {
    "one class": (torch.ones(1, 2), torch.ones(1, 2), "logits"),
    "equal classifiers": (torch.ones(2, 2), torch.eye(2), "boundary"),
    "vanished classifier": (torch.diag(torch.tensor([1.0, 0])), torch.eye(2), "cosine"),
    "vanished mean": (torch.eye(2), torch.diag(torch.tensor([1.0, 0])), "cosine"),
}


@pytest.mark.parametrize("name", UNDEFINED)
def test_undefined_says_so(name):
    W, M, unit = UNDEFINED[name]
    with pytest.warns(UndefinedWarning, match="margins are undefined"):
        assert class_margins(W.double(), None, M.double(), unit).isnan().any()


def test_unknown_unit_is_listed():
    with pytest.raises(ValueError, match=r"`unit` must be one of 'logits', 'boundary'"):
        class_margins(simplex_etf(3), None, simplex_etf(3), "norm")
