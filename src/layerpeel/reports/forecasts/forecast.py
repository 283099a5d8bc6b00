"""A forecast: what training at these counts ends in, before any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from layerpeel._json import plain
from layerpeel.program import PeeledProblem, Solution
from layerpeel.program.merging import merging_counts
from layerpeel.reports.document import AbstractDocument
from layerpeel.reports.finding import Severity
from layerpeel.reports.forecasts import tables
from layerpeel.reports.forecasts.advice import ForecastAdvice, advise
from layerpeel.reports.forecasts.groups import (
    GroupForecast,
    State,
    group_forecasts,
)
from layerpeel.reports.forecasts.picture import phase_picture
from layerpeel.reports.forecasts.thresholds import Thresholds, thresholds
from layerpeel.reports.page import Page, Section

_SAID = {
    State.MERGED: "share one classifier",
    State.NO_FEATURE: "have no feature",
    State.VANISHED: "vanish",
    State.MIXED: "collapse in part",
}
# Groups named one by one in the verdict.
_MOST_NAMED = 3


@dataclass(frozen=True, repr=False, eq=False)
class Forecast(AbstractDocument):
    """What a peeled problem foretells about the last layer of a network.

    Printing it shows tables as text, a notebook shows them as HTML, :meth:`save` writes
    HTML or JSON of the same content.

    Attributes:
        problem: What was solved.
        solution: Its solution.
        groups: What became of every group of classes, the most frequent first; of parts
            of about equally many classes where there are many groups.
        thresholds: The thresholds of minority collapse, where a formula gives them.
        below: How many classes have no more samples than classes merge at; ``None``
            where that is not known.
        advice: What would keep the classes apart.
    """

    problem: PeeledProblem
    solution: Solution
    groups: tuple[GroupForecast, ...]
    thresholds: Thresholds | None
    below: int | None
    advice: ForecastAdvice

    @property
    def collapsed(self) -> int:
        """The number of classes that have merged with others or vanished."""
        return sum(group.collapsed for group in self.groups)

    @property
    def drawn_together(self) -> int:
        """The number of classes below the merging count that differ a little."""
        return sum(group.drawn_together for group in self.groups)

    @property
    def severity(self) -> Severity | None:
        """A problem if classes collapse, a warning if they are drawn together."""
        if self.collapsed:
            return Severity.PROBLEM
        return Severity.WARNING if self.drawn_together else None

    @property
    def verdict(self) -> str:
        """The forecast in one or two sentences."""
        proved = "" if self.solution.status.success else "Best found, not proved: "
        return proved + self._outcome

    def page(self) -> Page:
        """Return the content, structured and not yet rendered."""
        ratios = () if self.thresholds is None else (self.thresholds,)
        drawn = [tables.threshold_table(ratio) for ratio in ratios]
        diagram = phase_picture(self.problem, self.thresholds)
        pictures = () if diagram is None else (diagram,)
        return Page(
            title="Forecast of the last layer",
            subtitle=_subtitle(self.problem),
            verdict=self.verdict,
            severity=self.severity,
            sections=(
                Section(
                    "Classes",
                    pictures=pictures,
                    tables=(tables.group_table(self.groups), *drawn),
                ),
                Section("What to do", text="\n\n".join(self.advice.sentences)),
                Section(
                    "Problem and solution",
                    tables=(
                        tables.problem_table(self.problem),
                        tables.solution_table(self.solution, self.groups),
                    ),
                ),
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the page, and the numbers behind it, ready for JSON."""
        ratios, certificate = self.thresholds, self.solution.certificate
        return {
            **self.page().to_dict(),
            "class_counts": list(self.problem.class_counts),
            "status": self.solution.status.name,
            "objective": plain(certificate.objective),
            "lower_bound": plain(certificate.lower_bound),
            "gap": plain(certificate.gap),
            "groups": [group.to_dict() for group in self.groups],
            "thresholds": None if ratios is None else ratios.to_dict(),
            "collapsed": self.collapsed,
            "below": self.below,
            "drawn_together": self.drawn_together,
            "advice": self.advice.to_dict(),
            "bias": plain(self.solution.bias),
            "geometry": self.solution.geometry.to_dict(),
        }

    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the cosines between classifiers.

        Args:
            ax: Where to draw; a figure of its own by default.

        Returns:
            The figure and the axes.
        """
        return self.solution.geometry.plot(ax)

    @property
    def _outcome(self) -> str:
        fallen = [group for group in self.groups if group.state.collapsed]
        if fallen:
            more = len(fallen) - _MOST_NAMED
            rest = f" So it goes for {more} more groups." if more > 0 else ""
            return _fallen(fallen[:_MOST_NAMED]) + rest
        if self.drawn_together:
            return (
                f"{self.drawn_together} of {self.problem.num_classes} classes have no "
                "more samples than classes merge at. Their counts differ, so that their "
                "classifiers lie close together without being equal, and span fewer "
                "dimensions."
            )
        return "No class collapses."


def forecast(problem: PeeledProblem, solution: Solution | None = None) -> Forecast:
    r"""Return what a peeled problem foretells, for people.

    References:
        | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
        | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699

    Args:
        problem: The problem.
        solution: Its solution; solved here when omitted.

    Returns:
        The forecast.

    Example:
        >>> said = forecast(PeeledProblem([5000] * 5 + [50] * 5, energy=(1.0, 5.0)))
        >>> said.verdict
        'The 5 classes of 50 samples share one classifier.'
        >>> [(group.counts, group.state.name) for group in said.groups]
        [('5000', 'APART'), ('50', 'MERGED')]
        >>> round(said.thresholds.collapse, 2)
        12.19
    """
    solution = problem.solve() if solution is None else solution
    merging = merging_counts(problem, solution)
    ratios = thresholds(problem)
    below = None
    if merging is not None:
        below = int((merging >= merging.new_tensor(problem.class_counts)).sum())
    return Forecast(
        problem=problem,
        solution=solution,
        groups=group_forecasts(problem, solution, merging),
        thresholds=ratios,
        below=below,
        advice=advise(problem, merging, ratios),
    )


def _fallen(groups: Sequence[GroupForecast]) -> str:
    return " ".join(
        f"The {len(group.classes)} classes of {group.counts} samples {_SAID[group.state]}."
        if len(group.classes) > 1
        else f"The class of {group.counts} samples {_one(_SAID[group.state])}."
        for group in groups
    )


def _one(said: str) -> str:
    """Return what one class does, rather than several."""
    return said.replace("vanish", "vanishes").replace("have", "has")


def _subtitle(problem: PeeledProblem) -> str:
    counts = problem.class_counts
    return (
        f"{problem.num_classes} classes of {max(counts):g} to {min(counts):g} samples"
        if max(counts) > min(counts)
        else f"{problem.num_classes} classes of {counts[0]:g} samples"
    )
