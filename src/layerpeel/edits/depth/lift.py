r"""One inserted layer: where it is, and the affine piece that its activation works on.

A layer :math:`W f + b` becomes :math:`V \sigma(U f + b') + c'` with all entries of
:math:`U f + b'` on a piece where :math:`\sigma(x) = \lambda x + \mu`, and

.. math:: \lambda V U = W, \qquad V (\lambda b' + \mu 1) + c' = b .
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from layerpeel._checks import EditError
from layerpeel.edits.activations import Piece

# Data keep this share of their span away from the kink of a half-line, and this share of
# the length of an interval from each of its ends: no sample near them meets a kink.
_ROOM = 0.25
_MARGIN = 0.1

# A span below this share of the values, and of the ends of the piece, is taken to be that
# long: stretching it further would stretch their rounding.
_LEAST_SPAN = 1e-3

# And no span is shorter: what it is stretched by has to be a number in float32 as well.
_LEAST_LENGTH = 1e-30


@dataclass(frozen=True, eq=False)
class Lift:
    """An inserted layer.

    Attributes:
        path: The path of the inserted linear layer or convolution.
        activation: The path of its activation.
        reader: The path of the layer that reads it.
        piece: The affine piece that its pre-activations are on.
        construction: ``"features"`` if the inserted layer carries the features,
            ``"preactivations"`` if it carries what the reader made of them, or
            ``"residual"`` if it adds to the features.
        dimension: The dimension of the set of lifts.
        added_bias: Whether the reader had no bias before, so that its gradient is new.
        at_boundary: Whether samples are on a kink.
        free: Whether it has other points of its own; not where a residual block that was
            inserted next to it hands on, or reads, what it should make up for.
    """

    path: str
    activation: str
    reader: str
    piece: Piece
    construction: str
    dimension: int
    added_bias: bool = False
    at_boundary: bool = False
    free: bool = True

    def followed_by(self, later: Lift) -> Lift:
        """Return the lift as it is once another one was inserted."""
        if later.reader == self.reader:
            # Between this one and its reader, which now reads the later one.
            if later.construction == "residual":
                return replace(self, free=False)
            return replace(self, reader=later.path)
        if later.reader == self.path and self.construction == "residual":
            return replace(self, free=False)
        return self


@dataclass(frozen=True, eq=False)
class Weights:
    r"""The weights of a lift, in float64.

    Attributes:
        into: :math:`U`, with one row, or filter, per inserted neuron.
        bias: :math:`b'`.
        out: :math:`V`, with one column, or channel, per inserted neuron of its group.
        groups: The number of groups that neurons and readers fall into.
    """

    into: Tensor
    bias: Tensor
    out: Tensor
    groups: int = 1

    @property
    def parts(self) -> list[Weights]:
        """The weights of each group, which has nothing to do with the others."""
        chunks = (w.chunk(self.groups) for w in (self.into, self.bias, self.out))
        return [Weights(*part) for part in zip(*chunks, strict=True)]

    @classmethod
    def joined(cls, parts: Sequence[Weights]) -> Weights:
        """Return the weights of all groups."""
        into, bias, out = (
            torch.cat([getattr(part, name) for part in parts])
            for name in ("into", "bias", "out")
        )
        return cls(into, bias, out, len(parts))

    def to(self, dtype: torch.dtype) -> Weights:
        """Return the weights as they are in another type, or rounded to it."""
        into, bias, out = (w.to(dtype) for w in (self.into, self.bias, self.out))
        return Weights(into, bias, out, self.groups)

    def reader_bias(self, piece: Piece, old: Tensor) -> Tensor:
        r"""Return :math:`c' = b - V (\lambda b' + \mu 1)`."""
        # A convolution maps a constant by the sum over its taps, as nothing is padded.
        constants = [
            part.out.flatten(2).sum(2) if part.out.ndim > 2 else part.out
            for part in self.parts
        ]
        values = [piece.slope * p.bias + piece.intercept for p in self.parts]
        return old - torch.cat([c @ v for c, v in zip(constants, values, strict=True)])


def placement(piece: Piece, low: float, high: float) -> tuple[float, float]:
    r"""Return a scale and a shift that move values into a piece, off its ends.

    Args:
        piece: The piece.
        low: The least value.
        high: The largest value.

    Raises:
        EditError: If there is none in floating numbers.

    Example:
        >>> relu = Piece(0.0, float("inf"), 1.0, 0.0)
        >>> placement(relu, -1.0, 3.0)
        (1.0, 2.0)
    """
    span = high - low
    if math.isfinite(span):
        ends = [end for end in (piece.lower, piece.upper) if math.isfinite(end)]
        largest = max(map(abs, (low, high, *ends)))
        span = max(span, _LEAST_SPAN * largest, _LEAST_LENGTH) if largest else 1.0
    scale, shift = _placed(piece, low, high, span)
    if not (math.isfinite(span) and math.isfinite(shift) and scale > 0):
        raise EditError(
            "The pre-activations must fit into an affine piece of the inserted "
            f"activation, here ({piece.lower:.3g}, {piece.upper:.3g}); those of the data "
            f"go from {low:.3g} to {high:.3g}. Normalise the data or the layer before."
        )
    return scale, shift


def resting(piece: Piece) -> float:
    """Return a value in the piece for neurons that nothing passes through."""
    return placement(piece, 0.0, 0.0)[1]


def like(
    module: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor, *, geometry: bool
) -> nn.Linear | nn.Conv2d:
    """Return a module of the same kind and place with other weights.

    Args:
        module: A linear layer or a convolution.
        weight: The weights of the new one.
        bias: Its bias.
        geometry: Whether a convolution has the stride, the padding and the dilation of
            the given one, rather than those of a pointwise one.
    """
    # Made without values: no random number is drawn for what is overwritten.
    where: dict[str, Any] = {"device": "meta", "dtype": module.weight.dtype}
    outs, ins, *size = weight.shape
    new: nn.Linear | nn.Conv2d
    if isinstance(module, nn.Linear):
        new = nn.Linear(ins, outs, **where)
    else:
        names = ("stride", "padding", "dilation", "padding_mode") if geometry else ()
        where |= {name: getattr(module, name) for name in (*names, "groups")}
        new = nn.Conv2d(ins * module.groups, outs, (size[0], size[1]), **where)
    new = new.to_empty(device=module.weight.device)
    assert new.bias is not None
    with torch.no_grad():
        new.weight.copy_(weight)
        new.bias.copy_(bias)
    trained = module.weight if module.bias is None else module.bias
    new.weight.requires_grad_(module.weight.requires_grad)
    new.bias.requires_grad_(trained.requires_grad)
    return new


def groups_of(module: nn.Linear | nn.Conv2d) -> int:
    """Return the number of groups of a convolution; one of a linear layer."""
    return module.groups if isinstance(module, nn.Conv2d) else 1


def _placed(piece: Piece, low: float, high: float, span: float) -> tuple[float, float]:
    below, above = math.isfinite(piece.lower), math.isfinite(piece.upper)
    if below and above:
        scale = (1 - 2 * _MARGIN) * piece.length / span
        return scale, (piece.lower + piece.upper) / 2 - scale * (low / 2 + high / 2)
    if below:
        return 1.0, piece.lower + _ROOM * span - low
    return 1.0, piece.upper - _ROOM * span - high if above else 0.0
