"""What was proved and measured of an edit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from layerpeel._json import plain

UNREGULARISED = (
    "Statements on gradients and curvature are about the loss on the given data, "
    "without weight decay or other penalties on the weights."
)
COMPARED = (
    "Outputs were compared on the given data; on other inputs they may differ by more."
)
DATA_ONLY = (
    "Outputs are preserved on the given data and near them, within the margin; on other "
    "inputs they may differ."
)


def about_loss(
    loss_fn: object, shift: tuple[int, int, int] | None = None
) -> tuple[str, ...]:
    """Return what statements on the loss are about, where there are some."""
    return () if loss_fn is None and shift is None else (UNREGULARISED,)


@dataclass(frozen=True, kw_only=True)
class Proof:
    r"""The evidence for an edit; each kind of edit adds its own.

    Attributes:
        exact: Whether outputs are preserved up to rounding.
        everywhere: Whether they are so for every input, rather than on the data.
        samples: The number of samples that were looked at; zero without data.
        output_change: The largest change of an entry of the output on the data;
            ``None`` without data.
        output_scale: The largest entry of the output, before; ``None`` without data.
        gradient_before: The Euclidean norm of the gradient of the risk, in float64;
            ``None`` without a loss.
        gradient_after: The same of the edited model.
        inertia_shift: What the numbers of negative, zero and positive Hessian
            eigenvalues of a critical point grow by; ``None`` where that is not known.
        inertia_checked: Whether the eigenvalues were computed, rather than predicted.
        caveats: What all this is not about.
    """

    # Whether the shift of the inertia is predicted for critical points alone.
    of_critical_points: ClassVar[bool] = True

    exact: bool
    everywhere: bool
    samples: int
    output_change: float | None = None
    output_scale: float | None = None
    gradient_before: float | None = None
    gradient_after: float | None = None
    inertia_shift: tuple[int, int, int] | None = None
    inertia_checked: bool = False
    caveats: tuple[str, ...] = ()

    def details(self) -> list[str]:
        """Return what is said of this kind of edit alone, one statement per line."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        content: dict[str, Any] = plain(asdict(self))
        return content

    def lines(self) -> list[str]:
        """Return the proof in words, one statement per line."""
        lines = [self._outputs()]
        if self.gradient_before is not None and self.gradient_after is not None:
            lines.append(
                f"gradient  norm {self.gradient_before:.2e} before, "
                f"{self.gradient_after:.2e} after"
            )
        lines += self.details()
        if self.inertia_shift is not None:
            lines.append(f"inertia   plus {self.inertia_shift} ({self._sense()})")
        return [*lines, *(f"note      {caveat}" for caveat in self.caveats)]

    def _sense(self) -> str:
        if self.inertia_checked:
            return "checked"
        return (
            "predicted, of a critical point" if self.of_critical_points else "predicted"
        )

    def _outputs(self) -> str:
        how = "exact" if self.exact else "approximate"
        where = " for every input" if self.everywhere else ""
        if self.output_change is None or self.output_scale is None:
            return f"outputs   {how}{where}, not measured: there are no data"
        return (
            f"outputs   {how}{where}: largest change {self.output_change:.2e} of "
            f"{self.output_scale:.2e}, on {self.samples} samples"
        )
