"""Wrong decisions of chunks, counted while samples pass and once more afterwards."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel.measurement.clones.errors.chunk_errors import ChunkClassifiers
from layerpeel.measurement.clones.profile.reconstruction_curves import Grid
from layerpeel.measurement.distributed.reducer import AbstractReducer


class ChunkReader:
    r"""Reads chunks of the inputs of a head, as they are and with others folded in.

    Folding needs the covariance of all samples, and so a second look: features are kept
    as long as they fit.

    Args:
        grid: The chunks.
        weight: The classifiers, with shape :math:`(K, W)`.
        bias: Their bias, with shape :math:`(K,)`, if there is one.
        limit: The largest number of bytes of features to keep.

    Attributes:
        samples: The number of samples so far.
        eps: The unit of the dtype of their features.
    """

    def __init__(
        self,
        grid: Grid,
        weight: Float64[Tensor, "K W"],
        bias: Float64[Tensor, " K"] | None,
        limit: int,
    ) -> None:
        self._grid, self._limit, self._bytes = grid, limit, 0
        self._readers = {
            w: ChunkClassifiers.of(weight, bias, chunks)
            for w, chunks in grid.chunks.items()
        }
        self._wrong = _nothing(self._readers)
        self._kept: list[tuple[Tensor, Tensor]] = []
        self.samples, self.eps = 0, 0.0

    def add(self, features: Tensor, labels: Int64[Tensor, " n"]) -> None:
        """Read some samples.

        Args:
            features: With shape :math:`(n, W)`; kept, not copied.
            labels: Class indices, with shape :math:`(n,)`.
        """
        self.samples += len(labels)
        self.eps = max(self.eps, torch.finfo(features.dtype).eps)
        _count(self._wrong, self._readers, features, labels)
        self._bytes += features.nbytes
        if self.complete:
            self._kept.append((features, labels))
        else:
            self._kept = []

    @property
    def complete(self) -> bool:
        """Whether all features are kept."""
        return self._bytes <= self._limit

    def raw_errors(self, together: AbstractReducer) -> Float64[Tensor, "m r"]:
        """Return the errors of classifiers restricted to chunks, on all data."""
        return self._shares(self._wrong, together)

    def folded_errors(
        self, folded: Mapping[int, ChunkClassifiers], together: AbstractReducer
    ) -> Float64[Tensor, "m r"] | None:
        """Return the errors of other classifiers on the chunks, on all data.

        Args:
            folded: Classifiers by width; of the whole layer it is the one there is.
            together: The processes that measure together.

        Returns:
            ``None`` if a process has not kept its features.
        """
        if not all(together.gathered(self.complete)):
            return None
        wrong = _nothing(self._readers)
        readers = {**self._readers, **folded}
        for features, labels in self._kept:
            _count(wrong, readers, features, labels)
        return self._shares(wrong, together)

    def _shares(
        self, wrong: dict[int, Tensor], together: AbstractReducer
    ) -> Float64[Tensor, "m r"]:
        """Return counts of all processes as shares of all samples."""
        table = [wrong[w].tolist() for w in self._grid.widths]
        parts = together.gathered([self.samples, table])
        total = torch.tensor([part[1] for part in parts]).sum(0)
        samples: int = sum(part[0] for part in parts)
        return total.double() / samples


def _nothing(readers: Mapping[int, ChunkClassifiers]) -> dict[int, Tensor]:
    return {
        w: torch.zeros(len(reader.chunks), dtype=torch.int64)
        for w, reader in readers.items()
    }


def _count(
    wrong: dict[int, Tensor],
    readers: Mapping[int, ChunkClassifiers],
    features: Tensor,
    labels: Tensor,
) -> None:
    for w, reader in readers.items():
        wrong[w] += reader.wrong(features, labels)
