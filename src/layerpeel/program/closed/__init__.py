"""Closed forms: one file per formula, each with the proof that it is optimal."""

from layerpeel.program.closed.affine_frames import solve_affine_frames
from layerpeel.program.closed.balanced import solve_balanced
from layerpeel.program.closed.nonnegative import (
    nonnegative_collapse_threshold,
    solve_nonnegative,
)
from layerpeel.program.closed.orthogonal_frames import solve_orthogonal_frames
from layerpeel.program.closed.safe_count import collapse_count, smallest_safe_count

__all__ = [
    # cross-entropy
    "solve_balanced",
    "solve_nonnegative",
    # squared error
    "solve_affine_frames",
    "solve_orthogonal_frames",
    # thresholds
    "collapse_count",
    "nonnegative_collapse_threshold",
    "smallest_safe_count",
]
