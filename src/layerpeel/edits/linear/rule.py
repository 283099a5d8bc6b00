"""Which layers are merged that are not exactly linear."""

from __future__ import annotations

import math

import torch

from layerpeel._checks import as_number, positive
from layerpeel.edits.linear.layer_linearity import LayerLinearity
from layerpeel.edits.linear.place import Place


class Rule:
    """Says what is in the way of a merge that is not exact.

    Args:
        tolerance: The largest relative change of what a reader returns.
        correlation: The minimal correlation to be above, instead.

    Raises:
        ValueError: If both are given, or one is out of range.
    """

    def __init__(self, tolerance: float | None, correlation: float | None) -> None:
        if tolerance is not None and correlation is not None:
            raise ValueError(
                "Layers are chosen by `tolerance` or by `correlation`; got both. Pass one."
            )
        number = 1.0 if correlation is None else as_number(correlation)
        if number is None or not 0 <= number <= 1:
            raise ValueError(f"`correlation` must lie in [0, 1]; got {correlation!r}.")
        self.tolerance = None if tolerance is None else positive("tolerance", tolerance)
        self.correlation = None if correlation is None else number

    @property
    def approximate(self) -> bool:
        """Whether layers are merged that are not exactly linear."""
        return self.tolerance is not None or self.correlation is not None

    def refusal(self, row: LayerLinearity, floor: float) -> str:
        """Return why a layer is not linear enough by what was seen; empty if it is."""
        if row.exact:
            return ""
        if self.correlation is not None:
            if row.minimal_correlation > self.correlation:
                return ""
            return (
                f"its minimal correlation is {row.minimal_correlation:.4g}, not above "
                f"{self.correlation:g}"
            )
        if self.tolerance is None:
            return not_exact(row)
        if row.residual_by == "exact":
            return self.excess(row.residual, floor)
        return ""

    def excess(self, change: float, floor: float) -> str:
        """Return by what a change is too large; empty if it is not."""
        if self.tolerance is None or change <= max(self.tolerance, floor):
            return ""
        return (
            f"it would change its reader by {change:.3g}, and the tolerance is "
            f"{max(self.tolerance, floor):.3g}"
        )


def not_exact(row: LayerLinearity) -> str:
    """Return why a layer is not exactly linear."""
    if bool(row.margin.isnan().all()):
        where = f"{row.activation} has no affine piece"
    else:
        outside = (~row.inside).nonzero().flatten().tolist()
        where = (
            f"{len(outside)} of {row.width} neurons leave their affine piece, the first "
            f"is {outside[0]}"
        )
    if row.residual_by == "undefined":
        return f"{where}; `tolerance` can allow least-squares lines instead"
    most = "at most " if row.residual_by == "bound" else ""
    return (
        f"{where}; a least-squares line would change its reader by {most}"
        f"{row.residual:.3g}, which `tolerance` can allow"
    )


def floor_of(place: Place) -> float:
    r"""Return :math:`\sqrt{W \epsilon}` for the neurons of a place and their type."""
    eps = torch.finfo(place.producer.module.weight.dtype).eps
    return math.sqrt(place.width * eps)
