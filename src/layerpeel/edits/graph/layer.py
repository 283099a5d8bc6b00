"""A place in the network, and what is around it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn


@dataclass(frozen=True, eq=False)
class Affine:
    """A call of a linear layer or a convolution.

    Attributes:
        path: The path of the module.
        module: The module, of the copied model.
        node: Its call.
    """

    path: str
    module: nn.Linear | nn.Conv2d
    node: fx.Node


@dataclass(frozen=True, eq=False)
class Layer:
    """A place in the network, and what is around it.

    Between the producer and its activation, and between the features and their
    consumers, stand only calls that treat each channel by itself: batch normalisation,
    pooling, dropout, views.

    Attributes:
        path: The path that named it; ``"input"`` for the input of the network.
        producer: The linear layer or convolution that it names, if it is one.
        norms: The paths of the batch normalisations between that and the features.
        before: All calls between the producer and its activation, in order.
        activation: The activation that returns the features, if one does.
        features: The node that returns the features.
        consumers: The linear layers and convolutions that read them.
        between: All calls between the features and their consumers.
        others: What else reads them, in words.
    """

    path: str
    producer: Affine | None
    norms: tuple[str, ...]
    before: tuple[fx.Node, ...]
    activation: nn.Module | None
    features: fx.Node
    consumers: tuple[Affine, ...]
    between: tuple[fx.Node, ...]
    others: tuple[str, ...]
