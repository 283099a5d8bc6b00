"""Deeper, wider, shallower, narrower: the function preserved, and that proved."""

from layerpeel.edits.activations import Piece, affine_pieces, segment
from layerpeel.edits.depth import (
    Lift,
    LiftProof,
    ResidualBlock,
    deepen,
    lifted_manifold,
)
from layerpeel.edits.edit import Edit
from layerpeel.edits.inertia_check import inertia_shift
from layerpeel.edits.linear import (
    LayerLinearity,
    Linearity,
    Merge,
    MergeProof,
    linearity,
    merge_layers,
)
from layerpeel.edits.narrowing import NarrowProof, narrow
from layerpeel.edits.proof import Proof
from layerpeel.edits.width import CompatibleEmbedding, WidthProof, embed, widen
from layerpeel.edits.width.certificate import NeuronCertificate

__all__ = [
    # depth
    "deepen",
    "lifted_manifold",
    "linearity",
    "merge_layers",
    # width
    "widen",
    "embed",
    "narrow",
    # what they return
    "Edit",
    "Proof",
    "LiftProof",
    "WidthProof",
    "MergeProof",
    "NarrowProof",
    "NeuronCertificate",
    "Lift",
    "Linearity",
    "LayerLinearity",
    "Merge",
    # what they are made of
    "CompatibleEmbedding",
    "ResidualBlock",
    "inertia_shift",
    "Piece",
    "affine_pieces",
    "segment",
]
