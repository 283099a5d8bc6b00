"""What a closed form assumes of its program; outside it, a clear error."""

from __future__ import annotations

import math

from jaxtyping import Float64
from torch import Tensor

from layerpeel._tolerances import EQUAL_COUNTS
from layerpeel.program.class_level import ClassLevel, SoftmaxLoss, SquaredLoss
from layerpeel.program.regulariser import Regulariser


def require(holds: bool, what: str, got: object) -> None:
    """Raise if an assumption of a closed form does not hold.

    Raises:
        ValueError: If ``holds`` is false.
    """
    if not holds:
        raise ValueError(
            f"This closed form needs {what}; got {got}. "
            'Use `method="auto"`, which takes a solver that fits.'
        )


def softmax_loss(program: ClassLevel) -> SoftmaxLoss:
    """Return the loss of a cross-entropy program with one layer."""
    name = type(program.loss).__name__
    require(isinstance(program.loss, SoftmaxLoss), "the cross-entropy", name)
    require(program.regulariser.depth == 1, "one layer", program.regulariser.depth)
    assert isinstance(program.loss, SoftmaxLoss)
    return program.loss


def squared_loss(program: ClassLevel) -> SquaredLoss:
    """Return the loss of a squared-error program."""
    name = type(program.loss).__name__
    require(isinstance(program.loss, SquaredLoss), "the squared error", name)
    assert isinstance(program.loss, SquaredLoss)
    return program.loss


def are_alike(values: Float64[Tensor, " K"]) -> bool:
    """Return whether all values are equal, up to the rounding of equal counts."""
    low, high = float(values.min()), float(values.max())
    return high - low <= 2 * EQUAL_COUNTS * max(abs(low), abs(high))


def common_value(name: str, values: Float64[Tensor, " K"]) -> float:
    """Return the value that all classes share.

    Raises:
        ValueError: If they do not share one.
    """
    span = f"values from {float(values.min()):g} to {float(values.max()):g}"
    require(are_alike(values), f"the same {name} for every class", span)
    low, high = float(values.min()), float(values.max())
    return low if low == high else float(values.mean())


def require_symmetric(loss: SoftmaxLoss) -> None:
    """Raise if offsets or smoothed targets tell wrong classes apart."""
    common_value("offset", loss.offset)
    if bool(loss.smoothing.any()):
        common_value("share of the common target", loss.common)


def require_width(program: ClassLevel, rank: int) -> None:
    """Raise if the solution, of the given rank, does not fit the feature dimension."""
    width = math.inf if program.width is None else program.width
    require(width >= rank, f"a width of at least {rank}", program.width)


def checked_regulariser(program: ClassLevel) -> Regulariser:
    """Return the regulariser, of one layer where it is a budget."""
    regulariser = program.regulariser
    bounded = regulariser.budget is not None
    require(not bounded or regulariser.depth == 1, "one layer", regulariser.depth)
    return regulariser
