import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layerpeel._checks import ShapeError, UndefinedWarning
from layerpeel.measurement.clones.evidence.critical_width import (
    critical_widths,
    crossing,
)

# Read off the authors' figure: a wide residual network on CIFAR10, 512 neurons.
WIDTHS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
TRAIN = [0.875, 0.831, 0.781, 0.584, 0.31, 0.092, 0.0033, 0.00078, 0.00078, 0.00078]
R2 = [0.053, 0.067, 0.144, 0.295, 0.541, 0.875, 0.992, 0.997, 0.999, 1.0]


def curve(values):
    return torch.tensor(values, dtype=torch.float64)


def test_published_curves_give_the_published_range():
    found = critical_widths(
        512,
        WIDTHS,
        train_errors=curve(TRAIN),
        full_train_error=0.00078,
        r_squared=curve(R2),
    )
    assert list(found) == ["interpolation", "reconstruction"]
    interpolation, reconstruction = found.values()
    assert (interpolation.below, interpolation.width) == (64, 128)
    assert interpolation.clones == 4
    assert (reconstruction.below, reconstruction.width) == (32, 64)
    assert reconstruction.clones == 8
    assert str(reconstruction) == "reconstruction >= 0.99: 32 < w <= 64, 8 clones"


def test_readout_needs_raw_to_come_down_to_folded():
    # Digits, 256 neurons: the folded chunk is good long before the raw one.
    raw = [0.693, 0.455, 0.271, 0.134, 0.056, 0.0267]
    folded = [0.189, 0.051, 0.031, 0.026, 0.025, 0.0267]
    found = critical_widths(
        256,
        [8, 16, 32, 64, 128, 256],
        raw_errors=curve(raw),
        folded_errors=curve(folded),
    )
    answer = found["readout"]
    assert (answer.below, answer.width, answer.clones) == (128, 256, 1)
    wide = critical_widths(
        256,
        [8, 16, 32, 64, 128, 256],
        raw_errors=curve(raw),
        folded_errors=curve(folded),
        readout_slack=0.05,
    )
    assert wide["readout"].width == 128


def test_means_over_chunks_are_compared():
    table = curve([[0.8, 0.9], [1.0, 0.98], [0.99, math.nan]])
    found = critical_widths(8, [2, 4, 8], r_squared=table)["reconstruction"]
    assert (found.width, found.below) == (4, 2)


@pytest.mark.parametrize(
    ("values", "width", "below"),
    [
        ([1, 1, 1, 1], 2, 0),
        ([0, 1, 0, 1], 16, 8),  # met by chance at first
        ([math.nan, 1, 1, 1], 4, 2),
        ([0, 1, 1, math.nan], 4, 2),  # no neurons outside the widest
        ([0, 1, math.nan, 1], 16, 8),
    ],
)
def test_a_criterion_must_stay_met(values, width, below):
    found = crossing("x", 16, [2, 4, 8, 16], curve(values), 0.5, ascending=True)
    assert (found.width, found.below, found.clones) == (width, below, 16 / width)


@pytest.mark.parametrize("values", [[1.0, 0.2], [math.nan, math.nan]], ids=str)
def test_a_criterion_that_is_never_met_is_nan_with_its_cause(values):
    with pytest.warns(UndefinedWarning, match=r"by x.*at least 0\.5.*wider"):
        found = crossing("x", 9, [1, 3], curve(values), 0.5, ascending=True)
    assert math.isnan(found.width)
    assert math.isnan(found.clones)
    assert "not met" in str(found)


@given(
    st.dictionaries(st.integers(1, 50), st.floats(0, 1), min_size=1).map(
        lambda d: {**d, 50: 1.0}
    ),
    st.randoms(use_true_random=False),
)
def test_the_width_is_the_least_with_all_wider_ones_met(values, random):
    widths = list(values)
    random.shuffle(widths)
    found = crossing(
        "x", 50, widths, curve([values[w] for w in widths]), 0.6, ascending=True
    )
    good = [w for w in widths if all(values[v] >= 0.6 for v in widths if v >= w)]
    assert found.width == min(good)
    flipped = crossing(
        "x", 50, widths, curve([-values[w] for w in widths]), -0.6, ascending=False
    )
    assert flipped.width == found.width


half = curve([0.5, 0.5])
WRONG = {
    "no curve": ({}, ValueError, "a curve to judge by"),
    "one of two": ({"train_errors": half}, ValueError, "Pass `full_train_error`"),
    "other one": ({"folded_errors": half}, ValueError, "Pass `raw_errors`"),
    "rows": ({"r_squared": curve([1.0])}, ShapeError, "each of 2 widths"),
    "axes": ({"r_squared": half[None, None]}, ShapeError, r"\(m, r\)"),
    "wide": ({"widths": [1, 9], "r_squared": half}, ValueError, "layer's 8"),
    "twice": ({"widths": [1, 1], "r_squared": half}, ValueError, "distinct"),
    "zero": ({"widths": [0, 1], "r_squared": half}, ValueError, ">= 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_refuses(case):
    arguments, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        critical_widths(8, **{"widths": [1, 2]} | arguments)
