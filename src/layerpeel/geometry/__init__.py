"""The vocabulary that all rooms share: frames, Gram matrices, cosines, distances."""

from layerpeel.geometry.distance import GeometryDistance, geometry_distance
from layerpeel.geometry.frames import (
    etf_cosine,
    general_orthogonal_frame,
    orthogonal_frame,
    simplex_etf,
)
from layerpeel.geometry.geometry import LEAST_REACH, Geometry, block_mean, off_diagonal
from layerpeel.geometry.groups import ClassGroups, split_classes

__all__ = [
    "LEAST_REACH",
    "ClassGroups",
    "Geometry",
    "GeometryDistance",
    "etf_cosine",
    "general_orthogonal_frame",
    "geometry_distance",
    "off_diagonal",
    "block_mean",
    "orthogonal_frame",
    "simplex_etf",
    "split_classes",
]
