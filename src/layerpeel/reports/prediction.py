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

A long tail has no ratio :math:`R_0`: classes collapse one by one, each where its share of
the samples is at most the multiplier of the norm budget. That is a statement about
dimensions, not about equal vectors: classifiers of distinct counts below the threshold
have cosines near one, and span fewer dimensions than there are classes.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from layerpeel._json import plain
from layerpeel.geometry import (
    ClassGroups,
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
from layerpeel.program import Energy, PeeledProblem, Solution, collapse_threshold
from layerpeel.program.multiplier import below_threshold, log_multiplier
from layerpeel.reports.solved_counts import SolvedCounts


@dataclass(frozen=True, eq=False)
class Prediction:
    r"""The Layer-Peeled Model solved at energies that one convention gives.

    Attributes:
        convention: How the energies were read off the network.
        energy: The energies :math:`(E_W, E_H)`.
        solution: The certified solution.
        geometry: Its geometry, class means centred as the convention centres features.
        log_threshold: :math:`\log R_0`, natural; infinite with fewer than two minority
            classes, NaN where the minority is not rarer and no threshold exists, and for
            a long tail, which has no single ratio.
        threshold_count: The count :math:`N \mu` at and below which classes collapse at
            this optimum, with :math:`\mu` the multiplier of its budget.
        below_threshold: The classes at or below it. Those of equal counts then have one
            classifier; those of distinct counts have classifiers that lie close together
            and span fewer dimensions than there are classes.
        minority_cosine: Mean cosine between minority classifiers; between all
            classifiers without a minority. NaN where it is undefined.
        distance: Distance from the measured geometry, centred alike, to this one.
    """

    convention: str
    energy: Energy
    solution: Solution
    geometry: Geometry
    log_threshold: float
    threshold_count: float
    below_threshold: tuple[int, ...]
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
            "threshold_count": self.threshold_count,
            "below_threshold": self.below_threshold,
            "minority_cosine": self.minority_cosine,
            "distance": asdict(self.distance),
            "geometry": self.geometry.to_dict(),
        }
        return {name: plain(value) for name, value in content.items()}


@dataclass(frozen=True, eq=False)
class Predictions:
    r"""The predictions under every energy convention, and the ETF beside them.

    Attributes:
        items: One prediction per convention, the default one first; empty when a class
            has no samples, or the last layer no energy.
        etf_distance: Distance from the measured geometry to the plain simplex ETF,
            centred alike.
        solved: The counts that were solved; ``None`` without prediction.
        imbalance: The ratio :math:`R` of the mean counts, majority over minority; 1
            without a minority, NaN without prediction.
        reason: Why there is no prediction; empty when there is one.
    """

    items: tuple[Prediction, ...]
    etf_distance: GeometryDistance
    solved: SolvedCounts | None = None
    imbalance: float = math.nan
    reason: str = ""

    @property
    def class_counts(self) -> tuple[float, ...]:
        """The counts that were solved; empty without prediction."""
        return self.solved.counts if self.solved else ()

    @property
    def tail(self) -> bool:
        """Whether the counts are neither balanced nor two groups."""
        return self.solved is not None and self.solved.tail

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

    Balanced counts, and two groups of nearly equal ones, are solved at the mean counts;
    long tails at every count, or in geometric bins where there are more than
    ``MOST_DISTINCT`` of them. The energies are those of all features, within-class
    spread included, hence not those of :meth:`PeeledProblem.from_network`, which knows
    class means only.

    Args:
        measurement: What was measured.

    Returns:
        A prediction per energy convention. When a class has no samples, or the network
        no energy, there is none, and ``reason`` says why.
    """
    etf = etf_geometry(measurement, "sample")
    etf_distance = geometry_distance(measurement.geometry(), etf)
    try:
        solved = solvable_counts(measurement)
    except ValueError as error:
        return Predictions((), etf_distance, reason=str(error))
    imbalance = _imbalance(measurement.groups, solved.counts)
    items = tuple(
        _predict_under(convention, measurement, solved, imbalance)
        for convention in ENERGY_CONVENTIONS
    )
    return Predictions(items, etf_distance, solved, imbalance)


def solvable_counts(measurement: Measurement) -> SolvedCounts:
    """Return the counts to solve for a measured network.

    Raises:
        ValueError: If a class has no samples, or an energy is zero or not finite.
    """
    solved = SolvedCounts.of(measurement.class_counts, measurement.groups)
    for convention in ENERGY_CONVENTIONS:
        if not all(0 < energy < math.inf for energy in measurement.energy(convention)):
            raise ValueError(
                "the energies must be positive and finite to solve the peeled program; "
                "those of this last layer are zero, or too large for float64"
            )
    return solved


def etf_geometry(measurement: Measurement, centring: str) -> Geometry:
    """Return the plain simplex ETF, class means centred as measured ones are.

    Args:
        measurement: What was measured.
        centring: A key of ``CENTRINGS``.
    """
    frame = simplex_etf(measurement.num_classes)
    counts = tuple(map(float, measurement.class_counts))
    return SolvedCounts(counts, True, "").centre(Geometry.of(frame, frame), centring)


def _imbalance(groups: ClassGroups, counts: tuple[float, ...]) -> float:
    if groups.balanced:
        return 1.0
    if not groups.majority:
        return math.nan
    majority, minority = (
        math.fsum(counts[k] for k in classes) / len(classes)
        for classes in (groups.majority, groups.minority)
    )
    return majority / minority


def _predict_under(
    convention: str, measurement: Measurement, solved: SolvedCounts, imbalance: float
) -> Prediction:
    energy = Energy(*measurement.energy(convention))
    problem = PeeledProblem(solved.counts, energy=energy)
    solution, program = problem.solve(), problem.class_level()
    centring = ENERGY_CENTRINGS[convention]
    geometry = solved.centre(solution.geometry, centring)
    price = math.exp(log_multiplier(program, solution))
    return Prediction(
        convention=convention,
        energy=energy,
        solution=solution,
        geometry=geometry,
        log_threshold=_log_threshold(
            measurement.groups, energy, imbalance, solved.tail
        ),
        threshold_count=price * math.fsum(solved.counts),
        below_threshold=below_threshold(program, solution),
        minority_cosine=geometry.block_cosine(measurement.groups.block),
        distance=geometry_distance(measurement.geometry(centring), geometry),
    )


def _log_threshold(
    groups: ClassGroups, energy: Energy, imbalance: float, tail: bool
) -> float:
    if tail or not imbalance > 1:
        return math.nan
    return collapse_threshold(
        majority=len(groups.majority),
        minority=len(groups.minority),
        energy=energy,
        log=True,
    )
