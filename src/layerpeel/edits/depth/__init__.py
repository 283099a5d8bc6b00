"""Deeper networks: one layer more, with outputs on the data and critical points kept."""

from layerpeel.edits.depth.deepen import deepen
from layerpeel.edits.depth.lift import Lift
from layerpeel.edits.depth.lift_proof import LiftProof
from layerpeel.edits.depth.lifted_manifold import lifted_manifold

__all__ = ["Lift", "LiftProof", "deepen", "lifted_manifold"]
