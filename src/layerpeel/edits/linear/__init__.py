"""Layers that act linearly: found, measured, and merged into their readers."""

from layerpeel.edits.linear.layer_linearity import LayerLinearity
from layerpeel.edits.linear.linearity import Linearity, linearity
from layerpeel.edits.linear.merge_layers import merge_layers
from layerpeel.edits.linear.merge_proof import Merge, MergeProof

__all__ = [
    "LayerLinearity",
    "Linearity",
    "Merge",
    "MergeProof",
    "linearity",
    "merge_layers",
]
