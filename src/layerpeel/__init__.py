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

__version__ = "0.1.0"

__all__ = [
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
