"""Class vectors whose angles are known, and random ones."""

import math

import torch


def random_rows(classes, width, seed=0, *, centred=False):
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(classes, width, generator=g).double()
    return rows - rows.mean(0) if centred else rows


def on_circle(*degrees):
    """Unit vectors in the plane."""
    turns = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    return torch.stack([turns.cos(), turns.sin()], dim=1)


def with_gaps(rows, *where):
    """The same rows, with rows of NaN (classes without samples) at some indices."""
    kept = [k for k in range(len(rows) + len(where)) if k not in where]
    gaps = torch.full((len(rows) + len(where), rows.shape[1]), torch.nan).double()
    gaps[kept] = rows
    return gaps


def turn(width, seed=0):
    """A random rotation."""
    return torch.linalg.qr(random_rows(width, width, seed))[0]
