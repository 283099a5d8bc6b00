"""What a check says: a finding, a pass, or why it does not apply."""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass


@functools.total_ordering
class Severity(enum.Enum):
    """How much a finding matters. The value is what users type and read."""

    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"

    @property
    def rank(self) -> int:
        """Position in increasing order of importance."""
        return list(Severity).index(self)

    def __lt__(self, other: Severity) -> bool:
        """Whether this severity matters less than another."""
        return self.rank < other.rank


@dataclass(frozen=True)
class Finding:
    """Something a reader should know, with what to do about it.

    Attributes:
        code: Stable identifier such as ``"LP001"``.
        title: One line.
        severity: How much it matters.
        measured: What was measured, with numbers, as a sentence.
        threshold: The threshold it was held against, as a sentence.
        source: Where the threshold comes from: a paper, or a convention.
        action: What to do, as a sentence.
        command: The line of code or shell that does it; empty when there is none.
        explanation: Why it happens: the theory, and what it does not prove.
    """

    code: str
    title: str
    severity: Severity
    measured: str
    threshold: str
    source: str
    action: str
    command: str = ""
    explanation: str = ""

    @property
    def docs(self) -> str:
        """Where the finding is documented, relative to the project's root."""
        return f"docs/findings.md#{self.code.lower()}"


@dataclass(frozen=True)
class Passed:
    """A check that found nothing wrong.

    Attributes:
        code: Identifier of the check.
        title: What was checked.
        measured: What was measured, as a sentence.
    """

    code: str
    title: str
    measured: str


@dataclass(frozen=True)
class NotApplicable:
    """A check that could not be made.

    Attributes:
        code: Identifier of the check.
        title: What would have been checked.
        reason: Why it does not apply here, as a sentence.
    """

    code: str
    title: str
    reason: str


Outcome = Finding | Passed | NotApplicable
