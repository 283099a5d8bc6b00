"""What was proved and measured of an inserted layer."""

from __future__ import annotations

from dataclasses import dataclass

from layerpeel.edits.proof import Proof

SMOOTH = (
    "The inserted activation is nearly linear on a segment, not linear: outputs change by "
    "the square of its radius, gradients by the radius, and the curvature grows like its "
    "inverse square. Choose the step size by that."
)
SMOOTH_RESIDUAL = (
    "The inserted activation is nearly linear on a segment, not linear: what a residual "
    "block adds is off by the cube of its radius, outputs by as much, and gradients by "
    "the square."
)
NOT_CRITICAL = (
    "The numbers of eigenvalues are those of the Hessian at a point that is not critical, "
    "where the gradient adds some of either sign. What is predicted, zeros alone, is "
    "about critical points."
)
BOUNDARY = (
    "Outputs are preserved on the given data. Samples lie on a kink of the inserted layer: "
    "the loss has one-sided slopes there, and no gradient or Hessian, and outputs near "
    "those samples may differ."
)
NO_DESCENT = (
    "No neuron that was looked at lets the loss fall across its kink. A wider inserted "
    "layer has more of them."
)
NEW_BIAS = (
    "The layer after the inserted one had no bias and was given one. Its gradient need "
    "not vanish where that of the other parameters does."
)


@dataclass(frozen=True, kw_only=True)
class LiftProof(Proof):
    r"""The evidence for inserted layers; all of it is measured on the data.

    Attributes:
        margin: The least distance of an inserted pre-activation to an end of its affine
            piece, a kink if the piece is exact; infinite if it has no end.
        radius: How far the features that the inserted layer reads may move, in
            Euclidean length, without a pre-activation meeting that end.
        manifold_dimension: The dimension of the set of lifted points that this one
            belongs to, :math:`M' - M` for as many parameters more.
        slope: The change of the risk per step along the edit's direction, to first
            order; ``None`` if the edit has no direction.
        unit_slope: The same per unit of motion of the parameters.
    """

    margin: float
    radius: float
    manifold_dimension: int
    slope: float | None = None
    unit_slope: float | None = None

    def details(self) -> list[str]:
        """Return what is said of inserted layers alone, one statement per line."""
        lines = [
            f"margin    {self.margin:.2e} to the end of a piece, radius {self.radius:.2e}",
            f"manifold  {self.manifold_dimension} dimensions",
        ]
        if self.slope is not None:
            lines.append(
                f"slope     {self.slope:.2e} per step, {self.unit_slope:.2e} per unit"
            )
        return lines
