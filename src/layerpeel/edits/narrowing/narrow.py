r"""Take neurons out of a layer: exactly, or with a change that is measured.

References:
    | Geometry of Critical Sets and Existence of Saddle Branches for Two-layer Neural
    | Networks (Zhang, Li & Luo, 2024), https://arxiv.org/abs/2405.17501: the critical
    | reduction
    | Embedding Principle of Loss Landscape of Deep Neural Networks
    | (Zhang, Zhang, Luo & Xu, 2021), https://arxiv.org/abs/2105.14573: groups of neurons
    | of one direction
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485: clones
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn

from layerpeel._checks import undefined
from layerpeel.edits.comparison import Comparison, compare
from layerpeel.edits.data import Data
from layerpeel.edits.edit import Edit
from layerpeel.edits.graph import Graph
from layerpeel.edits.loss import LossFunction, known_loss
from layerpeel.edits.narrowing.narrow_proof import (
    CHANGED,
    EXACT_ALONE,
    NEW_BIAS,
    NarrowProof,
)
from layerpeel.edits.narrowing.neurons import Neurons
from layerpeel.edits.narrowing.plan import Plan, planned
from layerpeel.edits.narrowing.readings import Readings
from layerpeel.edits.narrowing.request import Request
from layerpeel.edits.passes import check_outputs, gradient_norms
from layerpeel.edits.proof import about_loss
from layerpeel.edits.resizing import Resizing


def narrow(
    model: nn.Module,
    layer: str,
    *,
    data: Iterable[Any] | None = None,
    width: int | None = None,
    tolerance: float | None = None,
    method: str = "critical",
    cosine: float = 0.9,
    loss_fn: LossFunction | None = None,
) -> Edit:
    r"""Return a model with fewer neurons, or channels, in a layer.

    Three methods: ``"critical"`` takes out what other neurons can stand in for, whatever
    the input: copies, mirror images and multiples as the activation allows, constants,
    and what nothing reads. Outputs stay the same, and critical points stay critical.
    ``"clones"`` keeps the neurons from which the others are best reconstructed on the
    data, and folds the reconstruction into the layers that read them. ``"cosine"``
    keeps, for positively homogeneous activations, one neuron of each direction, with the
    weights of those near it.

    Args:
        model: The model, deterministic: dropout and batch normalisation in eval mode.
        layer: The path of a linear layer or convolution, whose neurons or channels are
            read, past batch normalisation, activation and pooling, by other such layers.
        data: The loader, with batches ``(input, target)``. The change is measured on it;
            the method ``"clones"`` needs it.
        width: How many neurons to keep; the method ``"critical"`` keeps as many and no
            fewer, of the others ``"clones"`` and ``"cosine"`` reach any width.
        tolerance: Or as few as a relative root mean square change of what the layers
            that read these neurons return allows, floored at :math:`\sqrt{W \varepsilon}`.
            Needs data. The method ``"critical"`` meets every tolerance.
        method: ``"critical"``, ``"clones"`` or ``"cosine"``.
        cosine: The least cosine in a group of the method ``"cosine"``, in effect where
            neither ``width`` nor ``tolerance`` is given.
        loss_fn: Takes outputs and targets and returns the mean over the batch; gradient
            norms before and after are then measured on the data.

    Returns:
        The narrower model and what is proved of it. The given model stays as it is.

    Raises:
        LayerError: If there is no such layer, or it is not called exactly once.
        EditError: If something stands in the way of the edit, or the width cannot be
            reached; the message names which.
        NonFiniteError: If weights, inputs or features hold NaN or infinity.
        BatchError: If there is no sample, or the model does not run on the data.
        LossError: If the loss function gives no scalar.
        ValueError: If an argument is out of range, or arguments do not go together.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).double()
        >>> with torch.no_grad():  # one neuron is twice another one
        ...     _ = model[0].weight[2].copy_(2 * model[0].weight[0])
        ...     _ = model[0].bias[2].copy_(2 * model[0].bias[0])
        >>> edit = narrow(model, "0")
        >>> edit.model[0].out_features, edit.proof.groups
        (2, ((0, 2), (1,)))
        >>> x = torch.eye(2).double()
        >>> bool((edit.model(x) - model(x)).abs().max() < 1e-12)
        True
    """
    asked = Request(method, width, tolerance, cosine)
    if data is None:
        asked.check_data(loss_fn)
    held = None if data is None else Data(data, model)
    loss_fn = known_loss(loss_fn, model, held)
    graph = Graph(model, "layer", () if held is None else held.names)
    place = graph.layer(layer)
    resizing = Resizing(graph, place)
    asked.check_width(layer, resizing.width)
    neurons = Neurons.of(graph, place, resizing)
    readings = None
    if held is not None and method != "critical":
        readings = Readings.of(
            model, neurons.chains, resizing.channels, held, resizing.producer.path
        )
    plan = planned(asked, layer, neurons, readings)
    notes = [NEW_BIAS] if _needs_bias(resizing, plan) else []
    notes += [EXACT_ALONE] if method == "critical" and tolerance is not None else []
    edited = graph.replaced(_modules(resizing, plan))
    found = _measured(model, edited, resizing, held, readings)
    if found is not None and (method == "critical" or not found.finite):
        check_outputs(edited, found.change)
    norms = gradient_norms(model, edited, loss_fn, held)
    proof = _proof(method, plan, resizing.width, found, norms, notes)
    return Edit(edited, proof, _what(layer, proof))


def _what(layer: str, proof: NarrowProof) -> str:
    before, after = proof.width_before, proof.width_after
    if before > after:
        return f"Narrowed {layer!r} from {before} to {after} neurons."
    return f"Narrowed nothing, this is a copy. {layer!r} keeps its {before} neurons."


def _needs_bias(resizing: Resizing, plan: Plan) -> bool:
    return any(
        consumer.module.bias is None and bool(plan.readings[consumer.path].shift.any())
        for consumer in resizing.consumers
    )


def _modules(resizing: Resizing, plan: Plan) -> dict[str, nn.Module]:
    modules = resizing.rows(plan.kept)
    for consumer in resizing.consumers:
        reading, bias = plan.readings[consumer.path], consumer.module.bias
        shift = reading.shift.to(consumer.module.weight.device)
        if bool(shift.any()):
            bias = shift if bias is None else bias.detach().double() + shift
        modules[consumer.path] = resizing.reader(consumer, reading.blocks, bias)
    return modules


def _measured(
    model: nn.Module,
    edited: nn.Module,
    resizing: Resizing,
    data: Data | None,
    readings: Readings | None,
) -> Comparison | None:
    if data is None:
        return None
    paths, source = [c.path for c in resizing.consumers], resizing.producer.path
    kept = () if readings is None else readings.kept
    return compare(model, edited, data, paths, kept=kept, source=source)


def _relative(found: Comparison) -> float:
    change = found.of_spread
    if not math.isinf(change):
        return change
    return undefined(
        "The relative change of outputs that do not vary is undefined (NaN)."
    )


def _proof(
    method: str,
    plan: Plan,
    width: int,
    found: Comparison | None,
    norms: tuple[float | None, float | None],
    notes: list[str],
) -> NarrowProof:
    exact = method == "critical" or len(plan.kept) == width
    kept = [int(neuron) for neuron in plan.kept]
    groups: dict[int, list[int]] = {neuron: [neuron] for neuron in kept}
    for neuron, leader in enumerate(plan.leaders.tolist()):
        if leader >= 0 and leader != neuron:
            groups[leader].append(neuron)
    return NarrowProof(
        exact=exact,
        everywhere=exact,
        samples=0 if found is None else found.change.samples,
        output_change=None if found is None else found.change.largest,
        output_scale=None if found is None else found.change.scale,
        gradient_before=norms[0],
        gradient_after=norms[1],
        caveats=(*about_loss(norms[0]), *([] if exact else [CHANGED]), *notes),
        method=method,
        kept=tuple(kept),
        groups=tuple(tuple(groups[neuron]) for neuron in kept),
        width_before=width,
        width_after=len(kept),
        relative_change=None if found is None else _relative(found),
        bound=plan.bound,
        bound_kind=plan.bound_kind,
        bound_per_input=plan.bound_per_input,
        threshold=plan.threshold,
        agreement=None if found is None else found.agreement,
    )
