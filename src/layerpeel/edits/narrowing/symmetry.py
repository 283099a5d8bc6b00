r"""Which changes of a pre-activation an activation answers with a known change.

A positively homogeneous one has :math:`\sigma(c x) = c\, \sigma(x)` for :math:`c > 0`.
One with a reflection has :math:`\sigma(-x) = s\, \sigma(x) + t`: odd ones with
:math:`s = -1`, sigmoids with :math:`t = 1` besides, the absolute value with
:math:`s = 1`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Symmetry:
    r"""What an activation does with scaled and with reflected arguments.

    Attributes:
        homogeneous: Whether :math:`\sigma(c x) = c\, \sigma(x)` for all :math:`c > 0`.
        reflection: :math:`(s, t)` with :math:`\sigma(-x) = s\, \sigma(x) + t`, or
            ``None``.

    Example:
        >>> Symmetry.of(nn.ReLU())
        Symmetry(homogeneous=True, reflection=None)
        >>> Symmetry.of(nn.Tanh())
        Symmetry(homogeneous=False, reflection=(-1.0, 0.0))
    """

    homogeneous: bool
    reflection: tuple[float, float] | None

    @classmethod
    def of(cls, activation: nn.Module | None) -> Symmetry:
        """Return the symmetry of an activation; without one it is the identity."""
        module = nn.Identity() if activation is None else activation
        reflection = _REFLECTIONS.get(type(module), _none)(module)
        return cls(type(module) in _HOMOGENEOUS, reflection)


def _none(_: nn.Module) -> None:
    return None


def _odd(_: nn.Module) -> tuple[float, float]:
    return -1.0, 0.0


def _about_half(_: nn.Module) -> tuple[float, float]:
    return -1.0, 1.0


def _clamp(module: Any) -> tuple[float, float] | None:  # noqa: ANN401 - has two ends
    return (-1.0, 0.0) if module.min_val == -module.max_val else None


def _leaky(module: Any) -> tuple[float, float] | None:  # noqa: ANN401 - has a slope
    # The absolute value, and the identity.
    return {-1.0: (1.0, 0.0), 1.0: (-1.0, 0.0)}.get(float(module.negative_slope))


_HOMOGENEOUS = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU)
_REFLECTIONS: dict[type[nn.Module], Callable[[Any], tuple[float, float] | None]] = {
    nn.Identity: _odd,
    nn.Tanh: _odd,
    nn.Softshrink: _odd,
    nn.Hardshrink: _odd,
    nn.Hardtanh: _clamp,
    nn.LeakyReLU: _leaky,
    nn.Sigmoid: _about_half,
    nn.Hardsigmoid: _about_half,
}
