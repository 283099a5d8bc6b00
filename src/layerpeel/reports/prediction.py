r"""Where theory meets measurement: the peeled program at a network's own energies.

The program needs two numbers that no training run states: the mean squared norms
:math:`E_W` and :math:`E_H`. They are read off the network, and how they are read is a
convention. The collapse threshold :math:`R_0` is exponential in them, so one number
alone would look far more certain than it is: every convention is solved, and each
prediction stands beside its distance to what was measured and beside the distance of
the plain simplex ETF, which needs no energies at all.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from layerpeel._json import plain
from layerpeel.geometry import (
    Geometry,
    GeometryDistance,
    geometry_distance,
    simplex_etf,
)
from layerpeel.measurement import ENERGY_CONVENTIONS, Measurement
from layerpeel.program import (
    Energy,
    PeeledProblem,
    Solution,
    collapse_threshold,
    two_group_counts,
)


@dataclass(frozen=True)
class Prediction:
    r"""The Layer-Peeled Model solved at energies that one convention gives.

    Attributes:
        convention: How the energies were read off the network.
        energy: The energies :math:`(E_W, E_H)`.
        solution: The certified solution.
        log_threshold: :math:`\log R_0`, natural; infinite with fewer than two minority
            classes, NaN for balanced counts, where no threshold exists.
        minority_cosine: Mean cosine between minority classifiers; for balanced counts,
            between all classifiers. NaN where it is undefined.
        distance: Distance from the measured geometry to the predicted one.
    """

    convention: str
    energy: Energy
    solution: Solution
    log_threshold: float
    minority_cosine: float
    distance: GeometryDistance

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction, ready for JSON; undefined is ``None``."""
        content = {
            "convention": self.convention,
            "energy": asdict(self.energy),
            "status": self.solution.status.name,
            "objective": self.solution.objective,
            "gap": self.solution.certificate.gap,
            "log_threshold": self.log_threshold,
            "minority_cosine": self.minority_cosine,
            "distance": asdict(self.distance),
            "geometry": self.solution.geometry.to_dict(),
        }
        return {name: plain(value) for name, value in content.items()}


@dataclass(frozen=True)
class Predictions:
    r"""The predictions under every energy convention, and the ETF beside them.

    Attributes:
        items: One prediction per convention, the default one first; empty when the
            program of this version does not cover the class counts.
        etf_distance: Distance from the measured geometry to the plain simplex ETF.
        class_counts: The counts that were solved, with each group at its mean.
        reason: Why there is no prediction; empty when there is one.
    """

    items: tuple[Prediction, ...]
    etf_distance: GeometryDistance
    class_counts: tuple[float, ...] = ()
    reason: str = ""

    @property
    def default(self) -> Prediction | None:
        """The prediction under the default convention, or ``None``."""
        return self.items[0] if self.items else None

    @property
    def imbalance(self) -> float:
        """The ratio :math:`R` of the two group means; NaN without prediction."""
        if not self.class_counts:
            return float("nan")
        return max(self.class_counts) / min(self.class_counts)


def predict(measurement: Measurement) -> Predictions:
    """Solve the peeled program at the energies of a measured network.

    Args:
        measurement: What was measured.

    Returns:
        A prediction per energy convention. When the class counts are neither balanced
        nor two groups, there is none, and ``reason`` says why.
    """
    frame = simplex_etf(measurement.num_classes)
    measured = measurement.geometry()
    etf_distance = geometry_distance(measured, Geometry.of(frame, frame))
    try:
        counts = _solvable_counts(measurement)
    except ValueError as error:
        return Predictions((), etf_distance, reason=str(error))
    items = tuple(
        _predict_under(convention, measurement, measured, counts)
        for convention in ENERGY_CONVENTIONS
    )
    return Predictions(items, etf_distance, counts)


def _solvable_counts(measurement: Measurement) -> tuple[float, ...]:
    counts = measurement.class_counts
    absent = sum(count == 0 for count in counts)
    if absent:
        raise ValueError(
            f"{absent} of {len(counts)} classes have no samples, and the peeled "
            "program needs a positive count for each."
        )
    return two_group_counts(counts, measurement.groups)


def _predict_under(
    convention: str,
    measurement: Measurement,
    measured: Geometry,
    counts: tuple[float, ...],
) -> Prediction:
    energy = Energy(*measurement.energy(convention))
    solution = PeeledProblem(counts, energy=energy).solve()
    groups = measurement.groups
    block = list(groups.minority or groups.majority)
    return Prediction(
        convention=convention,
        energy=energy,
        solution=solution,
        log_threshold=_log_threshold(measurement, energy),
        minority_cosine=solution.geometry.block_cosine(block),
        distance=geometry_distance(measured, solution.geometry),
    )


def _log_threshold(measurement: Measurement, energy: Energy) -> float:
    groups = measurement.groups
    if groups.balanced:
        return float("nan")
    return collapse_threshold(
        majority=len(groups.majority),
        minority=len(groups.minority),
        energy=energy,
        log=True,
    )
