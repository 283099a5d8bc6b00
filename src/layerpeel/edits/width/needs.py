"""What an edit can be asked for with data, with a loss, and without."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def check_data(data: Iterable[Any] | None, loss_fn: object, *, needed: bool) -> None:
    """Check that a loss comes with data.

    Args:
        data: The loader, or none.
        loss_fn: The loss, or none.
        needed: Whether eigenvalues are asked for, which need both.

    Raises:
        TypeError: If the loss is no function.
        ValueError: If something is missing.
    """
    if loss_fn is not None and not callable(loss_fn):
        raise TypeError(
            "`loss_fn` must be a function of outputs and targets, such as "
            f"`torch.nn.functional.cross_entropy`; got {loss_fn!r}."
        )
    if loss_fn is not None and data is None:
        raise ValueError(
            "`loss_fn` is evaluated on data; got none. Pass `data=loader` as well, or "
            "neither of them."
        )
    if needed and (loss_fn is None or data is None):
        raise ValueError(
            "`check_inertia=True` computes eigenvalues of the Hessian of the risk, which "
            "needs `data=loader` and `loss_fn`; pass both, or leave the check out."
        )
