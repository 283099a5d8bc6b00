"""What a loader may yield, and how it becomes a model's input and class indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from layerpeel._checks import BatchError, class_indices, listed
from layerpeel.measurement.sources.nested import moved

_LABEL_KEYS = ("labels", "label")


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
    inputs, labels = _split(raw)
    # A copy: labels are kept for longer than a loader may leave its buffer alone.
    indices = class_indices(_label_tensor(labels), num_classes).to("cpu", copy=True)
    if isinstance(inputs, Mapping):
        return Batch((), dict(inputs), indices)
    return Batch((inputs,), {}, indices)


def _split(raw: object) -> tuple[Any, Any]:
    if isinstance(raw, Mapping):
        return _split_mapping(raw)
    if isinstance(raw, tuple | list) and len(raw) == 2:
        return raw[0], raw[1]
    got = f"a {type(raw).__name__}"
    if isinstance(raw, tuple | list):
        got += f" of {len(raw)} items"
    raise BatchError(
        "A batch must be `(input, label)`, or a mapping with 'labels' or 'label'; got "
        f"{got}. Wrap the loader, for instance in `[(x, y) for x, y, *_ in loader]`."
    )


def _split_mapping(raw: Mapping[Any, Any]) -> tuple[dict[Any, Any], Any]:
    found = [key for key in _LABEL_KEYS if key in raw]
    if len(found) != 1:
        raise BatchError(
            "A batch that is a mapping must have its class indices under one of the "
            f"keys 'labels' and 'label'; got {listed(sorted(map(repr, raw)))}. "
            "Rename the one that holds them."
        )
    return {key: item for key, item in raw.items() if key not in found}, raw[found[0]]


def _label_tensor(labels: object) -> Tensor:
    try:
        tensor = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BatchError(
            "The second entry of a batch must be class indices, as a tensor, array or "
            f"list; got a {type(labels).__name__}. Encode class names as integers."
        ) from error
    if tensor.ndim == 0:
        raise BatchError(
            "A batch must hold samples with one label each; got a single label. Wrap "
            "the data set in `torch.utils.data.DataLoader(dataset, batch_size=64)`."
        )
    return tensor
