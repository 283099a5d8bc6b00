"""The peeled program: class counts and energies in, the geometry of the optimum out."""

from layerpeel.program.counts import two_group_counts
from layerpeel.program.energy import Energy
from layerpeel.program.oversampling import Oversampling, oversampling
from layerpeel.program.problem import PeeledProblem
from layerpeel.program.solution import Certificate, Solution, Status
from layerpeel.program.thresholds import collapse_threshold, vanishing_threshold

__all__ = [
    # problem and solution
    "Certificate",
    "Energy",
    "PeeledProblem",
    "Solution",
    "Status",
    # minority collapse
    "collapse_threshold",
    "vanishing_threshold",
    # what to do about it
    "Oversampling",
    "oversampling",
    # counts
    "two_group_counts",
]
