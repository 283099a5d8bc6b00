"""Deeper networks, with the function preserved and that proved."""

from layerpeel.edits.activations import Piece, affine_pieces, segment
from layerpeel.edits.depth import Lift, LiftProof, deepen, lifted_manifold
from layerpeel.edits.edit import Edit
from layerpeel.edits.proof import Proof

__all__ = [
    # edits
    "deepen",
    "lifted_manifold",
    # what they return
    "Edit",
    "Lift",
    "LiftProof",
    "Proof",
    # activations
    "Piece",
    "affine_pieces",
    "segment",
]
