r"""Where theory meets measurement: the peeled program at a network's own energies.

The program needs two numbers that no training run states: the mean squared norms
:math:`E_W` and :math:`E_H`. They are read off the network, and how they are read is a
convention. The collapse threshold :math:`R_0` is exponential in them, so one number
alone would look far more certain than it is: every convention is solved, and each
prediction stands beside its distance to what was measured and beside the distance of
the plain simplex ETF, which needs no energies at all.

Real features are centred before they are measured, and under imbalance the class means
of the program's solution have a mean too: prediction and measurement are compared with
both centred in the way that the convention names, so that a network at an optimum is at
distance zero from it.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from layerpeel._json import plain
from layerpeel.geometry import (
    Geometry,
    GeometryDistance,
    geometry_distance,
    simplex_etf,
)
from layerpeel.measurement import (
    ENERGY_CENTRINGS,
    ENERGY_CONVENTIONS,
    Measurement,
)
from layerpeel.program import (
    Energy,
    PeeledProblem,
    Solution,
    collapse_threshold,
    two_group_counts,
)


@dataclass(frozen=True, eq=False)
class Prediction:
    r"""The Layer-Peeled Model solved at energies that one convention gives.

    Attributes:
        convention: How the energies were read off the network.
        energy: The energies :math:`(E_W, E_H)`.
        solution: The certified solution.
        geometry: Its geometry, class means centred as the convention centres features.
        log_threshold: :math:`\log R_0`, natural; infinite with fewer than two minority
            classes, NaN where the minority is not rarer and no threshold exists.
        minority_cosine: Mean cosine between minority classifiers; between all
            classifiers without a minority. NaN where it is undefined.
        distance: Distance from the measured geometry, centred alike, to this one.
    """

    convention: str
    energy: Energy
    solution: Solution
    geometry: Geometry
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
            "geometry": self.geometry.to_dict(),
        }
        return {name: plain(value) for name, value in content.items()}


@dataclass(frozen=True, eq=False)
class Predictions:
    r"""The predictions under every energy convention, and the ETF beside them.

    Attributes:
        items: One prediction per convention, the default one first; empty when the
            program of this version does not cover the class counts.
        etf_distance: Distance from the measured geometry to the plain simplex ETF.
        class_counts: The counts that were solved, with each group at its mean.
        imbalance: The ratio :math:`R` of the mean counts, majority over minority; 1
            without a minority, NaN without prediction.
        reason: Why there is no prediction; empty when there is one.
    """

    items: tuple[Prediction, ...]
    etf_distance: GeometryDistance
    class_counts: tuple[float, ...] = ()
    imbalance: float = math.nan
    reason: str = ""

    @property
    def default(self) -> Prediction | None:
        """The prediction under the default convention, or ``None``."""
        return self.items[0] if self.items else None

    @property
    def cosines(self) -> tuple[float, ...]:
        """The predicted minority cosines that are defined, one per convention."""
        cosines = (item.minority_cosine for item in self.items)
        return tuple(cosine for cosine in cosines if not math.isnan(cosine))


def predict(measurement: Measurement) -> Predictions:
    """Solve the peeled program at the energies of a measured network.

    Args:
        measurement: What was measured.

    Returns:
        A prediction per energy convention. When the class counts are neither balanced
        nor two groups, or the network has no energy, there is none, and ``reason`` says
        why.
    """
    frame = simplex_etf(measurement.num_classes)
    etf_distance = geometry_distance(measurement.geometry(), Geometry.of(frame, frame))
    try:
        counts = _solvable_counts(measurement)
    except ValueError as error:
        return Predictions((), etf_distance, reason=str(error))
    imbalance = _imbalance(measurement, counts)
    items = tuple(
        _predict_under(convention, measurement, counts, imbalance)
        for convention in ENERGY_CONVENTIONS
    )
    return Predictions(items, etf_distance, counts, imbalance)


def _solvable_counts(measurement: Measurement) -> tuple[float, ...]:
    counts = measurement.class_counts
    absent = sum(count == 0 for count in counts)
    if absent:
        raise ValueError(
            f"{absent} of {len(counts)} classes have no samples, and the peeled "
            "program needs a positive count for each."
        )
    for convention in ENERGY_CONVENTIONS:
        if not all(0 < energy < math.inf for energy in measurement.energy(convention)):
            raise ValueError(
                "the energies must be positive and finite to solve the peeled program; "
                "those of this last layer are zero, or too large for float64"
            )
    return two_group_counts(counts, measurement.groups)


def _imbalance(measurement: Measurement, counts: tuple[float, ...]) -> float:
    groups = measurement.groups
    if groups.balanced:
        return 1.0
    return counts[groups.majority[0]] / counts[groups.minority[0]]


def _predict_under(
    convention: str,
    measurement: Measurement,
    counts: tuple[float, ...],
    imbalance: float,
) -> Prediction:
    energy = Energy(*measurement.energy(convention))
    solution = PeeledProblem(counts, energy=energy).solve()
    centring = ENERGY_CENTRINGS[convention]
    geometry = _centred(solution.geometry, centring, counts)
    return Prediction(
        convention=convention,
        energy=energy,
        solution=solution,
        geometry=geometry,
        log_threshold=_log_threshold(measurement, energy, imbalance),
        minority_cosine=geometry.block_cosine(measurement.groups.block),
        distance=geometry_distance(measurement.geometry(centring), geometry),
    )


def _centred(geometry: Geometry, centring: str, counts: tuple[float, ...]) -> Geometry:
    """Centre predicted class means as measured ones are."""
    if centring == "none":
        return geometry
    weights = torch.tensor(counts, dtype=torch.float64)
    return geometry.about(weights if centring == "sample" else torch.ones_like(weights))


def _log_threshold(measurement: Measurement, energy: Energy, imbalance: float) -> float:
    if imbalance <= 1:
        return math.nan
    groups = measurement.groups
    return collapse_threshold(
        majority=len(groups.majority),
        minority=len(groups.minority),
        energy=energy,
        log=True,
    )
