r"""A lift with samples on a kink, where the loss falls to first order.

Inside the set of lifts the loss is constant, and its gradient that of the critical point.
Where samples :math:`i` of neuron :math:`j` lie on a kink, moving the neuron by
:math:`\delta` across it, with the next bias making up for all others, changes the risk by

.. math::
    \delta \sum_i e_i^\top V_{:, j} \, (\lambda - \lambda_{\text{beyond}})

with :math:`e_i` the gradient of the risk with respect to what the next layer returns.
Of a convolution, :math:`i` runs over samples and places, and :math:`e_i^\top V_{:, j}`
is summed over the places that read place :math:`i`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from layerpeel._checks import EditError
from layerpeel._tolerances import EPS
from layerpeel.edits.activations import Piece, jump_below, slope_below
from layerpeel.edits.data import Data
from layerpeel.edits.depth.gauge import placed, turned
from layerpeel.edits.depth.lift import Weights, groups_of, like
from layerpeel.edits.graph import Affine
from layerpeel.edits.loss import LossFunction
from layerpeel.edits.passes import Range, hooked, is_sum, rows_of, weighted_loss
from layerpeel.measurement.sources.forward import evaluating

# Pre-activations this many units apart touch the kink together.
_TIE_ULPS = 64.0

# So many turned copies of the inserted neurons are looked at, for a neuron, a sample and
# a sign that let the loss fall; fewer of wide layers, which have many of them anyway.
_MOST_GAUGES = 16
_MOST_NEURONS = 4096

# Slopes on both sides of a kink differ by more; so do values where an activation jumps.
_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class Boundary:
    """A lift at the boundary.

    Attributes:
        weights: Its weights.
        slope: The change of the risk per step along the direction.
        unit_slope: The same per unit of motion of the parameters.
        direction: What a step adds to the parameters, by name.
    """

    weights: Weights
    slope: float
    unit_slope: float
    direction: Mapping[str, Tensor]


def boundary_lift(
    model: nn.Module,
    reader: Affine,
    weights: Weights,
    piece: Piece,
    how: str,
    activation: nn.Module,
    data: Data,
    loss_fn: LossFunction,
    name: str,
) -> Boundary:
    """Turn and shift one neuron of a lift so that the loss falls fastest across its kink.

    Raises:
        EditError: If the activation has no kink, or the layer has groups.
    """
    _check(reader, piece, activation)
    width = len(weights.into)
    look = _Look(model, reader.path, data, loss_fn, _gauges(weights), piece, how)
    # Turning a neuron around makes its largest values the least ones.
    slopes = torch.stack([look.least, -look.greatest])
    slopes *= piece.slope - slope_below(activation, piece)
    out = look.weights.out
    steps = piece.slope * (out.flatten(2).sum(2) if out.ndim > 2 else out)
    lengths = (1 + steps.square().sum(0).cpu()).sqrt()
    flipped, best = divmod(int((slopes / lengths).argmin()), slopes.shape[1])
    j = best % width
    moved = _at_kink(look, best, width, flipped=bool(flipped), piece=piece)
    slope = float(slopes[flipped, best])
    step = torch.zeros_like(moved.bias)
    step[j] = -1.0
    dtype = reader.module.weight.dtype
    direction = {
        f"{name}.bias": step.to(dtype),
        f"{reader.path}.bias": (steps[:, best] * (-1 if flipped else 1)).to(dtype),
    }
    return Boundary(moved, slope, slope / float(lengths[best]), direction)


def _check(reader: Affine, piece: Piece, activation: nn.Module) -> None:
    if groups_of(reader.module) > 1:
        raise EditError(
            f"A lift to the boundary needs a layer with one group; {reader.path!r} has "
            f"{groups_of(reader.module)}. Use `at='interior'`."
        )
    if (
        not piece.exact
        or math.isinf(piece.lower)
        or jump_below(activation, piece) > _SAME
        or abs(piece.slope - slope_below(activation, piece)) <= _SAME
    ):
        raise EditError(
            f"A lift to the boundary needs an activation with a kink at the lower end of "
            f"its affine piece; {type(activation).__name__} has none there, or it jumps. "
            "Pass `activation=nn.ReLU()`."
        )


def _gauges(weights: Weights) -> Weights:
    """Return the neurons of a lift under several gauges, one after the other."""
    width = len(weights.into)
    generator = torch.Generator().manual_seed(0)
    more = max(1, min(_MOST_GAUGES, _MOST_NEURONS // width))
    all_ = [weights, *(turned(weights, generator) for _ in range(more))]
    return Weights(
        torch.cat([w.into for w in all_]),
        torch.cat([w.bias for w in all_]),
        torch.cat([w.out for w in all_], 1),
    )


def _at_kink(
    look: _Look, best: int, width: int, *, flipped: bool, piece: Piece
) -> Weights:
    """Return the gauge of a neuron, with that neuron at the kink."""
    start, j = best - best % width, best % width
    own = slice(start, start + width)
    weights = look.weights
    into, bias = weights.into[own].clone(), weights.bias[own].clone()
    out = weights.out[:, own].clone()
    if flipped:
        into[j], out[:, j] = -into[j], -out[:, j]
    lowest = -look.high[best] if flipped else look.low[best]
    bias[j] = piece.lower - float(lowest)
    return Weights(into, bias, out)


class _Look:
    """What the samples at either end of each inserted neuron would do to the loss.

    Attributes:
        weights: The neurons, scaled to fit into the piece.
        low: The least value of each neuron without its bias.
        high: The largest one.
        least: The sum over the samples at the least value of the gradient along the
            neuron's outgoing weights.
        greatest: The same at the largest value.
    """

    def __init__(
        self,
        model: nn.Module,
        path: str,
        data: Data,
        loss_fn: LossFunction,
        weights: Weights,
        piece: Piece,
        how: str,
    ) -> None:
        self._copy = deepcopy(model).double()
        self._path, self._data, self._loss_fn = path, data, loss_fn
        self._carries = how == "preactivations"
        self.weights = weights
        seen = self._seen()
        self.weights = placed(weights, piece, seen)
        seen = self._seen()
        self.low, self.high = seen.low, seen.high
        self.least, self.greatest = self._sums(loss_fn)

    def _seen(self) -> Range:
        found = [Range.of(rows) for rows, _, _ in self._rows(along=False)]
        return reduce(Range.merge, found)

    def _sums(self, loss_fn: LossFunction) -> tuple[Tensor, Tensor]:
        tie = _TIE_ULPS * EPS * torch.maximum(self.low.abs(), self.high.abs())
        low, high = (self.low + tie), (self.high - tie)
        least, greatest, total = torch.zeros_like(low), torch.zeros_like(low), 0.0
        for rows, along, weight in self._rows(along=True):
            p, along = rows.cpu(), weight * along.cpu()
            least += (along * (p <= low)).sum(0)
            greatest += (along * (p >= high)).sum(0)
            total += weight
        divisor = 1.0 if is_sum(loss_fn) else total
        return least / divisor, greatest / divisor

    def _rows(self, *, along: bool) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Yield neurons without bias, what moves the risk along them, and weights."""
        module: Any = self._copy.get_submodule(self._path)
        seen: list[Tensor] = []

        def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            # Added, as what follows may overwrite the output itself.
            zero = torch.zeros_like(output, requires_grad=True)
            seen[:] = [args[0].detach().clone(), zero]
            return output.detach() + zero

        first, last = self._layers(module)
        with hooked(module, hook), evaluating(self._copy):
            for batch in self._data:
                loss, weight = weighted_loss(self._copy, self._loss_fn, batch)
                with torch.no_grad():
                    values = first(seen[0])
                moves = values
                if along:
                    (error,) = torch.autograd.grad(loss, seen[1])
                    moves = _pulled_back(last, values, error)
                yield rows_of(values, module), rows_of(moves, module), weight

    def _layers(self, module: nn.Linear | nn.Conv2d) -> tuple[nn.Module, nn.Module]:
        """Return the inserted layer of all gauges, and what reads it, without biases."""
        into, out = self.weights.into, self.weights.out
        zeros = into.new_zeros(len(into)), into.new_zeros(len(out))
        return (
            like(module, into, zeros[0], geometry=self._carries),
            like(module, out, zeros[1], geometry=not self._carries),
        )


def _pulled_back(last: nn.Module, values: Tensor, error: Tensor) -> Tensor:
    """Return the gradient with respect to the values that a layer reads."""
    with torch.enable_grad():
        inserted = torch.zeros_like(values, requires_grad=True)
        (found,) = torch.autograd.grad(last(inserted), inserted, error)
    return found
