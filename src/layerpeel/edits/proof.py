"""What was proved and measured of an edit."""

from __future__ import annotations

from dataclasses import dataclass

UNREGULARISED = (
    "Statements on gradients and curvature are about the mean loss on the given data, "
    "without weight decay or other penalties on the weights."
)
DATA_ONLY = (
    "Outputs are preserved on the given data and near them, within the margin; on other "
    "inputs they may differ."
)
SMOOTH = (
    "The inserted activation is nearly linear on a segment, not linear: outputs change by "
    "the square of its radius, gradients by the radius, and the curvature grows like its "
    "inverse square. Choose the step size by that."
)
BOUNDARY = (
    "Samples lie on a kink of the inserted layer: the loss has one-sided slopes there, "
    "and no gradient or Hessian."
)
NO_DESCENT = (
    "No neuron that was looked at lets the loss fall across its kink. A wider inserted "
    "layer has more of them."
)
NEW_BIAS = (
    "The layer after the inserted one had no bias and was given one. Its gradient need "
    "not vanish where that of the other parameters does."
)


@dataclass(frozen=True)
class Proof:
    r"""The evidence for an edit; all lengths and changes are measured on the data.

    Attributes:
        exact: Whether outputs are preserved up to rounding.
        samples: The number of samples that were looked at.
        output_change: The largest change of an entry of the output.
        output_scale: The largest entry of the output, before.
        gradient_before: The Euclidean norm of the gradient of the risk, in float64;
            ``None`` without a loss.
        gradient_after: The same of the edited model.
        margin: The least distance of an inserted pre-activation to an end of its affine
            piece, a kink if the piece is exact; infinite if it has no end.
        radius: How far the features that the inserted layer reads may move, in
            Euclidean length, without a pre-activation meeting that end.
        manifold_dimension: The dimension of the set of lifted points that this one
            belongs to, :math:`M' - M` for as many parameters more.
        inertia_shift: What a critical point's numbers of negative, zero and positive
            Hessian eigenvalues grow by, :math:`(0, M' - M, 0)`; ``None`` where the
            edited point is not known to be regular.
        inertia_checked: Whether the eigenvalues were computed, rather than predicted.
        slope: The change of the risk per step along the edit's direction, to first
            order; ``None`` if the edit has no direction.
        unit_slope: The same per unit of motion of the parameters.
        caveats: What all this is not about.
    """

    exact: bool
    samples: int
    output_change: float
    output_scale: float
    gradient_before: float | None
    gradient_after: float | None
    margin: float
    radius: float
    manifold_dimension: int
    inertia_shift: tuple[int, int, int] | None
    inertia_checked: bool
    slope: float | None
    unit_slope: float | None
    caveats: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the proof in words, one statement per line."""
        how = "exact" if self.exact else "approximate"
        lines = [
            f"outputs   {how}: largest change {self.output_change:.2e} of "
            f"{self.output_scale:.2e}, on {self.samples} samples"
        ]
        if self.gradient_before is not None and self.gradient_after is not None:
            lines.append(
                f"gradient  norm {self.gradient_before:.2e} before, "
                f"{self.gradient_after:.2e} after"
            )
        lines.append(
            f"margin    {self.margin:.2e} to the end of a piece, radius {self.radius:.2e}"
        )
        lines.append(f"manifold  {self.manifold_dimension} dimensions")
        if self.inertia_shift is not None:
            checked = "checked" if self.inertia_checked else "predicted"
            lines.append(f"inertia   plus {self.inertia_shift} ({checked})")
        if self.slope is not None:
            lines.append(
                f"slope     {self.slope:.2e} per step, {self.unit_slope:.2e} per unit"
            )
        return [*lines, *(f"note      {caveat}" for caveat in self.caveats)]
