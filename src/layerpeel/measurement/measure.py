"""Measure a model on a loader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from layerpeel._checks import at_least
from layerpeel.measurement.assembly import assemble
from layerpeel.measurement.measurement import Measurement
from layerpeel.measurement.sources.determinism import check_deterministic as probe
from layerpeel.measurement.sources.extraction import Batches, ModelRows
from layerpeel.measurement.sources.forward import evaluating
from layerpeel.measurement.sources.head import find_head
from layerpeel.measurement.sources.layer import checked_layer
from layerpeel.measurement.sources.rows import DecisionCache


def measure(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    head: str | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    minority: Sequence[int] | None = None,
    eval_loader: Iterable[Any] | None = None,
    device: str | torch.device | None = None,
    check_deterministic: bool = True,
    cache_bytes: int = 2**30,
    progress: bool | None = None,
) -> Measurement:
    r"""Measure the last layer of a classifier on some data.

    The model runs in eval mode without gradients, and is given back as it was: training
    flags of every module, hooks, parameters, buffers and random states. *Features* are
    the inputs of its head, the linear layer whose :math:`W h + b` are its logits.

    The data are read once when the features fit into ``cache_bytes``, and twice when
    they do not: NC4 needs the class means first. Memory does not depend on the number
    of samples beyond that.

    Args:
        model: Any classifier that ends in an ``nn.Linear`` and returns its logits: as a
            tensor, as ``.logits`` or ``["logits"]``, or first in a tuple.
        loader: Batches ``(input, label)``, or mappings with ``"labels"`` or ``"label"``
            whose other entries the model takes as keyword arguments. To measure neural
            collapse, these are the training data, without augmentation.
        head: Path of the head in the model; found by what it computes when omitted.
        num_classes: Number of classes :math:`K`; the head's outputs when omitted.
        class_names: Names of the :math:`K` classes.
        minority: Indices of the minority classes; when omitted, the classes are split
            at the widest relative gap between their counts.
        eval_loader: Held-out data, for accuracies only.
        device: Where to move the batches; the model must be there. When omitted,
            batches are used as they are.
        check_deterministic: Whether to run the first batch twice and compare.
        cache_bytes: How much memory features may take, in bytes.
        progress: Whether to show a progress bar on stderr; if it is a terminal when
            omitted.

    Returns:
        The measurement.

    Raises:
        TypeError: If the model is no ``torch.nn.Module``.
        HeadError: If no linear layer gives the logits, the named one does not, or it
            has another number of outputs than there are classes.
        BatchError: If a batch has another form, there is none, or data that can be read
            once do not fit into the cache.
        LabelError: If labels are no class indices in :math:`[0, K)`.
        DeviceError: If model and data are on different devices.
        NonFiniteError: If features, logits or the head have NaN or infinite values.
        NondeterminismError: If the model gives different features for the same batch.

    Example:
        >>> x = torch.tensor([[2.0, 0.0], [4.0, 0.0], [0.0, 3.0], [0.0, 3.0]])
        >>> model = nn.Linear(2, 2, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.eye(2))
        >>> measurement = measure(model, [(x, torch.tensor([0, 0, 1, 1]))])
        >>> measurement.accuracy, measurement.nc4()
        (1.0, 1.0)
        >>> round(measurement.nc1_quotient(), 4)
        0.1111
    """
    at_least("cache_bytes", cache_bytes, 0)
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"`model` must be a torch.nn.Module; got {type(model).__name__}. For features "
            "of another framework, call `measure_features`."
        )
    with evaluating(model):
        batches = Batches(model, loader, "loader", device, progress)
        found = find_head(model, batches.first, head)
        layer = checked_layer(
            found.path, found.weight, found.bias, num_classes, class_names, minority
        )
        if check_deterministic:
            probe(model, batches.first, found)
        classes = len(layer.weight)
        held_out = None
        if eval_loader is not None:
            evaluation = Batches(model, eval_loader, "eval_loader", device, progress)
            held_out = ModelRows(model, found, evaluation, classes)
        return assemble(
            layer,
            ModelRows(model, found, batches, classes),
            DecisionCache(cache_bytes, refill=batches.repeatable),
            held_out,
        )
