"""Networks that are widened by hand, one neuron at a time, and their dense Hessians."""

import copy

import torch
from torch import nn

from layerpeel.edits.data import Data
from layerpeel.edits.graph import Graph
from tests.edits.networks import normal, risk_of


def split(model, producer, neuron, alpha, consumers, norms=(), blocks=None):
    """Return the model with a copy of a neuron at the end."""
    wide = copy.deepcopy(model)
    for path in (producer, *norms):
        grow(wide.get_submodule(path), neuron)
    width = model.get_submodule(producer).weight.shape[0]
    for path in consumers:
        module = wide.get_submodule(path)
        w = module.weight.detach()
        block = w.shape[1] // width
        own = w[:, neuron * block : (neuron + 1) * block]
        module.weight = nn.Parameter(torch.cat([w, alpha * own], 1))
        module.weight.data[:, neuron * block : (neuron + 1) * block] *= 1 - alpha
        widened(module, w.shape[1] + block)
    return wide


def grow(module, neuron, values=None):
    """Append an entry to all tensors of a module, a copy of another one by default."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.ndim == 0:
            continue
        row = tensor[neuron : neuron + 1] if values is None else values[name]
        new = torch.cat([tensor.detach(), row.detach()])
        setattr(module, name, nn.Parameter(new) if _is_parameter(tensor) else new)
    for name in ("out_features", "out_channels", "num_features", "num_parameters"):
        if hasattr(module, name):
            setattr(module, name, getattr(module, name) + 1)


def null(model, certificate, producer, consumers, norms=()):
    """Return the model with a null neuron at the end."""
    wide = copy.deepcopy(model)
    width = model.get_submodule(producer).weight.shape[0]
    for path in (producer, *norms):
        start = {
            name.removeprefix(f"{path}."): value
            for name, value in certificate.start.items()
            if name.startswith(f"{path}.")
        }
        grow(wide.get_submodule(path), None, start)
    for path in consumers:
        module = wide.get_submodule(path)
        w = module.weight.detach()
        more = torch.zeros_like(w[:, : w.shape[1] // width])
        module.weight = nn.Parameter(torch.cat([w, more], 1))
        widened(module, w.shape[1] + more.shape[1])
    return wide


def widened(module, count):
    setattr(
        module, "in_features" if isinstance(module, nn.Linear) else "in_channels", count
    )


def hessian(model, data, loss):
    risk, point = risk_of(model, data, loss)
    found = torch.autograd.functional.hessian(risk, point)
    return (found + found.T) / 2


def signs(matrix, cut=1e-10):
    values = torch.linalg.eigvalsh(matrix)
    least = cut * max(float(values.abs().max()), 1e-30)
    below, above = int((values < -least).sum()), int((values > least).sum())
    return below, len(values) - below - above, above


def flat(model, direction):
    return torch.cat(
        [
            direction.get(name, torch.zeros_like(p)).detach().flatten()
            for name, p in model.named_parameters()
        ]
    )


def plus(*inertias):
    return tuple(sum(parts) for parts in zip(*inertias, strict=True))


def site(model, path, data):
    graph = Graph(model)
    return graph, graph.layer(path), Data(data, model)


def regression(inputs, outputs, samples=10, seed=0, batches=2):
    x, y = normal(samples, inputs, seed=seed), normal(samples, outputs, seed=seed + 1)
    return list(zip(x.tensor_split(batches), y.tensor_split(batches), strict=True))


def _is_parameter(tensor):
    return isinstance(tensor, nn.Parameter)
