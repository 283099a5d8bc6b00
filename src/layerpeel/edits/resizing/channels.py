"""Where the values of each neuron are in weights and statistics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

NULL = -1


@dataclass(frozen=True)
class Channels:
    """Where the values of each neuron are along an axis.

    Attributes:
        width: The number of neurons.
        last: Whether neurons are next to each other, as linear layers return them:
            flattening then puts all of them after all others. The places of one channel
            of a convolution are next to each other instead.
    """

    width: int
    last: bool

    def split(self, values: Tensor, axis: int) -> Tensor:
        """Return values with the neurons on an axis of their own, before the places."""
        if not self.last:
            return _unflattened(values, axis, (self.width, -1))
        return _unflattened(values, axis, (-1, self.width)).transpose(axis, axis + 1)

    def joined(self, values: Tensor, axis: int) -> Tensor:
        """Return values with neurons and places on one axis again."""
        values = values.transpose(axis, axis + 1) if self.last else values
        return values.flatten(axis, axis + 1)

    def gathered(
        self, values: Tensor, axis: int, sources: Tensor, fill: float | Tensor = 0.0
    ) -> Tensor:
        """Return the values of some neurons along an axis, and others for null neurons.

        Args:
            values: A tensor whose axis is made of neurons and places.
            axis: That axis.
            sources: The neuron to take the values of, or -1.
            fill: The values of null neurons: one for all, or one each.
        """
        sources = sources.to(values.device)
        split = self.split(values, axis)
        taken = split.index_select(axis, sources.clamp_min(0))
        null = sources < 0
        if bool(null.any()):
            fills = taken.new_zeros(len(sources))
            fills[null] = torch.as_tensor(fill).to(taken)
            null, fills = (_along(v, axis, taken.ndim) for v in (null, fills))
            taken = torch.where(null, fills, taken)
        return self.joined(taken, axis)

    def scaled(
        self,
        values: Tensor,
        axis: int,
        sources: Tensor,
        scales: Float64[Tensor, " new"],
    ) -> Tensor:
        """Return the values of some neurons along an axis, each times a number."""
        taken = self.split(values, axis)
        taken = taken.index_select(axis, sources.clamp_min(0).to(values.device))
        factors = _along(scales.to(values), axis, taken.ndim)
        return self.joined(taken * factors, axis)

    def mixed(
        self, values: Tensor, axis: int, mixing: Float64[Tensor, "old new"]
    ) -> Tensor:
        """Return combinations of the values of neurons along an axis.

        Columns of the matrix that pick one neuron copy its values to the last bit.
        """
        mixing = mixing.to(values.device)
        one = (mixing != 0).sum(0) <= 1
        sources = mixing.abs().argmax(0)
        scales = torch.where(one, mixing.gather(0, sources[None])[0], 0.0)
        new = self.split(values, axis).index_select(axis, sources)
        new = new * _along(scales.to(values.dtype), axis, new.ndim)
        rest = (~one).nonzero().squeeze(1)
        if len(rest):
            split = self.split(values, axis).double()
            made = torch.tensordot(split, mixing[:, rest], dims=([axis], [0]))
            new.index_copy_(axis, rest, made.movedim(-1, axis).to(values.dtype))
        return self.joined(new, axis)


def _along(values: Tensor, axis: int, ndim: int) -> Tensor:
    """Return a vector with the shape of one that lies on an axis."""
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)])


def _unflattened(values: Tensor, axis: int, sizes: tuple[int, int]) -> Tensor:
    return values.reshape(*values.shape[:axis], *sizes, *values.shape[axis + 1 :])
