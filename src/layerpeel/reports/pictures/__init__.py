"""The pictures of a report: plain numbers in, a figure out."""

from layerpeel.reports.pictures.accuracy import class_accuracy
from layerpeel.reports.pictures.cosines import cosine_matrices
from layerpeel.reports.pictures.norms import norms_against_counts
from layerpeel.reports.pictures.projection import class_mean_projection

__all__ = [
    "class_accuracy",
    "class_mean_projection",
    "cosine_matrices",
    "norms_against_counts",
]
