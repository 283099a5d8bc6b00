"""The features of one layer, and who reads them: what clones are looked for in.

They come from a model (``model_data``) or from arrays (``array_data``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import NonFiniteError, ShapeError
from layerpeel.measurement.clones.errors.decisions import count_wrong
from layerpeel.measurement.layers.gatherer import Gatherer
from layerpeel.measurement.sources.finite import FiniteGuard
from layerpeel.measurement.statistics.covariance import Covariance, covariance_about

HEAD_INPUT = "head input"
"""The layer whose features are the inputs of the head."""

# Takes features, with shape (n, W), and returns others of that shape.
Edit: TypeAlias = Callable[[Tensor], Tensor]


class Samples(NamedTuple):
    """Some samples of a layer.

    Attributes:
        features: As they were computed, on the CPU, with shape :math:`(n, W)`.
        labels: Class indices, with shape :math:`(n,)`; zeros where there are none.
    """

    features: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Consumer:
    """The linear map that alone reads a layer.

    Attributes:
        name: The path of its module, where it is one; else the function's name.
        weight: With shape :math:`(C, W)`.
        bias: With shape :math:`(C,)`; zeros where it has none.
    """

    name: str
    weight: Float64[Tensor, "C W"]
    bias: Float64[Tensor, " C"]

    def __call__(self, features: Tensor) -> Float64[Tensor, "n C"]:
        """Return its outputs in float64."""
        return features.to(torch.float64) @ self.weight.T + self.bias


@runtime_checkable
class LayerSource(Protocol):
    """Where the samples of a layer come from, always in the same order."""

    def samples(self) -> Iterator[Samples]:
        """Go through all the data once."""

    def logits(self, edit: Edit) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the network's logits on edited features, and the labels."""


@dataclass(frozen=True, eq=False)
class LayerData:
    """A layer of neurons on some data.

    Attributes:
        layer: ``"head input"``, or the path of the module whose output it is.
        width: The number of neurons :math:`W`.
        eps: That of the dtype in which the features were computed.
        consumer: The one linear map that reads the layer; ``None`` if there is no such.
        cause: Why there is none, as a sentence; empty if there is one.
        classifies: Whether the consumer's outputs are the network's logits.
        num_classes: The number of classes :math:`K`; 0 if nothing tells.
        count: The number of samples.
        name: What the caller calls the data, for messages.
        labelled: Whether the samples have labels.
        source: Where the samples come from.
    """

    layer: str
    width: int
    eps: float
    consumer: Consumer | None
    cause: str
    classifies: bool
    num_classes: int
    count: int
    name: str
    labelled: bool
    source: LayerSource = field(repr=False)
    known_covariance: Covariance | None = field(default=None, repr=False)

    @property
    def decides(self) -> bool:
        """Whether wrong decisions can be counted, for which there must be labels."""
        return self.labelled and (self.classifies or self.layer != HEAD_INPUT)

    def samples(self) -> Iterator[Samples]:
        """Go through all the data once, in the same order every time.

        What fits into memory comes from there; else the model runs again, or the arrays
        are read again.

        Raises:
            BatchError: If a loader gives other data than the first time.
        """
        return self.source.samples()

    def wrong(self, edit: Edit | None = None) -> int:
        r"""Count the wrong decisions of the network with edited features.

        Of equal logits the first class wins. With a single logit, the class is its sign,
        and zero is an error.

        Args:
            edit: Takes features on the CPU, with shape :math:`(n, W)`, and returns those
                to put in their place; the features stay as they are when omitted. Of
                pooled maps it is given each position of each sample as a row.

        Raises:
            ShapeError: If the edit returns another shape.
            ValueError: If there are no labels, or no network.
        """
        if not self.decides:
            raise ValueError(
                "Wrong decisions need labels, and the network or the weights that decide; "
                f"`{self.name}` has no {'weights' if self.labelled else 'labels'}. Pass "
                "them, or look at reconstruction alone."
            )
        edit = _checked(edit or _unchanged)
        return sum(count_wrong(*pair) for pair in self._decided(edit))

    def covariance(self) -> Covariance:
        """Return count, mean and scatter of all neurons; computed once."""
        return self._covariance

    def _decided(self, edit: Edit) -> Iterator[tuple[Tensor, Tensor]]:
        if self.consumer is None or not self.classifies:
            yield from self.source.logits(edit)
            return
        for features, labels in self.samples():
            yield self.consumer(edit(features)), labels

    @cached_property
    def _covariance(self) -> Covariance:
        if self.known_covariance is not None:
            return self.known_covariance
        stream = CovarianceStream(self.width)
        for features, _ in self.samples():
            stream.add(features)
        return stream.value()


