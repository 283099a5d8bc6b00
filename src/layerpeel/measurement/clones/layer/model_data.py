"""A layer of a model on the data of a loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from layerpeel._checks import BatchError, HeadError, at_least, one_of
from layerpeel.measurement.clones.layer.layer_data import (
    HEAD_INPUT,
    CovarianceStream,
    Edit,
    LayerData,
    Samples,
    check_finite_consumer,
    classes_of,
    refuse_non_finite,
)
from layerpeel.measurement.clones.layer.passes import Passes, copied
from layerpeel.measurement.clones.layer.places import HeadInput, ModuleOutput, Place
from layerpeel.measurement.layers.observer import MAPS
from layerpeel.measurement.shared_data import bare
from layerpeel.measurement.sources.batches import Batch
from layerpeel.measurement.sources.forward import evaluating
from layerpeel.measurement.sources.head import find_head
from layerpeel.measurement.statistics.covariance import Covariance


def model_data(
    model: nn.Module,
    loader: Iterable[Any],
    layer: str = HEAD_INPUT,
    *,
    head: str | None = None,
    num_classes: int | None = None,
    maps: str = "pooled",
    device: str | torch.device | None = None,
    cache_bytes: int = 2**30,
    check_deterministic: bool = True,
    progress: bool | None = None,
    name: str = "loader",
) -> LayerData:
    r"""Return a layer of a model on the data of a loader, after a first pass.

    The model runs in eval mode without gradients, and is as it was between passes and
    afterwards: training flags, hooks, parameters, buffers and random states.

    Args:
        model: Any classifier that returns its logits: as a tensor, as ``.logits`` or
            ``["logits"]``, or first in a tuple.
        loader: Batches ``(input, label)``, or mappings with ``"labels"`` or ``"label"``
            whose other entries the model takes as keyword arguments.
        layer: ``"head input"``, or the path of a module: its output, after its
            activation where one follows.
        head: Path of the head in the model; found by what it computes when omitted.
        num_classes: Number of classes :math:`K`; the logits of the model when omitted.
        maps: What the neurons of maps :math:`(B, C, H, W)` and tokens
            :math:`(B, T, d)` are: ``"pooled"`` for means over positions, or
            ``"flattened"``.
        device: Where to move the batches; the model must be there.
        cache_bytes: How much memory features may take, in bytes; beyond, the model runs
            again for every look at the data.
        check_deterministic: Whether to run the first batch twice and compare.
        progress: Whether to show a progress bar; on a terminal when omitted.
        name: What the caller calls the loader, for messages.

    Raises:
        TypeError: If the model is no ``torch.nn.Module``, or the loader not iterable.
        HeadError: If no linear layer gives the logits that are asked for, or there are
            not as many as classes.
        LayerError: If there is no such module, it is not called once in each forward
            pass, or it returns no features of each sample.
        BatchError: If a batch has another form, there is none, or data that can be read
            once do not fit into the cache.
        LabelError: If labels are no class indices in :math:`[0, K)`.
        DeviceError: If model and data are on different devices.
        NonFiniteError: If features or weights have NaN or infinite values.
        NondeterminismError: If the model gives different features for the same batch.
        ValueError: If ``maps`` is unknown.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> loader = [(torch.eye(2), torch.tensor([0, 1]))]
        >>> data = model_data(model, loader, "0")
        >>> data.width, data.consumer.name, data.classifies, data.count
        (3, '2', True, 2)
        >>> data.wrong(torch.zeros_like)  # every sample is of the same class then
        1
    """
    at_least("cache_bytes", cache_bytes, 0)
    one_of("maps", maps, MAPS)
    model = bare(model)
    passes = Passes(model, loader, name, device, progress)
    with evaluating(model), _named(name):
        place = _place(model, passes.first, layer, head, maps)
        facts = place.facts(passes.first)
        if check_deterministic:
            place.check_deterministic(passes.first)
    classes = _checked_classes(facts.outputs, num_classes)
    if facts.consumer is not None:
        check_finite_consumer(facts.consumer)
    source = ModelSource(passes, place, classes, cache_bytes)
    count, covariance = source.first_pass(edits=not facts.classifies)
    return LayerData(
        layer,
        facts.width,
        facts.eps,
        facts.consumer,
        facts.cause,
        facts.classifies,
        classes,
        count,
        name,
        True,
        source,
        covariance,
    )


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say which data an error about a batch is about."""
    try:
        yield
    except BatchError as error:
        raise BatchError(f"`{name}` does not fit the model. {error}") from error


