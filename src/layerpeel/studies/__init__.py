"""The papers' experiments, one file each: what is claimed, how to run it, what came out."""

from layerpeel.studies.families import WidthFamily, train_family, width_family

__all__ = ["WidthFamily", "train_family", "width_family"]
