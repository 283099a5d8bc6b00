"""A residual block as it is inserted: its input, and an activated layer of it."""

from __future__ import annotations

from typing import Any

from torch import nn


class ResidualBlock(nn.Module):
    r"""Returns :math:`f + \sigma(U f + b')`.

    Args:
        linear: The layer :math:`U f + b'`, which keeps the shape of its input.
        activation: :math:`\sigma`.

    Example:
        >>> import torch
        >>> block = ResidualBlock(nn.Linear(2, 2), nn.ReLU())
        >>> block(torch.zeros(1, 2)).shape, [name for name, _ in block.named_parameters()]
        (torch.Size([1, 2]), ['linear.weight', 'linear.bias'])
    """

    def __init__(self, linear: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.linear = linear
        self.activation = activation

    def forward(self, features: Any) -> Any:  # noqa: ANN401 - tracing passes no tensor
        """Return the features and what is added to them."""
        return features + self.activation(self.linear(features))
