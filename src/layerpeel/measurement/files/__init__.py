"""Statistics and measurements in files: saving, loading, merging."""

from layerpeel.measurement.files.measurement_file import (
    load_measurement,
    save_measurement,
)
from layerpeel.measurement.files.merging import merge_measurements
from layerpeel.measurement.files.storage import load_statistic, save_statistic

__all__ = [
    "load_measurement",
    "load_statistic",
    "merge_measurements",
    "save_measurement",
    "save_statistic",
]
