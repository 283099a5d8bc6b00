r"""Other residual blocks of the same lift: any :math:`U` with the right :math:`V`.

A residual block hands on :math:`(\lambda U + I) f` and a constant. Where that matrix is
invertible, :math:`V = W (\lambda U + I)^{-1}` makes up for it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from layerpeel.edits.activations import Piece
from layerpeel.edits.depth.gauge import normal
from layerpeel.edits.depth.lift import Weights, placement
from layerpeel.edits.passes import Range

# The spectral norm of what a random block adds to the features, as a share of them: the
# matrix that it hands on stays invertible, and well conditioned.
_SHARE = 0.5


def residual_point(
    weights: Weights,
    piece: Piece,
    generator: torch.Generator,
    seen: Callable[[Tensor], Range],
) -> Weights:
    """Return a random block with the outputs of another one.

    Args:
        weights: The weights of the given one.
        piece: The affine piece of its activation.
        generator: Where randomness comes from.
        seen: Returns the range of neurons on the data, without bias.
    """
    drawn = torch.cat([_drawn(part.into, piece, generator) for part in weights.parts])
    values = seen(drawn)
    pairs = zip(values.low.tolist(), values.high.tolist(), strict=True)
    places = [_place(piece, low, high) for low, high in pairs]
    scales = weights.bias.new_tensor([scale for scale, _ in places])
    shifts = weights.bias.new_tensor([shift for _, shift in places])
    into = torch.einsum("j,j...->j...", scales, drawn)
    new = Weights(into, shifts, weights.out, weights.groups)
    pairs_of_parts = zip(weights.parts, new.parts, strict=True)
    return Weights.joined([_read(old, part, piece) for old, part in pairs_of_parts])


def _drawn(into: Tensor, piece: Piece, generator: torch.Generator) -> Tensor:
    random = normal(into, generator)
    norm = float(torch.linalg.matrix_norm(random.flatten(1), 2))
    return random * (_SHARE / (norm * abs(piece.slope)))


def _place(piece: Piece, low: float, high: float) -> tuple[float, float]:
    """Return a scale of at most one, and a shift, that move values into a piece."""
    scale, shift = placement(piece, low, high)
    if scale <= 1:
        return scale, shift
    return 1.0, (piece.lower + piece.upper - low - high) / 2


def _read(old: Weights, new: Weights, piece: Piece) -> Weights:
    """Return a block, read such that it hands on what another one did."""
    before, after = (_handed_on(weights, piece) for weights in (old, new))
    change = torch.linalg.solve(after, before, left=False)
    out = torch.einsum("oj...,ji->oi...", old.out, change)
    return Weights(new.into, new.bias, out)


def _handed_on(weights: Weights, piece: Piece) -> Tensor:
    matrix = weights.into.flatten(1)
    return piece.slope * matrix + torch.eye(len(matrix)).to(matrix)
