"""What callers pass as numbers, tensors and devices, told apart from what is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerpeel._checks import DeviceError, as_number, listed

# What is taken for a tensor, beside one.
Array = np.ndarray | Sequence[Any]


def numbers(
    name: str, values: object, *, each: str = "class", example: str = "[1.0, 1.0, 0.5]"
) -> tuple[float, ...]:
    """Return one number for each class, or each of something else, as floats.

    Args:
        name: The argument's name.
        values: A sequence, an array or any other ordered collection of numbers.
        each: What there is one number for.
        example: What to write, in the message for those who pass a single number.

    Raises:
        ValueError: If it is none, or has several dimensions or entries that are no
            numbers.
    """
    _refuse_shapes(name, values, each)
    if isinstance(values, str | bytes | Set) or not isinstance(values, Iterable):
        raise ValueError(
            f"`{name}` must be a sequence with one number for each {each}; got "
            f"{values!r}. Write for instance {example}."
        )
    if isinstance(values, Mapping):
        raise ValueError(
            f"`{name}` must be a sequence with one number for each {each}; got a "
            f"mapping. Pass its values, `list({name}.values())`."
        )
    entries = list(values)
    converted = [as_number(entry) for entry in entries]
    bad = [f"{each} {k}: {entries[k]!r}" for k, x in enumerate(converted) if x is None]
    if bad:
        raise ValueError(
            f"`{name}` must have one number for each {each}; got {listed(bad)}."
        )
    return tuple(x for x in converted if x is not None)


def real_tensor(name: str, values: object) -> Tensor:
    """Return numbers as a float64 tensor on the CPU, without a gradient.

    Args:
        name: The argument's name.
        values: A tensor, an array, or nested sequences of numbers.

    Raises:
        ValueError: If they are no real numbers, or not of one shape.
    """
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        tensor = None
    if tensor is None or tensor.is_complex():
        raise ValueError(
            f"`{name}` must be a tensor of real numbers, or an array or a list that "
            f"makes one; got {type(values).__name__}."
        )
    return tensor.detach().to("cpu", torch.float64)


def usable_device(device: torch.device | str) -> torch.device:
    """Return a device if tensors of doubles can be put there.

    Raises:
        DeviceError: If there is none, or it has no float64.
    """
    try:
        found = torch.empty(0, device=device, dtype=torch.float64).device
    except (RuntimeError, AssertionError, TypeError) as error:
        # Unknown; known and absent; there without float64.
        raise _no_device(device) from error
    if found.type == "meta":
        raise _no_device(device)
    return found


def _no_device(device: torch.device | str) -> DeviceError:
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return DeviceError(
        f"`device` must be one with float64, here {', '.join(map(repr, there))}; got "
        f"{str(device)!r}."
    )


def _refuse_shapes(name: str, values: object, each: str) -> None:
    # An array of shape (K, 1) would pass for numbers, row by row.
    shape = getattr(values, "shape", None)
    if shape is not None and len(shape) != 1:
        raise ValueError(
            f"`{name}` must have one dimension, one number for each {each}; got the "
            f"shape {tuple(shape)}. Flatten it, or take one row or column."
        )
