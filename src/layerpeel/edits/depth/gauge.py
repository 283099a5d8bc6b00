r"""Other weights of the same lift: an invertible matrix between the two layers.

For an invertible :math:`G`, :math:`G U` and :math:`V G^{-1}` are a lift where :math:`U`
and :math:`V` are, once each neuron is scaled and shifted into the affine piece again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from layerpeel.edits.activations import Piece
from layerpeel.edits.depth.lift import Weights, placement
from layerpeel.edits.passes import Range

# Gauge matrices are rotations and factors within this one: lifts stay about as well
# conditioned as they are.
_STRETCH = 2.0


def turned(weights: Weights, generator: torch.Generator) -> Weights:
    """Return the weights under a random gauge; the bias is still that of before."""
    return Weights.joined([_turned(part, generator) for part in weights.parts])


def placed(weights: Weights, piece: Piece, seen: Range) -> Weights:
    """Scale and shift each neuron into a piece.

    Args:
        weights: The weights, whose bias is not used.
        piece: The piece.
        seen: The range of each neuron on the data, without its bias.
    """
    pairs = zip(seen.low.tolist(), seen.high.tolist(), strict=True)
    places = [placement(piece, low, high) for low, high in pairs]
    scales = weights.bias.new_tensor([scale for scale, _ in places])
    shifts = weights.bias.new_tensor([shift for _, shift in places])
    into = torch.einsum("j,j...->j...", scales, weights.into)
    # Each row of a group reads the neurons of that group.
    back = (1 / scales).reshape(weights.groups, -1)
    back = back.repeat_interleave(len(weights.out) // weights.groups, 0)
    out = torch.einsum("oj...,oj->oj...", weights.out, back)
    return Weights(into, shifts, out, weights.groups)


def _turned(weights: Weights, generator: torch.Generator) -> Weights:
    width = len(weights.into)
    square = weights.into.new_empty(width, width)
    left, right = (torch.linalg.qr(normal(square, generator)).Q for _ in range(2))
    draws = torch.rand(width, generator=generator, dtype=torch.float64)
    factors = (_STRETCH ** (2 * draws - 1)).to(left)
    gauge, inverse = left * factors @ right, right.T / factors @ left.T
    into = torch.einsum("ij,j...->i...", gauge, weights.into)
    out = torch.einsum("oj...,ji->oi...", weights.out, inverse)
    return Weights(into, weights.bias, out)


def normal(values: Tensor, generator: torch.Generator) -> Tensor:
    """Return normal numbers of a shape, on the device and in the type of some values."""
    drawn = torch.randn(values.shape, generator=generator, dtype=torch.float64)
    return drawn.to(values)
