"""A model as a graph of calls, which all edits share."""

from layerpeel.edits.graph.editable import check_editable
from layerpeel.edits.graph.graph import Graph
from layerpeel.edits.graph.layer import Affine, Layer
from layerpeel.edits.graph.places import INPUT

__all__ = ["Affine", "Graph", "INPUT", "Layer", "check_editable"]
