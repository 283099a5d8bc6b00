"""What a loader may yield, and how it becomes a model's input and class indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from layerpeel._checks import class_indices
from layerpeel.measurement.sources.nested import moved
from layerpeel.measurement.sources.pairs import arguments, split, target_tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch, ready for a model: ``model(*args, **kwargs)``.

    Attributes:
        args: Positional arguments of the model.
        kwargs: Keyword arguments of the model.
        labels: Class indices on the CPU, with shape :math:`(B,)`.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    labels: Int64[Tensor, " B"]

    def to(self, device: torch.device) -> Batch:
        """Return the batch with the model's arguments on a device."""
        return replace(
            self, args=moved(self.args, device), kwargs=moved(self.kwargs, device)
        )


def unpack(raw: object, num_classes: int | None = None) -> Batch:
    """Split what a loader yielded into the model's input and labels.

    Args:
        raw: ``(input, label)`` as a tuple or list, where a mapping as input becomes
            keyword arguments; or a mapping with ``"labels"`` or ``"label"``, whose
            other entries become keyword arguments, as Hugging Face models take them.
        num_classes: The number of classes :math:`K`; not checked when omitted.

    Returns:
        The batch.

    Raises:
        BatchError: If it has another form.
        ShapeError: If there is not one label per sample.
        LabelError: If labels are no class indices in :math:`[0, K)`.

    Example:
        >>> batch = unpack({"pixel_values": torch.zeros(2, 3), "labels": [1, 0]})
        >>> sorted(batch.kwargs), batch.labels.tolist()
        (['pixel_values'], [1, 0])
    """
    inputs, labels = split(raw, "label")
    found = class_indices(target_tensor(labels, "label"), num_classes)
    # A copy: labels are kept for longer than a loader may leave its buffer alone.
    return Batch(*arguments(inputs), found.to("cpu", copy=True))
