r"""Neurons that begin with no weights at all, and where they lower the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from layerpeel._checks import EditError, at_least
from layerpeel._tolerances import rank_cutoff
from layerpeel.edits.activations import affine_pieces
from layerpeel.edits.data import Data
from layerpeel.edits.graph import Affine, Graph, Layer
from layerpeel.edits.loss import LossFunction
from layerpeel.edits.width.certificate.capture import Site
from layerpeel.edits.width.certificate.certificate import NeuronCertificate
from layerpeel.edits.width.certificate.finite import finite
from layerpeel.edits.width.certificate.neuron import Neuron
from layerpeel.edits.width.certificate.splits import rounding


def null_certificates(
    graph_or_model: Graph | nn.Module,
    layer: Layer,
    data: Data,
    loss_fn: LossFunction,
    count: int = 1,
    bias: float | None = None,
) -> list[NeuronCertificate]:
    r"""Return the lowest curvatures that neurons without weights give.

    Such a neuron has no curvature of its own; with :math:`\beta` before its activation,

    .. math::
        C_0 = \sigma'(\beta) \, \mathbb{E} [\tilde f e^\top]

    couples what goes into it to what comes out. While outgoing weights move by
    :math:`r`, the next biases move by :math:`-\sigma(\beta) r`, so that outputs do not
    change to first order. The first neuron takes the largest singular pair of
    :math:`C_0` in those lengths, the second one the next, and after the last one they
    begin again: each neuron could have any of them.

    References:
        | Embedding principle: a hierarchical structure of loss landscape of deep neural
        | networks (Zhang, Li, Zhang, Luo & Xu, 2021), https://arxiv.org/abs/2111.15527:
        | null embeddings; the curvature is this package's own.

    Args:
        graph_or_model: The graph that the layer is of, or a model with its modules.
        layer: The layer.
        data: The data.
        loss_fn: Takes outputs and targets and returns the mean, or sum, over the batch.
        count: How many neurons.
        bias: :math:`\beta`, what is before the activation; see :func:`null_bias`.

    Raises:
        EditError: If :math:`\sigma(\beta)` is not zero where it has to be: what reads
            the layer has no bias that trains, or pads with zeros.
    """
    count = at_least("count", count, 1)
    site = Site(graph_or_model, layer, data, loss_fn)
    beta = null_bias(layer.activation) if bias is None else finite("bias", bias)
    null = _Null.of(site, beta)
    _, C = null.neuron.matrices(null.neuron.errors)
    left, sizes, right = torch.linalg.svd(null.turned(C), full_matrices=False)
    pairs = [i % len(sizes) for i in range(count)]
    inertia = null.inertia(C, sizes)
    return [
        null.certificate(C, left[:, i], -null.turned(right[i]), inertia) for i in pairs
    ]


def null_bias(activation: nn.Module | None) -> float:
    r"""Return where a null neuron's activation is neither flat nor on a kink.

    That is zero for smooth activations, a point well inside of the steepest piece of
    those that are affine there, and zero where such a piece goes through it.

    Example:
        >>> null_bias(nn.Tanh()), null_bias(nn.ReLU()), null_bias(nn.Hardtanh())
        (0.0, 1.0, 0.0)
    """
    if activation is None or isinstance(activation, nn.Softplus):
        return 0.0
    pieces = affine_pieces(activation)
    if not pieces or pieces[0].lower < 0 < pieces[0].upper:
        return 0.0
    lower, upper = pieces[0].lower, pieces[0].upper
    return (
        min(lower + 1.0, (lower + upper) / 2) if math.isfinite(lower) else upper - 1.0
    )


@dataclass(frozen=True, eq=False)
class _Null:
    """A null neuron of a layer.

    Attributes:
        site: The layer, with data.
        neuron: The neuron.
        beta: What is before its activation.
        height: What its readers read, everywhere.
    """

    site: Site
    neuron: Neuron
    beta: float
    height: float

    @classmethod
    def of(cls, site: Site, beta: float) -> _Null:
        neuron = Neuron(site.exact, _start(site, beta), None)
        height = neuron.constant()
        if height != 0:
            for consumer in site.layer.consumers:
                _check_reader(site, consumer, height)
        return cls(site, neuron, beta, height or 0.0)

    def turned(self, rows: Tensor) -> Tensor:
        r"""Return rows times :math:`G^{-1/2}`, where :math:`r^\top G r` is a length.

        Outputs of a consumer move by the height times the sum over the entries that
        read one map: in a matrix, those are next to each other.
        """
        found, layout = [], self.site.layout
        for block in layout.reads:
            part = rows[..., layout.slices[block.name]]
            taps = math.prod(block.shape[1:])
            part = part.reshape(*rows.shape[:-1], block.shape[0], taps)
            factor = 1 / math.sqrt(1 + taps * self.height**2) - 1
            part = part + factor * part.mean(-1, keepdim=True)
            found.append(part.flatten(-2))
        return torch.cat(found, -1)

    def certificate(
        self, C: Tensor, v: Tensor, r: Tensor, inertia: tuple[int, int, int]
    ) -> NeuronCertificate:
        v, r = v / math.sqrt(2), r / math.sqrt(2)
        value = 2 * float(v @ C @ r)
        bend = self.neuron.bend(v, r, 0.0, self.site.doubts)
        reads = self.site.layout.parts(r, reads=True)
        moves = self.site.layout.parts(v, reads=False)
        return NeuronCertificate(
            kind="null",
            bias=self.beta,
            curvature=value,
            rounding=rounding(self.site, value, bend),
            inertia=inertia,
            moves={name: part.cpu() for name, part in moves.items()},
            reads={name: part.cpu() for name, part in reads.items()},
            bias_moves=self._compensation(reads),
            start={name: part.cpu() for name, part in self.neuron.parts.items()},
        )

    def inertia(self, C: Tensor, sizes: Tensor) -> tuple[int, int, int]:
        """Return the inertia of one null neuron: a pair of signs per singular value."""
        unsure = float(self.neuron.matrices(self.site.doubts)[1].norm())
        least = max(rank_cutoff(float(sizes[0]), *C.shape), 2 * unsure)
        rank = int((sizes > least).sum())
        return rank, sum(C.shape) - 2 * rank, rank

    def _compensation(self, reads: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.height == 0:
            return {}
        return {
            name.removesuffix("weight") + "bias": -self.height
            * part.flatten(1).sum(1).cpu()
            for name, part in reads.items()
        }


def _start(site: Site, beta: float) -> dict[str, Tensor]:
    """Return the parts of a null neuron: zero weights, idle batch normalisation."""
    layout, values = site.layout, site.exact.values
    blocks = (
        *(layout.moves + layout.reads),
        *(layout.fixed + layout.fixed_reads),
    )
    norms = {str(n.target) for n in (*site.layer.before, *site.layer.between)}
    parts = {}
    for block in blocks:
        home, _, last = block.name.rpartition(".")
        one = last == "running_var" or (last == "weight" and home in norms)
        parts[block.name] = values[block.name].new_full(block.shape, float(one))
    _put(parts, site, beta)
    return parts


def _put(parts: dict[str, Tensor], site: Site, beta: float) -> None:
    """Put the value before the activation where the last bias before it is."""
    layer = site.layer
    assert layer.producer is not None
    homes = [layer.producer.path, *layer.norms]
    names = [name for home in homes if (name := f"{home}.bias") in parts]
    if names:
        parts[names[-1]].fill_(beta)
    elif beta != 0:
        raise EditError(
            f"A null neuron with {beta:g} before its activation needs a bias there; "
            f"{layer.path!r} has none. Give it a bias of zeros, or split neurons instead."
        )
    if isinstance(layer.activation, nn.PReLU):
        name = f"{layer.features.target}.weight"
        if name in parts:
            parts[name].fill_(0.25)


def _check_reader(site: Site, consumer: Affine, height: float | None) -> None:
    """Check that a reader's bias can make up for what a null neuron adds.

    Raises:
        EditError: If it cannot.
    """
    bias = consumer.module.bias
    trained = {n for n, p in site.model.named_parameters() if p.requires_grad}
    why = ""
    if height is None:
        why = "what it reads is not the same everywhere: zeros are padded on the way"
    elif bias is None or f"{consumer.path}.bias" not in trained:
        why = "it has no bias that trains, to make up for the rest"
    elif isinstance(consumer.module, nn.Conv2d) and _pads(consumer.module):
        why = "it pads with zeros, so that no bias makes up for the rest at the borders"
    if why:
        raise EditError(
            f"A null neuron must be zero after its activation, as its reader "
            f"{consumer.path!r} cannot compensate it: {why}. "
            f"{_way_out(site.layer.activation)}"
        )


def _way_out(activation: nn.Module | None) -> str:
    if null_bias(activation) == 0.0 and (
        activation is None or float(activation(torch.zeros(1))) == 0.0
    ):
        return "Pass `alpha=0.0`, where it is, or split neurons: `kind='split'`."
    return (
        f"Split neurons instead, `kind='split'`: {type(activation).__name__} has no zero "
        "with a slope, so that a null neuron there would open no way down."
    )


def _pads(module: nn.Conv2d) -> bool:
    if module.padding_mode != "zeros" or module.padding == "valid":
        return False
    if module.padding == "same":
        return any(size > 1 for size in module.kernel_size)
    return any(int(size) > 0 for size in module.padding)
