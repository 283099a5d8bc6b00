"""Limits: geometries that need no energies, because nothing or a sphere holds the norms."""

from layerpeel.program.limits.fixed_frame import FixedFrame, fixed_frame
from layerpeel.program.limits.limit import Limit
from layerpeel.program.limits.one_vs_rest import (
    one_vs_rest_distances,
    one_vs_rest_optimum,
)
from layerpeel.program.limits.seli import seli
from layerpeel.program.limits.supervised_contrastive import (
    ContrastiveFrame,
    peeled_contrastive,
    supervised_contrastive,
)

__all__ = [
    # vanishing regularisation
    "Limit",
    "seli",
    # a classifier that does not learn
    "FixedFrame",
    "fixed_frame",
    # contrastive losses
    "ContrastiveFrame",
    "peeled_contrastive",
    "supervised_contrastive",
    # more classes than dimensions
    "one_vs_rest_distances",
    "one_vs_rest_optimum",
]
