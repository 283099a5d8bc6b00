r"""Merge layers that act linearly: fewer layers, with the function preserved.

Where all pre-activations of each neuron are inside one affine piece of the activation,
:math:`\sigma(x) = \lambda x + \mu`, a layer :math:`U, b'` and its reader :math:`V, c'` are
one layer on the data and near them, with

.. math:: W = V \mathrm{diag}(\lambda) U, \qquad b = V (\lambda b' + \mu) + c' .

Matrices that only agree with these on the data preserve outputs as well, but not critical
points. Where a layer is only nearly linear, its neurons are replaced by their
least-squares lines, and the change is measured.

References:
    | Embedding principle in depth for the loss landscape analysis of deep neural networks
    | (Bai, Luo, Xu & Zhang, 2022), https://arxiv.org/abs/2205.13283: detecting and merging
    | effectively linear layers; the statements on criticality are this package's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from layerpeel._checks import EditError
from layerpeel.edits.comparison import compare, unchanged
from layerpeel.edits.data import Data
from layerpeel.edits.edit import Edit
from layerpeel.edits.graph import Graph
from layerpeel.edits.inertia_check import inertia_shift
from layerpeel.edits.linear.merge_proof import (
    APPROXIMATE,
    NOT_REGULAR,
    ON_DATA,
    Merge,
    MergeProof,
)
from layerpeel.edits.linear.merging import Merging
from layerpeel.edits.linear.rule import Rule
from layerpeel.edits.loss import LossFunction, known_loss
from layerpeel.edits.passes import gradient_norms
from layerpeel.edits.proof import about_loss


def merge_layers(
    model: nn.Module,
    data: Iterable[Any],
    *,
    layers: Sequence[str] | None = None,
    tolerance: float | None = None,
    correlation: float | None = None,
    loss_fn: LossFunction | None = None,
    check_inertia: bool = False,
) -> Edit:
    r"""Merge layers that act linearly on the data into the layers that read them.

    The merged layer stands at the path of the reader. Layers that are exactly linear are
    merged by the matrix identity, always. Others are merged where ``tolerance`` or
    ``correlation`` allows it, one after the other, the smallest change first, and what is
    left is measured anew after each.

    Args:
        model: The model, deterministic: dropout and batch normalisation in eval mode.
        data: The loader, with batches ``(input, target)``.
        layers: Paths of the layers to merge; all that can be when omitted.
        tolerance: The largest relative root mean square change of what the reader
            returns that a merge may make. Not taken to be below :math:`\sqrt{W \epsilon}`
            for :math:`W` neurons: what rounding leaves of a zero.
        correlation: The paper's criterion instead: layers are merged whose minimal
            correlation is above this, 0.99 for instance.
        loss_fn: Takes outputs and targets and returns the mean over the batch; gradient
            norms before and after are then measured.
        check_inertia: Whether to compute the eigenvalues of both Hessians; needs
            ``loss_fn`` and a small model in float64.

    Returns:
        The merged model and what is proved of it; a copy if there is nothing to merge,
        with the reasons. The given model stays as it is.

    Raises:
        LayerError: If there is no such layer.
        EditError: If the model cannot be edited, or a layer that ``layers`` names cannot
            be merged; the message says why.
        NonFiniteError: If weights, inputs or features hold NaN or infinity.
        BatchError: If there is no sample, or the model does not run on the data.
        LossError: If the loss function gives no scalar.
        ValueError: If an argument is out of range.

    References:
        | Embedding principle in depth for the loss landscape analysis of deep neural
        | networks (Bai, Luo, Xu & Zhang, 2022), https://arxiv.org/abs/2205.13283

    Example:
        >>> import torch
        >>> from layerpeel.edits.depth import deepen
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).double()
        >>> with torch.no_grad():
        ...     _ = model[0].weight.copy_(torch.tensor([[1.0, 2], [-1, 1], [2, -1]]))
        ...     _ = model[0].bias.zero_()
        >>> x = torch.tensor([[1.0, 0], [0, 1], [1, 1]], dtype=torch.float64)
        >>> data = [(x, torch.tensor([0, 1, 1]))]
        >>> deeper = deepen(model, after="0", data=data).model
        >>> edit = merge_layers(deeper, data)
        >>> edit.what
        "Merged '0_deeper' into '2'."
        >>> torch.allclose(edit.model[2].weight, model[2].weight)
        True
    """
    if check_inertia and loss_fn is None:
        raise ValueError(
            "`check_inertia` needs the loss whose Hessian it is of: `loss_fn`."
        )
    rule = Rule(tolerance, correlation)
    held = Data(data, model)
    loss_fn = known_loss(loss_fn, model, held)
    work = Merging(model, held, rule, layers)
    work.merge_exactly()
    if rule.approximate:
        work.merge_approximately()
    if layers is not None and work.kept:
        path, why = next(iter(work.kept.items()))
        raise EditError(f"{path!r} cannot be merged into its reader: {why}.")
    proof = _proved(work, held, loss_fn, check_inertia)
    return Edit(work.current, proof, _what(work))


def _proved(
    work: Merging, data: Data, loss_fn: LossFunction | None, check_inertia: bool
) -> MergeProof:
    before, after, merges = work.before, work.current, tuple(work.merges)
    found = work.last
    if not merges:
        after = work.current = Graph(before, "layers", data.names).replaced({})
        found = unchanged(work.first) if work.first else None
    stages = sum(not merge.exact for merge in merges) + any(m.exact for m in merges)
    if found is None or stages > 1:
        found = compare(before, after, data, kept=work.first)
    exact, regular = all(m.exact for m in merges), all(m.regular for m in merges)
    everywhere = all(merge.activation == "Identity" for merge in merges)
    norms = gradient_norms(before, after, loss_fn, data)
    removed = _size(before) - _size(after)
    shift = _predicted(before, after, merges) if exact and regular else None
    if check_inertia and loss_fn is not None:
        shift = inertia_shift(before, after, loss_fn, data)
    return MergeProof(
        exact=exact,
        everywhere=everywhere,
        samples=found.change.samples,
        output_change=found.change.largest,
        output_scale=found.change.scale,
        gradient_before=norms[0],
        gradient_after=norms[1],
        inertia_shift=shift,
        inertia_checked=check_inertia,
        merges=merges,
        regular=regular,
        agreement=found.agreement,
        parameters_removed=removed,
        kept=tuple(work.kept.items()),
        caveats=(
            *about_loss(norms[0], shift),
            *_caveats(exact, regular, everywhere, work.notes),
        ),
    )


def _caveats(
    exact: bool, regular: bool, everywhere: bool, notes: list[str]
) -> tuple[str, ...]:
    caveats = [ON_DATA] if exact and not everywhere else []
    caveats += [] if exact else [APPROXIMATE]
    caveats += [NOT_REGULAR] if exact and not regular else []
    return (*caveats, *notes)


def _predicted(
    before: nn.Module, after: nn.Module, merges: tuple[Merge, ...]
) -> tuple[int, int, int] | None:
    """Return what the inertia grows by; unknown where parameters are frozen."""
    frozen = any(not p.requires_grad for p in before.parameters())
    if frozen or not all(merge.whole for merge in merges):
        return None
    return 0, _size(after) - _size(before), 0


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _what(work: Merging) -> str:
    if work.merges:
        return f"Merged {_pairs(work.merges)}."
    kept = "; ".join(f"{path!r}: {why}" for path, why in work.kept.items())
    return (
        f"Merged nothing, this is a copy. {kept or 'No layer is read by another one'}."
    )


def _pairs(merges: list[Merge]) -> str:
    return ", ".join(f"{merge.path!r} into {merge.reader!r}" for merge in merges)
