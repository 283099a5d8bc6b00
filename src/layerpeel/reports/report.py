"""A diagnosis: findings first, then the tables and pictures they rest on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from layerpeel._checks import one_of
from layerpeel._frames import DataFrame
from layerpeel._json import plain
from layerpeel.measurement import CloneProfile, Measurement
from layerpeel.measurement.clones import HEAD_INPUT
from layerpeel.reports import tables
from layerpeel.reports.advice import Advice, advise
from layerpeel.reports.candidates import Candidates, candidates
from layerpeel.reports.causes import causes, with_causes
from layerpeel.reports.checks import CHECKS, Evidence
from layerpeel.reports.clone_report import CloneReport
from layerpeel.reports.document import AbstractDocument
from layerpeel.reports.finding import Finding, NotApplicable, Outcome, Passed, Severity
from layerpeel.reports.gallery import report_pictures
from layerpeel.reports.page import Page, Section
from layerpeel.reports.picture import Picture
from layerpeel.reports.prediction import Predictions, predict
from layerpeel.reports.table import Table


@dataclass(frozen=True, repr=False, eq=False)
class Report(AbstractDocument):
    """What is known about the last layer of a network, and what to do about it.

    Printing it shows the findings and tables as text, a notebook shows them as HTML,
    :meth:`save` writes HTML or JSON of the same content.

    Attributes:
        measurement: What was measured.
        predictions: What the peeled program predicts at the measured energies.
        advice: The oversampling to advise; ``None`` when the classes are balanced.
        outcomes: What every check said, in the order of their codes.
        title: The name of the report.
        candidates: The variants of the program beside the network; ``None`` where they
            do not differ, or there is no prediction.
        clones: Whether a layer consists of clones; ``None`` where it was not profiled.
    """

    measurement: Measurement
    predictions: Predictions
    advice: Advice | None
    outcomes: tuple[Outcome, ...]
    title: str = "Diagnosis of the last layer"
    candidates: Candidates | None = None
    clones: CloneReport | None = None

    @classmethod
    def of(
        cls,
        measurement: Measurement,
        title: str | None = None,
        clones: CloneProfile | None = None,
    ) -> Report:
        """Diagnose a measurement.

        Args:
            measurement: What was measured.
            title: The name of the report.
            clones: The profile of a layer, to be a section of the report.

        Returns:
            The report.
        """
        with causes():  # tables and checks say what is undefined, and why
            predictions = predict(measurement)
            advice = advise(measurement, predictions)
            variants = _candidates(measurement, predictions)
            evidence = Evidence(measurement, predictions, advice, variants)
            outcomes = tuple(check(evidence) for check in CHECKS)
        cloned = None if clones is None else CloneReport.of(clones)
        return cls(
            measurement,
            predictions,
            advice,
            outcomes if cloned is None else outcomes + cloned.outcomes,
            title or cls.title,
            variants,
            cloned,
        )

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings, the most severe first."""
        found = [outcome for outcome in self.outcomes if isinstance(outcome, Finding)]
        return tuple(sorted(found, key=lambda finding: -finding.severity.rank))

    @property
    def worst(self) -> Severity | None:
        """The severity of the worst finding; ``None`` without findings."""
        return self.findings[0].severity if self.findings else None

    @property
    def verdict(self) -> str:
        """The report in one or two sentences."""
        if not self.findings:
            return "Nothing to report: every check that applies has passed."
        first, *rest = self.findings
        more = (
            f" {len(rest)} more finding{'s' if len(rest) > 1 else ''} below."
            if rest
            else ""
        )
        return f"{first.title}. {first.measured}{more}"

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables, in the order of the report."""
        return self.measurement_tables + (
            () if self.clones is None else self.clones.tables
        )

    @property
    def measurement_tables(self) -> tuple[Table, ...]:
        """The tables of the measurement, as many and in the same order in any report."""
        measurement, evidence = self.measurement, self._evidence
        builders = (
            partial(tables.network_table, measurement),
            partial(tables.group_table, evidence),
            partial(tables.prediction_table, evidence),
            partial(tables.distance_table, evidence),
            partial(tables.candidate_table, evidence),
            partial(tables.collapse_table, measurement),
            partial(tables.class_table, measurement),
        )
        return tuple(with_causes(build) for build in builders)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures, in the order of the report."""
        return self._pictures + (() if self.clones is None else self.clones.pictures)

    @property
    def _pictures(self) -> tuple[Picture, ...]:
        """The pictures of the measurement."""
        with causes():
            return report_pictures(self.measurement, self.predictions)

    def page(self) -> Page:
        """Return the content, structured and not yet rendered."""
        network, groups, *compared, variants, collapse, classes = (
            self.measurement_tables
        )
        if variants.rows:
            compared.append(variants)
        return Page(
            title=self.title,
            subtitle=self._subtitle,
            verdict=self.verdict,
            severity=self.worst,
            sections=(
                Section("Findings", findings=self.findings),
                *self._advice_sections,
                Section("Pictures", pictures=self._pictures),
                Section("The network", tables=(network, groups)),
                Section("Prediction against measurement", tables=compared),
                Section("Collapse", tables=(collapse,)),
                Section("Classes", tables=(classes,)),
                *self._clone_sections,
                Section("Checks", outcomes=self._silent_outcomes),
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the page, and the numbers behind its pictures, ready for JSON."""
        predictions = self.predictions
        return {
            **self.page().to_dict(),
            "findings": [finding.code for finding in self.findings],
            "measurement": self.measurement.to_dict(),
            "geometry": self.measurement.geometry().to_dict(),
            "predictions": [item.to_dict() for item in predictions.items],
            "etf_distance": plain(asdict(predictions.etf_distance)),
            "candidates": self.candidates.to_dict() if self.candidates else None,
            "rates": list(self.advice.rates) if self.advice else None,
            "clones": self.clones.to_dict() if self.clones else None,
        }

    def to_frame(self) -> DataFrame:
        """Return one row per class, the rarest first.

        Raises:
            ImportError: If pandas is not installed.
        """
        return tables.class_table(self.measurement).to_frame()

    def plot(self, name: str = "cosines") -> tuple[Figure, list[Axes]]:
        """Draw one of the pictures.

        Args:
            name: The name of a picture in :attr:`pictures`.

        Returns:
            The figure and its axes, free to be changed and saved.

        Raises:
            ValueError: If there is no such picture; the message lists the names.
        """
        pictures = {picture.name: picture for picture in self.pictures}
        figure = pictures[one_of("name", name, pictures)].draw()
        return figure, figure.axes

    @property
    def _evidence(self) -> Evidence:
        return Evidence(
            self.measurement, self.predictions, self.advice, self.candidates
        )

    @property
    def _silent_outcomes(self) -> tuple[Passed | NotApplicable, ...]:
        return tuple(o for o in self.outcomes if not isinstance(o, Finding))

    @property
    def _advice_sections(self) -> tuple[Section, ...]:
        """Explain the rate where a finding advises it, and nowhere else."""
        if self.advice is None or not any(f.command for f in self.findings):
            return ()
        text = f"{self.advice.action} {self.advice.reason}\n\n`{self.advice.command}`"
        return (Section("How much to oversample", text=text),)

    @property
    def _clone_sections(self) -> tuple[Section, ...]:
        """What chunks of the layer do, where it was profiled."""
        if self.clones is None:
            return ()
        layer = self.clones.profile.layer
        named = "the last layer" if layer in ("", HEAD_INPUT) else layer
        return (
            Section(
                f"Clones of {named}",
                "\n\n".join(filter(None, (self.clones.verdict, self.clones.remarks))),
                pictures=self.clones.pictures,
                tables=self.clones.tables,
            ),
        )

    @property
    def _subtitle(self) -> str:
        m = self.measurement
        return (
            f"{m.num_samples} samples, {m.num_classes} classes, "
            f"{m.width} features, head {m.head or 'the model itself'}"
        )


def _candidates(
    measurement: Measurement, predictions: Predictions
) -> Candidates | None:
    """Solve the variants where they differ: they agree on balanced and on two classes."""
    alike = measurement.groups.balanced or measurement.num_classes == 2
    return None if alike or not predictions.items else candidates(measurement)
