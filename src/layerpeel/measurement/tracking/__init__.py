"""Neural collapse while a network trains: scalars over steps, and where they go."""

from layerpeel.measurement.tracking.clones import Clones
from layerpeel.measurement.tracking.history import History
from layerpeel.measurement.tracking.loggers import (
    CSVLogger,
    JSONLinesLogger,
    Logger,
    TensorBoardLogger,
)
from layerpeel.measurement.tracking.scalars import MEASURED_SCALARS, MOMENT_SCALARS
from layerpeel.measurement.tracking.series import Series
from layerpeel.measurement.tracking.tracker import Tracker

__all__ = [
    "CSVLogger",
    "Clones",
    "History",
    "JSONLinesLogger",
    "Logger",
    "MEASURED_SCALARS",
    "MOMENT_SCALARS",
    "Series",
    "TensorBoardLogger",
    "Tracker",
]
