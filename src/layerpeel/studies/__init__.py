"""The papers' experiments, one file each: what is claimed, how to run it, what came out."""

from layerpeel.studies.families import WidthFamily, train_family, width_family
from layerpeel.studies.layer_pruning import LayerPruning, PruningSettings, layer_pruning
from layerpeel.studies.loss_levels import (
    CriticalLevels,
    Descent,
    Hierarchy,
    Level,
    Search,
    critical_points,
    hierarchy,
)

__all__ = [
    "CriticalLevels",
    "Descent",
    "Hierarchy",
    "LayerPruning",
    "Level",
    "PruningSettings",
    "Search",
    "WidthFamily",
    "critical_points",
    "hierarchy",
    "layer_pruning",
    "train_family",
    "width_family",
]
