import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import nn

from layerpeel._checks import EditError
from layerpeel.edits.activations import Piece
from layerpeel.edits.depth.gauge import placed, turned
from layerpeel.edits.depth.lift import Weights, like, placement, resting
from layerpeel.edits.passes import Range
from tests.edits.networks import normal

NUMBERS = st.floats(-1e6, 1e6)
PIECES = [
    Piece(-math.inf, math.inf, 1.0, 0.0),
    Piece(0.0, math.inf, 1.0, 0.0),
    Piece(-math.inf, -0.5, 0.2, 0.3),
    Piece(-1.0, 6.0, 1.0, 0.0),
]


@pytest.mark.parametrize("piece", PIECES)
@given(a=NUMBERS, b=NUMBERS)
def test_values_are_placed_inside(piece, a, b):
    low, high = min(a, b), max(a, b)
    scale, shift = placement(piece, low, high)
    assert scale > 0
    for value in (low, high, (low + high) / 2):
        assert piece.lower < scale * value + shift < piece.upper
    assert piece.lower < resting(piece) < piece.upper


def test_what_overflows_has_no_place():
    with pytest.raises(EditError, match="Normalise"):
        placement(PIECES[1], -1.5e308, 1.5e308)


@pytest.mark.parametrize("taps", [(), (3, 2)])
def test_gauges_keep_the_product(taps):
    weights = Weights(normal(4, 3), normal(4, seed=1), normal(2, 4, *taps, seed=2))
    new = turned(weights, torch.Generator().manual_seed(0))
    seen = Range(-normal(4).abs(), normal(4, seed=5).abs())
    new = placed(new, PIECES[3], seen)
    for old_, new_ in ((weights, new),):
        before = torch.einsum("oj...,ji->oi...", old_.out, old_.into)
        after = torch.einsum("oj...,ji->oi...", new_.out, new_.into)
        torch.testing.assert_close(before, after, rtol=0, atol=1e-12)
    assert (new.into - weights.into).norm() > 0.1


def test_the_bias_of_the_reader_makes_up_for_all_constants():
    weights = Weights(normal(4, 3), normal(4, seed=1), normal(2, 4, 3, 3, seed=2))
    piece, old = Piece(0.0, 1.0, 0.7, 0.2), normal(2, seed=3)
    found = weights.reader_bias(piece, old)
    constant = (0.7 * weights.bias + 0.2).reshape(1, 4, 1, 1).expand(1, 4, 3, 3)
    made = nn.functional.conv2d(constant, weights.out, found).flatten()
    torch.testing.assert_close(made, old, rtol=0, atol=1e-12)


def test_modules_of_a_kind_keep_type_place_and_geometry():
    module = nn.Conv2d(2, 3, 3, stride=2, padding=1, dilation=2, padding_mode="reflect")
    module.requires_grad_(False)
    wide = like(module, torch.ones(5, 2, 3, 3), torch.zeros(5), geometry=True)
    point = like(module, torch.ones(5, 2, 1, 1), torch.zeros(5), geometry=False)
    assert (wide.stride, wide.padding, wide.dilation) == ((2, 2), (1, 1), (2, 2))
    assert wide.padding_mode == "reflect"
    assert (point.stride, point.padding, point.kernel_size) == ((1, 1), (0, 0), (1, 1))
    assert not any(p.requires_grad for p in (*wide.parameters(), *point.parameters()))
    x = torch.ones(1, 2, 5, 5)
    assert torch.equal(point(x), torch.full((1, 5, 5, 5), 2.0))
