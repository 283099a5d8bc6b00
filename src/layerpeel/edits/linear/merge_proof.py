"""What was proved and measured of merged layers."""

from __future__ import annotations

from dataclasses import dataclass

from layerpeel.edits.proof import Proof

ON_DATA = (
    "Layers act linearly on the given data, within their margins. On other inputs a "
    "merged network may differ from the deeper one."
)
APPROXIMATE = (
    "Some neurons were replaced by least-squares lines: neither outputs nor critical "
    "points are preserved, and the change is that on the given data."
)
NOT_REGULAR = (
    "A merged layer has more freedom than the layers it is made of, so that its gradient "
    "need not vanish where theirs does."
)
NEW_BIAS = "A layer without a bias was given one."
NO_DROPOUT = "Dropout between merged layers is gone; training goes on without it."


@dataclass(frozen=True)
class Merge:
    r"""A layer that was merged into its reader.

    Attributes:
        path: The path of the layer, which is gone.
        reader: The path of the layer that stands for both.
        activation: The name of the type of its activation.
        exact: Whether it was linear on the data, neuron by neuron.
        regular: Whether the merged layer is critical where the two were: exact, and
            :math:`V D` of full row rank or :math:`D U` of full column rank.
        predicted: The relative root mean square change of what the reader returns,
            before the merge was made; zero for exact ones, NaN if unknown.
        predicted_by: ``"exact"``, ``"bound"`` or ``"undefined"``.
        measured: The same, measured on the merged network. Layers that are merged
            exactly are measured together, where the last one of a row stands.
        correlation: The minimal correlation; NaN if undefined.
        margin: The least distance of a pre-activation to an end of its affine piece;
            NaN if the activation has none.
        whole: Whether all neurons were on a piece, those included that nothing is read
            from.
    """

    path: str
    reader: str
    activation: str
    exact: bool
    regular: bool
    predicted: float
    predicted_by: str
    measured: float
    correlation: float
    margin: float
    whole: bool = True


@dataclass(frozen=True, kw_only=True)
class MergeProof(Proof):
    """The evidence for merged layers; all of it is measured on the data.

    Attributes:
        merges: The layers, in the order in which they were merged.
        regular: Whether all merges are regular: at a critical point of the deeper
            network, the merged one is critical.
        agreement: The share of samples on which the largest output is the same one as
            before; ``None`` where outputs are no rows of at least two.
        parameters_removed: How many parameters fewer the merged network has.
        kept: Why the other layers were not merged, by path.
    """

    merges: tuple[Merge, ...]
    regular: bool
    agreement: float | None
    parameters_removed: int
    kept: tuple[tuple[str, str], ...] = ()

    def details(self) -> list[str]:
        """Return what is said of merges alone, one statement per line."""
        lines = [_said(merge) for merge in self.merges]
        if self.agreement is not None:
            lines.append(f"decisions {self.agreement:.4%} the same")
        if self.merges:
            kept = "kept" if self.regular else "not claimed to be kept"
            lines.append(
                f"size      {self.parameters_removed} parameters fewer; criticality {kept}"
            )
        return lines + [f"left      {path!r}: {why}" for path, why in self.kept]


def _said(merge: Merge) -> str:
    how = f"margin {merge.margin:.2e}" if merge.exact else "approximately"
    return (
        f"merged    {merge.path!r} into {merge.reader!r}, {how}: changes it by "
        f"{merge.measured:.2e}"
    )
