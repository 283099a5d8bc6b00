r"""Two layers in a row as one: the matrix identity, and the same for convolutions.

With :math:`a \odot (U x) + k` as what the reader :math:`V g + c'` sees, the one layer has
the weights :math:`W = V \mathrm{diag}(a) U` and the bias :math:`V k + c'`. For
convolutions the kernels are composed: taps at :math:`d_1 i` and taps at :math:`d_2 j` of
a map with stride :math:`s_1` are taps at :math:`d_1 i + s_1 d_2 j`. So the kernel has
:math:`(d_1 (k_1 - 1) + s_1 d_2 (k_2 - 1)) / \delta + 1` taps, for the greatest common
divisor :math:`\delta` of the steps as dilation, and the stride is :math:`s_1 s_2`.

A reader that pads its input pads features. A pointwise producer without padding can pad
its own input instead: with zeros if its features of zero are zero, and with values from
the map if it has no stride. In other cases borders differ, and there is no such layer.

References:
    | Embedding principle in depth for the loss landscape analysis of deep neural networks
    | (Bai, Luo, Xu & Zhang, 2022), https://arxiv.org/abs/2205.13283: merging of layers
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from layerpeel._checks import EditError
from layerpeel.edits.linear.folding import Folded
from layerpeel.edits.linear.place import Place

Affine: TypeAlias = nn.Linear | nn.Conv2d
_PAIR = (0, 1)


def check_composable(place: Place, between: Folded) -> None:
    """Check that a layer and its reader are one layer in a row.

    Raises:
        EditError: If borders or groups of convolutions are in the way.
    """
    first, second = place.producer.module, place.reader.module
    if isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d):
        _padding(first, second, between.vanishes)


def composed(place: Place, between: Folded) -> Affine:
    """Return the one layer, of the reader's type, on its device.

    Raises:
        EditError: If borders or groups of convolutions are in the way.
    """
    first, second = place.producer.module, place.reader.module
    u, v = (m.weight.detach().double() for m in (first, second))
    v = torch.einsum("om...,m->om...", v, between.scale)
    # A convolution maps a constant by the sum over its taps, as nothing is padded.
    taps = second.weight.detach().double().reshape(*v.shape[:2], -1).sum(2)
    bias = taps @ between.constant
    bias = bias if second.bias is None else bias + second.bias.detach().double()
    needed = second.bias is not None or bool((bias != 0).any())
    given = bias if needed else None
    if isinstance(first, nn.Linear) or isinstance(second, nn.Linear):
        return _built(second, v @ u, given, {})
    padding, mode = _padding(first, second, between.vanishes)
    kernel, dilation = _kernel(first, second, u, v)
    options = {
        "stride": _products(first.stride, second.stride),
        "dilation": dilation,
        "padding": padding,
        "padding_mode": mode,
    }
    return _built(second, kernel, given, options)


def _kernel(
    first: nn.Conv2d, second: nn.Conv2d, u: Tensor, v: Tensor
) -> tuple[Tensor, tuple[int, int]]:
    """Return the composed kernel and its dilation."""
    steps, jumps, sizes = [], [], []
    for axis in _PAIR:
        k1, k2 = u.shape[2 + axis], v.shape[2 + axis]
        d1 = first.dilation[axis] if k1 > 1 else 0
        d2 = first.stride[axis] * second.dilation[axis] if k2 > 1 else 0
        unit = math.gcd(d1, d2) or 1
        steps.append((d1 // unit, d2 // unit))
        jumps.append(unit)
        sizes.append((d1 * (k1 - 1) + d2 * (k2 - 1)) // unit + 1)
    kernel = u.new_zeros(v.shape[0], u.shape[1], *sizes)
    for a, b in product(*(range(n) for n in v.shape[2:])):
        part = torch.einsum("om,mixy->oixy", v[:, :, a, b], u)
        rows, columns = (
            torch.arange(n, device=u.device) * steps[axis][0] + at * steps[axis][1]
            for axis, n, at in zip(_PAIR, u.shape[2:], (a, b), strict=True)
        )
        kernel[:, :, rows[:, None], columns] += part
    return kernel, (jumps[0], jumps[1])


def _padding(
    first: nn.Conv2d, second: nn.Conv2d, vanishes: bool
) -> tuple[tuple[int, int], str]:
    """Return the padding of the one convolution and its mode.

    Raises:
        EditError: If there is no such convolution.
    """
    for module in (first, second):
        if module.groups != 1:
            raise EditError(f"a convolution has {module.groups} groups")
    before, after = amounts(first), amounts(second)
    if not any(after):
        return before, first.padding_mode if any(before) else "zeros"
    if any(before) or math.prod(first.kernel_size) > 1:
        raise EditError(
            "the second convolution pads its input, and the first one is not pointwise "
            "without padding"
        )
    if second.padding_mode == "zeros":
        if not vanishes:
            raise EditError(
                "the second convolution pads with zeros, and features of zero are not "
                "zero"
            )
        return _products(first.stride, after), "zeros"
    if math.prod(first.stride) > 1:
        raise EditError(
            f"the second convolution pads by {second.padding_mode}, and the first one "
            "has a stride"
        )
    return after, second.padding_mode


def amounts(module: nn.Conv2d) -> tuple[int, int]:
    """Return the padding on either side of height and width.

    Raises:
        EditError: If both sides differ.
    """
    if module.padding == "valid":
        return 0, 0
    if isinstance(module.padding, str):
        totals = [
            d * (k - 1)
            for d, k in zip(module.dilation, module.kernel_size, strict=True)
        ]
        if any(total % 2 for total in totals):
            raise EditError("a convolution pads one side more than the other")
        return totals[0] // 2, totals[1] // 2
    return module.padding[0], module.padding[1]


def _products(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, int]:
    return a[0] * b[0], a[1] * b[1]


def _built(
    like: Affine, weight: Tensor, bias: Tensor | None, options: dict[str, Any]
) -> Affine:
    """Return a module with some weights, made without drawing random numbers."""
    outs, ins, *size = weight.shape
    where: dict[str, Any] = {"device": "meta", "dtype": like.weight.dtype}
    where |= {"bias": bias is not None, **options}
    module: Affine
    if size:
        module = nn.Conv2d(ins, outs, (size[0], size[1]), **where)
    else:
        module = nn.Linear(ins, outs, **where)
    module = module.to_empty(device=like.weight.device)
    with torch.no_grad():
        module.weight.copy_(weight)
        if module.bias is not None and bias is not None:
            module.bias.copy_(bias)
    module.weight.requires_grad_(like.weight.requires_grad)
    if module.bias is not None:
        same = like.weight if like.bias is None else like.bias
        module.bias.requires_grad_(same.requires_grad)
    return module
