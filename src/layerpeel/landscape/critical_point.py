"""What is known about a point of a risk: a value with its evidence."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from layerpeel._figures import axes, colour, style
from layerpeel._tolerances import GRADIENT_MARGIN
from layerpeel.landscape.curvature import Curvature
from layerpeel.landscape.eigenpair import Eigenpair
from layerpeel.landscape.inertia import Inertia
from layerpeel.landscape.kinks import Kinks
from layerpeel.landscape.parameters import Parameters


class LandscapeWarning(UserWarning):
    """What is said of a point needs a caution; the message names the cause."""


class Kind(enum.Enum):
    """What kind of point it is. The value is the sentence shown to the user."""

    NOT_CRITICAL = (
        "The gradient is above `gradient_tolerance`: the signs of eigenvalues are not "
        "those of a critical point. Go on training, or `polish` a small network."
    )
    AT_KINK = (
        "A sample is on a kink of an activation, a maximum or the loss: the risk may "
        "have no Hessian here. Look for one-sided slopes, or move the point off the kink."
    )
    STRICT_SADDLE = (
        "The gradient is small, and there is curvature that is negative beyond the "
        "rounding that was evaluated: `escape` along `escape_direction` lowers the risk."
    )
    LOCAL_MINIMUM = (
        "No eigenvalue is negative, and as many are zero as the flat fibre that was given "
        "has dimensions, or none without one: a local minimum, up to rounding."
    )
    DEGENERATE_MINIMUM_CANDIDATE = (
        "No eigenvalue is negative, but how many are zero is not the dimension of a fibre "
        "that was given: it is not shown that the risk is flat along all of them. If a "
        "fibre of equal risk goes through the point, pass its dimension as "
        "`fibre_dimension`."
    )
    NO_NEGATIVE_FOUND = (
        "Lanczos found no negative curvature; that does not prove there is none. Raise "
        "`dense_limit` if the dense Hessian fits in memory."
    )
    UNDECIDED = (
        "The eigenvalues that matter are not large against the gradient or rounding, or "
        "not the same at the critical point nearby. Bring the gradient down with "
        "`polish`, and judge again."
    )

    @property
    def proved(self) -> bool:
        """Whether it is a statement on the point, evaluated up to rounding."""
        return self in {Kind.STRICT_SADDLE, Kind.LOCAL_MINIMUM}


@dataclass(frozen=True, eq=False)
class CriticalPoint:
    """What kind of point a model is at, and why; see :func:`classify_point`.

    All of it is about the unregularised risk of the given data, in eval mode.

    Attributes:
        kind: The verdict; its value is advice.
        loss: The risk.
        gradient_norm: The length of the gradient.
        largest_gradient: Its largest entry in absolute value.
        inertia: The signs of all eigenvalues; ``None`` beyond ``dense_limit``.
        eigenvalues: All eigenvalues, ascending, with shape :math:`(p,)`; beyond
            ``dense_limit`` those that were looked for, at both ends.
        lowest: The lowest eigenpair.
        highest: The highest eigenpair.
        curvature: That along the lowest eigenvector, with the bound on its rounding.
        judged_above: Eigenvalues must be larger than this, in absolute value, to be told
            from what rounding and the gradient add.
        kinks: How close samples are to kinks.
        samples: The number of samples.
        parameters: Where each parameter is in the flat vectors.
        gradient_tolerance: The largest gradient of a critical point.
        fibre_dimension: The dimension of the flat fibre, as the caller gave it.
        warnings: What to be cautious about, in sentences.
    """

    kind: Kind
    loss: float
    gradient_norm: float
    largest_gradient: float
    inertia: Inertia | None
    eigenvalues: Float64[Tensor, " m"]
    lowest: Eigenpair
    highest: Eigenpair
    curvature: Curvature
    judged_above: float
    kinks: Kinks
    samples: int
    parameters: Parameters
    gradient_tolerance: float
    fibre_dimension: int | None
    warnings: tuple[str, ...]

    @property
    def is_critical(self) -> bool:
        """Whether the gradient is at most ``gradient_tolerance``."""
        return self.gradient_norm <= self.gradient_tolerance

    @property
    def escape_direction(self) -> dict[str, Tensor] | None:
        """A unit direction of proved negative curvature, by parameter; else ``None``.

        Proved as far as :class:`Curvature` bounds rounding, at this point. Of a vector
        and its opposite it is the one that does not point uphill.
        """
        margin = GRADIENT_MARGIN * self.gradient_norm
        if self.kinks.are_touched or not self.curvature.is_below(margin):
            return None
        parts = self.parameters.unflat(self.lowest.vector)
        return {name: part.clone() for name, part in parts.items()}

    def summary(self) -> str:
        """Return the verdict and its evidence, in lines."""
        lines = [
            f"{self.kind.name}: {self.kind.value}",
            f"risk {self.loss:.6g} on {self.samples} samples, gradient norm "
            f"{self.gradient_norm:.2e} (largest entry {self.largest_gradient:.2e})",
            f"{self.parameters.size} parameters, inertia {self.inertia or 'not computed'}",
            f"eigenvalues from {self.lowest.value:.4g} (residual "
            f"{self.lowest.residual:.1e}) to {self.highest.value:.4g} (residual "
            f"{self.highest.residual:.1e}), judged above {self.judged_above:.1e}",
            f"margin to the nearest kink {self.kinks.margin:.3g} {self.kinks.where}",
            *(f"caution: {warning}" for warning in self.warnings),
        ]
        return "\n".join(line.rstrip() for line in lines)

    @style()
    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the eigenvalues in order, and the band that is not judged.

        Args:
            ax: Where to draw; a figure of its own when omitted.
        """
        fig, ax = axes(ax)
        threshold = max(self.judged_above, 1e-300)
        ax.set_yscale("symlog", linthresh=threshold)
        ax.axhspan(-threshold, threshold, color=colour("grid"), label="not judged")
        order = range(1, len(self.eigenvalues) + 1)
        ax.plot(
            order, self.eigenvalues.tolist(), "o", markersize=3, color=colour("measured"),
            label="eigenvalue",
        )  # fmt: skip
        ax.set_xlabel("eigenvalue, in order")
        ax.set_ylabel("eigenvalue of the Hessian")
        ax.legend()
        return fig, ax
