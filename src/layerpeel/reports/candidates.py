r"""Which variant of the peeled program is nearest to a measured network?

Theory has several: energies can be budgets per class (the Layer-Peeled Model) or be held
by weight decay per sample (the unconstrained-features model), features can be behind a
ReLU, classifiers can have a bias. Their optima differ as soon as class counts do, and
none of them describes every network best. So all are solved at the energies of the
network, and stand beside the plain simplex ETF, which knows no counts.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699: budgets
    | A Geometric Analysis of Neural Collapse with Unconstrained Features (Zhu et al.,
    | 2021), https://arxiv.org/abs/2105.02375: weight decay and bias
    | Neural Collapse for Cross-entropy Class-Imbalanced Learning with Unconstrained
    | ReLU Feature Model (Dang et al., 2024), https://arxiv.org/abs/2401.02058:
    | nonnegative features
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from layerpeel._checks import one_of
from layerpeel._figures import axes, colour, line_at, style
from layerpeel._json import plain
from layerpeel._tolerances import VANISHED_NORM
from layerpeel.geometry import Geometry, GeometryDistance, geometry_distance
from layerpeel.measurement import (
    ENERGY_CENTRINGS,
    ENERGY_CONVENTIONS,
    Measurement,
)
from layerpeel.program import Energy, PeeledProblem, Solution
from layerpeel.reports.prediction import etf_geometry, solvable_counts
from layerpeel.reports.solved_counts import SolvedCounts
from layerpeel.reports.table import Table

MEASURES = {
    "gram": "Gram matrices of classifiers and of class means, each of unit Frobenius "
    "norm: Frobenius norm of the difference",
    "cosines": "pairwise cosines of classifiers and of class means: mean absolute "
    "difference",
    "norms": "norms of the classifiers and of the class means as vectors of unit "
    "length: Euclidean distance",
}
"""What distance is taken of, each averaged over classifiers and class means."""

VARIANTS = (
    "LPM, the Layer-Peeled Model, has a budget per class; UFM, the "
    "unconstrained-features model, decay per sample, its multiplier matched to the same "
    "energies; ReLU stands for nonnegative features, bias for a free one."
)
"""What the names of the candidates mean."""

VARIANTS_TITLE = "Variants of the peeled model at the same energies"
ETF = "plain ETF"

# Nonnegative features with a bias have no closed form; above this many classes the
# best of several descents takes longer than the rest of a report.
MOST_DESCENDED = 30

# Eight programs are solved: counts are binned earlier than for a prediction.
_MOST_DISTINCT = 100

Per = Literal["class", "sample"]
Features = Literal["free", "nonnegative"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One variant at the energies of the network, and how far the network is from it.

    Attributes:
        name: What it is called.
        problem: The problem; ``None`` for the plain ETF.
        solution: Its solution; ``None`` for the plain ETF.
        geometry: Its geometry, class means centred as the measured ones.
        distance: The distance of every kind of Gram matrix and cosine.
        gram: The distance of Gram matrices; see ``MEASURES``.
        cosines: The distance of cosines.
        norms: The distance of norms.
        minority_cosine: The mean cosine between minority classifiers.
        norm_ratio: The mean norm of majority classifiers over that of the minority.
    """

    name: str
    problem: PeeledProblem | None
    solution: Solution | None
    geometry: Geometry
    distance: GeometryDistance
    gram: float
    cosines: float
    norms: float
    minority_cosine: float
    norm_ratio: float

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, ready for JSON; undefined is ``None``."""
        content: dict[str, Any] = {"name": self.name}
        if self.problem is not None and self.solution is not None:
            assert self.problem.energy is not None  # candidates have budgets
            content |= {
                "energy": asdict(self.problem.energy),
                "features": self.problem.features,
                "bias": self.problem.bias,
                "status": self.solution.status.name,
                "gap": self.solution.certificate.gap,
            }
        content |= {measure: getattr(self, measure) for measure in MEASURES}
        content |= {
            "minority_cosine": self.minority_cosine,
            "norm_ratio": self.norm_ratio,
            "distance": asdict(self.distance),
        }
        return {name: plain(value) for name, value in content.items()}


@dataclass(frozen=True, eq=False)
class Candidates:
    """The variants that could describe a network, the nearest first.

    Attributes:
        items: The candidates, by their distance of Gram matrices.
        convention: How the energies were read off the network.
        minority_cosine: The measured mean cosine between minority classifiers.
        norm_ratio: The measured mean norm of classifiers, majority over minority.
        note: What was solved, and what was left out.
    """

    items: tuple[Candidate, ...]
    convention: str
    minority_cosine: float
    norm_ratio: float
    note: str

    @property
    def etf(self) -> Candidate:
        """The plain simplex ETF."""
        return next(item for item in self.items if item.name == ETF)

    def ranked(self, measure: str = "gram") -> tuple[Candidate, ...]:
        """Return the candidates, the nearest first; undefined distances come last.

        Args:
            measure: A key of ``MEASURES``.

        Raises:
            ValueError: If there is no such measure.
        """
        one_of("measure", measure, MEASURES)
        return tuple(
            sorted(self.items, key=lambda item: _place(getattr(item, measure)))
        )

    def nearest(self, measure: str = "gram") -> Candidate:
        """Return the nearest candidate.

        Args:
            measure: A key of ``MEASURES``.

        Raises:
            ValueError: If there is no such measure.
        """
        return self.ranked(measure)[0]

    @property
    def summary(self) -> str:
        """Which candidate is nearest by each measure, and by how much."""
        return " ".join(_sentence(self, measure) for measure in MEASURES)

    def table(self) -> Table:
        """Return one row per candidate below what was measured."""
        rows = [
            ("measured", None, None, None, self.minority_cosine, self.norm_ratio),
            *(
                (
                    item.name,
                    item.gram,
                    item.cosines,
                    item.norms,
                    item.minority_cosine,
                    item.norm_ratio,
                )
                for item in self.items
            ),
        ]
        measures = "; ".join(f"{name}: {text}" for name, text in MEASURES.items())
        return Table(
            VARIANTS_TITLE,
            ("variant", *MEASURES, "minority cosine", "norm ratio"),
            rows,
            note=(
                f"{self.summary} {VARIANTS} {self.note} Distances, each the mean over "
                f"classifiers and class means, 0 for equal shapes: {measures}. The norm "
                "ratio is that of classifiers, majority over minority."
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all candidates, ready for JSON; undefined is ``None``."""
        return {
            "convention": self.convention,
            "minority_cosine": plain(self.minority_cosine),
            "norm_ratio": plain(self.norm_ratio),
            "nearest": {measure: self.nearest(measure).name for measure in MEASURES},
            "summary": self.summary,
            "note": self.note,
            "items": [item.to_dict() for item in self.items],
        }

    @style()
    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the distance of Gram matrices of every candidate, the nearest on top.

        Args:
            ax: Where to draw; a figure of its own by default.

        Returns:
            The figure and the axes.
        """
        fig, ax = axes(ax)
        names = [item.name for item in self.items][::-1]
        ax.plot(
            [item.gram for item in self.items][::-1],
            names,
            "o",
            color=colour("predicted"),
        )
        line_at(ax, self.etf.gram, ETF, vertical=True, role="measured")
        ax.set_xlim(left=0)
        ax.set_xlabel("distance of Gram matrices from the network")
        return fig, ax


def candidates(
    measurement: Measurement, *, convention: str = "sample_mean"
) -> Candidates:
    """Solve the variants that could describe a network, and rank them.

    Cross-entropy with one linear layer, within budgets per class (the Layer-Peeled
    Model) and per sample, which is weight decay per sample with its multiplier matched
    to the energies; features free or nonnegative; without a bias and with a free one.
    All are solved at the energies of the network, with its feature energy averaged over
    classes or samples alike, and compared with both centred in one way.

    Args:
        measurement: What was measured.
        convention: How the energies are read: a key of ``ENERGY_CONVENTIONS``.

    Returns:
        The candidates. No variant is the nearest to every network; by how much one is
        nearer than the next, and than the plain ETF, says how far to trust it.

    Raises:
        ValueError: If the convention is unknown, a class has no samples, or an energy
            is zero or not finite.

    Example:
        >>> from layerpeel import measure_features
        >>> solution = PeeledProblem([40, 40, 4, 4], energy=(1.0, 3.0)).solve()
        >>> labels = torch.arange(4).repeat_interleave(torch.tensor([40, 40, 4, 4]))
        >>> features, weight = solution.class_means()[labels], solution.classifiers()
        >>> network = measure_features(features, labels, weight=weight)
        >>> candidates(network, convention="uncentred").nearest().name
        'LPM'
    """
    one_of("convention", convention, ENERGY_CONVENTIONS)
    solved = solvable_counts(measurement).with_at_most(_MOST_DISTINCT)
    centring = ENERGY_CENTRINGS[convention]
    measured = measurement.geometry(centring)
    etf = _candidate(
        ETF, None, None, etf_geometry(measurement, centring), measurement, measured
    )
    items = [etf]
    for name, problem in _variants(measurement, solved, convention):
        solution = problem.solve()
        geometry = solved.centre(solution.geometry, centring)
        items.append(
            _candidate(name, problem, solution, geometry, measurement, measured)
        )
    block = measurement.groups.block
    return Candidates(
        tuple(sorted(items, key=lambda item: _place(item.gram))),
        convention,
        measured.block_cosine(block),
        _norm_ratio(measured, measurement),
        _note(solved),
    )


def _variants(
    measurement: Measurement, solved: SolvedCounts, convention: str
) -> Iterator[tuple[str, PeeledProblem]]:
    for per, model in _MODELS.items():
        energy = _energy(measurement, convention, per)
        for features, cone in _FEATURES.items():
            for bias, said in _BIASES.items():
                if cone and said and len(solved.counts) > MOST_DESCENDED:
                    continue
                problem = PeeledProblem(
                    solved.counts, energy=energy, features=features, bias=bias
                )
                yield model + cone + said, problem


_MODELS: dict[Per, str] = {"class": "LPM", "sample": "UFM"}
_FEATURES: dict[Features, str] = {"free": "", "nonnegative": ", ReLU"}
_BIASES: dict[Literal["free"] | None, str] = {None: "", "free": ", bias"}


def _energy(measurement: Measurement, convention: str, per: Per) -> Energy:
    """Return the energies, features averaged over classes or over samples."""
    classifiers, features = measurement.energy(convention)
    if per == "class":
        return Energy(classifiers, features)
    moments = measurement.moments
    squares = measurement.geometry(ENERGY_CENTRINGS[convention]).feature_gram.diagonal()
    if convention != "means_only":
        squares = squares + moments.class_variances
    shares = moments.count / moments.count.sum()
    return Energy(classifiers, float(shares @ squares), per="sample")


def _candidate(
    name: str,
    problem: PeeledProblem | None,
    solution: Solution | None,
    geometry: Geometry,
    measurement: Measurement,
    measured: Geometry,
) -> Candidate:
    distance = geometry_distance(measured, geometry)
    return Candidate(
        name,
        problem,
        solution,
        geometry,
        distance,
        gram=(distance.classifier_gram + distance.feature_gram) / 2,
        cosines=(distance.classifier_cosine + distance.feature_cosine) / 2,
        norms=(
            _profile_distance(measured.classifier_norms, geometry.classifier_norms)
            + _profile_distance(measured.feature_norms, geometry.feature_norms)
        )
        / 2,
        minority_cosine=geometry.block_cosine(measurement.groups.block),
        norm_ratio=_norm_ratio(geometry, measurement),
    )


def _profile_distance(a: Float64[Tensor, " K"], b: Float64[Tensor, " K"]) -> float:
    """Compare norms as vectors of unit length: neither units nor zeros matter."""
    return float(torch.linalg.vector_norm(a / a.norm() - b / b.norm()))


def _norm_ratio(geometry: Geometry, measurement: Measurement) -> float:
    """Return the ratio of classifier norms; NaN without a minority that has any."""
    groups, norms = measurement.groups, geometry.classifier_norms
    if groups.balanced or not groups.majority:
        return math.nan
    majority = float(norms[list(groups.majority)].mean())
    minority = float(norms[list(groups.minority)].mean())
    return majority / minority if minority > VANISHED_NORM * majority else math.nan


def _place(distance: float) -> float:
    return math.inf if math.isnan(distance) else distance


def _note(solved: SolvedCounts) -> str:
    if len(solved.counts) <= MOST_DESCENDED:
        return solved.note
    return (
        f"{solved.note} Nonnegative features with a bias have no closed form and are "
        f"left out above {MOST_DESCENDED} classes."
    )


_BY = {"gram": "Gram matrices", "cosines": "cosines", "norms": "norms"}


def _sentence(candidates: Candidates, measure: str) -> str:
    """Say which candidate is nearest, and how far the next and the ETF are."""
    first, second, *_ = candidates.ranked(measure)
    near, next_, etf = (
        getattr(item, measure) for item in (first, second, candidates.etf)
    )
    if math.isnan(near):
        return f"By {_BY[measure]} no distance is defined."
    others = f"then {second.name} at {next_:.3f}"
    if ETF not in (first.name, second.name):
        others += f", {ETF} at {etf:.3f}"
    return f"By {_BY[measure]} the nearest is {first.name} at {near:.3f}, {others}."
