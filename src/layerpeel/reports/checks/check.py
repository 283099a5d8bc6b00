"""What a check is: a question asked of the evidence, with a code and an explanation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from layerpeel.measurement import Measurement
from layerpeel.reports.advice import Advice
from layerpeel.reports.candidates import Candidates
from layerpeel.reports.finding import Finding, NotApplicable, Outcome, Passed, Severity
from layerpeel.reports.prediction import Predictions

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Evidence:
    """All that a check may look at.

    Attributes:
        measurement: What was measured on the network.
        predictions: What the peeled program says at the measured energies.
        advice: The oversampling to advise; ``None`` without a minority.
        candidates: The variants of the program that could describe the network;
            ``None`` where they were not solved.
    """

    measurement: Measurement
    predictions: Predictions
    advice: Advice | None
    candidates: Candidates | None = None


@dataclass(frozen=True)
class Check(Generic[Seen]):
    """A question asked of the evidence: of a measurement, or of a clone profile.

    Attributes:
        code: Stable identifier such as ``"LP001"``.
        title: What a finding of this check says, in one line.
        question: The same as a question, for checks that found nothing.
        source: Where its threshold comes from.
        explanation: Why it happens and what it does not prove; shown with findings and
            by ``layerpeel explain``.
        ask: The function that answers it.
    """

    code: str
    title: str
    question: str
    source: str
    explanation: str
    ask: Callable[[Check[Seen], Seen], Outcome]

    def __call__(self, evidence: Seen) -> Outcome:
        """Answer the question."""
        return self.ask(self, evidence)

    def finding(
        self,
        severity: Severity,
        *,
        measured: str,
        threshold: str,
        action: str,
        command: str = "",
    ) -> Finding:
        """Return a finding of this check."""
        return Finding(
            code=self.code,
            title=self.title,
            severity=severity,
            measured=measured,
            threshold=threshold,
            source=self.source,
            action=action,
            command=command,
            explanation=self.explanation,
        )

    def passed(self, measured: str) -> Passed:
        """Return that nothing was found."""
        return Passed(self.code, self.question, measured)

    def not_applicable(self, reason: str) -> NotApplicable:
        """Return that the question does not arise."""
        return NotApplicable(self.code, self.question, reason)
