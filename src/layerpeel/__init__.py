"""layerpeel: predict, measure and mend the last layer of a trained classifier."""

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
from layerpeel.reports import (
    Advice,
    Comparison,
    Finding,
    Prediction,
    Predictions,
    Report,
    Severity,
    compare,
    diagnose,
    diagnose_features,
)

__version__ = "0.1.0"

__all__ = [
    # from a network to a report
    "Advice",
    "Comparison",
    "Finding",
    "Report",
    "Severity",
    "compare",
    "diagnose",
    "diagnose_features",
    # measurement
    "Measurement",
    "measure",
    "measure_features",
    # prediction
    "Certificate",
    "Energy",
    "Oversampling",
    "PeeledProblem",
    "Prediction",
    "Predictions",
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
