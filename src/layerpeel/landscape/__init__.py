"""What kind of point is this? Gradient, Hessian inertia, directions to escape along."""

from layerpeel.landscape.classify_point import classify_point
from layerpeel.landscape.critical_point import CriticalPoint, Kind, LandscapeWarning
from layerpeel.landscape.curvature import Curvature
from layerpeel.landscape.eigenpair import Eigenpair
from layerpeel.landscape.escape import Escape, EscapeStatus, escape
from layerpeel.landscape.extremal import Extremal, extremal_eigenpairs
from layerpeel.landscape.hessian_operator import HessianOperator
from layerpeel.landscape.inertia import Inertia, zero_tolerance
from layerpeel.landscape.kinks import Kinks, kinks
from layerpeel.landscape.parameters import Parameters
from layerpeel.landscape.polish import Polished, PolishStatus, polish
from layerpeel.landscape.risk import Risk

__all__ = [
    # the point
    "classify_point",
    "CriticalPoint",
    "Kind",
    "LandscapeWarning",
    # to it, and away from it
    "polish",
    "Polished",
    "PolishStatus",
    "escape",
    "Escape",
    "EscapeStatus",
    # the risk and its derivatives
    "Risk",
    "Parameters",
    "HessianOperator",
    "Curvature",
    "Eigenpair",
    "Extremal",
    "extremal_eigenpairs",
    "Inertia",
    "zero_tolerance",
    "Kinks",
    "kinks",
]
