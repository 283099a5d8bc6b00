"""Deeper networks: one layer more, with outputs on the data and critical points kept."""

from layerpeel.edits.depth.deepen import deepen
from layerpeel.edits.depth.lift import Lift
from layerpeel.edits.depth.lift_proof import LiftProof
from layerpeel.edits.depth.lifted_manifold import lifted_manifold
from layerpeel.edits.depth.residual_block import ResidualBlock

__all__ = ["Lift", "LiftProof", "ResidualBlock", "deepen", "lifted_manifold"]
