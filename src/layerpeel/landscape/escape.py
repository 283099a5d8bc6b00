"""Along a direction of descent, as far as it goes down."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float64
from torch import Tensor, nn

from layerpeel._checks import at_least, positive
from layerpeel._tolerances import EPS
from layerpeel.landscape.reduction import LossFunction
from layerpeel.landscape.risk import Risk

# The first step, as a share of the length of the parameters, or of one if they vanish:
# the cube root of the unit roundoff, where a quadratic drop is well above rounding.
_FIRST = EPS ** (1 / 3)


class EscapeStatus(enum.Enum):
    """How a search along a direction ended. The value is the sentence for the user."""

    LOWERED = "The risk is lower at the new model than at the old one."
    NOT_LOWERED = (
        "The risk is not lower at the new model. Is it a direction of descent, at this "
        "point and on these data? A search that finds no step returns the old model."
    )


@dataclass(frozen=True, eq=False, repr=False)
class Escape:
    r"""A model further down, and how well the quadratic model foresaw it.

    Printed, it is its summary.

    Attributes:
        model: A new model, in the caller's dtype and modes.
        status: How it ended; the value is advice.
        step: The signed length that the parameters moved along the unit direction.
        loss_before: The risk at the caller's model.
        loss_after: The risk at the new model.
        predicted_drop: :math:`-t\, g^\top v - \tfrac12 t^2\, v^\top H v` at that step
            :math:`t`; good only as long as the step is short.
        slope: :math:`g^\top v`.
        curvature: :math:`v^\top H v`.
    """

    model: nn.Module
    status: EscapeStatus
    step: float
    loss_before: float
    loss_after: float
    predicted_drop: float
    slope: float
    curvature: float

    @property
    def measured_drop(self) -> float:
        """By how much the risk went down."""
        return self.loss_before - self.loss_after

    def summary(self) -> str:
        """Return how it ended and by how much, as lines of text."""
        return "\n".join(
            [
                f"{self.status.name}: {self.status.value}",
                f"risk {self.loss_before:.6g} -> {self.loss_after:.6g} by a step of "
                f"{self.step:.3g}, {self.predicted_drop:.3g} foreseen of "
                f"{self.measured_drop:.3g}",
                f"slope {self.slope:.3g}, curvature {self.curvature:.3g} at its start",
            ]
        )

    def __repr__(self) -> str:
        return self.summary()


def escape(
    model: nn.Module,
    direction: Mapping[str, Tensor] | Tensor,
    loss_fn: LossFunction,
    data: Iterable[Any],
    *,
    step: float | None = None,
    max_doublings: int = 60,
    reduction: str = "mean",
    progress: bool | None = None,
) -> Escape:
    """Move a model along a direction, as far as the risk goes down.

    The step is doubled as long as the risk falls, from one that is short enough for the
    quadratic model to hold. Both signs are tried: negative curvature goes down on both
    sides, and higher orders tell which is better. What is measured is the risk of the
    new model, after rounding to its dtype.

    Args:
        model: Any module; it stays as it is.
        direction: Tensors by parameter name, as in ``CriticalPoint.escape_direction``,
            or a flat vector; of any length. Names that are left out do not move.
        loss_fn: Takes outputs and targets, returns a scalar.
        data: Batches ``(input, target)``; read once.
        step: The length to move; searched for when omitted. A given one is taken along
            the direction as it is.
        max_doublings: The limit on doublings of the step.
        reduction: What ``loss_fn`` does over the samples of a batch: ``"mean"`` or
            ``"sum"``.
        progress: Whether to show a progress bar; on a terminal when omitted.

    Raises:
        StateError: If a name belongs to no trainable parameter.
        ShapeError: If a direction has another shape than its parameter.
        NonFiniteError: If the direction holds NaN or infinity.
        ValueError: If it is zero, a number is out of its range, or model, loss and data
            define no risk; see :meth:`Risk.of`.

    Example:
        >>> import torch
        >>> model = nn.Linear(1, 1, bias=False)
        >>> model.weight.data.fill_(3.0)
        tensor([[3.]])
        >>> data = [(torch.ones(2, 1), torch.zeros(2, 1))]
        >>> moved = escape(
        ...     model, {"weight": -torch.ones(1, 1)}, nn.functional.mse_loss, data, step=1.0
        ... )
        >>> moved.model.weight.item(), moved.predicted_drop, moved.measured_drop
        (2.0, 5.0, 5.0)
    """
    if step is not None:
        positive("step", step)
    at_least("max_doublings", max_doublings, 1)
    risk = Risk.of(model, loss_fn, data, reduction=reduction, progress=progress)
    line = _Line(model, risk, _unit(risk.parameters.flat(direction)))
    length = line.lowest(max_doublings) if step is None else step
    return line.moved(length)


class _Line:
    """The risk along a line through the model."""

    def __init__(
        self, model: nn.Module, risk: Risk, direction: Float64[Tensor, " p"]
    ) -> None:
        self._model, self._risk, self._direction = model, risk, direction
        self._start = risk.value()

    def lowest(self, max_doublings: int) -> float:
        """Return the signed step to the lowest risk that doubling finds; else zero."""
        ends = [self._doubled(sign, max_doublings) for sign in (1.0, -1.0)]
        value, step = min(ends, key=lambda end: end[0])
        return step if value < self._start else 0.0

    def moved(self, step: float) -> Escape:
        """Return the outcome of a step, in the dtype of the model."""
        new = deepcopy(self._model)
        if step:
            self._risk.parameters.write(new, self._at(step))
        after = self._risk.value(self._risk.parameters.read(new))
        slope = float(self._risk.gradient() @ self._direction)
        curvature = self._risk.curvature(self._direction).value
        lowered = after < self._start
        return Escape(
            model=new,
            status=EscapeStatus.LOWERED if lowered else EscapeStatus.NOT_LOWERED,
            step=step,
            loss_before=self._start,
            loss_after=after,
            predicted_drop=-step * slope - step**2 * curvature / 2,
            slope=slope,
            curvature=curvature,
        )

    def _doubled(self, sign: float, max_doublings: int) -> tuple[float, float]:
        """Return the lowest risk on one side, and the step there."""
        scale = float(self._risk.point.norm()) or 1.0
        best, step = (self._start, 0.0), sign * _FIRST * scale
        noise = 4 * EPS * abs(self._start)
        for _ in range(max_doublings):
            value = self._risk.value(self._at(step))
            # What so short a step gains may be lost in rounding: it is worth going on.
            lost = best[1] == 0.0 and value <= self._start + noise
            # Whatever is compared with NaN ends the search.
            if not (value < best[0] or lost):
                break
            if value < best[0]:
                best = value, step
            step *= 2
        return best

    def _at(self, step: float) -> Float64[Tensor, " p"]:
        return self._risk.point + step * self._direction


def _unit(direction: Float64[Tensor, " p"]) -> Float64[Tensor, " p"]:
    norm = float(direction.norm())
    if norm == 0:
        raise ValueError(
            "A direction must have a length above 0; it is zero everywhere."
        )
    return direction / norm
