r"""Where activations are affine: exactly on pieces, or nearly so on small segments.

On an open interval :math:`(a, b)` a piece has :math:`\sigma(x) = \lambda x + \mu` with
:math:`\lambda \neq 0`. Flat parts are none: nothing passes through them.

References:
    | Embedding principle in depth for the loss landscape analysis of deep neural networks
    | (Bai, Luo, Xu & Zhang, 2022), https://arxiv.org/abs/2205.13283
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerpeel._checks import EditError, positive

_INF = math.inf
# A segment is looked at in this many points.
_GRID = 257
# Enough halvings for every digit of a float64.
_HALVINGS = 60


@dataclass(frozen=True)
class Piece:
    r"""An interval on which an activation is affine.

    Attributes:
        lower: Its lower end :math:`a`, which does not belong to it.
        upper: Its upper end :math:`b`, which does not belong to it.
        slope: :math:`\lambda`, not zero.
        intercept: :math:`\mu`.
        error: The largest :math:`|\sigma(x) - \lambda x - \mu|` on it; zero if exact.
    """

    lower: float
    upper: float
    slope: float
    intercept: float
    error: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether the activation is affine there, rather than nearly so."""
        return self.error == 0.0

    @property
    def length(self) -> float:
        """The length of the interval; infinite for a half-line."""
        return self.upper - self.lower


def affine_pieces(activation: nn.Module) -> tuple[Piece, ...]:
    """Return the pieces on which an activation is exactly affine.

    Args:
        activation: A module that acts on each entry by itself, in eval mode.

    Returns:
        The pieces, the steepest first; none for activations that are smooth.

    Raises:
        EditError: If the activation is not known.

    Example:
        >>> affine_pieces(nn.ReLU6())
        (Piece(lower=0.0, upper=6.0, slope=1.0, intercept=0.0, error=0.0),)
        >>> affine_pieces(nn.Tanh())
        ()
    """
    found = _EXACT.get(type(activation))
    if found is not None:
        pieces = [piece for piece in found(activation) if piece.slope != 0]
        return tuple(sorted(pieces, key=lambda piece: -abs(piece.slope)))
    _check_smooth(activation)
    return ()


def segment(activation: nn.Module, radius: float) -> Piece:
    r"""Return the nearly affine segment around the inflection point of an activation.

    Where the second derivative vanishes, at :math:`c`, the activation differs from its
    tangent by :math:`O(r^3)` for :math:`|x - c| \le r`. A network that stretches the
    segment to a fixed length is off by :math:`O(r^2)`, and its gradient by
    :math:`O(r)`; its sharpest curvature grows like :math:`r^{-2}`.

    Args:
        activation: A smooth activation: tanh, sigmoid, GELU, SiLU or Mish.
        radius: :math:`r`, half the length of the segment.

    Raises:
        EditError: If the activation is not known, or has no inflection point.
        ValueError: If the radius is no finite number above zero.

    Example:
        >>> piece = segment(nn.Tanh(), 0.01)
        >>> piece.slope, piece.lower, piece.error < 0.01**3
        (1.0, -0.01, True)
    """
    _check_smooth(activation)
    radius = positive("segment", radius)
    function = _function(activation)
    centre = _inflection(function, *_INFLECTION[type(activation)])
    at = torch.tensor(centre, dtype=torch.float64)
    slope = float(torch.func.grad(function)(at))
    intercept = float(function(at)) - slope * centre
    x = torch.linspace(centre - radius, centre + radius, _GRID, dtype=torch.float64)
    error = float((function(x) - slope * x - intercept).abs().max())
    # Rounding could leave no error at all of a tiny segment, which is not exact for that.
    least = torch.finfo(torch.float64).tiny
    return Piece(centre - radius, centre + radius, slope, intercept, max(error, least))


def slope_below(activation: nn.Module, piece: Piece) -> float:
    """Return the slope of an activation just below the lower end of a piece.

    Args:
        activation: The activation of the piece.
        piece: A piece whose lower end is finite.

    Example:
        >>> leaky = nn.LeakyReLU(0.1)
        >>> round(slope_below(leaky, affine_pieces(leaky)[0]), 9)
        0.1
    """
    below = torch.tensor(math.nextafter(piece.lower, -_INF), dtype=torch.float64)
    return float(torch.func.grad(_function(activation))(below))


def jump_below(activation: nn.Module, piece: Piece) -> float:
    """Return how far an activation jumps at the lower end of a piece.

    Args:
        activation: The activation of the piece.
        piece: A piece whose lower end is finite.

    Example:
        >>> shrink = nn.Hardshrink(0.5)
        >>> jump_below(shrink, affine_pieces(shrink)[0])
        0.5
    """
    at = torch.tensor(piece.lower, dtype=torch.float64)
    return abs(
        float(_function(activation)(at)) - piece.slope * piece.lower - piece.intercept
    )


