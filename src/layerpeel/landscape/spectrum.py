"""The spectrum of a Hessian: all of it, or its ends."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._tolerances import GRADIENT_MARGIN
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
        inertia: The signs of all of them; ``None`` if only the ends are known.
        undecided: How many of the known ones the gradient may have made.
        judged_above: The size above which an eigenvalue has a sign.
        converged: Whether the eigenpairs met their tolerance.
    """

    eigenvalues: Float64[Tensor, " m"]
    lowest: Eigenpair
    highest: Eigenpair
    inertia: Inertia | None
    undecided: int
    judged_above: float
    converged: bool

    @classmethod
    def dense(
        cls, risk: Risk, gradient_norm: float, progress: bool | None = None
    ) -> Spectrum:
        """Return all eigenvalues, from the dense Hessian."""
        matrix = risk.hessian(progress=progress)
        error = float((matrix - matrix.T).norm()) / 2
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        inertia = Inertia.of(values, gradient_norm=gradient_norm, error=error)
        judged = max(zero_tolerance(values, error), GRADIENT_MARGIN * gradient_norm)
        lowest, highest = (Eigenpair.of(risk, vectors[:, i].clone()) for i in (0, -1))
        return cls(values, lowest, highest, inertia, inertia.undecided, judged, True)

    @classmethod
    def ends(cls, risk: Risk, gradient_norm: float, num_eigenvalues: int) -> Spectrum:
        """Return the eigenvalues at both ends, from products with vectors."""
        found = extremal_eigenpairs(risk, num_eigenvalues)
        pairs = (*found.lowest, *reversed(found.highest))
        values = torch.tensor([pair.value for pair in pairs], dtype=torch.float64)
        # As for the dense one: of all eigenvalues these are the largest.
        scale = zero_tolerance(values) * risk.size / len(values)
        judged = max(scale, GRADIENT_MARGIN * gradient_norm)
        known = Inertia.of(values, gradient_norm=gradient_norm, tolerance=scale)
        return cls(
            values, found.lowest[0], found.highest[0], None, known.undecided, judged,
            found.converged,
        )  # fmt: skip
