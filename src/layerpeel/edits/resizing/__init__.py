"""Other widths: the modules around a layer exchanged for ones with other neurons."""

from layerpeel.edits.resizing.channels import NULL, Channels
from layerpeel.edits.resizing.resizing import Resizing

__all__ = ["NULL", "Channels", "Resizing"]
