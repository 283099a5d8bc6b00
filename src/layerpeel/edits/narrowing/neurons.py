r"""The neurons of a layer as their weights alone tell them apart, whatever the input.

A neuron is :math:`h_k = \sigma(\tilde w_k^\top \tilde x)` with its *effective* incoming
weights :math:`\tilde w_k`: those of the producer, with the bias as the last one, and with
batch normalisation in eval mode folded in. For a convolution the input
:math:`\tilde x` is a patch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from layerpeel._tolerances import EQUAL_NEURON_ULPS
from layerpeel.edits.activations import out_of_place
from layerpeel.edits.graph import Graph, Layer
from layerpeel.edits.graph.functions import is_norm
from layerpeel.edits.narrowing.chain import (
    Chain,
    chains,
    is_linear,
    keeps_constants,
    norm_stage,
    stretches,
)
from layerpeel.edits.narrowing.symmetry import Symmetry
from layerpeel.edits.resizing import Channels, Resizing


@dataclass(frozen=True, eq=False)
class Neurons:
    r"""What is known of the neurons of a layer without data.

    Attributes:
        rows: The effective incoming weights :math:`\tilde w`, the bias last.
        rounding: How far two equal rows may be apart, by neuron.
        slopes: Slopes of the activation that differ by neuron; of equal neurons they are
            the same.
        symmetry: That of the activation.
        constants: The value of a neuron whose weights are zero; NaN for all others.
        folded: Whether rows are effective ones: where pooling stands before the
            activation, they are the values of all modules side by side instead.
        chains: What stands before each consumer.
        lipschitz: The largest slope of the activation, if it is positively homogeneous;
            infinite if something before it may stretch values.
        eps: The unit of the dtype of the weights.
    """

    rows: Float64[Tensor, "W D"]
    rounding: Float64[Tensor, " W"]
    slopes: Float64[Tensor, "W S"]
    symmetry: Symmetry
    constants: Float64[Tensor, " W"]
    folded: bool
    chains: tuple[Chain, ...]
    lipschitz: float
    eps: float

    @classmethod
    def of(cls, graph: Graph, layer: Layer, resizing: Resizing) -> Neurons:
        """Return the neurons of a layer of a graph."""
        modules = dict(graph.model.named_modules())
        channels = resizing.channels
        slopes = _slopes(layer.activation, channels)
        rows, sizes, folded = _rows(layer, modules, channels)
        eps = float(torch.finfo(resizing.producer.module.weight.dtype).eps)
        return cls(
            rows=rows,
            rounding=EQUAL_NEURON_ULPS * eps * sizes,
            slopes=slopes,
            symmetry=Symmetry.of(layer.activation) if folded else Symmetry(False, None),
            constants=_constants(rows, layer.activation, slopes, folded),
            folded=folded,
            chains=chains(layer, modules, channels),
            lipschitz=_lipschitz(layer, modules, slopes),
            eps=eps,
        )

    @property
    def width(self) -> int:
        """The number of neurons."""
        return len(self.rows)

    @property
    def lengths(self) -> Float64[Tensor, " W"]:
        """The Euclidean lengths of the rows."""
        found: Tensor = torch.linalg.vector_norm(self.rows, dim=1)
        return found

    @property
    def outgoing(self) -> Float64[Tensor, " W"]:
        """The length of all weights that read a neuron, batch normalisation folded in."""
        read = [
            (chain.blocks * chain.scale).square().sum((0, 2)) for chain in self.chains
        ]
        total: Tensor = torch.stack(read).sum(0)
        return torch.sqrt(total)


def _rows(
    layer: Layer, modules: Mapping[str, nn.Module], channels: Channels
) -> tuple[Tensor, Tensor, bool]:
    """Return rows, the length of all terms that they are sums of, and if folded."""
    known = dict(modules)
    weight, bias = _own(layer)
    norms = [known[str(n.target)] for n in layer.before if is_norm(n, known)]
    stages = [norm_stage(norm, channels) for norm in norms]
    commute = all(
        is_linear(n, known) and keeps_constants(n, known) for n in layer.before
    )
    if not commute or any(scale.shape[1] > 1 for scale, _ in stages):
        raw = torch.cat([weight, bias, *(v for stage in stages for v in stage)], dim=1)
        return raw, raw.norm(dim=1), False
    size = bias.abs()
    for norm, (scale, shift) in zip(norms, stages, strict=True):
        mean = torch.as_tensor(norm.running_mean).cpu().double()[:, None]
        weight, bias = weight * scale, bias * scale + shift
        size = size * scale.abs() + shift.abs() + (mean * scale).abs()
    sizes = torch.cat([weight, size], dim=1).norm(dim=1)
    return torch.cat([weight, bias], dim=1), sizes, True


def _own(layer: Layer) -> tuple[Tensor, Tensor]:
    assert layer.producer is not None  # as Resizing has checked
    module = layer.producer.module
    weight = module.weight.detach().cpu().double().flatten(1)
    if module.bias is None:
        return weight, weight.new_zeros(len(weight), 1)
    return weight, module.bias.detach().cpu().double()[:, None]


def _slopes(activation: nn.Module | None, channels: Channels) -> Tensor:
    if isinstance(activation, nn.PReLU) and activation.num_parameters > 1:
        return channels.split(activation.weight.detach().cpu().double(), 0)
    return torch.zeros(channels.width, 0, dtype=torch.float64)


def _constants(
    rows: Tensor, activation: nn.Module | None, slopes: Tensor, folded: bool
) -> Tensor:
    none = torch.full((len(rows),), torch.nan, dtype=torch.float64)
    if not folded:
        return none
    bias = rows[:, -1]
    with torch.no_grad():
        if slopes.shape[1]:
            values = torch.where(bias > 0, bias, slopes[:, 0] * bias)
            same = (slopes == slopes[:, :1]).all(1) | (bias >= 0)
            values = torch.where(same, values, torch.nan)
        else:
            values = bias if activation is None else _applied(activation, bias)
    # Products round to nothing else than zero: no tolerance is needed.
    return torch.where((rows[:, :-1] == 0).all(1), values, none)


def _lipschitz(layer: Layer, modules: Mapping[str, nn.Module], slopes: Tensor) -> float:
    """Return the larger slope of an activation with two of them."""
    activation = layer.activation
    if any(stretches(node, dict(modules)) for node in layer.before):
        return math.inf
    if activation is None:
        return 1.0
    if slopes.shape[1]:
        return max(1.0, float(slopes.abs().max()))
    ends = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    with torch.no_grad():
        return float(_applied(activation, ends).abs().max())


def _applied(activation: nn.Module, values: Tensor) -> Tensor:
    result: Tensor = out_of_place(activation).cpu().double()(values[None])
    return result[0]
