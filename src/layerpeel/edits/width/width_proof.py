"""What was proved and measured of a wider layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from layerpeel._tolerances import CERTIFIED_SHARE, CRITICAL_GRADIENT, GRADIENT_MARGIN
from layerpeel.edits.proof import Proof
from layerpeel.edits.width.certificate import NeuronCertificate

NO_CLAIM = (
    "Neurons were chosen by their outgoing weights: nothing is said on whether the loss "
    "falls from here faster than before. Pass `data` and `loss_fn` for that."
)
NOT_CRITICAL = (
    "The gradient does not vanish here: the curvature along the direction is that of the "
    "Hessian at this point, and it is not the one of a saddle."
)
UNDECIDED = (
    "The curvature along the direction is not beyond ten times the gradient: whether the "
    "critical point nearby is a saddle is open. Move closer to it with `polish`."
)
DEGENERATE = (
    "With a share of 0 or 1, one of two copies is not read: the curvature of their "
    "incoming weights opens no way down, only the gradients of outgoing weights do."
)
NO_ESCAPE = (
    "No new neuron opens a direction of negative curvature: the curvature and the "
    "cross gradients of the layer vanish, or have the wrong sign at this share. Pass "
    "`alpha='auto'`, another layer, or `kind='null'`."
)
OTHER_CURVATURE = (
    "A product with the Hessian gives {:.3g} along the direction instead: samples may lie "
    "on kinks, or the model be in a precision too short for its second derivatives."
)
# A prediction of so many times what was measured is none.
_FAR = 10.0
OTHER_INERTIA = "Certificates predict {} for the inertia."


@dataclass(frozen=True, kw_only=True)
class WidthProof(Proof):
    r"""The evidence for a wider layer; outputs are preserved for every input.

    Attributes:
        neurons: The old neuron that each new one is a copy of; -1 for null neurons.
        alphas: The share of the split neuron that each new one took; of a null neuron
            its pre-activation.
        curvature: :math:`v^\top H v` along the unit direction of the edit, of the risk of
            the wider model; ``None`` without a direction.
        measured_curvature: The same by a product with the Hessian of the wider model, in
            its own precision.
        predicted_drop: What the risk loses by a step along it, to second order.
        measured_drop: What it lost.
        step: The length of that step.
        certificates: One per new neuron, if there are data and a loss.
    """

    of_critical_points: ClassVar[bool] = False

    neurons: tuple[int, ...]
    alphas: tuple[float, ...]
    curvature: float | None = None
    measured_curvature: float | None = None
    predicted_drop: float | None = None
    measured_drop: float | None = None
    step: float | None = None
    certificates: tuple[NeuronCertificate, ...] = ()

    @property
    def is_confirmed(self) -> bool:
        """Whether a product with the Hessian gives the certified curvature."""
        if self.curvature is None or self.measured_curvature is None:
            return False
        error = abs(self.measured_curvature - self.curvature)
        return error <= CERTIFIED_SHARE * abs(self.curvature)

    @property
    def is_strict_saddle(self) -> bool:
        """Whether the wider model is at a critical point with negative curvature.

        The gradient has to be below 1e-8, for losses and parameters of order one, and the
        curvature beyond ten times the gradient.
        """
        gradient = self.gradient_after
        if self.curvature is None or gradient is None or not self.is_confirmed:
            return False
        return (
            gradient <= CRITICAL_GRADIENT
            and -self.curvature > GRADIENT_MARGIN * gradient
        )

    def details(self) -> list[str]:
        """Return what is said of new neurons alone, one statement per line."""
        lines = [f"neurons   {self._named()}"]
        if self.curvature is not None:
            saddle = ": a strict saddle" if self.is_strict_saddle else ""
            lines.append(f"curvature {self.curvature:.3e} along the direction{saddle}")
        if self.step is not None and self.predicted_drop is not None:
            lines.append(
                f"descent   {self.measured_drop:.3e} by a step of {self.step:.2e}, "
                f"{self._foreseen(self.predicted_drop)}"
            )
        return lines

    def _foreseen(self, drop: float) -> str:
        assert self.measured_drop is not None
        if drop <= _FAR * self.measured_drop:
            return f"{drop:.3e} to second order"
        return "beyond where the second order holds"

    def _named(self) -> str:
        pairs = list(zip(self.neurons, self.alphas, strict=True))
        said = [
            f"null at {alpha:g}" if neuron < 0 else f"{neuron} at share {alpha:g}"
            for neuron, alpha in pairs[:8]
        ]
        more = f" and {len(pairs) - 8} more" if len(pairs) > 8 else ""
        return ", ".join(said) + more
