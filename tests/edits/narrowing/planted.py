"""Networks with neurons planted that others can stand in for."""

import torch

from tests.edits.networks import normal


def incoming(module):
    """The weights of each neuron in one row, the bias last."""
    rows = module.weight.detach().flatten(1)
    return torch.cat([rows, module.bias.detach()[:, None]], 1)


def plant(module, neuron, source, factor=1.0):
    """Let a neuron be a multiple of another one."""
    with torch.no_grad():
        module.weight[neuron] = factor * module.weight[source]
        module.bias[neuron] = factor * module.bias[source]


def unread(module, neuron):
    with torch.no_grad():
        module.weight[:, neuron] = 0


def constant(module, neuron, value):
    with torch.no_grad():
        module.weight[neuron] = 0
        module.bias[neuron] = value


def elsewhere(*shape):
    """Inputs that are none of the data, and far larger than those."""
    return 10 * normal(*shape, seed=91)


def close(before, after, x, atol=1e-12):
    with torch.no_grad():
        old, new = before(x), after(x)
    scale = max(1.0, float(old.abs().max()))
    return float((old - new).abs().max()) <= atol * scale
