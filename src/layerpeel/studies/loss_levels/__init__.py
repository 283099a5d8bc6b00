"""The hierarchy of loss levels: narrow networks' critical points, wide ones' plateaus."""

from layerpeel.studies.loss_levels.critical_points import critical_points
from layerpeel.studies.loss_levels.descent import Curve, Descent
from layerpeel.studies.loss_levels.diagram import Hierarchy, Match, Run, Rung
from layerpeel.studies.loss_levels.hierarchy import RUNS, hierarchy, rippled_steps
from layerpeel.studies.loss_levels.levels import CriticalLevels, Level
from layerpeel.studies.loss_levels.plateaus import Plateau, plateaus
from layerpeel.studies.loss_levels.search import Rejection, Search

__all__ = [
    "RUNS",
    "CriticalLevels",
    "Curve",
    "Descent",
    "Hierarchy",
    "Level",
    "Match",
    "Plateau",
    "Rejection",
    "Run",
    "Rung",
    "Search",
    "critical_points",
    "hierarchy",
    "plateaus",
    "rippled_steps",
]
