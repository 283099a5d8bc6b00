"""Which neurons a layer gains, with certificates or without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import EditError, at_least
from layerpeel.edits.data import Data
from layerpeel.edits.graph import Graph, Layer
from layerpeel.edits.loss import LossFunction
from layerpeel.edits.resizing import NULL, Resizing
from layerpeel.edits.width.certificate import (
    NeuronCertificate,
    null_bias,
    null_certificates,
    screen_splits,
)
from layerpeel.edits.width.certificate.finite import finite
from layerpeel.edits.width.splits import Split, Splits

# Without a loss nothing speaks for unequal parts.
_HALF = 0.5


@dataclass(frozen=True, eq=False)
class Growth:
    """The new neurons of a layer.

    Attributes:
        splits: Where they come from.
        alphas: The share that each took, or the pre-activation of a null neuron.
        certificates: One for each, or none at all.
    """

    splits: Splits
    alphas: tuple[float, ...]
    certificates: tuple[NeuronCertificate, ...] = field(default=())

    @property
    def neurons(self) -> tuple[int, ...]:
        """The old neuron that each new one is a copy of; -1 for null neurons."""
        return tuple(self.splits.sources[self.splits.width :].tolist())

    @property
    def null_bias(self) -> float:
        """The pre-activation of null neurons; zero if there is none."""
        return self.alphas[0] if self.neurons[0] == NULL else 0.0

    @property
    def inertia_shift(self) -> tuple[int, int, int] | None:
        """What certificates say that signs of eigenvalues grow by, if all of them do."""
        known = [c.inertia for c in self.certificates if c.inertia is not None]
        if not known or len(known) < len(self.certificates):
            return None
        negative, zero, positive = (sum(signs) for signs in zip(*known, strict=True))
        return negative, zero, positive


def checked_alpha(alpha: object) -> float | None:
    """Return the share, or ``None`` for ``"auto"``.

    Raises:
        ValueError: If it is neither ``"auto"`` nor a finite number.
    """
    if alpha == "auto":
        return None
    return finite("alpha", alpha, "'auto' or a finite number")


def checked_neurons(
    neurons: object, by: int, width: int, kind: str
) -> tuple[int, ...] | None:
    """Return the neurons to split, or ``None`` for ``"auto"``.

    Raises:
        ValueError: If they are not as many as new neurons, or there are no such neurons.
    """
    if isinstance(neurons, str) and neurons == "auto":
        return None
    if isinstance(neurons, str) or not isinstance(neurons, Iterable) or kind == "null":
        raise ValueError(
            f"`neurons` must be 'auto' or a list of the {by} neurons to split; got "
            f"{neurons!r}. Null neurons are copies of none."
        )
    found = tuple(at_least("neurons", neuron, 0) for neuron in neurons)
    if len(found) != by or max(found) >= width:
        raise ValueError(
            f"`neurons` must be {by} of the neurons 0 to {width - 1} of the layer, one "
            f"per new neuron, and may repeat; got {list(found)}."
        )
    return found


def certified_growth(
    graph: Graph,
    layer: Layer,
    resizing: Resizing,
    data: Data,
    loss_fn: LossFunction,
    by: int,
    neurons: Sequence[int] | None,
    alpha: float | None,
    kind: str,
) -> Growth:
    """Return new neurons with certificates, those of the lowest curvature if none given.

    Args:
        graph: The graph of the model, before it is edited.
        layer: The layer.
        resizing: The same, as it may change its width.
        data: The data.
        loss_fn: The loss.
        by: How many new neurons.
        neurons: Those to split; chosen if omitted.
        alpha: The share that copies take, or the bias of null neurons; chosen if omitted.
        kind: ``"split"`` or ``"null"``.
    """
    _check_layout(resizing)
    if kind == "null":
        found = null_certificates(graph, layer, data, loss_fn, by, alpha)
        biases = tuple(c.bias or 0.0 for c in found)
        return Growth(Splits.null(resizing.width, by), biases, tuple(found))
    screening = screen_splits(
        graph,
        layer,
        data,
        loss_fn,
        alpha=alpha,
        neurons=None if neurons is None else sorted(set(neurons)),
    )
    if neurons is None:
        low = screening.curvatures[list(_places(screening.neurons, screening.order))]
        lowering = [
            s for s, c in zip(screening.order, low.tolist(), strict=True) if c < 0
        ]
        neurons = list(islice(cycle(lowering or screening.order), by))
    splits, certificates = Splits(resizing.width), list[NeuronCertificate]()
    for neuron in neurons:
        certificate = screening.certificate(neuron, float(splits.shares[neuron]))
        assert certificate.alpha is not None
        certificates.append(certificate)
        split = Split(neuron, certificate.alpha)
        splits = Splits(splits.width, (*splits.made, split))
    return Growth(splits, tuple(s.alpha for s in splits.made), tuple(certificates))


def plain_growth(
    layer: Layer,
    resizing: Resizing,
    by: int,
    neurons: Sequence[int] | None,
    alpha: float | None,
    kind: str,
) -> Growth:
    """Return new neurons without certificates, of the largest outgoing weights.

    Args:
        layer: The layer.
        resizing: The same, as it may change its width.
        by: How many new neurons.
        neurons: Those to split; chosen if omitted.
        alpha: The share that copies take, or the bias of null neurons.
        kind: ``"split"`` or ``"null"``.
    """
    width = resizing.width
    if kind == "null":
        bias = alpha
        if bias is None:
            bias = null_bias(layer.activation) if resizing.holds_bias else 0.0
        return Growth(Splits.null(width, by), (bias,) * by)
    share = _HALF if alpha is None else alpha
    if neurons is None:
        splits = Splits.largest(outgoing_norms(resizing), by, share)
    else:
        splits = Splits(width, tuple(Split(s, share) for s in neurons))
    return Growth(splits, (share,) * by)


def outgoing_norms(resizing: Resizing) -> Float64[Tensor, " old"]:
    """Return the Euclidean norms of all weights that read each neuron."""
    squares = [
        resizing.blocks(consumer).double().square().sum((0, 2)).cpu()
        for consumer in resizing.consumers
    ]
    return torch.stack(squares).sum(0).sqrt()


def _places(neurons: Sequence[int], order: Sequence[int]) -> Iterator[int]:
    place = {neuron: i for i, neuron in enumerate(neurons)}
    return (place[neuron] for neuron in order)


def _check_layout(resizing: Resizing) -> None:
    for consumer in resizing.consumers:
        if resizing.channels.last and resizing.blocks(consumer).shape[2] > 1:
            raise EditError(
                "Certificates are about layers of which each neuron is read by weights "
                f"next to each other; {consumer.path!r} reads a flattened sequence. "
                "Leave `loss_fn` out, to widen the layer without certificates."
            )
