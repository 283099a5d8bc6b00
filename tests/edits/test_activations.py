import math

import pytest
import torch
from torch import nn

from layerpeel._checks import EditError
from layerpeel.edits.activations import (
    affine_pieces,
    is_elementwise,
    out_of_place,
    segment,
    slope_below,
)

EXACT = [
    (nn.Identity(), 1),
    (nn.ReLU(), 1),
    (nn.ReLU(inplace=True), 1),
    (nn.ReLU6(), 1),
    (nn.ELU(0.7), 1),
    (nn.CELU(1.3), 1),
    (nn.SELU(), 1),
    (nn.PReLU(3), 1),
    (nn.RReLU(), 1),
    (nn.LeakyReLU(0.2), 2),
    (nn.LeakyReLU(0.0), 1),
    (nn.Hardtanh(-2.0, 0.5), 1),
    (nn.Hardsigmoid(), 1),
    (nn.Hardswish(), 1),
    (nn.Threshold(0.3, -1.0), 1),
    (nn.Softplus(2.0, 15.0), 1),
    (nn.Softshrink(0.4), 2),
    (nn.Hardshrink(0.4), 2),
]
SMOOTH = [nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish()]


def called(activation, x):
    with torch.no_grad():
        return activation.double().eval()(x.clone())


@pytest.mark.parametrize(("activation", "count"), EXACT, ids=str)
def test_pieces_are_where_the_activation_is_affine(activation, count):
    pieces = affine_pieces(activation)
    assert len(pieces) == count
    for piece in pieces:
        low, high = max(piece.lower, -50.0), min(piece.upper, 50.0)
        x = torch.linspace(low, high, 102, dtype=torch.float64)[1:-1]
        x = x.expand(3, -1).T
        wanted = piece.slope * x + piece.intercept
        torch.testing.assert_close(called(activation, x), wanted, rtol=0, atol=1e-13)
        assert piece.exact
        assert piece.slope != 0


@pytest.mark.parametrize(("activation", "count"), EXACT[1:], ids=str)
def test_pieces_end_where_the_activation_is_no_longer_affine(activation, count):
    for piece in affine_pieces(activation):
        for end, sign in ((piece.lower, -1.0), (piece.upper, 1.0)):
            if math.isfinite(end):
                x = torch.full((1, 3), end + sign * 0.1, dtype=torch.float64)
                wanted = piece.slope * x + piece.intercept
                # Softplus is affine up to 1e-7 there, and all others by far less.
                assert ((called(activation, x) - wanted).abs() > 1e-9).all()


@pytest.mark.parametrize("activation", SMOOTH, ids=str)
def test_segments_err_by_the_third_power_of_their_radius(activation):
    assert affine_pieces(activation) == ()
    errors = [segment(activation, radius).error for radius in (0.1, 0.01)]
    assert errors[0] / errors[1] == pytest.approx(1000, rel=0.25)
    piece = segment(activation, 0.1)
    x = torch.linspace(piece.lower, piece.upper, 1000, dtype=torch.float64)
    off = (called(activation, x) - piece.slope * x - piece.intercept).abs().max()
    assert float(off) == pytest.approx(piece.error, rel=1e-3)
    assert not piece.exact


def test_the_segment_of_gelu_is_around_the_root_of_two():
    piece = segment(nn.GELU(), 0.01)
    assert (piece.lower + piece.upper) / 2 == pytest.approx(math.sqrt(2), abs=1e-12)


@pytest.mark.parametrize(
    ("activation", "slope"),
    [
        (nn.ReLU(), 0.0),
        (nn.LeakyReLU(0.2), 0.2),
        (nn.ELU(0.7), 0.7),
        (nn.PReLU(init=0.3), 0.3),
        (nn.Hardtanh(), 0.0),
    ],
    ids=str,
)
def test_slopes_below_a_kink(activation, slope):
    found = slope_below(activation, affine_pieces(activation)[0])
    assert found == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize("activation", [nn.Softmax(1), nn.GLU(), nn.Tanhshrink()])
def test_unknown_activations_are_named(activation):
    assert not is_elementwise(activation)
    for function in (affine_pieces, lambda a: segment(a, 0.1)):
        with pytest.raises(EditError, match=type(activation).__name__):
            function(activation)


@pytest.mark.parametrize("radius", [0.0, -1.0, math.inf, math.nan])
def test_radii_are_above_zero(radius):
    with pytest.raises(ValueError, match="segment"):
        segment(nn.Tanh(), radius)


def test_copies_leave_their_input_as_it_is():
    activation = nn.ReLU(inplace=True).train()
    copy, x = out_of_place(activation), -torch.ones(2)
    copy(x)
    assert x.tolist() == [-1, -1]
    assert activation.inplace
    assert activation.training
