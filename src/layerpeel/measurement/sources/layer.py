"""A last layer and its classes, checked before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import HeadError, NonFiniteError, ShapeError
from layerpeel.measurement.sources.classes import check_minority, named_classes


@dataclass(frozen=True, eq=False)
class Layer:
    """A last layer, and what its classes are called.

    Attributes:
        path: Path of the head in its model.
        weight: Classifiers, with shape :math:`(K, d)`.
        bias: Their bias, with shape :math:`(K,)`, or ``None``.
        class_names: Names of the :math:`K` classes.
        minority: Indices of the minority classes; found from the counts if ``None``.
    """

    path: str
    weight: Float64[Tensor, "K d"]
    bias: Float64[Tensor, " K"] | None
    class_names: tuple[str, ...]
    minority: Sequence[int] | None


def checked_layer(
    path: str,
    weight: Tensor,
    bias: Tensor | None,
    num_classes: int | None,
    class_names: Sequence[str] | None,
    minority: Sequence[int] | None,
) -> Layer:
    """Return a last layer after all checks that need no data.

    Args:
        path: Path of the head in its model.
        weight: Classifiers in float64.
        bias: Their bias in float64, or ``None``.
        num_classes: The number of classes the caller states, if any.
        class_names: Their names, if any.
        minority: Indices of the minority classes, if any.

    Raises:
        ShapeError: If weight and bias are not :math:`(K, d)` and :math:`(K,)`.
        HeadError: If there is not one output per class, or fewer than two.
        NonFiniteError: If the weight or the bias has NaN or infinite entries.
        ValueError: If ``minority`` does not hold class indices.
    """
    _check_shapes(weight, bias)
    _check_size(len(weight), num_classes, class_names)
    _check_finite("weight", weight)
    if bias is not None:
        _check_finite("bias", bias)
    check_minority(minority, len(weight))
    return Layer(path, weight, bias, named_classes(class_names, len(weight)), minority)


def _check_shapes(weight: Tensor, bias: Tensor | None) -> None:
    if weight.ndim != 2:
        raise ShapeError(
            "`weight` must have shape (K, d), one row per class; got "
            f"{tuple(weight.shape)}."
        )
    if bias is not None and tuple(bias.shape) != (len(weight),):
        raise ShapeError(
            f"`bias` must have shape ({len(weight)},), one entry per row of `weight`; "
            f"got {tuple(bias.shape)}."
        )


def _check_size(
    outputs: int, num_classes: int | None, class_names: Sequence[str] | None
) -> None:
    """Check that a head has one output per class.

    Raises:
        HeadError: If it has another number, or fewer than two.
    """
    if outputs < 2:
        raise HeadError(
            f"A head must have at least 2 outputs, one per class; got {outputs}. For a "
            "sigmoid unit, two logits with rows 0 and w have the same probabilities."
        )
    stated = {
        "`num_classes` is": num_classes,
        "`class_names` has length": None if class_names is None else len(class_names),
    }
    for what, number in stated.items():
        if number is not None and number != outputs:
            raise HeadError(
                f"The head must have one output per class; it has {outputs}, and {what}"
                f" {number}. Leave the argument out to use all outputs, correct it, or "
                "replace the head by one of that size."
            )


def _check_finite(name: str, values: Tensor) -> None:
    bad = int((~values.isfinite()).sum())
    if bad:
        raise NonFiniteError(
            f"The head's {name} must be finite; {bad} of its {values.numel()} entries "
            "are NaN or infinite. Training has diverged: take an earlier checkpoint."
        )
