"""Deeper networks, with the function preserved and that proved."""

from layerpeel.edits.activations import Piece, affine_pieces, segment
from layerpeel.edits.deepen import deepen
from layerpeel.edits.edit import Edit
from layerpeel.edits.lift import Lift
from layerpeel.edits.lifted_manifold import lifted_manifold
from layerpeel.edits.proof import Proof

__all__ = [
    # edits
    "deepen",
    "lifted_manifold",
    # what they return
    "Edit",
    "Lift",
    "Proof",
    # activations
    "Piece",
    "affine_pieces",
    "segment",
]
