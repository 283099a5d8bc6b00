r"""What its readers lose of a layer that is replaced by the lines of its neurons.

For residuals :math:`r = f - \lambda \odot \tilde f - \mu` and a reader :math:`V` the sum
of squares of the change is :math:`n \, \mathrm{tr}\, V R V^\top`, with the second moments
:math:`R` of the residuals. For a convolution it is at most the square of the sum over
taps of the root of that, as each tap sees each place at most once; and without
covariances :math:`\sqrt{\mathrm{tr}\, V R V^\top}` is at most the smaller one of
:math:`\sum_j \|V_j\| \rho_j` and :math:`\|V\|_2 \|\rho\|`, with root mean square residuals
:math:`\rho`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from layerpeel._tolerances import EPS
from layerpeel.edits.linear.folding import scale_and_shift
from layerpeel.edits.linear.lines import Lines
from layerpeel.edits.linear.looking import Seen
from layerpeel.edits.linear.place import Place, Route
from layerpeel.edits.passes import repeats

# Lanczos steps know the largest eigenvalue to within the slack, save in odd cases.
_STEPS, _SLACK = 32, 1.005
EXACT, BOUND, UNDEFINED = "exact", "bound", "undefined"


@dataclass(frozen=True)
class Residual:
    """The relative root mean square change of what the readers return.

    Attributes:
        value: The change, or a bound of it; NaN if undefined.
        how: ``"exact"``, ``"bound"`` or ``"undefined"``.
        cause: Why it is undefined.
    """

    value: float
    how: str
    cause: str = ""


def residual_of(place: Place, seen: Seen, lines: Lines) -> Residual:
    """Return what the readers of a place lose if its neurons follow their lines."""
    if not place.routes:
        return Residual(math.nan, UNDEFINED, "no linear layer or convolution reads it")
    for route in place.routes:
        if cause := _in_the_way(route, seen):
            return Residual(math.nan, UNDEFINED, cause)
    if not (seen.whole or bool(lines.inside.all())):
        return Residual(math.nan, UNDEFINED, "ranges alone were looked at")
    sizes = _residuals(seen, lines)
    moments = _moments(seen, lines)
    exact, squares = moments is not None, 0.0
    for route, norms in zip(place.routes, place.after, strict=True):
        module = route.consumer.module
        weight = module.weight.detach().double().cpu()
        scale = scale_and_shift(norms, weight.new_ones(place.width))[0]
        taps = (weight.reshape(*weight.shape[:2], -1) * scale[:, None]).unbind(2)
        root = sum(_root(tap, sizes, moments) for tap in taps)
        squares += root**2 * float(seen.fit.count) * repeats(module)
        exact = exact and isinstance(module, nn.Linear)
    total = sum(seen.squares.values())
    value = math.sqrt(squares / total) if total else (math.inf if squares else 0.0)
    return Residual(value, EXACT if exact or value == 0 else BOUND)


def _in_the_way(route: Route, seen: Seen) -> str:
    """Return why the change of a reader is not known; empty if it is."""
    path = route.consumer.path
    if not route.plain or path in seen.reshaped:
        return f"pooling or a change of shape stands between it and {path!r}"
    groups = getattr(route.consumer.module, "groups", 1)
    return f"{path!r} has {groups} groups" if groups != 1 else ""


def _residuals(seen: Seen, lines: Lines) -> Float64[Tensor, " m"]:
    """Return the root mean square residual of each neuron."""
    fit, slope = seen.fit, lines.slope
    left = fit.output_scatter - 2 * slope * fit.cross_scatter
    left = (left + slope.square() * fit.input_scatter).clamp(min=0) / fit.count
    mean = fit.output_mean - slope * fit.input_mean - lines.intercept
    return (left + mean.square()).sqrt().masked_fill(lines.inside, 0.0)


def _moments(seen: Seen, lines: Lines) -> Tensor | None:
    """Return the second moments of the residuals."""
    if seen.joint is None:
        return None
    width = seen.joint.width // 2
    whole, slope = seen.joint.matrix, lines.slope
    inputs, cross, outputs = (
        whole[:width, :width],
        whole[:width, width:],
        whole[width:, width:],
    )
    mixed = slope[:, None] * cross
    left = outputs - mixed - mixed.T + slope[:, None] * inputs * slope
    fit = seen.fit
    mean = fit.output_mean - slope * fit.input_mean - lines.intercept
    left = left + torch.outer(mean, mean)
    # Those on a piece have none, and rounding is left out.
    return left * torch.outer(~lines.inside, ~lines.inside)


def _root(tap: Tensor, sizes: Tensor, moments: Tensor | None) -> float:
    if moments is not None:
        return math.sqrt(max(float(((tap @ moments) * tap).sum()), 0.0))
    if not bool(sizes.any()):
        return 0.0
    each = float((tap.norm(dim=0) * sizes).sum())
    size = float(sizes.norm())
    if each <= size * _least_norm(tap):
        return each
    return min(each, size * _norm_bound(tap))


def _least_norm(matrix: Tensor) -> float:
    """Return a bound of the spectral norm from below, that of one row or column."""
    return max(float(matrix.norm(dim=axis).max()) for axis in (0, 1))


def _norm_bound(matrix: Tensor) -> float:
    r"""Return a bound of the spectral norm from above, within a per cent of it.

    That :math:`c I - V^\top V` is positive definite proves :math:`\|V\|_2^2 < c`, for
    :math:`c` somewhat above what Lanczos steps tell: a fraction of the cost of an SVD.
    """
    wide = matrix.shape[0] < matrix.shape[1]
    gram = matrix @ matrix.T if wide else matrix.T @ matrix
    trace = float(gram.trace())
    if 0 < trace < math.inf:  # no under- or overflow
        bound = _SLACK * _largest_eigenvalue(gram)
        # Rounding of the product and of the factors is less than that.
        rounding = 4 * max(matrix.shape) * EPS * (trace + len(gram) * bound)
        shifted = -gram
        shifted.diagonal().add_(bound - rounding)
        if int(torch.linalg.cholesky_ex(shifted).info) == 0:
            return math.sqrt(bound)
    return float(torch.linalg.matrix_norm(matrix, 2))


def _largest_eigenvalue(gram: Tensor) -> float:
    """Return the largest eigenvalue of a Gram matrix, from below, by Lanczos steps."""
    start = gram.diagonal() + gram.sum(0) / len(gram)
    basis = [start / start.norm()]
    for _ in range(min(_STEPS, len(gram)) - 1):
        known = torch.stack(basis)
        next_ = gram @ basis[-1]
        for _ in range(2):  # once more, for what rounding left
            next_ = next_ - (known @ next_) @ known
        length = float(next_.norm())
        if not length > EPS * float(gram.trace()):
            break
        basis.append(next_ / length)
    known = torch.stack(basis)
    return float(torch.linalg.eigvalsh(known @ gram @ known.T)[-1])
