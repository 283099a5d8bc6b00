"""The two layers that take the place of one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from layerpeel.edits.activations import Piece
from layerpeel.edits.depth.lift import Weights, groups_of, like, placement, resting
from layerpeel.edits.passes import Range


@dataclass(frozen=True, eq=False)
class Built:
    """The layers of a lift.

    Attributes:
        first: The inserted linear layer or convolution.
        reader: What takes the place of the layer that reads it.
        dimension: The dimension of the set of such layers: how many more parameters
            they have than the old one, with a bias.
    """

    first: nn.Module
    reader: nn.Module
    dimension: int


def constructed(
    module: nn.Linear | nn.Conv2d, piece: Piece, how: str, width: int, carried: Range
) -> Weights:
    """Return the lift that moves all neurons into the piece by one scale and shift.

    Args:
        module: The layer that reads the features.
        piece: The affine piece of the inserted activation.
        how: ``"features"``, ``"preactivations"`` or ``"residual"``.
        width: The number of inserted neurons.
        carried: The range of what the inserted layer carries: of the input of the
            layer, or of its output where those are the pre-activations.
    """
    low, high = float(carried.low.min()), float(carried.high.max())
    scale, shift = placement(piece, low, high)
    groups, weight = groups_of(module), module.weight.detach().double()
    biases = bias_of(module).chunk(groups)
    place, parts = _Placement(piece, scale, shift), list[Weights]()
    for own, bias in zip(weight.chunk(groups), biases, strict=True):
        if how == "preactivations":
            parts.append(place.preactivations(own, bias, width // groups))
        else:
            residual = how == "residual"
            parts.append(place.features(own, width // groups, residual=residual))
    return Weights.joined(parts)


def built(
    module: nn.Linear | nn.Conv2d, weights: Weights, piece: Piece, how: str
) -> Built:
    """Return the inserted layer, and its reader, as modules."""
    # Of the rounded weights, so that this bias makes up for their rounding.
    rounded = weights.to(module.weight.dtype).to(torch.float64)
    last = rounded.reader_bias(piece, bias_of(module))
    carries = how == "preactivations"
    first = like(module, rounded.into, rounded.bias, geometry=carries)
    reader = like(module, rounded.out, last, geometry=not carries)
    new = (rounded.into, rounded.bias, rounded.out)
    return Built(first, reader, sum(w.numel() for w in new) - module.weight.numel())


def bias_of(module: nn.Linear | nn.Conv2d) -> Tensor:
    """Return the bias in float64; zeros where there is none."""
    if module.bias is None:
        return module.weight.detach().new_zeros(len(module.weight)).double()
    return module.bias.detach().double()


@dataclass(frozen=True)
class _Placement:
    piece: Piece
    scale: float
    shift: float

    def features(self, weight: Tensor, width: int, *, residual: bool) -> Weights:
        """Return neurons that carry one feature each, as far as there are any."""
        outs, ins, *taps = weight.shape
        into = _padded_eye(width, ins, weight) * self.scale
        out = weight.new_zeros(outs, width, *taps)
        # A residual block hands on the features themselves as well.
        out[:, :ins] = weight / (self.piece.slope * self.scale + float(residual))
        return Weights(into, self._biases(weight, width, ins, self.shift), out)

    def preactivations(self, weight: Tensor, bias: Tensor, width: int) -> Weights:
        """Return neurons that carry one pre-activation of the reader each."""
        outs = len(weight)
        into = weight.new_zeros(width, *weight.shape[1:])
        into[:outs] = weight * self.scale
        out = _padded_eye(outs, width, weight) / (self.piece.slope * self.scale)
        shift = self.scale * bias + self.shift
        return Weights(into, self._biases(weight, width, outs, shift), out)

    def _biases(
        self, like: Tensor, width: int, carrying: int, shift: Tensor | float
    ) -> Tensor:
        bias = like.new_full((width,), resting(self.piece))
        bias[:carrying] = shift
        return bias


def _padded_eye(rows: int, columns: int, weight: Tensor) -> Tensor:
    eye = torch.eye(rows, columns, dtype=weight.dtype, device=weight.device)
    return eye.reshape(rows, columns, *(1 for _ in weight.shape[2:]))
