"""The convex program in the class-mean logits: a solver and its lower bound."""

from layerpeel.program.convex.certificate import certify, certify_spectrum
from layerpeel.program.convex.convex import solve_convex

__all__ = ["certify", "certify_spectrum", "solve_convex"]
