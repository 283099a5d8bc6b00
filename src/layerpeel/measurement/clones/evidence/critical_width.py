r"""How narrow a chunk still does what the layer does: by stated criteria.

There is no single critical width :math:`w_c^*`: each criterion asks something else, and
where they disagree, that says something. A chunk that reconstructs the layer but cannot
be read by its classifier is evidence of low rank, not of clones.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485: clones, with
    | a critical width judged by eye
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerpeel._checks import ShapeError, at_least, undefined

CRITERIA: Mapping[str, str] = MappingProxyType(
    {
        "interpolation": "the chunk's training error reaches that of the network",
        "reconstruction": "R^2 of linear reconstruction from the chunk",
        "readout": "raw error less folded error: the classifier reads the chunk as is",
    }
)
"""What each criterion asks of a chunk, by its name."""

# Each of these defaults can be given instead. On the training set of a network that fits
# it an error of a few samples in ten thousand is no error; a thousandth allows for it.
INTERPOLATION_SLACK = 1e-3
# What the authors' figures call close to 1; it leaves a tenth in standard deviations.
RECONSTRUCTION_LEAST = 0.99
# A change of test error by less is within a standard deviation for 10,000 samples at 1 %.
READOUT_SLACK = 1e-3


@dataclass(frozen=True)
class CriticalWidth:
    """The answer of one criterion.

    Attributes:
        criterion: Its name, a key of ``CRITERIA``.
        width: The narrowest width from which on it is met at every wider one measured;
            NaN if it is not met at the widest.
        below: The widest width measured at which it is not met; 0 if it is at all. The
            critical width lies above this and is at most ``width``.
        clones: The number of clones, the layer's width over ``width``.
        threshold: The value that was to be reached.
        ascending: Whether it had to be reached from below.
    """

    criterion: str
    width: float
    below: int
    clones: float
    threshold: float
    ascending: bool

    def __str__(self) -> str:
        sign = ">=" if self.ascending else "<="
        rule = f"{self.criterion} {sign} {self.threshold:.4g}"
        if math.isnan(self.width):
            return f"{rule}: not met at any width that it stays met from"
        return f"{rule}: {self.below} < w <= {self.width:.0f}, {self.clones:.3g} clones"


def crossing(
    criterion: str,
    layer_width: int,
    widths: Sequence[int],
    values: Tensor,
    threshold: float,
    *,
    ascending: bool,
) -> CriticalWidth:
    """Return the narrowest width from which on a curve stays beyond a threshold.

    Args:
        criterion: What to call it.
        layer_width: The width :math:`W` of the layer.
        widths: Chunk widths, with shape :math:`(m,)`, in any order.
        values: The curve, with shape :math:`(m,)`, or one value per chunk, with shape
            :math:`(m, r)`: their mean is compared, NaN left out.
        threshold: The value to reach.
        ascending: Whether the curve has to be at least the threshold, or at most.

    Returns:
        The answer; a width of NaN, with a warning, if the criterion is never met. Where
        a curve is NaN the criterion is not met, unless nothing wider is known: a whole
        layer has no neurons outside.

    Raises:
        ShapeError: If widths and values disagree.
        ValueError: If a width is not between 1 and the layer's, or appears twice.

    Example:
        >>> values = torch.tensor([0.5, 0.98, 0.995, 0.999])
        >>> answer = crossing(
        ...     "reconstruction", 512, [32, 64, 128, 256], values, 0.99, ascending=True
        ... )
        >>> answer.width, answer.below, answer.clones
        (128.0, 64, 4.0)
    """
    x, curve = _curve(criterion, layer_width, widths, values)
    met = curve >= threshold if ascending else curve <= threshold
    failing = x[~met]
    below = int(failing[-1]) if len(failing) else 0
    beyond = x[x > below]
    sign = "at least" if ascending else "at most"
    if len(beyond):
        width = float(beyond[0])
    else:
        at = f"{curve[-1]:.4g} at width {x[-1]}" if len(x) else "nothing"
        width = undefined(
            f"The critical width by {criterion} is undefined (NaN): the curve must come "
            f"to {sign} {threshold:.4g}, and is {at}. Measure wider chunks."
        )
    return CriticalWidth(
        criterion, width, below, layer_width / width, threshold, ascending
    )


def critical_widths(
    layer_width: int,
    widths: Sequence[int],
    *,
    train_errors: Tensor | None = None,
    full_train_error: float | None = None,
    r_squared: Tensor | None = None,
    raw_errors: Tensor | None = None,
    folded_errors: Tensor | None = None,
    interpolation_slack: float = INTERPOLATION_SLACK,
    reconstruction_least: float = RECONSTRUCTION_LEAST,
    readout_slack: float = READOUT_SLACK,
) -> dict[str, CriticalWidth]:
    """Return the critical width by each criterion that there is a curve for.

    Every curve has shape :math:`(m,)`, or :math:`(m, r)` with one value per chunk.

    Args:
        layer_width: The width :math:`W` of the layer.
        widths: Chunk widths, with shape :math:`(m,)`.
        train_errors: Raw error of chunks on the training set.
        full_train_error: That of the whole network; needed with the former.
        r_squared: :math:`R^2` of linear reconstruction, best of held-out data.
        raw_errors: Error of chunks with the classifier as it is.
        folded_errors: Error with the reconstruction folded into it; needed with the
            former, and on the same data.
        interpolation_slack: By how much training errors may differ.
        reconstruction_least: The :math:`R^2` to reach.
        readout_slack: By how much raw and folded error may differ.

    Returns:
        The answers by name, in the order of ``CRITERIA``; those without a curve are
        left out.

    Raises:
        ShapeError: If widths and curves disagree.
        ValueError: If one of a pair is missing, or there is no curve, or a width is not
            between 1 and the layer's.
    """
    _check_pair("train_errors", train_errors, "full_train_error", full_train_error)
    _check_pair("raw_errors", raw_errors, "folded_errors", folded_errors)
    curves: dict[str, tuple[Tensor, float, bool]] = {}
    if train_errors is not None and full_train_error is not None:
        reach = full_train_error + interpolation_slack
        curves["interpolation"] = (train_errors, reach, False)
    if r_squared is not None:
        curves["reconstruction"] = (r_squared, reconstruction_least, True)
    if raw_errors is not None and folded_errors is not None:
        gap = _mean(raw_errors) - _mean(folded_errors)
        curves["readout"] = (gap, readout_slack, False)
    if not curves:
        raise ValueError(
            "There must be a curve to judge by; got none. Pass `train_errors` with "
            "`full_train_error`, `r_squared`, or `raw_errors` with `folded_errors`."
        )
    return {
        name: crossing(name, layer_width, widths, values, limit, ascending=ascending)
        for name, (values, limit, ascending) in curves.items()
    }


def _curve(
    criterion: str, layer_width: int, widths: Sequence[int], values: Tensor
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return ascending widths and mean values, without NaN at the wide end."""
    x = np.array([at_least("widths", width, 1) for width in widths], dtype=np.int64)
    curve = _mean(values).numpy()
    if len(curve) != len(x):
        raise ShapeError(
            f"The curve of {criterion} must have one row for each of {len(x)} widths; "
            f"got shape {tuple(values.shape)}."
        )
    if (x > layer_width).any() or len(set(x.tolist())) < len(x):
        raise ValueError(
            f"`widths` must be distinct, and at most the layer's {layer_width}; got "
            f"{list(widths)}."
        )
    rising = x.argsort()
    x, curve = x[rising], curve[rising]
    known = np.flatnonzero(~np.isnan(curve))
    end = known[-1] + 1 if len(known) else 0
    return x[:end], curve[:end]


def _mean(values: Tensor) -> Tensor:
    """Return the mean over chunks, if there are several per width."""
    if values.ndim not in (1, 2):
        raise ShapeError(
            "A curve must have shape (m,), or (m, r) with one value per chunk; got "
            f"{tuple(values.shape)}."
        )
    values = values.detach().to("cpu", torch.float64)
    return values if values.ndim == 1 else values.nanmean(1)


def _check_pair(name: str, value: object, other: str, others: object) -> None:
    if (value is None) != (others is None):
        given, missing = (other, name) if value is None else (name, other)
        raise ValueError(
            f"`{name}` and `{other}` must be given together; got only `{given}`. Pass "
            f"`{missing}` too."
        )
