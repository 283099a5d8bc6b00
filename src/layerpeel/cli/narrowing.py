"""What was typed about neurons to keep: how many, and how they are selected."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from layerpeel._checks import one_of
from layerpeel.cli.kept_layer import KeptLayer
from layerpeel.measurement import CloneProfile
from layerpeel.measurement.clones.keeping.keep import SELECTIONS
from layerpeel.reports.causes import causes


@dataclass(frozen=True)
class Narrowing:
    """How a layer is to be narrowed down.

    Attributes:
        width: How many neurons to keep, or ``None`` for a tolerance.
        tolerance: The relative change of the output that is allowed, or ``None``.
        select: ``"pivoted"`` or ``"random"``.
        seed: What a random selection is drawn from.
    """

    width: int | None
    tolerance: float | None
    select: str
    seed: int

    @classmethod
    def typed(
        cls,
        width: int | None,
        tolerance: float | None,
        select: str | None,
        file: Path | None,
        seed: int,
    ) -> Narrowing | None:
        """Return what was typed; ``None`` if nothing was.

        Args:
            width: What was typed for ``--keep``.
            tolerance: What was typed for ``--tolerance``.
            select: What was typed for ``--select``.
            file: What was typed for ``--kept``.
            seed: What a random selection is drawn from.

        Raises:
            ValueError: If options contradict each other, or one is invalid.
        """
        if width is None and tolerance is None:
            _check_unused({"--select": select, "--kept": file})
            return None
        if width is not None and tolerance is not None:
            raise ValueError(
                f"Give either --keep or --tolerance; got {width} neurons and a "
                f"tolerance of {tolerance:g}. Leave one out."
            )
        if tolerance is not None and not 0 <= tolerance < math.inf:
            raise ValueError(
                "--tolerance must be a finite number of at least 0, a change of the "
                f"output relative to its spread; got {tolerance:g}."
            )
        chosen = one_of("--select", select or "pivoted", SELECTIONS)
        return cls(width, tolerance, chosen, seed)

    def of(self, profile: CloneProfile, reader: str | None) -> KeptLayer:
        """Narrow a layer down.

        Args:
            profile: The profile of the layer.
            reader: What to call the linear map that reads the layer; by default its path
                in the model.

        Raises:
            ValueError: If the layer has fewer neurons than are to be kept.
        """
        if self.width is not None and self.width > profile.width:
            raise ValueError(
                f"--keep must be at most the width of the layer, {profile.width} "
                f"neurons; got {self.width}. Keep fewer."
            )
        with causes() as found:  # said beside the numbers instead
            kept = profile.keep(
                width=self.width,
                tolerance=self.tolerance,
                select=self.select,
                generator=torch.Generator().manual_seed(self.seed),
            )
        return KeptLayer(
            profile, kept, self.select, self.tolerance, reader, tuple(found)
        )


def _check_unused(given: dict[str, object]) -> None:
    typed = [name for name, value in given.items() if value is not None]
    if typed:
        raise ValueError(
            f"{' and '.join(typed)} must come with --keep or --tolerance, which say how "
            "many neurons are kept; got neither. Add one of them."
        )
