"""What was proved and measured of a narrower layer."""

from __future__ import annotations

from dataclasses import dataclass

from layerpeel._checks import listed
from layerpeel.edits.proof import Proof

CHANGED = (
    "The narrower layer is another function: its outputs on other data may change by more "
    "than on these, and its gradient need not vanish where that of the wide one did."
)
EXACT_ALONE = (
    "The exact reduction meets every tolerance; `method='clones'` goes as far as the "
    "tolerance allows."
)
NEW_BIAS = (
    "A layer that reads the narrower one had no bias and was given one, for constants of "
    "the neurons that are gone."
)
BOUNDS = {
    "proved": "proved for every input",
    "exact": "predicted exactly on the data",
    "Minkowski": "a bound on the data, by Minkowski's inequality over places or taps",
    "none": "",
}
"""What is known of the relative change without running the narrower model."""


@dataclass(frozen=True, kw_only=True)
class NarrowProof(Proof):
    r"""The evidence for a narrower layer.

    Changes are root mean squares, over samples and places, of what the consumers of the
    layer return, relative to those of what they return about its mean.

    Attributes:
        method: How neurons were chosen: ``"critical"``, ``"clones"`` or ``"cosine"``.
        kept: The neurons that are kept, ascending.
        groups: For each of them, all neurons that it stands in for, itself included.
        width_before: The number of neurons of the given model.
        width_after: That of the edited one.
        relative_change: The relative change on the data, measured; ``None`` without
            data.
        bound: What that is at most, before measuring; ``None`` if nothing is known.
        bound_kind: A key of ``BOUNDS``: what kind of bound that is.
        bound_per_input: For the method ``"cosine"``, how far what the consumers return
            moves at most, per unit of length of what the layer reads, with a one for the
            bias, for every input.
        threshold: The cosine at which neurons were grouped, for that method.
        agreement: The share of samples with the same largest output; ``None`` without
            data, or if outputs are no logits.
    """

    method: str
    kept: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    width_before: int
    width_after: int
    relative_change: float | None = None
    bound: float | None = None
    bound_kind: str = "none"
    bound_per_input: float | None = None
    threshold: float | None = None
    agreement: float | None = None

    @property
    def gone(self) -> tuple[int, ...]:
        """The neurons that no single one stands in for, folded, constant or unread."""
        found = {neuron for group in self.groups for neuron in group}
        return tuple(i for i in range(self.width_before) if i not in found)

    def details(self) -> list[str]:
        """Return what is said of narrower layers alone, one statement per line."""
        lines = [f"width     {self.width_before} to {self.width_after} ({self.method})"]
        merged = [group for group in self.groups if len(group) > 1]
        if merged:
            shown = [f"{group[0]} for {listed(group[1:], 4)}" for group in merged]
            lines.append(f"groups    {'; '.join(shown[:4])}{self._more(len(shown))}")
        if self.threshold is not None:
            lines.append(f"cosine    at least {self.threshold:.4f} within a group")
        if self.relative_change is not None:
            lines.append(f"change    {self.relative_change:.2e} relative, measured")
        if self.bound is not None:
            lines.append(f"bound     {self.bound:.2e}, {BOUNDS[self.bound_kind]}")
        if self.bound_per_input is not None:
            lines.append(f"worst     {self.bound_per_input:.2e} per length of an input")
        if self.agreement is not None:
            lines.append(f"agreement {self.agreement:.2%} of decisions")
        return lines

    def _more(self, count: int) -> str:
        return f"; ... ({count - 4} more)" if count > 4 else ""
