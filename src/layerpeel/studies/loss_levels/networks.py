"""Perceptrons of any hidden widths, drawn from a seed, and split into wider ones."""

from __future__ import annotations

import warnings
from itertools import pairwise

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from layerpeel._checks import at_least, one_of

Hidden = tuple[int, ...]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
}


def network(
    widths: tuple[int, ...], activation: str, scale: float, seed: int
) -> nn.Sequential:
    r"""Return a perceptron in float64 whose parameters are all :math:`N(0, s^2)`.

    A hidden layer may have no neurons: the outputs are then constant.

    Args:
        widths: Of inputs, hidden layers and outputs.
        activation: A key of ``ACTIVATIONS``.
        scale: The standard deviation :math:`s`; small ones lead to condensed networks.
        seed: Where the parameters come from; the global generator stays as it is.

    Raises:
        ValueError: If there is no such activation.

    Example:
        >>> network((1, 2, 1), "tanh", 1.0, seed=0)
        Sequential(
          (0): Linear(in_features=1, out_features=2, bias=True)
          (1): Tanh()
          (2): Linear(in_features=2, out_features=1, bias=True)
        )
    """
    activate = ACTIVATIONS[one_of("activation", activation, ACTIVATIONS)]
    generator = torch.Generator().manual_seed(seed)
    modules: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        modules += [_linear(fan_in, fan_out), activate()]
    model = nn.Sequential(*modules[:-1])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, scale, generator=generator)
    return model


def _linear(fan_in: int, fan_out: int) -> nn.Linear:
    # Its own initialisation would draw from the global generator, and warns of layers
    # without neurons.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element")
        return nn.Linear(fan_in, fan_out, dtype=torch.float64)


def widths_of(model: nn.Sequential) -> tuple[int, ...]:
    """Return the widths of inputs, hidden layers and outputs."""
    layers = _layers(model)
    return (layers[0].in_features, *(layer.out_features for layer in layers))


def checked_hidden(name: str, hidden: object, least: int) -> Hidden:
    """Return hidden widths as a tuple of integers.

    Args:
        name: What they are called in messages.
        hidden: A tuple or list of them.
        least: The smallest width.

    Raises:
        ValueError: If they are none, or one is too small.
    """
    if not isinstance(hidden, tuple | list) or not hidden:
        raise ValueError(
            f"`{name}` must be the widths of hidden layers, such as (2,) or (20, 20); "
            f"got {hidden!r}. Write a width alone as (2,)."
        )
    return tuple(at_least(f"a width of `{name}`", width, least) for width in hidden)


def split(model: nn.Sequential, hidden: Hidden) -> nn.Sequential:
    r"""Return a wider network with the same outputs: its neurons are copies.

    Neuron after neuron is copied in turn, and what the next layer reads is shared
    equally among the copies, so that a critical point stays one. Where there is no
    neuron, those that are added have only zero weights and biases, and are read with
    weight zero.

    References:
        | Embedding Principle of Loss Landscape of Deep Neural Networks (Zhang et al.,
        | 2021), https://arxiv.org/abs/2105.14573: one-step embeddings

    Args:
        model: A perceptron of :func:`network`; it stays as it is.
        hidden: The widths of the new hidden layers, none below the old.

    Raises:
        ValueError: If there are not as many hidden layers, or one would get narrower.

    Example:
        >>> narrow = network((1, 2, 1), "tanh", 1.0, seed=0)
        >>> wide = split(narrow, (5,))
        >>> x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
        >>> wide[0].out_features, torch.allclose(wide(x), narrow(x))
        (5, True)
    """
    old = widths_of(model)
    new = (old[0], *hidden, old[-1])
    if len(new) != len(old) or any(b < a for a, b in zip(old, new, strict=True)):
        raise ValueError(
            f"`hidden` must have {len(old) - 2} widths, each at least that of "
            f"{old[1:-1]}; got {hidden}."
        )
    copies = [_copies(a, b) for a, b in zip(old, new, strict=True)]
    modules: list[nn.Module] = []
    found = iter(copies)
    before = next(found)
    for module in model:
        if isinstance(module, nn.Linear):
            after = next(found)
            modules.append(_split_layer(module, before, after))
            before = after
        else:
            modules.append(module)
    return nn.Sequential(*modules)


def _copies(old: int, new: int) -> Int64[Tensor, " m"]:
    """Return which neuron each of the new ones is a copy of; -1 where there is none."""
    return torch.arange(new) % old if old else torch.full((new,), -1)


def _split_layer(
    layer: nn.Linear, before: Int64[Tensor, " a"], after: Int64[Tensor, " b"]
) -> nn.Linear:
    new = _linear(len(before), len(after))
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.zero_()
        if layer.out_features:
            new.bias.copy_(layer.bias[after])
        if layer.out_features and layer.in_features:
            shares = 1 / torch.bincount(before).double()
            new.weight.copy_(layer.weight[after][:, before] * shares[before])
    return new


def _layers(model: nn.Sequential) -> list[nn.Linear]:
    return [module for module in model if isinstance(module, nn.Linear)]
