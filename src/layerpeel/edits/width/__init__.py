"""Wider networks, with outputs kept for every input, and ways down where they open."""

from layerpeel.edits.width.compatible_embedding import CompatibleEmbedding
from layerpeel.edits.width.embed import embed
from layerpeel.edits.width.widen import widen
from layerpeel.edits.width.width_proof import WidthProof

__all__ = ["CompatibleEmbedding", "WidthProof", "embed", "widen"]
