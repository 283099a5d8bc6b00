"""Measure a model on a loader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from layerpeel._checks import at_least, one_of
from layerpeel.measurement.assembly import Look, assemble, checked_plan
from layerpeel.measurement.distributed.reducer import (
    AbstractReducer,
    LocalReducer,
    reducer,
)
from layerpeel.measurement.layers.choice import Layers
from layerpeel.measurement.layers.observer import MAPS, LayerObserver
from layerpeel.measurement.measurement import Measurement
from layerpeel.measurement.shared_data import SharedData, bare
from layerpeel.measurement.sources.determinism import check_deterministic as probe
from layerpeel.measurement.sources.extraction import ModelRows
from layerpeel.measurement.sources.forward import evaluating
from layerpeel.measurement.sources.layer import Layer, checked_layer
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
    layers: Layers | None = None,
    maps: str = "pooled",
    light: bool = False,
    nc4: str = "second_pass",
    device: str | torch.device | None = None,
    check_deterministic: bool = True,
    cache_bytes: int = 2**30,
    distributed: bool = True,
    progress: bool | None = None,
) -> Measurement:
    r"""Measure the last layer of a classifier on some data.

    The model runs in eval mode without gradients, and is given back as it was: training
    flags of every module, hooks, parameters, buffers and random states. *Features* are
    the inputs of its head, the linear layer whose :math:`W h + b` are its logits.

    The data are read once when the features fit into ``cache_bytes``, and twice when
    they do not: NC4 needs the class means first. Memory does not depend on the number
    of samples beyond that.

    Inside a ``torch.distributed`` job all ranks call this together, each with its share
    of the data, and all get the measurement of the whole. What samplers repeat to make
    shares equal is left out. A rank that raises makes all others raise.

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
        layers: Layers to profile in the same pass: ``"all"`` for every layer and
            nonlinearity, a list of paths, or one or several types of modules. The
            result is ``Measurement.profile``.
        maps: What the features of maps :math:`(B, C, H, W)` and tokens
            :math:`(B, T, d)` of these layers are: ``"pooled"`` for means over positions,
            or ``"flattened"``.
        light: Whether to leave out what takes :math:`d^2` or :math:`K^2` memory, for
            very wide features or very many classes: also the ranks of ``layers``.
        nc4: How to measure NC4: ``"second_pass"``; ``"one_pass"``, against the class
            means of the data seen so far, which is an approximation and needs neither
            a cache nor data that can be read twice; or ``"skip"``.
        device: Where to move the batches; the model must be there. When omitted,
            batches are used as they are.
        check_deterministic: Whether to run the first batch twice and compare, and to
            refuse a second pass that brings other features than the first.
        cache_bytes: How much memory features may take, in bytes.
        distributed: Whether the ranks of a job measure together. ``False`` measures on
            this rank alone, whatever the others do.
        progress: Whether to show a progress bar on stderr; if it is a terminal when
            omitted.

    Returns:
        The measurement.

    Raises:
        TypeError: If the model is no ``torch.nn.Module``, or the loader not iterable.
        HeadError: If no linear layer gives the logits, the named one does not, or it
            has another number of outputs than there are classes.
        BatchError: If a batch has another form, there is none, data that can be read
            once do not fit into the cache, or a second pass brings other data.
        LabelError: If labels are no class indices in :math:`[0, K)`.
        DeviceError: If model and data are on different devices.
        NonFiniteError: If features, logits or the head have NaN or infinite values.
        NondeterminismError: If the model gives different features for the same batch.
        LayerError: If ``layers`` names what cannot be measured.
        RankError: If another rank of a job raised an error, or has another last layer.
        ValueError: If ``nc4`` or ``maps`` is unknown.

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
    plan = checked_plan(light, nc4)
    model = bare(model)
    together = reducer() if distributed else LocalReducer()
    data = SharedData(model, together, device, progress)
    with evaluating(model):
        batches = data.batches(_iterable(loader, "loader"), "loader")
        found = data.head(batches, head)
        with together.errors():
            layer = checked_layer(
                found.path, found.weight, found.bias, num_classes, class_names, minority
            )
            if check_deterministic and batches.first is not None:
                probe(model, batches.first, found)
            observer = _observer(model, layer, layers, maps, light=light)
        data.check_common(layer)
        rows = partial(ModelRows, model, found, num_classes=len(layer.weight))
        held_out = None
        if eval_loader is not None:
            held_out = rows(data.batches(eval_loader, "eval_loader"))
        again = rows(batches)
        cache = DecisionCache(cache_bytes, refill=batches.repeatable)
        look = Look(partial(again, observer), again, cache, same=check_deterministic)
        measurement = assemble(layer, look, held_out, plan, together)
        return (
            measurement
            if observer is None
            else _profiled(measurement, observer, together)
        )


def _iterable(loader: Iterable[Any], name: str) -> Iterable[Any]:
    if isinstance(loader, Iterable) or hasattr(loader, "__getitem__"):
        return loader
    raise TypeError(
        f"`{name}` must be iterable, such as a DataLoader or a list of batches; got a "
        f"{type(loader).__name__}."
    )


def _observer(
    model: nn.Module, layer: Layer, layers: Layers | None, maps: str, *, light: bool
) -> LayerObserver | None:
    one_of("maps", maps, MAPS)
    if layers is None:
        return None
    # Covariances are what takes most memory.
    limit = {"covariance_limit": 0} if light else {}
    return LayerObserver(
        model,
        layers,
        num_classes=len(layer.weight),
        maps=maps,
        class_names=layer.class_names,
        **limit,
    )


def _profiled(
    measurement: Measurement, observer: LayerObserver, together: AbstractReducer
) -> Measurement:
    with together.errors():
        profile = observer.value()
    return replace(measurement, profile=together.merge(profile).to("cpu"))
