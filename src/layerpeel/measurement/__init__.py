"""What geometry does this network have on this data? A value for every metric."""

from layerpeel.measurement.arrays import AnyArray
from layerpeel.measurement.confusion import Confusion
from layerpeel.measurement.conventions import CENTRINGS, POOLINGS
from layerpeel.measurement.energies import (
    ENERGY_CENTRINGS,
    ENERGY_CONVENTIONS,
    energies,
)
from layerpeel.measurement.measure import measure
from layerpeel.measurement.measure_features import measure_features
from layerpeel.measurement.measurement import Measurement
from layerpeel.measurement.moments import ClassMoments
from layerpeel.measurement.nc1 import cdnv, nc1, nc1_quotient
from layerpeel.measurement.nc2 import NC2, nc2
from layerpeel.measurement.nc3 import nc3
from layerpeel.measurement.nc4 import NearestMean
from layerpeel.measurement.sample import FeatureSample
from layerpeel.measurement.units import UnitRange

__all__ = [
    # entry points
    "AnyArray",
    "measure",
    "measure_features",
    # values
    "ClassMoments",
    "Confusion",
    "FeatureSample",
    "Measurement",
    "NearestMean",
    "UnitRange",
    # metrics
    "NC2",
    "cdnv",
    "energies",
    "nc1",
    "nc1_quotient",
    "nc2",
    "nc3",
    # conventions
    "CENTRINGS",
    "ENERGY_CENTRINGS",
    "ENERGY_CONVENTIONS",
    "POOLINGS",
]
