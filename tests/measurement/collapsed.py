"""Features in exact neural collapse, and small departures from it."""

import torch

from layerpeel.geometry import simplex_etf
from layerpeel.measurement import measure_features


def collapsed(classes=4, width=6, per_class=5, shift=0.0, scale=3.0):
    """Features on the class means of an ETF, labels, and the dual head, in float64."""
    g = torch.Generator().manual_seed(0)
    turn, _ = torch.linalg.qr(torch.randn(width, width, generator=g).double())
    frame = simplex_etf(classes, width) @ turn
    y = torch.arange(classes * per_class) % classes
    bias = -frame @ torch.full((width,), shift).double()
    return scale * frame[y] + shift, y, frame, bias


def measured(classes=4, width=6, **kwargs):
    h, y, W, b = collapsed(classes, width, **kwargs)
    return measure_features(h, y, weight=W, bias=b)
