r"""Add neurons to a layer, with outputs kept for every input.

A split puts a copy next to a neuron, with the same incoming weights, and shares the
outgoing ones out between both. A null neuron begins without any weights. Either way a
critical point of the risk stays one, and its Hessian keeps its negative and positive
eigenvalues; new ones are those of a small matrix per new neuron. If that has a negative
eigenvalue, a minimum has become a strict saddle, and its direction leads down.

For null neurons this asks that they are zero after their activation, or that the biases of
all that read them train and make up for them. A convolution that pads with zeros cannot,
nor can one without a bias: before those, ReLU layers can be split only.

References:
    | Embedding Principle of Loss Landscape of Deep Neural Networks (Zhang, Zhang, Luo &
    | Xu, 2021), https://arxiv.org/abs/2105.14573
    | Embedding Principle: a hierarchical structure of loss landscape of deep neural
    | networks (Zhang, Li, Zhang, Luo & Xu, 2021), https://arxiv.org/abs/2111.15527:
    | splitting and null embeddings; the certificates are this package's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.optim import Optimizer

from layerpeel._checks import at_least, one_of
from layerpeel._tolerances import CRITICAL_GRADIENT
from layerpeel.edits.comparison import compare
from layerpeel.edits.data import Data
from layerpeel.edits.edit import Edit
from layerpeel.edits.graph import Graph
from layerpeel.edits.inertia_check import inertia_shift
from layerpeel.edits.loss import LossFunction, known_loss
from layerpeel.edits.passes import check_outputs, gradient_norm, is_sum
from layerpeel.edits.proof import UNREGULARISED
from layerpeel.edits.resizing import Resizing
from layerpeel.edits.width.escape_direction import EscapeDirection, escape_direction
from layerpeel.edits.width.growth import (
    Growth,
    certified_growth,
    checked_alpha,
    checked_neurons,
    plain_growth,
)
from layerpeel.edits.width.needs import check_data
from layerpeel.edits.width.optimizer_state import check_optimizer, resized_optimizer
from layerpeel.edits.width.width_proof import (
    DEGENERATE,
    NO_CLAIM,
    NO_ESCAPE,
    NOT_CRITICAL,
    OTHER_CURVATURE,
    OTHER_INERTIA,
    UNDECIDED,
    WidthProof,
)
from layerpeel.landscape import Escape, escape

KINDS = ("split", "null")


def widen(
    model: nn.Module,
    layer: str,
    by: int,
    *,
    data: Iterable[Any] | None = None,
    loss_fn: LossFunction | None = None,
    optimizer: Optimizer | None = None,
    neurons: str | Sequence[int] = "auto",
    alpha: str | float = "auto",
    kind: str = "split",
    check_inertia: bool = False,
) -> Edit:
    r"""Add neurons, or channels, to a layer: the outputs stay the same for every input.

    Args:
        model: The model, deterministic: dropout and batch normalisation in eval mode.
        layer: The path of a linear layer or convolution that other such layers read,
            after batch normalisation, an activation, pooling and views.
        by: The number of new neurons.
        data: The loader, with batches ``(input, target)``: outputs are measured on it.
        loss_fn: Takes outputs and targets and returns the mean over the batch. With it
            neurons and shares are chosen such that the loss can fall, and the direction
            is certified and tried out. Needs ``data``.
        optimizer: That of the model; ``edit.optimizer`` is one of the wider model, with
            the same options and the state that copies would have had.
        neurons: The old neurons to split, one per new neuron; of one that repeats, what
            is left is split. ``"auto"`` takes those of the lowest curvature, or without a
            loss whichever has the largest outgoing weights by then.
        alpha: The share of the outgoing weights that a copy takes, any number; of null
            neurons the pre-activation. ``"auto"`` chooses, without a loss 1/2.
        kind: ``"split"`` or ``"null"``.
        check_inertia: Whether to compute all eigenvalues before and after; for small
            networks in float64.

    Returns:
        The wider model and what is proved of it. The given model stays as it is.

    Raises:
        LayerError: If there is no such layer, or it is not called exactly once.
        EditError: If something stands in the way of the edit; it is named.
        NonFiniteError: If weights or inputs hold NaN or infinity.
        BatchError: If there is no sample, or the model does not run on the data.
        LossError: If the loss function gives no scalar.
        ValueError: If an argument is out of range, or lacks another.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
        >>> edit = widen(model, "0", by=2, neurons=[1, 1], alpha=0.5)
        >>> edit.model[0].out_features, edit.proof.everywhere
        (5, True)
    """
    by = at_least("by", by, 1)
    one_of("kind", kind, KINDS)
    check_data(data, loss_fn, needed=check_inertia)
    share = checked_alpha(alpha)
    if optimizer is not None:
        check_optimizer(optimizer, model)
    held = None if data is None else Data(data, model)
    loss_fn = known_loss(loss_fn, model, held)
    graph = Graph(model, "layer", () if held is None else held.names)
    place = graph.layer(layer)
    resizing = Resizing(graph, place)
    chosen = checked_neurons(neurons, by, resizing.width, kind)
    if held is None or loss_fn is None:
        growth = plain_growth(place, resizing, by, chosen, share, kind)
    else:
        growth = certified_growth(
            graph, place, resizing, held, loss_fn, by, chosen, share, kind
        )
    splits = growth.splits
    wide = resizing.model(splits.sources, splits.mixing, null_bias=growth.null_bias)
    found = _Found.of(model, wide, resizing, growth, held, loss_fn, check_inertia)
    return Edit(
        model=wide,
        proof=found.proof(),
        what=_what(layer, resizing.width, by, kind),
        direction={} if found.direction is None else found.direction.steps,
        optimizer=(
            None
            if optimizer is None
            else resized_optimizer(optimizer, model, wide, resizing, splits)
        ),
    )


@dataclass(frozen=True, eq=False)
class _Found:
    """What is measured of a wider model, and its way down if it has one."""

    before: nn.Module
    after: nn.Module
    growth: Growth
    data: Data | None
    loss_fn: LossFunction | None
    direction: EscapeDirection | None
    escape: Escape | None
    inertia: tuple[int, int, int] | None

    @classmethod
    def of(
        cls,
        before: nn.Module,
        after: nn.Module,
        resizing: Resizing,
        growth: Growth,
        data: Data | None,
        loss_fn: LossFunction | None,
        check_inertia: bool,
    ) -> _Found:
        if data is None or loss_fn is None:
            return cls(before, after, growth, data, loss_fn, None, None, None)
        found = escape_direction(after, resizing, growth.splits, growth.certificates)
        way = None if found is None else _tried(after, found, data, loss_fn)
        shift = inertia_shift(before, after, loss_fn, data) if check_inertia else None
        return cls(before, after, growth, data, loss_fn, found, way, shift)

    def proof(self) -> WidthProof:
        change = (
            None
            if self.data is None
            else compare(self.before, self.after, self.data).change
        )
        if change is not None:
            check_outputs(self.after, change)
        norms = [self._gradient(model) for model in (self.before, self.after)]
        way, predicted = self.escape, self.growth.inertia_shift
        curvature = None if self.direction is None else self.direction.curvature
        proof = WidthProof(
            exact=True,
            everywhere=True,
            samples=0 if change is None else change.samples,
            output_change=None if change is None else change.largest,
            output_scale=None if change is None else change.scale,
            gradient_before=norms[0],
            gradient_after=norms[1],
            inertia_shift=predicted if self.inertia is None else self.inertia,
            inertia_checked=self.inertia is not None,
            neurons=self.growth.neurons,
            alphas=self.growth.alphas,
            curvature=curvature,
            measured_curvature=None if way is None else way.curvature,
            predicted_drop=None if way is None else way.predicted_drop,
            measured_drop=None if way is None else way.measured_drop,
            step=None if way is None else way.step,
            certificates=self.growth.certificates,
        )
        return replace(proof, caveats=tuple(self._caveats(proof)))

    def _gradient(self, model: nn.Module) -> float | None:
        if self.data is None or self.loss_fn is None:
            return None
        return gradient_norm(model, self.loss_fn, self.data)

    def _caveats(self, proof: WidthProof) -> list[str]:
        notes = list[str]()
        if proof.gradient_after is None:
            return [NO_CLAIM]
        split = any(neuron >= 0 for neuron in self.growth.neurons)
        if split and any(alpha in (0.0, 1.0) for alpha in self.growth.alphas):
            notes.append(DEGENERATE)
        if proof.curvature is None:
            notes.append(NO_ESCAPE)
        elif not proof.is_confirmed:
            notes.append(OTHER_CURVATURE.format(proof.measured_curvature))
        elif proof.gradient_after > CRITICAL_GRADIENT:
            notes.append(NOT_CRITICAL)
        elif not proof.is_strict_saddle:
            notes.append(UNDECIDED)
        predicted = self.growth.inertia_shift
        if None not in (self.inertia, predicted) and self.inertia != predicted:
            notes.append(OTHER_INERTIA.format(predicted))
        return [*notes, UNREGULARISED]


def _tried(
    model: nn.Module, direction: EscapeDirection, data: Data, loss_fn: LossFunction
) -> Escape:
    """Return how far the loss falls along a direction."""
    reduction = "sum" if is_sum(loss_fn) else "mean"
    return escape(
        model,
        direction.steps,
        loss_fn,
        data.loader,
        reduction=reduction,
        progress=False,
    )


def _what(layer: str, width: int, by: int, kind: str) -> str:
    one, many = {
        "split": ("copy of a neuron", "copies of neurons"),
        "null": ("null neuron", "null neurons"),
    }[kind]
    made = f"{by} {one if by == 1 else many}"
    return f"Added {made} to {layer!r}, which had {width} neurons."