def is_elementwise(module: nn.Module) -> bool:
    """Whether a module is an activation that this file knows.

    Example:
        >>> is_elementwise(nn.GELU()), is_elementwise(nn.LayerNorm(3))
        (True, False)
    """
    return type(module) in _EXACT or type(module) in _INFLECTION


def out_of_place(activation: nn.Module) -> nn.Module:
    """Return a copy of an activation, in eval mode, that leaves its input as it is."""
    copy: Any = deepcopy(activation).eval()
    if hasattr(copy, "inplace"):
        copy.inplace = False
    return copy  # type: ignore[no-any-return]


def _check_smooth(activation: nn.Module) -> None:
    if type(activation) in _INFLECTION:
        return
    known = sorted(kind.__name__ for kind in (*_EXACT, *_INFLECTION))
    raise EditError(
        "The activation must be one whose affine parts are known; got "
        f"{type(activation).__name__}. Pass another one to insert, such as "
        f"`activation=nn.ReLU()`. Known are {', '.join(known)}."
    )


def _function(activation: nn.Module) -> Callable[[Tensor], Tensor]:
    copy = out_of_place(activation).cpu().double()
    if isinstance(copy, nn.PReLU):
        # It wants a channel dimension only where there are slopes for each channel.
        return partial(F.prelu, weight=copy.weight.detach().mean().reshape(1))
    return copy


def _inflection(function: Callable[[Tensor], Tensor], low: float, high: float) -> float:
    """Return the zero of the second derivative in a bracket, by bisection."""
    second = torch.func.grad(torch.func.grad(function))

    def sign(x: float) -> float:
        return math.copysign(1.0, float(second(torch.tensor(x, dtype=torch.float64))))

    if low == high:
        return low
    at_low = sign(low)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if sign(middle) == at_low else (low, middle)
    return (low + high) / 2


def _line(_: nn.Module) -> list[Piece]:
    return [Piece(-_INF, _INF, 1.0, 0.0)]


def _right(_: nn.Module) -> list[Piece]:
    return [Piece(0.0, _INF, 1.0, 0.0)]


def _both(module: Any) -> list[Piece]:  # noqa: ANN401 - one with a slope
    slope = float(module.negative_slope)
    return [Piece(0.0, _INF, 1.0, 0.0), Piece(-_INF, 0.0, slope, 0.0)]


def _between(module: Any) -> list[Piece]:  # noqa: ANN401 - one with two ends
    return [Piece(float(module.min_val), float(module.max_val), 1.0, 0.0)]


def _hard_sigmoid(_: nn.Module) -> list[Piece]:
    return [Piece(-3.0, 3.0, 1 / 6, 0.5)]


def _hard_swish(_: nn.Module) -> list[Piece]:
    return [Piece(3.0, _INF, 1.0, 0.0)]


def _selu(_: nn.Module) -> list[Piece]:
    one = torch.ones((), dtype=torch.float64)
    return [Piece(0.0, _INF, float(F.selu(one)), 0.0)]


def _threshold(module: Any) -> list[Piece]:  # noqa: ANN401 - one with a threshold
    return [Piece(float(module.threshold), _INF, 1.0, 0.0)]


def _soft_shrink(module: Any) -> list[Piece]:  # noqa: ANN401 - one with a lambda
    cut = float(module.lambd)
    return [Piece(cut, _INF, 1.0, -cut), Piece(-_INF, -cut, 1.0, cut)]


def _hard_shrink(module: Any) -> list[Piece]:  # noqa: ANN401 - one with a lambda
    cut = float(module.lambd)
    return [Piece(cut, _INF, 1.0, 0.0), Piece(-_INF, -cut, 1.0, 0.0)]


def _softplus(module: Any) -> list[Piece]:  # noqa: ANN401 - one with a threshold
    # Torch returns its argument beyond the threshold: an exact piece, far to the right.
    return [Piece(float(module.threshold) / float(module.beta), _INF, 1.0, 0.0)]


_EXACT: dict[type[nn.Module], Callable[[Any], list[Piece]]] = {
    nn.Identity: _line,
    nn.ReLU: _right,
    nn.ELU: _right,
    nn.CELU: _right,
    nn.PReLU: _right,
    nn.RReLU: _right,
    nn.SELU: _selu,
    nn.LeakyReLU: _both,
    nn.Hardtanh: _between,
    nn.ReLU6: _between,
    nn.Hardsigmoid: _hard_sigmoid,
    nn.Hardswish: _hard_swish,
    nn.Threshold: _threshold,
    nn.Softplus: _softplus,
    nn.Softshrink: _soft_shrink,
    nn.Hardshrink: _hard_shrink,
}

# Brackets of the inflection point.
_INFLECTION: dict[type[nn.Module], tuple[float, float]] = {
    nn.Tanh: (0.0, 0.0),
    nn.Sigmoid: (0.0, 0.0),
    nn.GELU: (1.0, 2.0),
    nn.SiLU: (1.5, 3.5),
    nn.Mish: (1.0, 3.5),
}
