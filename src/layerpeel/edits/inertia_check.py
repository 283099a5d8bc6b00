"""What an edit adds to the signs of the Hessian's eigenvalues, by computing them all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from layerpeel._checks import EditError
from layerpeel._tolerances import CRITICAL_GRADIENT, EIGENVALUE_GAP, GRADIENT_MARGIN
from layerpeel.edits.data import Data
from layerpeel.edits.loss import Loss, LossFunction
from layerpeel.edits.passes import is_sum
from layerpeel.landscape.inertia import Inertia, zero_tolerance
from layerpeel.landscape.kinks import kinks
from layerpeel.landscape.risk import Risk

# Dense Hessians of more parameters take minutes.
MOST_PARAMETERS = 2000

_OMIT = "leave the check out: what is predicted then stands as predicted"


def inertia_shift(
    before: nn.Module,
    after: nn.Module,
    loss_fn: LossFunction,
    data: Data | Iterable[Any],
) -> tuple[int, int, int]:
    r"""Return what the numbers of negative, zero and positive eigenvalues grow by.

    The dense Hessians of the risk are taken in float64 with respect to the trainable
    parameters of either model. Eigenvalues are zero up to the rounding of a dense
    Hessian; at critical points up to ten times the gradient as well, which moves zeros
    by about its own size. Elsewhere the signs are those of the Hessian as it is.

    References:
        | Embedding principle in depth for the loss landscape analysis of deep neural
        | networks (Bai, Luo, Xu & Zhang, 2022), https://arxiv.org/abs/2205.13283

    Args:
        before: The model before the edit, in float64.
        after: The model after it, in float64.
        loss_fn: Takes outputs and targets and returns the mean over the batch.
        data: The loader.

    Raises:
        EditError: If there are too many parameters for a dense Hessian, or they are not
            in float64, samples lie on kinks, or eigenvalues are too near to zero for a
            sign. There is no shift then, rather than a doubtful one.

    Example:
        >>> before = nn.Linear(1, 1, bias=False).double()
        >>> after = nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in "ab")).double()
        >>> _ = [p.data.fill_(2.0) for p in (*before.parameters(), after[0].weight)]
        >>> _ = after[1].weight.data.fill_(1.0)
        >>> x = torch.ones(2, 1, dtype=torch.float64)
        >>> inertia_shift(before, after, nn.functional.mse_loss, [(x, 2 * x)])
        (0, 1, 0)
    """
    held = data if isinstance(data, Data) else Data(data, before)
    for model in (before, after):
        _check_size(model)
    loss_fn = Loss.of(loss_fn, before, held)
    old, new = (_signs(model, loss_fn, held) for model in (before, after))
    shift = [b - a for a, b in zip(old, new, strict=True)]
    return shift[0], shift[1], shift[2]


def _check_size(model: nn.Module) -> None:
    trained = [p for p in model.parameters() if p.requires_grad]
    size = sum(p.numel() for p in trained)
    if size > MOST_PARAMETERS:
        raise EditError(
            f"Eigenvalues are computed of up to {MOST_PARAMETERS} trainable parameters; "
            f"the model has {size}. Freeze layers whose curvature does not matter, or "
            f"{_OMIT}."
        )
    if any(p.dtype != torch.float64 for p in trained):
        raise EditError(
            "Eigenvalues are computed of models in float64, as zeros are no zeros in "
            f"less; got {trained[0].dtype}. Edit `model.double()`, or {_OMIT}."
        )


def _signs(model: nn.Module, loss_fn: LossFunction, data: Data) -> tuple[int, int, int]:
    """Return the numbers of negative, zero and positive eigenvalues of one model."""
    if not any(p.requires_grad for p in model.parameters()):
        return 0, 0, 0
    reduction = "sum" if is_sum(loss_fn) else "mean"
    risk = Risk.of(model, loss_fn, data.loader, reduction=reduction, progress=False)
    touched = kinks(risk)
    if touched.are_touched:
        raise EditError(
            f"The Hessian must exist where eigenvalues are computed; {touched.touching} "
            f"of {touched.of} pre-activations are on a kink, first at {touched.where}. "
            f"Move the point, or {_OMIT}."
        )
    matrix = risk.hessian(progress=False)
    values = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    error = float((matrix - matrix.T).norm()) / 2
    gradient = float(risk.gradient().norm())
    zero = zero_tolerance(values, error)
    if gradient <= CRITICAL_GRADIENT:
        zero = max(zero, GRADIENT_MARGIN * gradient)
    doubtful = (values.abs() > zero) & (values.abs() <= EIGENVALUE_GAP * zero)
    if bool(doubtful.any()):
        raise EditError(
            f"Eigenvalues must be zero or stand out to be counted; "
            f"{int(doubtful.sum())} of {len(values)} are between {zero:.2g} and "
            f"{EIGENVALUE_GAP * zero:.2g}, with a gradient of {gradient:.2g}. Move to a "
            f"critical point with `polish`, or {_OMIT}."
        )
    return Inertia.of(values, tolerance=zero).signs
