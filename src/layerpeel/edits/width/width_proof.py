"""What was proved and measured of a wider layer."""

from __future__ import annotations

from dataclasses import dataclass

from layerpeel._tolerances import CRITICAL_GRADIENT
from layerpeel.edits.proof import Proof
from layerpeel.edits.width.certificate import Certificate

NO_CLAIM = (
    "Neurons were chosen by their outgoing weights: nothing is said on whether the loss "
    "falls from here faster than before. Pass `data` and `loss_fn` for that."
)
NOT_CRITICAL = (
    "The gradient does not vanish here: the curvature along the direction is that of the "
    "Hessian at this point, and it is not the one of a saddle."
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
        predicted_drop: What the risk loses by a step along it, to second order.
        measured_drop: What it lost.
        step: The length of that step.
        certificates: One per new neuron, if there are data and a loss.
    """

    neurons: tuple[int, ...]
    alphas: tuple[float, ...]
    curvature: float | None = None
    predicted_drop: float | None = None
    measured_drop: float | None = None
    step: float | None = None
    certificates: tuple[Certificate, ...] = ()

    @property
    def is_strict_saddle(self) -> bool:
        """Whether the wider model is at a critical point with negative curvature.

        The gradient has to be below 1e-8, for losses and parameters of order one.
        """
        if self.curvature is None or self.gradient_after is None:
            return False
        return self.gradient_after <= CRITICAL_GRADIENT

    def details(self) -> list[str]:
        """Return what is said of new neurons alone, one statement per line."""
        lines = [f"neurons   {self._named()}"]
        if self.curvature is not None:
            saddle = ": a strict saddle" if self.is_strict_saddle else ""
            lines.append(f"curvature {self.curvature:.3e} along the direction{saddle}")
        if self.step is not None and self.predicted_drop is not None:
            lines.append(
                f"descent   {self.measured_drop:.3e} by a step of {self.step:.2e}, "
                f"{self.predicted_drop:.3e} to second order"
            )
        return lines

    def _named(self) -> str:
        pairs = list(zip(self.neurons, self.alphas, strict=True))
        said = [
            f"null at {alpha:g}" if neuron < 0 else f"{neuron} at share {alpha:g}"
            for neuron, alpha in pairs[:8]
        ]
        more = f" and {len(pairs) - 8} more" if len(pairs) > 8 else ""
        return ", ".join(said) + more
