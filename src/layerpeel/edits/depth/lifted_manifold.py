r"""Other points of the set of lifts: all give the same outputs on the data.

For an invertible :math:`G`, :math:`G U` and :math:`V G^{-1}` are a lift where
:math:`U` and :math:`V` are, once the bias has moved the neurons into the affine piece
again. Neurons that nothing is read from may read anything, and neurons that read nothing
may be read by all.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from layerpeel._checks import EditError, at_least, listed
from layerpeel.edits.data import Data
from layerpeel.edits.depth.evidence import proved
from layerpeel.edits.depth.gauge import normal, placed, turned
from layerpeel.edits.depth.lift import Lift, Weights, groups_of
from layerpeel.edits.depth.reading import reading
from layerpeel.edits.depth.residual_gauge import residual_point
from layerpeel.edits.edit import Edit
from layerpeel.edits.loss import LossFunction, known_loss
from layerpeel.edits.passes import Range


def lifted_manifold(
    edit: Edit,
    data: Iterable[Any],
    *,
    generator: torch.Generator,
    count: int = 1,
    loss_fn: LossFunction | None = None,
) -> list[Edit]:
    """Return random points of the set of lifts that an edit belongs to.

    Args:
        edit: What :func:`~layerpeel.edits.deepen` returned.
        data: The loader of the edit, or one of a part of its data.
        generator: Where randomness comes from.
        count: The number of points.
        loss_fn: Takes outputs and targets and returns the mean over the batch; gradient
            norms are then measured.

    Returns:
        As many edits, of models of their own; the proof of each is about its change
        against the model of the given edit.

    Raises:
        EditError: If the edit inserted no layer, or one at a boundary.

    Example:
        >>> from layerpeel.edits.depth.deepen import deepen
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> data = [(torch.eye(2), torch.tensor([0, 1]))]
        >>> edit = deepen(model, after="0", data=data, width=4)
        >>> points = lifted_manifold(
        ...     edit, data, generator=torch.Generator().manual_seed(0), count=2
        ... )
        >>> [point.proof.output_change < 1e-5 for point in points]
        [True, True]
    """
    at_least("count", count, 1)
    if not edit.lifts or any(lift.at_boundary for lift in edit.lifts):
        raise EditError(
            "Points are drawn around a lift whose data lie inside an affine piece; this "
            "edit inserted none, or one at a boundary. Use `deepen(..., at='interior')`."
        )
    held = Data(data, edit.model)
    loss_fn = known_loss(loss_fn, edit.model, held)
    return [_point(edit, generator, held, loss_fn) for _ in range(count)]


def _point(
    edit: Edit, generator: torch.Generator, data: Data, loss_fn: LossFunction | None
) -> Edit:
    model = deepcopy(edit.model)
    for lift in filter(attrgetter("free"), edit.lifts):
        _move(model, lift, generator, data)
    proof = proved(edit.model, model, edit.lifts, data, loss_fn)
    if proof.inertia_shift is not None:
        # All points of the set have the same inertia.
        proof = replace(proof, inertia_shift=(0, 0, 0))
    names = listed([repr(lift.path) for lift in edit.lifts if lift.free])
    return Edit(model, proof, f"Moved {names} along the lifts.", edit.lifts)


def _move(model: nn.Module, lift: Lift, generator: torch.Generator, data: Data) -> None:
    first: Any = model.get_submodule(lift.path)
    reader: Any = model.get_submodule(lift.reader)
    into, bias, out = (
        # Copies: the layers are written to below.
        t.detach().double().clone()
        for t in (first.weight, first.bias, reader.weight)
    )
    start = Weights(into, bias, out, groups_of(first))
    old = reader.bias.detach().double()
    # What the reader's bias would be if the inserted neurons were zero at zero.
    constant = old - start.reader_bias(lift.piece, torch.zeros_like(old))

    def seen(into: Tensor) -> Range:
        """Return the range of neurons without their bias."""
        with torch.no_grad():
            first.weight.copy_(into)
            first.bias.zero_()
        return reading(model, lift.path, data, output=True, keep=False).range

    if lift.construction == "residual":
        final = residual_point(start, lift.piece, generator, seen)
    else:
        awake = Weights.joined([_woken(part, generator) for part in start.parts])
        moved = turned(awake, generator)
        final = placed(moved, lift.piece, seen(moved.into))
    rounded = final.to(first.weight.dtype).to(torch.float64)
    with torch.no_grad():
        first.weight.copy_(rounded.into)
        first.bias.copy_(rounded.bias)
        reader.weight.copy_(rounded.out)
        reader.bias.copy_(rounded.reader_bias(lift.piece, constant))


def _woken(weights: Weights, generator: torch.Generator) -> Weights:
    """Let neurons that nothing passes through read, or be read, at random."""
    into, out = weights.into.clone(), weights.out.clone()
    reads = into.flatten(1).any(1)
    is_read = out.transpose(0, 1).flatten(1).any(1)
    coins = torch.rand(len(into), generator=generator).to(into.device) < 0.5
    idle = ~reads & ~is_read
    for j in idle.nonzero().flatten().tolist():
        target = into[j] if bool(coins[j]) else out[:, j]
        size = into if bool(coins[j]) else out
        target.copy_(normal(target, generator) * _size(size))
    return Weights(into, weights.bias, out)


def _size(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()
