r"""What stands between the features and a consumer: how it passes on what they share.

Where :math:`h_k = s\, h_j + t` for two neurons, the values :math:`r` that a consumer
reads of them, past batch normalisation and pooling, have
:math:`r_k = \rho\, r_j + \tau`, if what stands between allows it: a maximum over places
passes positive factors only, and padding with zeros no constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor, fx, nn

from layerpeel._tolerances import EQUAL_NEURON_ULPS
from layerpeel.edits.graph import Affine, Layer
from layerpeel.edits.graph.functions import function_name, is_norm, is_view
from layerpeel.edits.resizing import Channels


@dataclass(frozen=True, eq=False)
class Relation:
    r"""What a consumer reads of some neurons, in terms of another one each.

    Attributes:
        holds: Whether :math:`r_k = \rho\, r_j + \tau` for every input.
        factor: :math:`\rho`, by place where places are told apart.
        shift: :math:`\tau`, of the same shape.
    """

    holds: Bool[Tensor, " n"]
    factor: Float64[Tensor, "n places"]
    shift: Float64[Tensor, "n places"]


@dataclass(frozen=True)
class Passage:
    """What some calls in a row let pass.

    Attributes:
        signs: Whether negative factors, as all calls are affine.
        constants: Whether constants, up to the end of the row.
    """

    signs: bool
    constants: bool

    def lets(self, factor: Tensor, shift: Tensor) -> Bool[Tensor, " n"]:
        """Return for which neurons an affine relation passes."""
        signs = torch.tensor(self.signs) | (factor >= 0).all(1)
        return signs & (torch.tensor(self.constants) | (shift == 0).all(1))


@dataclass(frozen=True, eq=False)
class Stage:
    """A batch normalisation, with the calls before it.

    Attributes:
        before: What the calls let pass, from the stage before it on.
        scale: Its scale in eval mode, by neuron, and by place if it tells those apart.
        shift: What it adds.
    """

    before: Passage
    scale: Float64[Tensor, "W places"]
    shift: Float64[Tensor, "W places"]


@dataclass(frozen=True, eq=False)
class Chain:
    r"""The calls between the features and one consumer.

    Attributes:
        consumer: The consumer.
        blocks: Its weights by neuron, with shape :math:`(C, W, T)` for :math:`T` taps
            of a convolution, or places that a linear layer tells apart.
        stages: The batch normalisations, in order.
        last: What all calls after those let pass, up to the consumer's bias.
        contracts: Whether no call takes values further apart than they were.
        eps: The unit of the dtype of the consumer.
    """

    consumer: Affine
    blocks: Float64[Tensor, "C W T"]
    stages: tuple[Stage, ...]
    last: Passage
    contracts: bool
    eps: float

    @cached_property
    def unread(self) -> Bool[Tensor, " W"]:
        """Which neurons the consumer reads with weights of zero."""
        return (self.blocks == 0).all(2).all(0)

    @cached_property
    def scale(self) -> Float64[Tensor, "W places"]:
        """The factor of all batch normalisations together."""
        product = torch.ones(self.blocks.shape[1], 1, dtype=torch.float64)
        for stage in self.stages:
            product = product * stage.scale
        return product

    def relation(
        self, leaders: Int64[Tensor, " n"], neurons: Int64[Tensor, " n"],
        factor: Float64[Tensor, " n"], shift: Float64[Tensor, " n"],
    ) -> Relation:  # fmt: skip
        r"""Return what is read of neurons :math:`h_k = s\, h_j + t`.

        Args:
            leaders: The neurons :math:`j`.
            neurons: The neurons :math:`k`.
            factor: :math:`s`; zero for constants.
            shift: :math:`t`.
        """
        ratio, offset = factor[:, None], shift[:, None]
        holds = torch.ones(len(neurons), dtype=torch.bool)
        for stage in self.stages:
            holds &= stage.before.lets(ratio, offset)
            own, other = stage.scale[neurons], stage.scale[leaders]
            holds &= ((other != 0) | (own * ratio == 0)).all(1)
            ratio = torch.where(other == 0, 0.0, own * ratio / other)
            terms = own * offset, stage.shift[neurons], -ratio * stage.shift[leaders]
            offset = _sum(terms, self.eps)
        holds &= self.last.lets(ratio, offset)
        unread = self.unread[neurons]
        return Relation(
            holds | unread,
            ratio.masked_fill(unread[:, None], 0.0),
            offset.masked_fill(unread[:, None], 0.0),
        )


def chains(
    layer: Layer, modules: Mapping[str, nn.Module], channels: Channels
) -> tuple[Chain, ...]:
    """Return what stands between the features of a layer and each of its consumers."""
    return tuple(_chain(layer, c, dict(modules), channels) for c in layer.consumers)


def norm_stage(module: nn.Module, channels: Channels) -> tuple[Tensor, Tensor]:
    """Return scale and shift of a batch normalisation in eval mode, by neuron."""
    values = {name: value.detach().cpu().double() for name, value in _values(module)}
    scale = (values["running_var"] + float(module.eps)).rsqrt()  # type: ignore[arg-type]
    scale = scale * values.get("weight", torch.ones_like(scale))
    shift = values.get("bias", 0.0) - values["running_mean"] * scale
    return channels.split(scale, 0), channels.split(shift, 0)


def pads_zeros(module: nn.Module) -> bool:
    """Whether a convolution reads zeros beyond the border of its input."""
    if not isinstance(module, nn.Conv2d) or module.padding_mode != "zeros":
        return False
    if isinstance(module.padding, str):
        return module.padding != "valid" and max(module.kernel_size) > 1
    return any(module.padding)


def is_linear(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a call that treats channels by themselves is affine."""
    if is_view(node, modules) or is_norm(node, modules):
        return True
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], _LINEAR)
    return function_name(node) in _LINEAR_NAMES