class ModelSource:
    """The samples of a layer of a model: from memory if they fit, else it runs again.

    Args:
        passes: The model and its data.
        place: Where the layer is.
        num_classes: The number of classes :math:`K`.
        cache_bytes: How much memory features may take.
    """

    def __init__(
        self, passes: Passes, place: Place, num_classes: int, cache_bytes: int
    ) -> None:
        self._passes, self._place = passes, place
        self._num_classes, self._limit = num_classes, cache_bytes
        self._bytes = 0
        self._cache: list[Samples] | None = []
        self._inputs: list[Batch] = []

    def samples(self) -> Iterator[Samples]:
        """Go through all the data once."""
        if self._cache is not None:
            yield from self._cache
            return
        for features, labels in self._passes.run(self._place.rows, self._num_classes):
            yield Samples(features, labels)

    def logits(self, edit: Edit) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the logits of the model on edited features, and the labels."""

        def step(batch: Batch) -> Tensor:
            return self._place.logits(batch, edit)

        yield from self._passes.run(step, self._num_classes)

    def first_pass(self, *, edits: bool) -> tuple[int, Covariance | None]:
        """Read all the data once, and keep what fits.

        Args:
            edits: Whether the model has to run again on edited features, so that
                batches that can be read once are kept too.

        Returns:
            The number of samples, and their covariance if they did not fit.

        Raises:
            BatchError: If they do not fit, and cannot be read again.
            NonFiniteError: If features are NaN or infinite.
        """
        keeps = edits and not self._passes.repeatable

        def step(batch: Batch) -> Tensor:
            if keeps:
                self._keep_inputs(batch)
            return self._place.rows(batch)

        count, stream = 0, None
        rows = self._passes.run(step, self._num_classes)
        for sample in refuse_non_finite(
            (Samples(*row) for row in rows), self._num_classes
        ):
            count += len(sample.labels)
            let_go = self._keep(sample)
            if stream is None and let_go is not None:
                stream = CovarianceStream(sample.features.shape[1])
            for features, _ in let_go or ():
                if stream is not None:
                    stream.add(features)
        if keeps:
            self._passes.keep(self._inputs)
        return count, None if stream is None else stream.value()

    def _keep(self, sample: Samples) -> list[Samples] | None:
        """Keep some samples; return what is let go since it no longer fits."""
        self._count_bytes(sample.features.nbytes)
        if self._cache is None:
            return [sample]
        self._cache.append(sample)
        if self._bytes <= self._limit:
            return None
        let_go, self._cache = self._cache, None
        return let_go

    def _keep_inputs(self, batch: Batch) -> None:
        own, size = copied(batch)
        self._inputs.append(own)
        self._count_bytes(size)

    def _count_bytes(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._limit and not self._passes.repeatable:
            raise BatchError(
                "A loader that can be read once must fit into the feature cache, since "
                "a layer is looked at several times; it exceeds `cache_bytes` = "
                f"{self._limit}. Pass a loader that can be iterated again, such as a "
                "DataLoader or a list, or a larger `cache_bytes`."
            )


def _place(
    model: nn.Module, batch: Batch, layer: str, head: str | None, maps: str
) -> Place:
    if layer == HEAD_INPUT:
        return HeadInput(model, find_head(model, batch, head))
    if head is not None:
        find_head(model, batch, head)
    return ModuleOutput(model, layer, maps)


def _checked_classes(outputs: int, stated: int | None) -> int:
    classes = classes_of(outputs)
    if stated not in (None, classes):
        raise HeadError(
            f"The model must have one logit per class; it tells {classes} classes apart,"
            f" and `num_classes` is {stated}. Leave the argument out, or correct it."
        )
    return classes
