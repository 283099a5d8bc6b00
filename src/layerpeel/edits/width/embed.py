"""A fully connected network embedded into a wider one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from layerpeel._checks import EditError
from layerpeel.edits.comparison import compare
from layerpeel.edits.data import Data
from layerpeel.edits.edit import Edit
from layerpeel.edits.graph import Affine, Graph, Layer
from layerpeel.edits.loss import LossFunction, known_loss
from layerpeel.edits.passes import check_outputs, gradient_norms
from layerpeel.edits.proof import UNREGULARISED, Proof
from layerpeel.edits.resizing.rebuilt import rebuilt_affine
from layerpeel.edits.width.compatible_embedding import CompatibleEmbedding
from layerpeel.edits.width.needs import check_data


def embed(
    model: nn.Module,
    embedding: CompatibleEmbedding,
    *,
    data: Iterable[Any] | None = None,
    loss_fn: LossFunction | None = None,
) -> Edit:
    """Embed a fully connected network into a wider one, for every input exactly.

    References:
        | Embedding Principle: a hierarchical structure of loss landscape of deep neural
        | networks (Zhang, Li, Zhang, Luo & Xu, 2021), https://arxiv.org/abs/2111.15527

    Args:
        model: A model whose linear layers form a chain, each read by the next one after
            an activation.
        embedding: Where to.
        data: The loader, with batches ``(input, target)``, to measure the outputs on.
        loss_fn: Takes outputs and targets and returns the mean over the batch; gradient
            norms before and after are then measured. Needs ``data``.

    Returns:
        The wider model and what is proved of it. The given model stays as it is.

    Raises:
        EditError: If the model is no such chain, has other widths, or needs a bias that
            it does not have.
        TypeError: If the embedding is none.
        ValueError: If there is a loss, and no data.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
        >>> edit = embed(model, CompatibleEmbedding.threefold((2, 3, 2)))
        >>> edit.model[0].out_features, edit.proof.everywhere
        (9, True)
    """
    check_data(data, loss_fn, needed=False)
    if not isinstance(embedding, CompatibleEmbedding):
        raise TypeError(
            "`embedding` must be a CompatibleEmbedding; got a "
            f"{type(embedding).__name__}. Make one by `CompatibleEmbedding.splitting`."
        )
    held = None if data is None else Data(data, model)
    loss_fn = known_loss(loss_fn, model, held)
    graph = Graph(model, "layer", () if held is None else held.names)
    layers = _chain(graph)
    _check_widths(layers, embedding)
    activations = [_activation(layer) for layer in layers[:-1]]
    embedded = graph.replaced(
        {
            layer.path: _embedded(affine, embedding, level, activations)
            for level, (layer, affine) in enumerate(_affines(layers), 1)
        }
    )
    what = f"Embedded widths {embedding.widths} into {embedding.wide}."
    return Edit(embedded, _proved(model, embedded, held, loss_fn), what)


def _proved(
    before: nn.Module, after: nn.Module, data: Data | None, loss_fn: LossFunction | None
) -> Proof:
    if data is None:
        return Proof(exact=True, everywhere=True, samples=0)
    change = compare(before, after, data).change
    check_outputs(after, change)
    norms = gradient_norms(before, after, loss_fn, data)
    return Proof(
        exact=True,
        everywhere=True,
        samples=change.samples,
        output_change=change.largest,
        output_scale=change.scale,
        gradient_before=norms[0],
        gradient_after=norms[1],
        caveats=() if loss_fn is None else (UNREGULARISED,),
    )


def _chain(graph: Graph) -> list[Layer]:
    """Return the layers of a model whose linear layers form a chain."""
    layers = [graph.layer(affine.path) for affine in graph.affines]
    for layer, following in pairwise(layers):
        plain = (
            not layer.norms and not layer.others and layer.activation is not None
        ) and [c.path for c in layer.consumers] == [following.path]
        if not plain:
            raise EditError(
                "The linear layers of an embedded model must form a chain, each read by "
                f"the next one after an activation, and by nothing else; {layer.path!r} "
                "is not. Use `widen`, which widens single layers of other networks."
            )
    for affine in graph.affines:
        graph.check_own(affine)
        if not isinstance(affine.module, nn.Linear):
            raise EditError(
                f"The layers of an embedded model must be linear; {affine.path!r} is a "
                "convolution. Use `widen` for those."
            )
    return layers


def _affines(layers: Sequence[Layer]) -> list[tuple[Layer, Affine]]:
    return [(layer, layer.producer) for layer in layers if layer.producer is not None]


def _check_widths(layers: Sequence[Layer], embedding: CompatibleEmbedding) -> None:
    modules = [affine.module for _, affine in _affines(layers)]
    widths = tuple(int(m.weight.shape[0]) for m in modules)
    ins = [int(m.weight.shape[1]) for m in modules]
    if not modules or (ins[0], *widths) != embedding.widths:
        raise EditError(
            f"The embedding must be of networks of the model's widths, "
            f"{(*ins[:1], *widths)}; it is of {embedding.widths}."
        )
    if ins[1:] != list(widths[:-1]):
        raise EditError(
            "Each linear layer of an embedded model must read one weight per neuron of "
            f"the one before; they have {ins[1:]} inputs for {list(widths[:-1])} neurons."
        )


def _activation(layer: Layer) -> nn.Module:
    activation = layer.activation
    if isinstance(activation, nn.PReLU) and activation.num_parameters > 1:
        raise EditError(
            f"The activations of an embedded model must be the same for all neurons; "
            f"that of {layer.path!r} is a PReLU with a slope for each. Use `widen`."
        )
    assert activation is not None
    return deepcopy(activation).double().cpu()


def _embedded(
    affine: Affine,
    embedding: CompatibleEmbedding,
    level: int,
    activations: Sequence[nn.Module],
) -> nn.Module:
    """Return a layer of the wide network."""
    module = affine.module
    rows, columns = embedding.sources[level], embedding.sources[level - 1]
    weight = module.weight.detach().double().cpu()
    taken = weight[rows.clamp_min(0)][:, columns.clamp_min(0)]
    null = (rows < 0)[:, None] | (columns < 0)
    factors = embedding.factors[level - 1]
    new = factors * torch.where(null, 1.0, taken)
    with torch.no_grad():
        added = embedding.bias(level, activations)
    bias = _bias(affine, rows, added)
    return rebuilt_affine(module, new, bias)


def _bias(affine: Affine, rows: Tensor, added: Tensor) -> Tensor | None:
    bias = affine.module.bias
    if bias is None:
        if bool((added != 0).any()):
            raise EditError(
                f"The embedding adds to the biases of {affine.path!r}, which has none. "
                "Choose one without null neurons, or give the layer a bias of zeros."
            )
        return None
    own = bias.detach().double().cpu()[rows.clamp_min(0)]
    return torch.where(rows < 0, 0.0, own) + added
