"""Narrower layers, exactly or with a change that is measured."""

from layerpeel.edits.narrowing.narrow import narrow
from layerpeel.edits.narrowing.narrow_proof import NarrowProof

__all__ = ["NarrowProof", "narrow"]
