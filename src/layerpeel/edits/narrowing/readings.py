r"""What consumers read on the data, as covariances, and how their outputs will change.

Of a consumer that reads one value per neuron the change is known exactly on the data:
with :math:`\Delta z = D r + e` it is :math:`\mathrm{tr}(D G D^\top) + n \|D \mu + e\|^2`,
summed over samples. A convolution, or a linear layer that tells places apart, adds the
changes of its taps or places; Minkowski's inequality bounds the root mean square of the
sum by the sum of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layerpeel._checks import NonFiniteError
from layerpeel.edits.data import Data
from layerpeel.edits.narrowing.chain import Chain, pads_zeros
from layerpeel.edits.narrowing.substitution import Reading
from layerpeel.edits.passes import hooked, repeats, rows_of
from layerpeel.edits.recording import Keeper, Kept, Recorder
from layerpeel.edits.resizing import Channels
from layerpeel.edits.spread import Spread, relative
from layerpeel.measurement.statistics.covariance import Covariance


@dataclass(frozen=True, eq=False)
class Read:
    r"""What one consumer reads, and how far its output varies.

    Attributes:
        chain: The consumer, and what stands before it.
        covariances: Of what it reads, by place where it tells places apart.
        spread: How far what it returns varies.
        eps: The unit of the dtype of what it reads.
    """

    chain: Chain
    covariances: tuple[Covariance, ...]
    spread: Spread
    eps: float

    @property
    def exact(self) -> bool:
        """Whether the change of the output is known, rather than bounded."""
        return self.chain.blocks.shape[2] == 1

    def change(self, new: Reading, kept: Tensor) -> float:
        r"""Return the root of the sum of :math:`\|\Delta z\|^2`, or a bound on it."""
        difference = self.chain.blocks.index_add(1, kept, new.blocks, alpha=-1)
        total = 0.0
        for tap in range(difference.shape[2]):
            covariance = self.covariances[tap if len(self.covariances) > 1 else 0]
            total += _root(difference[:, :, tap], new.shifts[:, tap], covariance)
        return total * math.sqrt(repeats(self.chain.consumer.module))


@dataclass(frozen=True, eq=False)
class Readings:
    """What all consumers of a layer read on the data.

    Attributes:
        reads: One for each consumer.
        kept: What the model did on all batches, if that is not too much.
    """

    reads: tuple[Read, ...]
    kept: tuple[Kept, ...] = ()

    @classmethod
    def of(
        cls,
        model: nn.Module,
        chains: tuple[Chain, ...],
        channels: Channels,
        data: Data,
        source: str | None = None,
    ) -> Readings:
        """Run a model on the data, and look at what its consumers read.

        Args:
            model: The model.
            chains: What stands before each consumer.
            channels: Where the values of each neuron are.
            data: The data.
            source: The layer whose input is kept.

        Raises:
            NonFiniteError: If that is not finite.
        """
        taps = [_Tap(chain, channels) for chain in chains]
        paths = [chain.consumer.path for chain in chains]
        keeper = Keeper()
        with ExitStack() as stack:
            for tap, path in zip(taps, paths, strict=True):
                stack.enter_context(hooked(model.get_submodule(path), tap))
            recorder = stack.enter_context(Recorder(model, paths, source))
            for batch in data:
                keeper.add(recorder.run(batch))
        return cls(tuple(tap.read() for tap in taps), keeper.kept)

    @property
    def exact(self) -> bool:
        """Whether changes are known, rather than bounded."""
        return all(read.exact for read in self.reads)

    @property
    def eps(self) -> float:
        """The unit of the dtype of what is read."""
        return max(read.eps for read in self.reads)

    @property
    def constants(self) -> bool:
        """Whether the biases of all consumers can take constants."""
        return not any(pads_zeros(read.chain.consumer.module) for read in self.reads)

    def change(self, new: Mapping[str, Reading], kept: Tensor) -> float:
        """Return the relative root mean square change of all outputs, or a bound.

        Zero where outputs neither vary nor change; infinite where they change only.
        """
        pairs = [(read, new[read.chain.consumer.path]) for read in self.reads]
        change = math.hypot(*(read.change(reading, kept) for read, reading in pairs))
        return relative(change, [read.spread for read in self.reads])


class _Tap:
    """Sums up what a consumer reads and returns, as a hook."""

    def __init__(self, chain: Chain, channels: Channels) -> None:
        self.chain = chain
        self._channels = channels
        self._covariances: list[Covariance] = []
        self._spread = Spread()
        self._eps = 0.0

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], output: Tensor
    ) -> None:
        read = args[0].detach()
        self._eps = float(torch.finfo(read.dtype).eps)
        self._spread.add(rows_of(output, module))
        places = self._places(module, read)
        found = [Covariance.of(rows).to("cpu") for rows in places]
        if self._covariances:
            merged = zip(self._covariances, found, strict=True)
            found = [old.merge(new) for old, new in merged]
        self._covariances = found

    def read(self) -> Read:
        """Return what was summed up.

        Raises:
            NonFiniteError: If that is not finite.
        """
        if not all(bool(c.scatter.isfinite().all()) for c in self._covariances):
            raise NonFiniteError(
                f"Features must be finite; those that {self.chain.consumer.path!r} reads "
                "are NaN or infinite on the data. Normalise the data, or look for "
                "overflow in the layers before."
            )
        return Read(self.chain, tuple(self._covariances), self._spread, self._eps)

    def _places(self, module: nn.Module, read: Tensor) -> list[Tensor]:
        """Return rows with one column per neuron, by place where those are told apart."""
        if isinstance(module, nn.Conv2d):
            if max(module.kernel_size) == 1 and not any(module.padding):
                # Places that are skipped do not count.
                read = read[..., :: module.stride[0], :: module.stride[1]]
            return [rows_of(read, module)]
        rows = self._channels.split(rows_of(read, module), 1)
        return list(rows.unbind(2))


def _root(difference: Tensor, shift: Tensor, covariance: Covariance) -> float:
    r"""Return the root of the sum of :math:`\|D r - e\|^2` over rows."""
    spread = float(((difference @ covariance.scatter) * difference).sum())
    mean = (difference @ covariance.mean - shift).square().sum()
    return math.sqrt(max(0.0, spread) + float(covariance.count) * float(mean))
