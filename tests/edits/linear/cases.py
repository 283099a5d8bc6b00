"""Networks whose layers are linear on their data, wholly or nearly."""

import torch
from torch import nn

from tests.edits.networks import mlp, normal


def lifted(model, shift=50.0, layers=(0,)):
    """Move pre-activations of some linear layers of an MLP far to the right."""
    with torch.no_grad():
        for i in layers:
            model[i].bias += shift
    return model


def nearly_linear_tanh(depth=5, width=8, small=0.05, seed=0):
    """A tanh network with small values in early layers, which grow from layer to layer."""
    model = mlp([3, *[width] * depth, 2], nn.Tanh, seed)
    with torch.no_grad():
        for i in range(depth):
            model[2 * i].weight *= small if i == 0 else 3.0
            model[2 * i].bias *= small
        model[2 * depth - 2].weight *= 3.0
    return model


def pieces_by_hand(activation, x):
    """Whether all values of each column are on one affine piece: the line through two
    of them holds all of them, and all points between."""
    inside = []
    for column in x.T:
        grid = torch.linspace(
            float(column.min()), float(column.max()), 4001, dtype=x.dtype
        )
        y = activation(grid[:, None])[:, 0]
        line = y[0] + (y[-1] - y[0]) * torch.linspace(0, 1, 4001, dtype=x.dtype)
        inside.append(bool((y - line).abs().max() < 1e-12))
    return inside


def loader(x, classes=2, batches=2):
    y = torch.arange(len(x)) % classes
    return list(zip(x.chunk(batches), y.chunk(batches), strict=True))


def normal_loader(inputs, classes=2, samples=40, seed=0, batches=2):
    return loader(normal(samples, inputs, seed=seed), classes, batches)
