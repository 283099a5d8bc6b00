r"""Which affine piece each neuron is on, for all data, and the line that it follows there.

Unlike for an inserted layer, a piece may be flat here: a neuron that is off on all data
follows the line zero, and merging it leaves nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float64
from torch import Tensor, nn

from layerpeel.edits.activations import affine_pieces, out_of_place
from layerpeel.measurement.statistics.affine_fit import AffineFit

_INF = math.inf


@dataclass(frozen=True, eq=False)
class Lines:
    r"""A line :math:`\lambda_j x + \mu_j` for each neuron.

    Attributes:
        slope: :math:`\lambda`.
        intercept: :math:`\mu`.
        inside: Which neurons have all their pre-activations inside one affine piece,
            whose line this then is. Others have the least-squares line, or the tangent
            if their pre-activation is constant.
        margin: The distance of each neuron's pre-activations to the ends of its piece;
            below zero, how far the nearest piece is from holding them all. NaN if the
            activation has no piece.
    """

    slope: Float64[Tensor, " m"]
    intercept: Float64[Tensor, " m"]
    inside: Bool[Tensor, " m"]
    margin: Float64[Tensor, " m"]


def lines_of(
    activation: nn.Module | None, fit: AffineFit, constant: Bool[Tensor, " m"]
) -> Lines:
    """Return the line of each neuron.

    Args:
        activation: The activation; none is the identity.
        fit: Moments of its inputs and outputs.
        constant: Which neurons have a constant input.

    Example:
        >>> x = torch.tensor([[1.0, -1.0, -1.0], [2.0, -3.0, 1.0]], dtype=torch.float64)
        >>> found = lines_of(nn.ReLU(), AffineFit.of(x, x.relu()), torch.zeros(3) > 0)
        >>> found.inside.tolist(), found.slope.tolist(), found.margin.tolist()
        ([True, True, False], [1.0, 0.0, 0.5], [1.0, 1.0, -1.0])
    """
    low, high = fit.input_low, fit.input_high
    best = Lines(fit.slope, fit.intercept, low.isinf(), low * torch.nan)
    for lower, upper, slope, intercept in _pieces(activation):
        margin = torch.minimum(low - lower, upper - high)
        # Of flat pieces and others the deeper one, though only one can hold a neuron.
        better = best.margin.isnan() | (margin > best.margin)
        inside = better & (margin > 0)
        best = Lines(
            torch.where(inside, slope.to(low), best.slope),
            torch.where(inside, intercept.to(low), best.intercept),
            torch.where(better, margin > 0, best.inside),
            torch.where(better, margin, best.margin),
        )
    return _with_tangents(activation, fit, constant & ~best.inside, best)


def _with_tangents(
    activation: nn.Module | None, fit: AffineFit, at: Tensor, lines: Lines
) -> Lines:
    """Return lines that are tangents at the means of some neurons."""
    if activation is None or not bool(at.any()):
        return lines
    function = out_of_place(activation).double()
    x = fit.input_mean[None].clone().requires_grad_()
    with torch.enable_grad():
        y = function(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
    intercept = (y - slope * x).detach()[0]
    return Lines(
        torch.where(at, slope[0], lines.slope),
        torch.where(at, intercept, lines.intercept),
        lines.inside,
        lines.margin,
    )


_Ends = tuple[float, float, Tensor, Tensor]


def _pieces(activation: nn.Module | None) -> list[_Ends]:
    """Return lower end, upper end, slope and intercept of each piece, flat ones too."""
    if activation is None:
        activation = nn.Identity()
    found = [
        _ends(p.lower, p.upper, p.slope, p.intercept) for p in affine_pieces(activation)
    ]
    more = _MORE.get(type(activation))
    return found + (
        [] if more is None else [_ends(*piece) for piece in more(activation)]
    )


def _ends(lower: float, upper: float, slope: Tensor | float, value: float) -> _Ends:
    slope = torch.as_tensor(slope, dtype=torch.float64).detach()
    return lower, upper, slope, torch.tensor(value, dtype=torch.float64)


_Flat = list[tuple[float, float, Any, float]]


def _off(_: nn.Module) -> _Flat:
    return [(-_INF, 0.0, 0.0, 0.0)]


def _leaky(module: Any) -> _Flat:  # noqa: ANN401 - one with a slope
    return [(-_INF, 0.0, 0.0, 0.0)] if module.negative_slope == 0 else []


def _parametric(module: Any) -> _Flat:  # noqa: ANN401 - one with slopes
    return [(-_INF, 0.0, module.weight, 0.0)]


def _random(module: Any) -> _Flat:  # noqa: ANN401 - one with two slopes
    return [(-_INF, 0.0, (module.lower + module.upper) / 2, 0.0)]


def _clipped(module: Any) -> _Flat:  # noqa: ANN401 - one with two ends
    low, high = float(module.min_val), float(module.max_val)
    return [(-_INF, low, 0.0, low), (high, _INF, 0.0, high)]


def _hard_sigmoid(_: nn.Module) -> _Flat:
    return [(-_INF, -3.0, 0.0, 0.0), (3.0, _INF, 0.0, 1.0)]


def _hard_swish(_: nn.Module) -> _Flat:
    return [(-_INF, -3.0, 0.0, 0.0)]


def _threshold(module: Any) -> _Flat:  # noqa: ANN401 - one with a threshold
    return [(-_INF, float(module.threshold), 0.0, float(module.value))]


def _shrink(module: Any) -> _Flat:  # noqa: ANN401 - one with a lambda
    return [(-float(module.lambd), float(module.lambd), 0.0, 0.0)]


# What `affine_pieces` leaves out: flat pieces, and slopes of each channel's own.
_MORE: dict[type[nn.Module], Callable[[Any], _Flat]] = {
    nn.ReLU: _off,
    nn.LeakyReLU: _leaky,
    nn.PReLU: _parametric,
    nn.RReLU: _random,
    nn.Hardtanh: _clipped,
    nn.ReLU6: _clipped,
    nn.Hardsigmoid: _hard_sigmoid,
    nn.Hardswish: _hard_swish,
    nn.Threshold: _threshold,
    nn.Softshrink: _shrink,
    nn.Hardshrink: _shrink,
}
