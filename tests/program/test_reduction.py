from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel.program import MSE, CrossEntropy, Decay, Energy
from layerpeel.program.class_level import SoftmaxLoss, SquaredLoss
from layerpeel.program.reduction import alike, class_level
from tests.program.reference import make_program

COUNTS = (8.0, 5.0, 2.0)
ENERGY = Energy(1.0, 2.0)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def same_program(found, expected):
    close = {"rtol": 1e-14, "atol": 0.0}
    torch.testing.assert_close(found.weights, expected.weights, **close)
    torch.testing.assert_close(found.feature_weights, expected.feature_weights, **close)
    assert type(found.loss) is type(expected.loss)
    if isinstance(found.loss, SoftmaxLoss):
        for name in ("scale", "offset", "margin", "smoothing", "common"):
            torch.testing.assert_close(
                getattr(found.loss, name), getattr(expected.loss, name), **close
            )
    assert numbers(found.regulariser) == pytest.approx(
        numbers(expected.regulariser), rel=1e-13
    )
    assert (found.ridge, found.nonnegative, found.width) == (
        expected.ridge,
        expected.nonnegative,
        expected.width,
    )


def numbers(regulariser):
    return {name: x for name, x in asdict(regulariser).items() if x is not None}


# The program in a user's words, and in raw numbers.
SAME = {
    "energy": ({"holds": ENERGY}, {"energy": (1, 2)}),
    "decay per sample": (
        {"holds": Decay(0.1, features=0.02)},
        {"decay": (0.1, 0.02), "per": "sample"},
    ),
    "decay per class": (
        {"holds": Decay(0.1, features=0.02, per="class")},
        {"decay": (0.1, 0.02), "per": "class"},
    ),
    "three layers": (
        {"holds": Decay(0.1, 0.2, 0.3, features=0.02), "loss": MSE()},
        {"decay": (0.1, 0.2, 0.3, 0.02), "loss": "mse"},
    ),
    "class weights": (
        {"holds": ENERGY, "class_weights": (1, 3, 7)},
        {"energy": (1, 2), "class_weights": (1, 3, 7)},
    ),
    "class weights with squared error": (
        {"holds": ENERGY, "class_weights": (1, 3, 7), "loss": MSE()},
        {"energy": (1, 2), "class_weights": (1, 3, 7), "loss": "mse"},
    ),
    "class weights and smoothing": (
        {
            "holds": ENERGY,
            "class_weights": (1, 3, 7),
            "loss": CrossEntropy(smoothing=0.2),
        },
        {"energy": (1, 2), "class_weights": (1, 3, 7), "smoothing": 0.2},
    ),
    "scale, offset and margin": (
        {"holds": ENERGY, "loss": CrossEntropy(0.0, (1, 2, 3), (0, -1, 1), (3, 2, 1))},
        {
            "energy": (1, 2),
            "scale": (1, 2, 3),
            "offset": (0, -1, 1),
            "margin": (3, 2, 1),
        },
    ),
    "the rest": (
        {"holds": ENERGY, "ridge": 0.3, "nonnegative": True, "width": 2},
        {"energy": (1, 2), "bias": 0.3, "nonnegative": True, "width": 2},
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_is_the_program_of_the_raw_numbers(name):
    words, raw = SAME[name]
    found = class_level(COUNTS, **({"loss": CrossEntropy()} | words))
    same_program(found, make_program(COUNTS, **raw))


def test_energy_per_sample_bounds_the_mean_over_samples():
    """A budget on factors that spend both energies exactly is their nuclear norm."""
    program = class_level(COUNTS, loss=CrossEntropy(), holds=Energy(1.0, 2.0, "sample"))
    K, n = 3, np.array(COUNTS)
    s, tau = program.regulariser.balance, program.regulariser.budget
    np.testing.assert_allclose(program.feature_weights.square(), n)
    # |W|^2 = s tau = K E_W and sum_k n_k |h_k|^2 = tau / s = N E_H.
    assert s * tau == pytest.approx(K * 1.0, rel=1e-14)
    assert tau / s == pytest.approx(n.sum() * 2.0, rel=1e-14)


def test_without_smoothing_weights_sum_to_one():
    program = class_level(
        COUNTS, loss=CrossEntropy(), holds=ENERGY, class_weights=(1, 3, 7)
    )
    assert float(program.weights.sum()) == pytest.approx(1.0, rel=1e-15)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_huge_and_tiny_counts_do_not_overflow(scale):
    counts = [scale * count for count in COUNTS]
    found = class_level(counts, loss=CrossEntropy(), holds=ENERGY)
    same_program(found, make_program(COUNTS, energy=(1, 2)))


def test_counts_that_differ_by_rounding_are_made_equal():
    program = class_level([0.1 + 0.2, 0.3, 0.9], loss=CrossEntropy(), holds=ENERGY)
    assert 0.1 + 0.2 != 0.3
    assert program.weights[0] == program.weights[1]
    assert alike(program) == ((2,), (0, 1))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.permutations(range(4)), st.sampled_from(["sample", "class"]))
def test_permuting_classes_permutes_the_program(order, per):
    counts, weights = (8.0, 5.0, 5.0, 1.0), (1.0, 2.0, 2.0, 4.0)
    holds = Decay(0.1, features=0.2, per=per)
    loss = CrossEntropy(0.1, offset=(0.0, 1.0, 1.0, 3.0))
    moved = CrossEntropy(0.1, offset=[loss.offset[k] for k in order])
    first = class_level(counts, loss=loss, holds=holds, class_weights=weights)
    second = class_level(
        [counts[k] for k in order],
        loss=moved,
        holds=holds,
        class_weights=[weights[k] for k in order],
    )
    for name in ("weights", "feature_weights"):
        same = getattr(first, name)[list(order)]
        torch.testing.assert_close(getattr(second, name), same, rtol=1e-15, atol=0)
    torch.testing.assert_close(second.loss.offset, first.loss.offset[list(order)])
    named = {frozenset(order[k] for k in group) for group in alike(second)}
    assert named == {frozenset(group) for group in alike(first)}


ALIKE = {
    "counts": (make_program([2, 9, 2], energy=(1, 1)), ((1,), (0, 2))),
    "all": (make_program([3, 3, 3], energy=(1, 1)), ((0, 1, 2),)),
    "distinct": (make_program([1, 2, 3], energy=(1, 1)), ((2,), (1,), (0,))),
    "class weights": (
        make_program([2, 2, 2], energy=(1, 1), class_weights=[1, 5, 1]),
        ((1,), (0, 2)),
    ),
    "scale": (
        make_program([2, 2, 2], energy=(1, 1), scale=[1, 1, 3]),
        ((0, 1), (2,)),
    ),
    "offset": (
        make_program([2, 2, 2], energy=(1, 1), offset=[0, 1, 0]),
        ((0, 2), (1,)),
    ),
    "margin": (
        make_program([2, 2, 2], energy=(1, 1), margin=[2, 1, 1]),
        ((0,), (1, 2)),
    ),
}


@pytest.mark.parametrize("name", ALIKE)
def test_classes_are_alike_in_all_that_the_program_knows(name):
    program, groups = ALIKE[name]
    assert alike(program) == groups


def test_weights_that_cancel_the_counts_leave_the_feature_weights():
    """The loss sees classes alike, the decay of the samples does not."""
    program = make_program([4, 1], decay=(0.1, 0.1), class_weights=[1, 4])
    assert program.weights[0] == program.weights[1]
    assert len(alike(program)) == 2
    program = replace(program, loss=SquaredLoss(), feature_weights=double([1.0, 1.0]))
    assert alike(program) == ((0, 1),)
