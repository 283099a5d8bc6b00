"""Two reports side by side: what a change of training did to the last layer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from layerpeel._checks import ShapeError, listed
from layerpeel.geometry import ClassGroups
from layerpeel.measurement import Measurement
from layerpeel.reports.causes import causes
from layerpeel.reports.clone_report import CloneReport
from layerpeel.reports.document import AbstractDocument
from layerpeel.reports.finding import Severity
from layerpeel.reports.gallery import compared_pictures
from layerpeel.reports.page import Page, Section
from layerpeel.reports.picture import Picture
from layerpeel.reports.prediction import Prediction
from layerpeel.reports.report import Report
from layerpeel.reports.table import Cell, Table

# What the verdict speaks of.
HEADLINES = ("held-out minority recall", "minority cosine")


@dataclass(frozen=True, repr=False, eq=False)
class Comparison(AbstractDocument):
    """Two reports on the same classes.

    Attributes:
        first: The report before.
        second: The report after.
        names: What the two are called.
        title: The name of the comparison.
        story: What was done between the two, as text for the reader.
    """

    first: Report
    second: Report
    names: tuple[str, str] = ("before", "after")
    title: str = "Comparison of two last layers"
    story: str = ""

    @property
    def worst(self) -> Severity | None:
        """The severity of the worst finding of the second report."""
        return self.second.worst

    @property
    def resolved(self) -> tuple[str, ...]:
        """Codes found in the first report and no longer in the second."""
        return _codes_only_in(self.first, self.second)

    @property
    def introduced(self) -> tuple[str, ...]:
        """Codes found in the second report and not in the first."""
        return _codes_only_in(self.second, self.first)

    @property
    def verdict(self) -> str:
        """The comparison in one or two sentences."""
        change = "; ".join(
            f"{label} went from {a:.3f} to {b:.3f}"
            for label, a, b in self._numbers()
            if label in HEADLINES and not (math.isnan(a) or math.isnan(b))
        )
        change = f"{change[:1].upper()}{change[1:]}. " if change else ""
        return f"{change}{self._codes_sentence}"

    @property
    def table(self) -> Table:
        """The key numbers of both reports and their difference."""
        rows: tuple[tuple[Cell, ...], ...] = tuple(
            (label, a, b, b - a) for label, a, b in self._numbers()
        )
        return Table(
            "Side by side",
            ("", *self.names, "change"),
            rows,
            note=(
                "Energies under the default convention. They are not held fixed by "
                "retraining: compare their rows before reading the predicted cosine as "
                "an effect of the class counts alone."
            ),
        )

    @property
    def findings_table(self) -> Table:
        """Which checks found something, in either report."""
        first, second = _severities(self.first), _severities(self.second)
        titles = {f.code: f.title for f in self.first.findings + self.second.findings}
        rows: tuple[tuple[Cell, ...], ...] = tuple(
            (code, titles[code], first.get(code, "–"), second.get(code, "–"))
            for code in sorted(titles)
        )
        return Table("Findings in either", ("code", "finding", *self.names), rows)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Both networks in the same pictures."""
        with causes():
            return compared_pictures(
                self.names, self.first.measurement, self.second.measurement
            )

    def page(self) -> Page:
        """Return the content, structured and not yet rendered."""
        first, second = self.names
        return Page(
            title=self.title,
            subtitle=f"{first} against {second}",
            verdict=self.verdict,
            severity=self.worst,
            sections=(
                Section(
                    "What was done",
                    text=self.story,
                    tables=(self.table, self.findings_table),
                ),
                Section("Pictures", pictures=self.pictures),
                Section(f"Findings: {first}", findings=self.first.findings),
                Section(f"Findings: {second}", findings=self.second.findings),
                Section(f"Pictures: {first}", pictures=_renamed("first", self.first)),
                Section(
                    f"Pictures: {second}", pictures=_renamed("second", self.second)
                ),
                Section(
                    "Numbers side by side", tables=self._paired_tables, columns=True
                ),
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the page and both reports, ready for JSON."""
        return {
            **self.page().to_dict(),
            "first": self.first.to_dict(),
            "second": self.second.to_dict(),
        }

    @property
    def _paired_tables(self) -> tuple[Table, ...]:
        """Each table of the first report beside that of the second."""
        pairs = (
            *zip(
                self.first.measurement_tables,
                self.second.measurement_tables,
                strict=True,
            ),
            *_clone_tables(self.first.clones, self.second.clones),
        )
        return tuple(
            replace(table, title=f"{table.title}: {name}")
            for pair in pairs
            for name, table in zip(self.names, pair, strict=True)
        )

    @property
    def _codes_sentence(self) -> str:
        remaining = {f.code for f in self.second.findings} - set(self.introduced)
        said = {
            "resolved": self.resolved,
            "remaining": sorted(remaining),
            "new": self.introduced,
        }
        lists = (
            f"{kind}: {', '.join(codes) or 'none'}" for kind, codes in said.items()
        )
        return f"Findings {'; '.join(lists)}."

    def _numbers(self) -> list[tuple[str, float, float]]:
        with causes():
            # A cured network may have no minority left: both are asked about the first's.
            groups = self.first.measurement.groups
            a, b = _key_numbers(self.first, groups), _key_numbers(self.second, groups)
        return [(key, a[key], b[key]) for key in a if key in b]


def compare(
    first: Report,
    second: Report,
    *,
    names: tuple[str, str] = ("before", "after"),
    title: str | None = None,
    story: str = "",
) -> Comparison:
    """Put two reports side by side.

    Args:
        first: The report before.
        second: The report after; of the same classes.
        names: What the two are called.
        title: The name of the comparison.
        story: What was done between the two, as text for the reader.

    Returns:
        The comparison; shown, saved and converted as a report is.

    Raises:
        ShapeError: If the two reports are about different numbers of classes.
        ValueError: If they are about classes of other names, or are called the same.
    """
    _check_comparable(first.measurement, second.measurement)
    if names[0] == names[1]:
        raise ValueError(f"`names` must differ; got {names[0]!r} twice.")
    return Comparison(first, second, names, title or Comparison.title, story)


def _check_comparable(first: Measurement, second: Measurement) -> None:
    if first.num_classes != second.num_classes:
        raise ShapeError(
            "Both reports must be about the same classes; got "
            f"{first.num_classes} and {second.num_classes} classes."
        )
    pairs = zip(first.class_names, second.class_names, strict=True)
    other = [f"{a!r} and {b!r}" for a, b in pairs if a != b]
    if other:
        raise ValueError(
            f"Both reports must name the classes alike; got {listed(other)}. Pass the "
            "same `class_names` to both."
        )


def _codes_only_in(report: Report, other: Report) -> tuple[str, ...]:
    present = {finding.code for finding in report.findings}
    return tuple(sorted(present - {finding.code for finding in other.findings}))


def _clone_tables(
    first: CloneReport | None, second: CloneReport | None
) -> list[tuple[Table, Table]]:
    """Pair the tables on clones that both have; a power law is not always there."""
    if first is None or second is None:
        return []
    others = {table.title: table for table in second.tables}
    return [(t, others[t.title]) for t in first.tables if t.title in others]


def _renamed(prefix: str, report: Report) -> tuple[Picture, ...]:
    """Both reports call their pictures the same; one page needs different names."""
    return tuple(
        replace(picture, name=f"{prefix}-{picture.name}") for picture in report.pictures
    )


def _severities(report: Report) -> dict[str, str]:
    return {finding.code: finding.severity.value for finding in report.findings}


def _key_numbers(report: Report, groups: ClassGroups) -> dict[str, float]:
    """The numbers worth comparing, in the order of the table."""
    m, default = report.measurement, report.predictions.default
    numbers = {"training accuracy": m.accuracy}
    if m.eval_confusion is not None:
        recall = m.eval_confusion.group_recall
        numbers["held-out accuracy"] = m.eval_accuracy
        numbers["held-out majority recall"] = recall(groups.majority)
        numbers["held-out minority recall"] = recall(groups.minority)
    numbers["minority cosine"] = m.geometry().block_cosine(groups.minority)
    if default is not None:
        numbers |= {
            "predicted minority cosine": default.geometry.block_cosine(groups.minority),
            "imbalance R": report.predictions.imbalance,
            **_threshold_number(report.predictions.tail, default),
            "E_W": default.energy.classifiers,
            "E_H": default.energy.features,
            "distance to prediction": default.distance.classifier_gram,
        }
    norms = m.geometry().classifier_norms
    majority, minority = norms[list(groups.majority)], norms[list(groups.minority)]
    return numbers | {
        "distance to the simplex ETF": report.predictions.etf_distance.classifier_gram,
        "classifier norm, majority over minority": float(
            majority.mean() / minority.mean()
        ),
        "NC1 (quotient)": m.nc1_quotient(),
    }


def _threshold_number(tail: bool, prediction: Prediction) -> dict[str, float]:
    """A ratio where classes collapse together, a count where they do so one by one."""
    if tail:
        return {"collapse at (samples)": prediction.threshold_count}
    return {"log R0": prediction.log_threshold}
