r"""What stands between two layers, as one scale and one constant per neuron.

Between a producer :math:`U x + b'` and its reader stand batch normalisations in eval mode
and an activation that follows lines. What the reader sees is then
:math:`a \odot (U x) + k` with

.. math::
    a = s_2 \odot \lambda \odot s, \qquad
    k = s_2 \odot (\lambda \odot (s \odot b' + t) + \mu) + t_2

where :math:`s, t` are of the normalisations before the activation, :math:`s_2, t_2` of
those after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float64
from torch import Tensor, nn

from layerpeel._tolerances import EPS
from layerpeel.edits.linear.lines import Lines
from layerpeel.edits.linear.place import Place

# A constant is zero if it is this many units of the terms that it is the sum of: each
# of a handful of operations rounds by half a unit.
_ZERO_ULPS = 16.0


@dataclass(frozen=True, eq=False)
class Folded:
    """What stands between two layers, in float64.

    Attributes:
        scale: The scale :math:`a` of each neuron.
        constant: The constant :math:`k`.
        vanishes: Whether the constant is zero but for rounding.
    """

    scale: Float64[Tensor, " m"]
    constant: Float64[Tensor, " m"]
    vanishes: bool


def folded(place: Place, lines: Lines) -> Folded:
    """Return what stands between a layer and its reader."""
    module = place.producer.module
    one = module.weight.detach().double().new_ones(len(module.weight))
    slope, intercept = lines.slope.to(one), lines.intercept.to(one)
    bias = one * 0 if module.bias is None else module.bias.detach().double()
    s, t = scale_and_shift(place.norms, one)
    s2, t2 = scale_and_shift(place.after[0], one)
    constant = s2 * (slope * (s * bias + t) + intercept) + t2
    terms = slope.abs() * ((s * bias).abs() + t.abs()) + intercept.abs()
    size = s2.abs() * terms + t2.abs()
    vanishes = bool((constant.abs() <= _ZERO_ULPS * EPS * size).all())
    return Folded(s2 * slope * s, constant, vanishes)


def scale_and_shift(norms: Iterable[Any], one: Tensor) -> tuple[Tensor, Tensor]:
    """Return what batch normalisations in eval mode do to each channel.

    Args:
        norms: The normalisations, in order.
        one: Ones, with shape :math:`(m,)`.

    Example:
        >>> import torch
        >>> norm = nn.BatchNorm1d(2, eps=0.0).eval()
        >>> _ = norm.running_var.fill_(4.0), norm.running_mean.fill_(1.0)
        >>> scale, shift = scale_and_shift([norm], torch.ones(2, dtype=torch.float64))
        >>> scale.tolist(), shift.tolist()
        ([0.5, 0.5], [-0.5, -0.5])
    """
    scale, shift = one, 0 * one
    for norm in norms:
        s = 1 / (norm.running_var.detach().double() + norm.eps).sqrt()
        s = s if norm.weight is None else s * norm.weight.detach().double()
        t = -norm.running_mean.detach().double() * s
        t = t if norm.bias is None else t + norm.bias.detach().double()
        scale, shift = s.to(one) * scale, s.to(one) * shift + t.to(one)
    return scale, shift


def trains_shift(norms: Iterable[nn.Module]) -> bool:
    """Whether a batch normalisation has a shift that trains."""
    shifts = [getattr(norm, "bias", None) for norm in norms]
    return any(shift is not None and shift.requires_grad for shift in shifts)
