r"""Some neurons kept, with the reconstruction of all others folded into the consumers.

What the consumers read of the neurons left out is replaced by its best linear
reconstruction from what they read of those kept. Neurons are taken one by one, each the
one that leaves least of the consumers' outputs. Where a consumer pads with zeros the
reconstruction has no constant, since a bias could not make up for it at the border.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Int64
from torch import Tensor

from layerpeel._tolerances import covariance_rank_tolerance
from layerpeel.edits.narrowing.readings import Readings
from layerpeel.edits.narrowing.substitution import Reading
from layerpeel.measurement.clones.keeping.pivots import Pivots, pivots
from layerpeel.measurement.clones.reconstruction.rounding import rounding_scatter
from layerpeel.measurement.statistics.covariance import Covariance


@dataclass(frozen=True, eq=False)
class Chosen:
    """Neurons that are kept, with the consumers that make up for the others.

    Attributes:
        kept: The neurons kept, ascending.
        readings: The new weights of each consumer, by its path.
        change: The relative change of the outputs, or a bound on it.
    """

    kept: Int64[Tensor, " w"]
    readings: dict[str, Reading]
    change: float


class Clones:
    """Chooses neurons by what consumers read on the data.

    Args:
        readings: What they read.
    """

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        covariances = [c for read in readings.reads for c in read.covariances]
        self._covariance = reduce(Covariance.merge, covariances)
        if not readings.constants:
            self._covariance = _about_zero(self._covariance)
        blocks = [read.chain.blocks for read in readings.reads]
        self._weight = torch.cat([b.movedim(2, 0).flatten(0, 1) for b in blocks])

    def of_width(self, width: int) -> Chosen:
        """Keep so many neurons."""
        return self._folded(self._pivots(width))

    def within(self, tolerance: float) -> Chosen:
        """Keep as few neurons as a relative change of the outputs allows.

        Args:
            tolerance: The change, or the bound on it; floored at what a covariance knows.
        """
        width = self._covariance.width
        least = max(tolerance, covariance_rank_tolerance(width, self._readings.eps))
        # Each neuron is taken after the same ones, whatever the width.
        every = self._pivots(width)
        guess = self._guess(every, least)
        low, high, best = 0, guess, self._folded(_first(every, guess))
        if best.change <= least:
            low = guess - 1 if guess < width else 0
        elif guess < width:
            low, high, best = guess, width, self._folded(every)
        while high - low > 1:
            middle = (low + high) // 2
            found = self._folded(_first(every, middle))
            if found.change <= least:
                high, best = middle, found
            else:
                low = middle
        return best

    def _guess(self, every: Pivots, least: float) -> int:
        """Return the width that the pivots themselves tell, or all of it."""
        readings = self._readings
        if len(readings.reads) > 1 or not (readings.exact and readings.constants):
            return self._covariance.width
        enough = (every.left.sqrt() <= least).nonzero()[:, 0]
        return max(1, int(enough[0])) if len(enough) else self._covariance.width

    def _pivots(self, width: int) -> Pivots:
        eps = self._readings.eps
        noise = rounding_scatter(self._covariance, eps)
        return pivots(
            self._covariance.scatter, self._weight, width=width, eps=eps, noise=noise
        )

    def _folded(self, chosen: Pivots) -> Chosen:
        """Put the reconstruction from chosen neurons into the consumers."""
        kept = chosen.taken.sort().values
        mean = self._covariance.mean
        coefficients = mean.new_zeros(len(kept), len(mean))
        coefficients[torch.searchsorted(kept, chosen.neurons)] = chosen.coefficients
        offset = mean - mean[kept] @ coefficients
        if len(kept) == len(mean):
            coefficients, offset = torch.eye(len(mean)).to(mean), torch.zeros_like(mean)
        new = {
            read.chain.consumer.path: _read(read.chain.blocks, coefficients, offset)
            for read in self._readings.reads
        }
        return Chosen(kept, new, self._readings.change(new, kept))


def _first(chosen: Pivots, width: int) -> Pivots:
    """Return the neurons that were taken first."""
    rank = min(width, len(chosen.neurons))
    return Pivots(
        chosen.taken[:width], chosen.neurons[:rank], chosen.rows[:rank],
        chosen.left[: width + 1],
    )  # fmt: skip


def _read(blocks: Tensor, coefficients: Tensor, offset: Tensor) -> Reading:
    new = torch.einsum("cot,wo->cwt", blocks, coefficients)
    return Reading(new, torch.einsum("cot,o->ct", blocks, offset))


def _about_zero(covariance: Covariance) -> Covariance:
    """Return second moments as a covariance about zero, for regressions without one."""
    mean = covariance.mean
    scatter = covariance.scatter + float(covariance.count) * torch.outer(mean, mean)
    return Covariance(covariance.count, torch.zeros_like(mean), scatter)
