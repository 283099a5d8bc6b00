"""What geometry does this network have on this data? A value for every metric."""

from layerpeel.measurement.measure import measure
from layerpeel.measurement.measure_features import measure_features
from layerpeel.measurement.measurement import Measurement
from layerpeel.measurement.metrics.energies import (
    ENERGY_CENTRINGS,
    ENERGY_CONVENTIONS,
    energies,
)
from layerpeel.measurement.metrics.nc1 import cdnv, nc1, nc1_quotient
from layerpeel.measurement.metrics.nc2 import NC2, nc2
from layerpeel.measurement.metrics.nc3 import nc3
from layerpeel.measurement.sources.arrays import AnyArray
from layerpeel.measurement.statistics.confusion import Confusion
from layerpeel.measurement.statistics.conventions import CENTRINGS, POOLINGS
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.statistics.nearest_mean import NearestMean
from layerpeel.measurement.statistics.sample import FeatureSample
from layerpeel.measurement.statistics.units import UnitRange

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
