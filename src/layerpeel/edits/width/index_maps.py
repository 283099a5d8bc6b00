"""Which neuron copies which: sums over copies, maps in a row, and what must hold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from layerpeel._checks import EditError, NonFiniteError
from layerpeel._tolerances import COMPATIBLE
from layerpeel.edits.resizing import NULL


def per_source(values: Tensor, sources: Int64[Tensor, " n"], axis: int) -> Tensor:
    """Return sums over the copies of each neuron; the last one is over null neurons."""
    size = list(values.shape)
    size[axis] = int(sources.max().clamp_min(NULL)) + 2
    index = torch.where(sources < 0, size[axis] - 1, sources)
    return values.new_zeros(size).index_add_(axis, index, values)


def first_wrong(found: Tensor, wanted: Tensor) -> tuple[int, int] | None:
    """Return where a matrix is not what it must be, if it is not."""
    scale = max(1.0, float(found.abs().max())) if found.numel() else 1.0
    # Not larger, so that NaN is wrong.
    wrong = (~((found - wanted).abs() <= COMPATIBLE * scale)).nonzero()
    return None if not len(wrong) else (int(wrong[0, 0]), int(wrong[0, 1]))


def check_hidden(widths: Sequence[int], layer: int) -> None:
    """Check that a layer is a hidden one.

    Raises:
        ValueError: If it is not.
    """
    if not 1 <= layer < len(widths) - 1:
        raise ValueError(
            f"`layer` must be a hidden layer, from 1 to {len(widths) - 2}, of a network "
            f"with widths {tuple(widths)}; got {layer}."
        )


def check_tensors(**given: Sequence[object]) -> None:
    """Check that the parts of an embedding are finite tensors, one per layer.

    Raises:
        TypeError: If they are something else.
        NonFiniteError: If they hold NaN or infinity.
    """
    for name, values in given.items():
        other = [type(v).__name__ for v in values if not isinstance(v, Tensor)]
        if other:
            raise TypeError(
                f"`{name}` must be a tuple of tensors, one per layer; got a {other[0]}. "
                "Wrap it in `torch.tensor`."
            )
        if not all(bool(v.isfinite().all()) for v in values if isinstance(v, Tensor)):
            raise NonFiniteError(
                f"`{name}` must be finite; it holds NaN or infinity. Is there a division "
                "by zero in what it was made of?"
            )


def check_sources(level: int, depth: int, width: int, sources: Tensor) -> None:
    """Check that neurons copy old ones, and each old one has a copy.

    Args:
        level: Which layer they are of.
        depth: The last one.
        width: The number of old neurons.
        sources: What each copies.

    Raises:
        EditError: If they do not.
    """
    ends = level in (0, depth)
    if ends and sources.tolist() != list(range(width)):
        raise EditError(
            f"Inputs and outputs must copy themselves; level {level} has sources "
            f"{sources.tolist()} for {width} of them."
        )
    missing = set(range(width)) - set(sources.tolist())
    strange = set(sources.tolist()) - set(range(NULL, width))
    if missing or strange:
        raise EditError(
            f"Each neuron must have a copy, and copies be of neurons 0 to {width - 1} or "
            f"-1; at layer {level}, {sorted(missing)} have none and "
            f"{sorted(strange)} are no neurons."
        )


def sources_after(first: Tensor, second: Tensor) -> Tensor:
    """Return the sources of two embeddings in a row."""
    return torch.where(second < 0, NULL, first[second.clamp_min(0)])


def copied_factors(factors: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return factors of the copies of neurons; of null neurons they are one."""
    found = factors[rows.clamp_min(0)][:, columns.clamp_min(0)]
    return torch.where((rows < 0)[:, None] | (columns < 0), 1.0, found)


def merged(first: Tensor, second: Tensor, sources: Tensor) -> Tensor:
    """Return values of the neurons that are copied, and other values of null neurons."""
    return torch.where(sources < 0, second, first[sources.clamp_min(0)])
