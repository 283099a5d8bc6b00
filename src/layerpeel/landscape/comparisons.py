"""What functions with kinks compare: numbers with places, or with the largest of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerpeel._tolerances import KINK_ULPS
from layerpeel.landscape.windows import pooled_windows, reduced_windows

# Where each activation has no second derivative.
_FIXED: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("relu", "leaky_relu", "prelu", "rrelu", "selu", "abs"), (0.0,)),
    # With alpha = 1 the slope of these goes on, but not their curvature.
    **dict.fromkeys(("elu", "celu"), (0.0,)),
    "relu6": (0.0, 6.0),
    **dict.fromkeys(("hardsigmoid", "hardswish"), (-3.0, 3.0)),
}

# Those that have them where their arguments say: names, positions and defaults.
_ARGUMENTS: dict[str, tuple[tuple[str, int, float | None], ...]] = {
    "hardtanh": (("min_val", 1, -1.0), ("max_val", 2, 1.0)),
    "clamp": (("min", 1, None), ("max", 2, None)),
    "clip": (("min", 1, None), ("max", 2, None)),
    "clamp_min": (("min", 1, None),),
    "clamp_max": (("max", 1, None),),
    "threshold": (("threshold", 1, 0.0),),
    "hardshrink": (("lambd", 1, 0.5),),
    "softshrink": (("lambd", 1, 0.5),),
}

# Of two tensors: those that compare them, and losses with a kink at a residual.
_PAIRS = ("maximum", "minimum", "fmax", "fmin", "l1_loss")
_RESIDUALS = {"smooth_l1_loss": "beta", "huber_loss": "delta"}

_LARGEST = ("max", "amax")
_SMALLEST = ("min", "amin")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Numbers that one call of a function compares, in rows: one row per decision.

    Attributes:
        values: The numbers, with shape :math:`(n, w)`.
        among: Whether those of a row are compared with the largest of them; else each
            is compared with zero.
        scale: The size of what is compared.
    """

    values: Tensor
    among: bool
    scale: float

    @property
    def tolerance(self) -> float:
        """The difference that rounding may make."""
        return KINK_ULPS * torch.finfo(self.values.dtype).eps * self.scale

    @property
    def leaders(self) -> Tensor | None:
        """Which number of each row is the largest, with shape :math:`(n, 1)`."""
        return self.values.argmax(1, keepdim=True) if self.among else None

    def gaps(self, leaders: Tensor | None) -> Tensor:
        """Return the signed distances from a tie, with shape :math:`(n, w)`.

        Args:
            leaders: With which number of its row each is compared; zero if omitted.
        """
        if leaders is None:
            return self.values.nan_to_num(nan=torch.inf, posinf=torch.inf)
        found = self.values - self.values.gather(1, leaders)
        return found.scatter(1, leaders, torch.inf).nan_to_num(
            nan=torch.inf, posinf=torch.inf, neginf=-torch.inf
        )

    def of_rows(self, rows: Tensor) -> Comparison:
        """Return some of the rows, with the scale of all."""
        return Comparison(self.values[rows], self.among, self.scale)


def comparison(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Comparison | None:
    """Return what a call compares; nothing for a smooth function, or an unknown one.

    Args:
        name: The name of the function, without underscores around it.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """
    x = args[0] if args else kwargs.get("input")
    if not isinstance(x, Tensor) or not x.is_floating_point() or not x.numel():
        return None
    other = _argument(args, kwargs, 1, "target" if "loss" in name else "other", None)
    if isinstance(other, Tensor) and name in (*_PAIRS, *_RESIDUALS, "max", "min"):
        return _of_pair(name, x, other, kwargs)
    if name in (*_LARGEST, *_SMALLEST):
        dims = _argument(args, kwargs, 1, "dim", None)
        x = x if name in _LARGEST else -x
        return _of_windows(x, reduced_windows(x, dims))
    if "max_pool" in name:
        return _of_windows(x, pooled_windows(name, x, args[1:], kwargs))
    return _of_places(x, _places(name, args, kwargs))


def _of_places(x: Tensor, places: list[float | Tensor]) -> Comparison | None:
    if not places:
        return None
    gaps = [x - place for place in places]
    shape = np.broadcast_shapes(*(gap.shape for gap in gaps))
    values = torch.stack([gap.expand(shape).flatten() for gap in gaps], 1)
    return Comparison(values, False, _size(x))


def _of_pair(
    name: str, x: Tensor, other: Tensor, kwargs: Mapping[str, Any]
) -> Comparison:
    residual = x - other
    # Positions of these are those of deprecated arguments.
    place = kwargs.get(_RESIDUALS.get(name, ""), 1.0)
    places = (place, -place) if name in _RESIDUALS else (0.0,)
    values = torch.stack([(residual - p).flatten() for p in places], 1)
    return Comparison(values, False, _size(x) + _size(other))


def _of_windows(x: Tensor, windows: Tensor | None) -> Comparison | None:
    if windows is None or windows.shape[-1] < 2:
        return None
    return Comparison(windows, True, _size(x))


def _places(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[float | Tensor]:
    if name in _FIXED:
        return list(_FIXED[name])
    values = [
        _argument(args, kwargs, position, key, default)
        for key, position, default in _ARGUMENTS.get(name, ())
    ]
    found = [value for value in values if value is not None]
    return [*found, *(-v for v in found)] if name.endswith("shrink") else found


def _argument(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    position: int,
    name: str,
    default: float | None,
) -> Any:  # noqa: ANN401 - whatever was passed
    return args[position] if len(args) > position else kwargs.get(name, default)


def _size(x: Tensor) -> float:
    finite = x[x.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0
