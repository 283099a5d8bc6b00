"""Which entries of which parameters belong to each neuron of a layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from math import prod

import torch
from torch import Tensor, nn

from layerpeel._checks import EditError, listed
from layerpeel.edits.graph import Affine, Graph, Layer

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Block:
    """The part of a tensor that belongs to a neuron.

    Attributes:
        name: The name of the tensor.
        shape: The shape of the part. Of a consumer's weight it begins with the number
            of outputs.
        read: Whether it is a part of a consumer's weight, along the second axis, rather
            than along the first one.
    """

    name: str
    shape: tuple[int, ...]
    read: bool = False

    @property
    def size(self) -> int:
        """The number of entries."""
        return prod(self.shape)

    def rows(self, tensor: Tensor, width: int) -> Tensor:
        """Return the parts of all neurons, one per row."""
        if not self.read:
            return tensor.reshape(width, -1)
        parts = tensor.reshape(self.shape[0], width, *self.shape[1:])
        return parts.transpose(0, 1).reshape(width, -1)

    def tensor(self, rows: Tensor) -> Tensor:
        """Return the tensor of some neurons of which these are the parts."""
        count = len(rows)
        if not self.read:
            return rows.reshape(count * self.shape[0], *self.shape[1:])
        parts = rows.reshape(count, *self.shape).transpose(0, 1)
        if len(self.shape) > 2:
            return parts.contiguous()
        return parts.reshape(self.shape[0], count * self.shape[1])

    def place(self, index: int) -> tuple[slice, ...]:
        """Return where in the tensor the part of a neuron is."""
        if not self.read:
            return (slice(index * self.shape[0], (index + 1) * self.shape[0]),)
        step = 1 if len(self.shape) > 2 else self.shape[1]
        return slice(None), slice(index * step, (index + 1) * step)


@dataclass(frozen=True)
class Layout:
    r"""The parameters of a layer's neurons as rows of two matrices.

    Row :math:`s` of the first matrix is :math:`\theta_s`: the neuron's row of the
    producer's weight, its bias, and its entries of the batch normalisations. Row
    :math:`s` of the second one is :math:`a_s`: its entries of all weights that read it.
    Frozen parameters are in neither.

    Attributes:
        width: The number of neurons :math:`m`.
        moves: The parts of :math:`\theta_s`.
        reads: The parts of :math:`a_s`.
        fixed: Parts of what does not move: buffers and frozen parameters.
        fixed_reads: The same of consumers.
    """

    width: int
    moves: tuple[Block, ...]
    reads: tuple[Block, ...]
    fixed: tuple[Block, ...]
    fixed_reads: tuple[Block, ...]

    @classmethod
    def of(cls, model: nn.Module, layer: Layer) -> Layout:
        """Return the layout of a layer.

        Raises:
            EditError: If its parameters are frozen, or those of all that read it.
        """
        producer = layer.producer
        assert producer is not None
        width = int(producer.module.weight.shape[0])
        own = [*_own(model, producer.path, width), *_channels(model, layer, width)]
        read = [_block(consumer, width) for consumer in layer.consumers]
        if isinstance(producer.module, nn.Linear):
            _check_columns(producer, read)
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        layout = cls(
            width,
            tuple(block for block in own if block.name in trained),
            tuple(block for block in read if block.name in trained),
            tuple(block for block in own if block.name not in trained),
            tuple(block for block in read if block.name not in trained),
        )
        if not layout.moves or not layout.reads:
            raise EditError(
                f"A certificate is about the trainable weights into and out of a layer; "
                f"those of {layer.path!r} are frozen. Set `requires_grad` on them."
            )
        return layout

    @property
    def sizes(self) -> tuple[int, int]:
        r"""The sizes of :math:`\theta_s` and of :math:`a_s`."""
        return sum(b.size for b in self.moves), sum(b.size for b in self.reads)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each part is in its row, by name."""
        found = {}
        for blocks in (self.moves, self.reads):
            ends = accumulate((b.size for b in blocks), initial=0)
            for block, pair in zip(blocks, pairwise(ends), strict=True):
                found[block.name] = slice(*pair)
        return found

    def tensors(self, moves: Tensor, reads: Tensor) -> dict[str, Tensor]:
        """Return tensors by name, of rows of both matrices."""
        parts = [(b, moves) for b in self.moves] + [(b, reads) for b in self.reads]
        return {b.name: b.tensor(rows[:, self.slices[b.name]]) for b, rows in parts}

    def rows(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return both matrices."""
        return self._joined(self.moves, values), self._joined(self.reads, values)

    def parts(self, row: Tensor, *, reads: bool) -> dict[str, Tensor]:
        """Return the parts of one row by name, in the shapes they have."""
        blocks = self.reads if reads else self.moves
        return {b.name: row[self.slices[b.name]].reshape(b.shape) for b in blocks}

    def held(self, values: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
        """Return a neuron's parts of what does not move."""
        blocks = (*self.fixed, *self.fixed_reads)
        return {b.name: values[b.name][b.place(index)] for b in blocks}

    def _joined(self, blocks: Iterable[Block], values: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([b.rows(values[b.name], self.width) for b in blocks], 1)


def check_layer(graph_or_model: Graph | nn.Module, layer: Layer) -> None:
    """Check that neurons of a layer can be split, and certified.

    Raises:
        EditError: If the layer is no linear layer or convolution, something else than
            such layers reads it, or channels come in groups.
    """
    if layer.producer is None:
        raise EditError(
            f"The layer must be a linear layer or a convolution; {layer.path!r} is "
            "neither. Name the one that gives the features."
        )
    if layer.others or not layer.consumers:
        raise EditError(
            f"The features of {layer.path!r} must be read by linear layers and "
            f"convolutions alone; {listed(layer.others or ['nothing'])} reads them. "
            "Choose a layer inside of a residual block, or before the last one."
        )
    for affine in (layer.producer, *layer.consumers):
        if isinstance(affine.module, nn.Conv2d) and affine.module.groups > 1:
            raise EditError(
                f"Convolutions around the layer must have `groups=1`; {affine.path!r} "
                f"has {affine.module.groups}. Choose a layer that is not next to it."
            )
        if isinstance(graph_or_model, Graph):
            graph_or_model.check_own(affine)


def _own(model: nn.Module, path: str, width: int) -> list[Block]:
    """Return a part per parameter and buffer of a module with entries per neuron.

    There are several entries where maps were flattened before.
    """
    module = model.get_submodule(path)
    found = (*module.named_parameters(path), *module.named_buffers(path))
    return [
        Block(n, (t.shape[0] // width, *t.shape[1:])) for n, t in found if t.ndim > 0
    ]


def _channels(model: nn.Module, layer: Layer, width: int) -> list[Block]:
    """Return the parts of batch normalisations, and of slopes for each channel."""
    nodes = (*layer.before, layer.features, *layer.between)
    paths = dict.fromkeys(str(n.target) for n in nodes if n.op == "call_module")
    found: list[Block] = []
    for path in paths:
        module = model.get_submodule(path)
        slopes = isinstance(module, nn.PReLU) and module.num_parameters == width > 1
        if isinstance(module, _NORMS) or slopes:
            found += _own(model, path, width)
    return found


def _check_columns(producer: Affine, read: Iterable[Block]) -> None:
    """Check that flattened sequences do not put neurons between each other."""
    several = [block.name for block in read if prod(block.shape[1:]) > 1]
    if several:
        raise EditError(
            f"The columns that read a neuron must be next to each other; those of "
            f"{listed(several)} read {producer.path!r} at several places of a sequence. "
            "Choose a layer that is not flattened with its places."
        )


def _block(consumer: Affine, width: int) -> Block:
    weight = consumer.module.weight
    rest = (
        tuple(weight.shape[2:])
        if isinstance(consumer.module, nn.Conv2d)
        else (int(weight.shape[1]) // width,)
    )
    name = f"{consumer.path}.weight"
    if weight.shape[0] * width * prod(rest) != weight.numel():
        raise EditError(
            f"{name!r} must have as many columns for each of {width} neurons; its shape "
            f"is {tuple(weight.shape)}. Keep the channels apart on the way there."
        )
    return Block(name, (int(weight.shape[0]), *rest), read=True)
