"""Data: real digits, seeded splits and imbalance, and a minimal loader of arrays."""

from layerpeel.datasets.batches import ArrayLoader
from layerpeel.datasets.digits import ImageData, load_digits
from layerpeel.datasets.imbalance import exponential_imbalance, step_imbalance
from layerpeel.datasets.split import stratified_split

__all__ = [
    "ArrayLoader",
    "ImageData",
    "exponential_imbalance",
    "load_digits",
    "step_imbalance",
    "stratified_split",
]
