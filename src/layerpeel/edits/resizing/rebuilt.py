"""Modules like others, with other tensors: same geometry, dtype, device and flags."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def rebuilt_affine(
    module: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor | None
) -> nn.Linear | nn.Conv2d:
    """Return a linear layer or convolution with other weights, of any width.

    Args:
        module: What it is like.
        weight: The weight of the new module.
        bias: Its bias; ``None`` is none.
    """
    outs, ins = weight.shape[:2]
    new: nn.Linear | nn.Conv2d
    if isinstance(module, nn.Linear):
        new = nn.Linear(ins, outs, bias is not None, device="meta")
    else:
        new = nn.Conv2d(
            ins, outs, module.kernel_size, module.stride, module.padding,  # type: ignore[arg-type]
            module.dilation, 1, bias is not None, module.padding_mode, device="meta",  # type: ignore[arg-type]
        )  # fmt: skip
    new.weight = _parameter(weight, module.weight)
    if bias is not None:
        like = module.weight if module.bias is None else module.bias
        new.bias = _parameter(bias, like)
    return new.train(module.training)


def rebuilt_norm(module: nn.Module, values: Mapping[str, Tensor | None]) -> nn.Module:
    """Return a batch normalisation with other values, of any width.

    Args:
        module: What it is like.
        values: Its ``weight``, ``bias``, ``running_mean`` and ``running_var``.
    """
    if not isinstance(module, nn.modules.batchnorm._BatchNorm):
        raise TypeError(f"Not a batch normalisation: {type(module).__name__}.")
    size = next(len(v) for v in values.values() if v is not None)
    new = type(module)(
        size, module.eps, module.momentum, module.affine, module.track_running_stats,
        device="meta",
    )  # fmt: skip
    for name, value in values.items():
        old = getattr(module, name)
        if value is not None:
            parameter = isinstance(old, nn.Parameter)
            setattr(new, name, _parameter(value, old) if parameter else value)
    if module.num_batches_tracked is not None:
        new.num_batches_tracked = module.num_batches_tracked.clone()
    return new.train(module.training)


def rebuilt_prelu(module: nn.Module, slopes: Tensor | None) -> nn.PReLU:
    """Return a PReLU with other slopes, of any number."""
    if not isinstance(module, nn.PReLU) or slopes is None:
        raise TypeError(f"Not a PReLU: {type(module).__name__}.")
    new = nn.PReLU(len(slopes), device="meta")
    new.weight = _parameter(slopes, module.weight)
    return new.train(module.training)


def _parameter(values: Tensor, like: Tensor) -> nn.Parameter:
    # A clone: pointwise kernels are contiguous in either memory format, and torch would
    # return maps in the one that their strides suggest.
    plain = values.to(like).clone(memory_format=torch.contiguous_format)
    return nn.Parameter(plain, like.requires_grad)