class CovarianceStream:
    """The covariance of rows that come a few at a time, about one of them.

    Args:
        width: The number of neurons :math:`W`.
    """

    def __init__(self, width: int) -> None:
        self._about = Covariance.empty(width)
        self._origin: Tensor | None = None
        self._rows = Gatherer(self._fold)

    def add(self, features: Tensor) -> None:
        """Add samples, with shape :math:`(n, W)`."""
        self._rows.add(features)

    def value(self) -> Covariance:
        """Return the covariance of all samples so far."""
        self._rows.flush()
        if self._origin is None:
            return self._about
        return self._about.moved(self._origin)

    def _fold(self, features: Tensor) -> None:
        if not len(features):
            return
        if self._origin is None:
            self._origin = features[0].to(torch.float64)
        self._about = self._about.merge(covariance_about(self._origin, features))


def classes_of(outputs: int) -> int:
    """Return the number of classes that so many logits tell apart."""
    return 2 if outputs == 1 else outputs


def same_layer(data: LayerData, other: LayerData) -> None:
    """Check that two data sets are of one layer.

    Args:
        data: The one that a profile is of.
        other: Another one, held out.

    Raises:
        ShapeError: If it has another width or number of classes.
    """
    read = data.consumer is not None and other.consumer is not None
    for what, one, two, matters in (
        ("neurons", data.width, other.width, True),
        ("classes", data.num_classes, other.num_classes, read),
    ):
        if matters and one != two:
            raise ShapeError(
                f"`{other.name}` must have the {one} {what} of `{data.name}`, since both "
                f"are of one layer; it has {two}. Pass data of the same network."
            )


def refuse_non_finite(
    samples: Iterable[Samples], num_classes: int
) -> Iterator[Samples]:
    """Yield samples, and raise after the last one if any had NaN or infinite features.

    Raises:
        NonFiniteError: With their number, by class.
    """
    guard = FiniteGuard("features", max(1, num_classes))
    for sample in samples:
        bad = guard.bad_rows(sample.features, sample.labels)
        yield (
            Samples(sample.features[~bad], sample.labels[~bad]) if bad.any() else sample
        )
    guard.check([str(k) for k in range(max(1, num_classes))])


def check_finite_consumer(consumer: Consumer) -> None:
    """Check the weights that read a layer.

    Raises:
        NonFiniteError: If one is NaN or infinite.
    """
    bad = int((~consumer.weight.isfinite()).sum() + (~consumer.bias.isfinite()).sum())
    if bad:
        raise NonFiniteError(
            f"The weight and bias of {consumer.name!r} must be finite; {bad} entries are "
            "NaN or infinite. Training has diverged: take an earlier checkpoint."
        )


def _unchanged(features: Tensor) -> Tensor:
    return features


def _checked(edit: Edit) -> Edit:
    def checked(features: Tensor) -> Tensor:
        edited = edit(features)
        if edited.shape != features.shape:
            raise ShapeError(
                f"`edit` must keep the shape of features, {tuple(features.shape)}; it "
                f"returned {tuple(edited.shape)}."
            )
        return edited

    return checked
