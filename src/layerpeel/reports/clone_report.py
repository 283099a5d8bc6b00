"""A report on the clones of a layer: what was found, what it rests on, what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from layerpeel._frames import DataFrame
from layerpeel._json import plain
from layerpeel.measurement import CloneProfile
from layerpeel.measurement.clones import HEAD_INPUT
from layerpeel.reports import clone_tables as tables
from layerpeel.reports.causes import causes
from layerpeel.reports.checks import CLONE_CHECKS
from layerpeel.reports.clone_evidence import CloneEvidence
from layerpeel.reports.clone_picture import clone_picture
from layerpeel.reports.clone_verdict import clone_verdict
from layerpeel.reports.document import AbstractDocument
from layerpeel.reports.finding import Finding, NotApplicable, Outcome, Passed, Severity
from layerpeel.reports.page import Page, Section
from layerpeel.reports.picture import Picture
from layerpeel.reports.table import Table


@dataclass(frozen=True, repr=False, eq=False)
class CloneReport(AbstractDocument):
    """Whether a layer consists of clones, and how narrow it could be.

    Printing it shows the findings and tables as text, a notebook shows them as HTML,
    :meth:`save` writes HTML or JSON of the same content.

    Attributes:
        profile: What was measured.
        evidence: What follows from it: neurons to keep, a power law.
        outcomes: What every check said, in the order of their codes.
        title: The name of the report.

    References:
        | Redundant representations help generalization in wide neural networks
        | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485
    """

    profile: CloneProfile
    evidence: CloneEvidence
    outcomes: tuple[Outcome, ...]
    title: str = "Clones of a layer"

    @classmethod
    def of(cls, profile: CloneProfile, title: str | None = None) -> CloneReport:
        """Judge a profile.

        Neurons to keep are selected here, which in a layer of a thousand neurons or more
        takes some seconds.

        Args:
            profile: The profile of a layer.
            title: The name of the report.

        Returns:
            The report.

        Example:
            >>> import torch
            >>> from layerpeel.measurement import clone_profile_features
            >>> g = torch.Generator().manual_seed(0)
            >>> h = torch.randn(200, 3, generator=g).repeat(1, 8)  # 8 copies
            >>> v = torch.randn(2, 3, generator=g).repeat(1, 8)
            >>> y = (h @ v.T).argmax(1)
            >>> report = CloneReport.of(clone_profile_features(h, y, weight=v))
            >>> [row.width for row in report.evidence.narrower][-1]
            3
        """
        evidence = CloneEvidence.of(profile)
        outcomes = tuple(check(evidence) for check in CLONE_CHECKS)
        return cls(profile, evidence, outcomes, title or cls.title)

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
        """The number of clones and what decides it, or why there are none."""
        return clone_verdict(self.evidence)

    @property
    def tables(self) -> tuple[Table, ...]:
        """Widths, critical widths, claims, the power law if any, neurons to keep."""
        builders = (
            tables.width_table,
            tables.critical_table,
            tables.claim_table,
            tables.law_table,
            tables.narrower_table,
        )
        with causes():
            built = [build(self.evidence) for build in builders]
        return tuple(table for table in built if table.rows)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The picture of the profile."""
        return (clone_picture(self.evidence),)

    @property
    def remarks(self) -> str:
        """What could not be measured and why, as paragraphs."""
        said = (*self.profile.cause, self.evidence.no_law)
        return "\n\n".join(
            f"{one[0].upper()}{one[1:].rstrip('.')}." for one in said if one
        )

    def page(self) -> Page:
        """Return the content, structured and not yet rendered."""
        silent: tuple[Passed | NotApplicable, ...] = tuple(
            o for o in self.outcomes if not isinstance(o, Finding)
        )
        return Page(
            title=self.title,
            subtitle=_subtitle(self.profile),
            verdict=self.verdict,
            severity=self.worst,
            sections=(
                Section("Findings", findings=self.findings),
                Section("Chunks of the layer", self.remarks, pictures=self.pictures),
                Section("Numbers", tables=self.tables),
                Section("Checks", outcomes=silent),
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the page, and the numbers behind it, ready for JSON."""
        law, one = self.evidence.law, self.evidence.at_critical
        with causes():
            profile = self.profile.to_dict()
        return {
            **self.page().to_dict(),
            "findings": [finding.code for finding in self.findings],
            "profile": profile,
            "power_law": None if law is None else plain(asdict(law)),
            "at_critical_width": one and one.to_dict(),
            "narrower": [one.to_dict() for one in self.evidence.narrower],
        }

    def to_frame(self) -> DataFrame:
        """Return one row per width: means over chunks, and their spread.

        Raises:
            ImportError: If pandas is not installed.
        """
        return self.profile.to_frame()

    def plot(self, panel: str | None = None) -> tuple[Figure, Axes]:
        """Draw the profile.

        Args:
            panel: ``"errors"``, ``"reconstruction"`` or ``"residuals"``; all when
                omitted.

        Returns:
            The figure, and the axes of the first panel.

        Raises:
            ValueError: If there is no such panel.
        """
        with causes():
            return self.profile.plot(panel=panel)


def _subtitle(profile: CloneProfile) -> str:
    where = {HEAD_INPUT: " at the input of the head", "": ""}
    held_out = profile.held_out
    return ", ".join(
        [
            f"{profile.width} neurons{where.get(profile.layer, f' of {profile.layer}')}",
            f"{profile.num_samples} samples",
            *([] if held_out is None else [f"{held_out.count} held out"]),
            f"{profile.repeats} chunks of each width",
        ]
    )
