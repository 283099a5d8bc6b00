"""The evidence for inserted layers, as it is measured on the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from layerpeel._checks import EditError
from layerpeel._tolerances import CRITICAL_GRADIENT
from layerpeel.edits.comparison import compare
from layerpeel.edits.data import Data
from layerpeel.edits.depth.boundary import Boundary
from layerpeel.edits.depth.lift import Lift
from layerpeel.edits.depth.lift_proof import (
    BOUNDARY,
    NEW_BIAS,
    NO_DESCENT,
    NOT_CRITICAL,
    SMOOTH,
    SMOOTH_RESIDUAL,
    LiftProof,
)
from layerpeel.edits.depth.margins import Margins
from layerpeel.edits.inertia_check import inertia_shift
from layerpeel.edits.loss import LossFunction
from layerpeel.edits.passes import check_outputs, gradient_norms
from layerpeel.edits.proof import COMPARED, DATA_ONLY, about_loss
from layerpeel.edits.recording import Kept


def proved(
    before: nn.Module,
    after: nn.Module,
    lifts: Sequence[Lift],
    data: Data,
    loss_fn: LossFunction | None = None,
    boundary: Boundary | None = None,
    notes: Sequence[str] = (),
    kept: Sequence[Kept] = (),
) -> LiftProof:
    """Measure a lifted model against the one that it is of.

    Args:
        before: The given model.
        after: The lifted one.
        lifts: The inserted layers.
        data: The data.
        loss_fn: The loss, if gradients are to be measured.
        boundary: The choice of the lift, if it is at a boundary.
        notes: Further caveats.
        kept: What the given model did, if there is one lift.

    Raises:
        EditError: If a pre-activation is off its affine piece, or outputs differ by
            more than rounding though they must not.
    """
    margins = Margins(after, lifts)
    source = lifts[0].path if kept else None
    change = compare(
        before, after, data, kept=kept, source=source, looking=margins.looking
    ).change
    exact = all(lift.piece.exact for lift in lifts)
    if boundary is None and not margins.margin > 0:
        raise EditError(
            "All inserted pre-activations must lie inside the affine piece; rounding "
            f"moves one out of it, by {-margins.margin:.3g}. Normalise the data or the "
            "layer before, or use a model in float64."
        )
    if exact or not math.isfinite(change.largest):
        check_outputs(after, change)
    shift = _predicted(after, lifts)
    norms = gradient_norms(before, after, loss_fn, data)
    return LiftProof(
        exact=exact,
        everywhere=False,
        samples=change.samples,
        output_change=change.largest,
        output_scale=change.scale,
        gradient_before=norms[0],
        gradient_after=norms[1],
        inertia_shift=shift,
        margin=margins.margin,
        radius=margins.radius,
        manifold_dimension=sum(lift.dimension for lift in lifts),
        slope=None if boundary is None else boundary.slope,
        unit_slope=None if boundary is None else boundary.unit_slope,
        caveats=(*about_loss(loss_fn, shift), *_caveats(lifts, boundary), *notes),
    )


def checked(
    proof: LiftProof,
    before: nn.Module,
    after: nn.Module,
    loss_fn: LossFunction,
    data: Data,
) -> LiftProof:
    """Return a proof with the shift of inertia as it was computed.

    Raises:
        EditError: If it cannot be computed.
    """
    shift = inertia_shift(before, after, loss_fn, data)
    caveats = proof.caveats
    norms = (proof.gradient_before, proof.gradient_after)
    if any(norm is None or norm > CRITICAL_GRADIENT for norm in norms):
        caveats = (*caveats, NOT_CRITICAL)
    return replace(proof, inertia_shift=shift, inertia_checked=True, caveats=caveats)


def _predicted(after: nn.Module, lifts: Sequence[Lift]) -> tuple[int, int, int] | None:
    """Return the shift of inertia at critical points, where it is known."""
    zeros = 0
    for lift in lifts:
        if not lift.piece.exact or lift.at_boundary or lift.added_bias:
            return None
        paths = (lift.path, lift.activation, lift.reader)
        trained = {
            parameter.requires_grad
            for path in paths
            for parameter in after.get_submodule(path).parameters()
        }
        if len(trained) > 1:
            return None
        # Frozen parameters have no part in the Hessian.
        zeros += lift.dimension if True in trained else 0
    return 0, zeros, 0


def _caveats(lifts: Sequence[Lift], boundary: Boundary | None) -> list[str]:
    smooth = {lift.construction == "residual" for lift in lifts if not lift.piece.exact}
    caveats = [COMPARED] if smooth else []
    caveats += [SMOOTH] if False in smooth else []
    caveats += [SMOOTH_RESIDUAL] if True in smooth else []
    if boundary is None:
        caveats += [] if smooth else [DATA_ONLY]
    else:
        caveats += [BOUNDARY, *([NO_DESCENT] if boundary.slope >= 0 else [])]
    return caveats + ([NEW_BIAS] if any(lift.added_bias for lift in lifts) else [])
