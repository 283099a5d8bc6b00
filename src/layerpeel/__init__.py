"""layerpeel: predict, measure and edit the last layers of trained classifiers."""

from layerpeel._checks import LayerpeelError, UndefinedWarning
from layerpeel.geometry import (
    ClassGroups,
    Geometry,
    GeometryDistance,
    general_orthogonal_frame,
    geometry_distance,
    orthogonal_frame,
    simplex_etf,
    split_classes,
)
from layerpeel.measurement import Measurement, measure, measure_features
from layerpeel.program import (
    Certificate,
    Energy,
    Oversampling,
    PeeledProblem,
    Solution,
    Status,
    collapse_threshold,
    oversampling,
    two_group_counts,
    vanishing_threshold,
)
from layerpeel.remedies import oversampled_indices

__version__ = "0.1.0"

__all__ = [
    # measurement
    "Measurement",
    "measure",
    "measure_features",
    # prediction
    "Certificate",
    "Energy",
    "Oversampling",
    "PeeledProblem",
    "Solution",
    "Status",
    "collapse_threshold",
    "oversampling",
    "two_group_counts",
    "vanishing_threshold",
    # remedies
    "oversampled_indices",
    # geometry
    "ClassGroups",
    "Geometry",
    "GeometryDistance",
    "general_orthogonal_frame",
    "geometry_distance",
    "orthogonal_frame",
    "simplex_etf",
    "split_classes",
    # errors and warnings
    "LayerpeelError",
    "UndefinedWarning",
]
