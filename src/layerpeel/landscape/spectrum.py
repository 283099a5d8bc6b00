"""The spectrum of a Hessian: all of it, or its ends."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._tolerances import GRADIENT_MARGIN
from layerpeel.landscape.curvature import Curvature
from layerpeel.landscape.decided import Decided
from layerpeel.landscape.eigenpair import Eigenpair
from layerpeel.landscape.extremal import extremal_eigenpairs
from layerpeel.landscape.inertia import Inertia, zero_tolerance
from layerpeel.landscape.risk import Risk


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues and what can be said of their signs.

    Attributes:
        eigenvalues: All of them or those at both ends, ascending, with shape
            :math:`(m,)`.
        lowest: The lowest eigenpair.
        highest: The highest eigenpair.
        curvature: That along the lowest eigenvector, with the bound on its rounding.
        inertia: The signs of all of them; ``None`` if only the ends are known.
        undecided: How many of the known ones the gradient may have made.
        gradient_margin: What the gradient may have added to an eigenvalue.
        judged_above: The size above which an eigenvalue has a sign: that margin, or what
            rounding adds.
        converged: Whether the eigenpairs met their tolerance.
        decided: The eigenpairs that have a sign.
    """

    eigenvalues: Float64[Tensor, " m"]
    lowest: Eigenpair
    highest: Eigenpair
    curvature: Curvature
    inertia: Inertia | None
    undecided: int
    gradient_margin: float
    judged_above: float
    converged: bool
    decided: Decided

    @classmethod
    def dense(
        cls, risk: Risk, gradient_norm: float, progress: bool | None = None
    ) -> Spectrum:
        """Return all eigenvalues, from the dense Hessian."""
        matrix = risk.hessian(progress=progress)
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        lowest, highest = (Eigenpair.of(risk, vectors[:, i].clone()) for i in (0, -1))
        curvature = risk.curvature(lowest.vector)
        # What a saturated loss leaves of the Hessian may be rounding, and symmetric.
        error = max(float((matrix - matrix.T).norm()) / 2, curvature.rounding / 2)
        inertia = Inertia.of(values, gradient_norm=gradient_norm, error=error)
        margin = GRADIENT_MARGIN * gradient_norm
        judged = max(zero_tolerance(values, error), margin)
        return cls(
            values, lowest, highest, curvature, inertia, inertia.undecided, margin,
            judged, True, Decided.of(values, vectors, judged),
        )  # fmt: skip

    @classmethod
    def ends(cls, risk: Risk, gradient_norm: float, num_eigenvalues: int) -> Spectrum:
        """Return the eigenvalues at both ends, from products with vectors."""
        found = extremal_eigenpairs(risk, num_eigenvalues)
        pairs = (*found.lowest, *reversed(found.highest))
        values = torch.tensor([pair.value for pair in pairs], dtype=torch.float64)
        # As for the dense one: of all eigenvalues these are the largest.
        lowest, highest = found.lowest[0], found.highest[0]
        curvature = risk.curvature(lowest.vector)
        scale = zero_tolerance(values) * risk.size / len(values)
        scale = max(scale, curvature.rounding)
        margin = GRADIENT_MARGIN * gradient_norm
        judged = max(scale, margin)
        known = Inertia.of(values, gradient_norm=gradient_norm, tolerance=scale)
        vectors = torch.stack([pair.vector for pair in pairs], 1)
        # A pair may be at both ends, but counts once.
        overlaps = (vectors.T @ vectors).abs().tril(-1).sum(1)
        once = overlaps < 0.5
        return cls(
            values, lowest, highest, curvature, None, known.undecided, margin,
            judged, found.converged, Decided.of(values[once], vectors[:, once], judged),
        )  # fmt: skip
