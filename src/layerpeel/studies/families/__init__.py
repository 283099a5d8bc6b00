"""Networks of several widths and seeds: chunks of the widest against the narrow ones."""

from layerpeel.studies.families.curves import WidthFamily
from layerpeel.studies.families.picture import CURVES
from layerpeel.studies.families.sub_ensembles import draw_subsets, ensemble_errors
from layerpeel.studies.families.train_family import train_family
from layerpeel.studies.families.width_family import width_family

__all__ = [
    "CURVES",
    "WidthFamily",
    "draw_subsets",
    "ensemble_errors",
    "train_family",
    "width_family",
]
