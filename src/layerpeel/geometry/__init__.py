"""The vocabulary that all rooms share: frames, Gram matrices, cosines, distances."""

from layerpeel.geometry.distance import GeometryDistance, geometry_distance
from layerpeel.geometry.frames import (
    general_orthogonal_frame,
    orthogonal_frame,
    simplex_etf,
)
from layerpeel.geometry.geometry import Geometry, off_diagonal, off_diagonal_mean
from layerpeel.geometry.groups import ClassGroups, split_classes

__all__ = [
    "ClassGroups",
    "Geometry",
    "GeometryDistance",
    "general_orthogonal_frame",
    "geometry_distance",
    "off_diagonal",
    "off_diagonal_mean",
    "orthogonal_frame",
    "simplex_etf",
    "split_classes",
]
