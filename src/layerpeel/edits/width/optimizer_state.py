r"""The optimizer of a wider model, with the state that its own training would have left.

The copies of a neuron get shares :math:`c` of its gradients with respect to incoming
weights, and the same gradients with respect to outgoing ones. What an optimizer
accumulates of gradients is so scaled by :math:`c`, and what it accumulates of their
squares by :math:`c^2`; for null neurons it is zero, as their gradients were. Weight decay
within the gradient is not told apart from it.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from layerpeel._checks import EditError, listed
from layerpeel.edits.resizing import Resizing
from layerpeel.edits.width.splits import Splits

# The power of the gradient that each kind of state grows with.
_POWERS = {
    **dict.fromkeys(("momentum_buffer", "exp_avg", "grad_avg", "exp_inf", "prev"), 1),
    **dict.fromkeys(("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum"), 2),
    **dict.fromkeys(("acc_delta", "step_size"), 0),
}
_SIZES = ("exp_inf",)  # of absolute values
# Steps that were divided by the size of gradients before: their signs alone are kept.
_DIVIDED: dict[type[Optimizer], tuple[str, ...]] = {
    torch.optim.RMSprop: ("momentum_buffer",),
}


def check_optimizer(optimizer: object, model: nn.Module) -> None:
    """Check that an optimizer is one of the parameters of a model.

    Raises:
        TypeError: If it is none.
        ValueError: If it has other parameters.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            "`optimizer` must be a torch.optim.Optimizer over the parameters of the "
            f"model; got a {type(optimizer).__name__}. Pass the optimizer itself, rather "
            "than a wrapper or its state."
        )
    own = {id(p) for p in model.parameters()}
    given = [p for group in optimizer.param_groups for p in group["params"]]
    strange = sum(id(p) not in own for p in given)
    if strange:
        raise ValueError(
            f"`optimizer` must be one of the given model; {strange} of its {len(given)} "
            "parameters are of another. Pass the model that it trains, as it is."
        )


def resized_optimizer(
    optimizer: Optimizer,
    before: nn.Module,
    after: nn.Module,
    resizing: Resizing,
    splits: Splits,
) -> Optimizer:
    """Return an optimizer of the wider model, with groups and state carried over.

    Args:
        optimizer: That of the model before; it stays as it is.
        before: The model before.
        after: The wider model.
        resizing: The layer that is wider.
        splits: Its new neurons.

    Raises:
        EditError: If there is state that is not known to grow with gradients.
    """
    names = {id(p): name for name, p in before.named_parameters()}
    wider = dict(after.named_parameters())
    ordered = [p for group in optimizer.param_groups for p in group["params"]]
    state = optimizer.state_dict()
    state["state"] = {
        i: _resized(optimizer, names[id(p)], p, resizing, splits)
        for i, p in enumerate(ordered)
        if p in optimizer.state
    }
    groups = [
        {**group, "params": [wider[names[id(p)]] for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    new = _built(optimizer, groups)
    new.load_state_dict(state)
    return new


def _built(optimizer: Optimizer, groups: list[dict[str, Any]]) -> Optimizer:
    """Return an optimizer of the same class."""
    accepted = inspect.signature(type(optimizer)).parameters
    options = {k: v for k, v in optimizer.defaults.items() if k in accepted}
    try:
        return type(optimizer)(groups, **options)
    except (TypeError, ValueError) as error:
        raise EditError(
            f"An optimizer must be made by parameter groups and its defaults; "
            f"{type(optimizer).__name__} raised {type(error).__name__}: {error}. Make it "
            "anew for the wider model, without `optimizer=`."
        ) from error


def _resized(
    optimizer: Optimizer, name: str, old: Tensor, resizing: Resizing, splits: Splits
) -> dict[str, Any]:
    rows, columns = resizing.row_axes(), resizing.column_axes()
    same = name not in rows and name not in columns
    found = dict[str, Any]()
    for key, value in optimizer.state[old].items():
        _check_known(key, value, name, old, same=same)
        if same or _is_scalar(value):
            found[key] = _copied(value)
        elif name in columns:
            found[key] = resizing.channels.gathered(value, 1, splits.sources)
        else:
            scales = _scales(optimizer, key, splits)
            found[key] = resizing.channels.scaled(value, 0, splits.sources, scales)
    return found


def _scales(optimizer: Optimizer, key: str, splits: Splits) -> Tensor:
    scales = splits.shares.pow(_POWERS[key])
    if key in _SIZES:
        scales = scales.abs()
    if key in _DIVIDED.get(type(optimizer), ()):
        scales = scales.sign()
    return torch.where(splits.sources < 0, 0.0, scales)


def _is_scalar(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0
    return value is None or isinstance(value, bool | int | float | str)


def _check_known(
    key: str, value: object, name: str, parameter: Tensor, *, same: bool
) -> None:
    """Check that state is of a kind that is carried over.

    Of a parameter that stays the same it may be any tensors, but nothing larger, and no
    lists: those hold steps of all parameters together.
    """
    if _is_scalar(value):
        return
    if isinstance(value, Tensor) and (
        value.numel() <= parameter.numel()
        if same
        else value.shape == parameter.shape and key in _POWERS
    ):
        return
    got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    raise EditError(
        "The state of an optimizer can be carried over if it is made of scalars and of "
        f"averages of gradients, which are {listed(sorted(_POWERS), 16)}; {key!r} of "
        f"{name!r} is not (got {got}, for a parameter of shape {tuple(parameter.shape)}). "
        "Make the optimizer anew for the wider model, without `optimizer=`."
    )


def _copied(value: Any) -> Any:  # noqa: ANN401 - state is of any kind
    return value.clone() if isinstance(value, Tensor) else value
