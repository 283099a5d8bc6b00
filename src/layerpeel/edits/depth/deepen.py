r"""Insert a layer that is affine on the data: outputs and critical points are kept.

A layer :math:`W f + b` that reads features :math:`f` becomes
:math:`V \sigma(U f + b') + c'`, where every inserted pre-activation lies on an affine
piece of :math:`\sigma` for all data, and the two maps in a row are the old one. Around
the data the deeper network is the old one with another parametrisation, so that its
gradient vanishes where the old one did. Its Hessian there has as many negative and
positive eigenvalues as before, and a zero more for each dimension of the set of such
lifts: a minimum stays one. What can lower the loss is to move along that set until a
sample meets a kink: the boundary.

References:
    | Embedding principle in depth for the loss landscape analysis of deep neural networks
    | (Bai, Luo, Xu & Zhang, 2022), https://arxiv.org/abs/2205.13283: the lifting; the
    | statements on inertia, dimension and boundary are this package's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from layerpeel._checks import one_of
from layerpeel.edits.data import Data
from layerpeel.edits.depth.evidence import checked, proved
from layerpeel.edits.depth.insertion import CONSTRUCTIONS, Insertion, Lifted
from layerpeel.edits.depth.lift import Lift
from layerpeel.edits.edit import Edit
from layerpeel.edits.loss import LossFunction, known_loss

PLACES = ("interior", "boundary")


def deepen(
    model: nn.Module,
    after: str | Sequence[str],
    data: Iterable[Any],
    *,
    loss_fn: LossFunction | None = None,
    width: int | None = None,
    at: str = "interior",
    activation: nn.Module | None = None,
    construction: str = "auto",
    into: str | None = None,
    segment_radius: float = 0.01,
    residual: bool = False,
    check_inertia: bool = False,
) -> Edit:
    r"""Insert a layer, such that outputs on the data and critical points are kept.

    Args:
        model: The model, deterministic: dropout and batch normalisation in eval mode.
        after: The path of a layer: the insertion comes after its batch normalisation
            and activation, where those follow. ``"input"`` is the input of the network.
            Of several paths, one after the other is lifted.
        data: The loader, with batches ``(input, target)``.
        loss_fn: Takes outputs and targets and returns the mean over the batch; gradient
            norms before and after are then measured.
        width: The number of inserted neurons, or channels, at least the smaller one of
            the numbers of features and of neurons that read them. As many as there are
            features when omitted: after maps that are flattened, many.
        at: ``"interior"``, where no sample is near a kink, or ``"boundary"``, where the
            neuron is at a kink along which the loss falls fastest: ``edit.direction``
            then leads there. Needs ``loss_fn``, and a reader without groups.
        activation: What to insert; that of the layer when omitted, or ReLU.
        construction: ``"features"`` inserts neurons that carry the features, and keeps
            all of them; ``"preactivations"`` those that carry what is read from them,
            which may be less. ``"auto"`` is the first where the width allows it.
        into: The path of the layer that is to read the inserted one, if several
            read the features.
        segment_radius: Half the length of the segment that smooth activations use.
        residual: Whether to insert a block :math:`f + \sigma(U f + b')`, as wide as the
            features, instead of :math:`\sigma(U f + b')`. Its :math:`U` is not zero: a
            block that adds a constant would be trivial.
        check_inertia: Whether to compute how many eigenvalues of either sign the Hessian
            gains, of up to 2000 parameters in float64. Needs ``loss_fn``.

    Returns:
        The deeper model and what is proved of it. The given model stays as it is.

    Raises:
        LayerError: If there is no such layer, or it is not called exactly once.
        EditError: If something stands in the way of the edit; it is named.
        NonFiniteError: If weights, inputs or features hold NaN or infinity.
        BatchError: If there is no sample, or the model does not run on the data.
        LossError: If the loss function gives no scalar.
        ValueError: If an argument is out of range.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> data = [(torch.eye(2), torch.tensor([0, 1]))]
        >>> edit = deepen(model, after="0", data=data, width=4)
        >>> [name for name, _ in edit.model.named_children()]
        ['0', '1', '0_deeper', '0_deeper_act', '2']
        >>> edit.proof.output_change < 1e-6, edit.proof.manifold_dimension
        (True, 18)
    """
    paths = [after] if isinstance(after, str) else list(after)
    _check(paths, loss_fn, at, construction, residual, check_inertia)
    held = Data(data, model)
    loss_fn = known_loss(loss_fn, model, held)
    plan = Insertion(
        held, width, activation, construction, into, segment_radius, residual=residual
    )
    towards = loss_fn if at == "boundary" else None
    steps, lifts = list[Lifted](), list[Lift]()
    for path in paths:
        current = steps[-1].model if steps else model
        keep = len(paths) == 1
        steps.append(plan.lifted(current, path, loss_fn=towards, keep=keep))
        new = steps[-1].lift
        lifts = [*(lift.followed_by(new) for lift in lifts), new]
    last = steps[-1]
    notes = tuple(dict.fromkeys(note for step in steps for note in step.notes))
    found, kept = last.boundary, last.reading.kept
    proof = proved(model, last.model, lifts, held, loss_fn, found, notes, kept)
    if check_inertia and loss_fn is not None:
        proof = checked(proof, model, last.model, loss_fn, held)
    direction = {} if found is None else found.direction
    return Edit(last.model, proof, _what(paths, lifts), tuple(lifts), direction)


def _check(
    paths: Sequence[str],
    loss_fn: LossFunction | None,
    at: str,
    construction: str,
    residual: bool,
    check_inertia: bool,
) -> None:
    one_of("at", at, PLACES)
    one_of("construction", construction, CONSTRUCTIONS)
    if not paths:
        raise ValueError("`after` must name at least one layer; got none.")
    if at == "boundary" and (loss_fn is None or len(paths) > 1):
        raise ValueError(
            "A lift to the boundary is chosen by the loss, one layer at a time; pass "
            f"`loss_fn`, and one path; got {loss_fn!r} and {len(paths)} paths."
        )
    if residual and (at == "boundary" or construction != "auto"):
        raise ValueError(
            "A residual block adds to the features, in the interior of a piece; got "
            f"`at={at!r}` and `construction={construction!r}`. Leave both out."
        )
    if check_inertia and (loss_fn is None or at == "boundary"):
        raise ValueError(
            "Eigenvalues are computed of the Hessian of the loss, away from kinks; got "
            f"`loss_fn={loss_fn!r}` and `at={at!r}`. Pass `loss_fn`, and leave `at` out."
        )


def _what(paths: Sequence[str], lifts: Sequence[Lift]) -> str:
    named = ", ".join(
        f"{lift.path!r} after {path!r}" for path, lift in zip(paths, lifts, strict=True)
    )
    return f"Inserted {named}."