def keeps_constants(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a call that treats channels by themselves adds what its input adds."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        if isinstance(module, nn.AvgPool2d):
            return not _any(module.padding)
        return not isinstance(module, nn.ZeroPad2d | nn.LPPool2d)
    name = function_name(node)
    if name == "avg_pool2d":
        given = node.kwargs.get("padding", node.args[3] if len(node.args) > 3 else 0)
        return not _any(given)
    return name != "lp_pool2d"


def stretches(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a call may take values further apart; normalisations are told apart."""
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], nn.LPPool2d | nn.Upsample)
    return function_name(node) in ("lp_pool2d", "interpolate", "upsample")


def _chain(
    layer: Layer, consumer: Affine, modules: dict[str, nn.Module], channels: Channels
) -> Chain:
    path: list[fx.Node] = []
    node = consumer.node.all_input_nodes[0]
    while node is not layer.features:
        path.insert(0, node)
        node = node.all_input_nodes[0]
    stages: list[Stage] = []
    calls: list[fx.Node] = []
    for node in path:
        if is_norm(node, modules):
            norm = norm_stage(modules[str(node.target)], channels)
            stages.append(Stage(_passage(calls, modules), *norm))
            calls = []
        else:
            calls.append(node)
    last = _passage(calls, modules)
    weight = consumer.module.weight.detach()
    return Chain(
        consumer=consumer,
        blocks=channels.split(weight, 1).flatten(2).cpu().double(),
        stages=tuple(stages),
        last=Passage(last.signs, last.constants and not pads_zeros(consumer.module)),
        contracts=not any(stretches(n, modules) for n in path),
        eps=float(torch.finfo(weight.dtype).eps),
    )


def _passage(calls: list[fx.Node], modules: dict[str, nn.Module]) -> Passage:
    signs = all(is_linear(node, modules) for node in calls)
    return Passage(signs, all(keeps_constants(node, modules) for node in calls))


def _sum(terms: tuple[Tensor, ...], eps: float) -> Tensor:
    """Return a sum, of which nothing is left where that is rounding."""
    total, size = sum(terms), sum(term.abs() for term in terms)
    rounding = EQUAL_NEURON_ULPS * eps * torch.as_tensor(size)
    total = torch.as_tensor(total)
    return total.masked_fill(total.abs() <= rounding, 0.0)


def _values(module: nn.Module) -> list[tuple[str, Tensor]]:
    named = (*module.named_parameters(), *module.named_buffers())
    return [(name, value) for name, value in named if value.ndim]


def _any(padding: object) -> bool:
    return any(padding) if isinstance(padding, tuple | list) else bool(padding)


_LINEAR = (
    *(nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Upsample),
    *(nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d),
)
_LINEAR_NAMES = frozenset(
    ("mean", "avg_pool2d", "adaptive_avg_pool2d", "interpolate", "upsample")
)
