"""How well chunks of every width reconstruct a layer, in sample and on held-out data."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._progress import track
from layerpeel._warnings import UndefinedWarning
from layerpeel.measurement.clones.errors.chunk_errors import ChunkClassifiers
from layerpeel.measurement.clones.reconstruction.nested import (
    independent_width,
    nested_r_squared,
)
from layerpeel.measurement.clones.reconstruction.reconstruction import (
    SCOPES,
    FoldedClassifier,
    Reconstruction,
    constant_neurons,
    reconstruct,
)
from layerpeel.measurement.statistics.covariance import Covariance

Classifier = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Grid:
    """Chunks to look at.

    Attributes:
        widths: All widths of the curves, ascending, with shape :math:`(m,)`.
        chunks: Chunks of those widths at which everything is computed, each with shape
            :math:`(r, w)`.
        repeats: The number of chunks :math:`r` of each width.
        orders: Orders of all neurons, with shape :math:`(r, W)`, of which the first few
            are chunks of the other widths; ``None`` if there is no other.
    """

    widths: Sequence[int]
    chunks: Mapping[int, Int64[Tensor, "r w"]]
    repeats: int
    orders: Int64[Tensor, "r W"] | None = None

    def table(self) -> Float64[Tensor, "m r"]:
        """Return a table with nothing in it but NaN."""
        shape = len(self.widths), self.repeats
        return torch.full(shape, torch.nan, dtype=torch.float64)

    def rows(self) -> dict[int, int]:
        """Return where in a table the widths stand at which there are chunks."""
        return {w: i for i, w in enumerate(self.widths) if w in self.chunks}


@dataclass(frozen=True, eq=False)
class ReconstructionCurves:
    r"""Reconstruction of a layer from chunks of every width.

    Attributes:
        covariance: Of the data it is scored on.
        r_squared: :math:`R^2` by scope, each with shape :math:`(m, r)`.
        correlation: Mean absolute residual correlation by scope; the same.
    """

    covariance: Covariance
    r_squared: dict[str, Float64[Tensor, "m r"]] = field(default_factory=dict)
    correlation: dict[str, Float64[Tensor, "m r"]] = field(default_factory=dict)

    @classmethod
    def blank(cls, covariance: Covariance, grid: Grid) -> ReconstructionCurves:
        """Return curves that are still to be filled in."""
        tables = [{scope: grid.table() for scope in SCOPES} for _ in range(2)]
        return cls(covariance, *tables)

    def fill(self, row: int, column: int, found: Reconstruction) -> None:
        """Score a chunk."""
        own = found.covariance is self.covariance
        data = None if own else self.covariance
        for scope, (r_squared, correlation) in found.scores(data).items():
            self.r_squared[scope][row, column] = r_squared
            self.correlation[scope][row, column] = correlation

    def fill_r_squared(self, row: int, column: int, found: Reconstruction) -> None:
        """Score a chunk by R^2 alone."""
        own = found.covariance is self.covariance
        for scope in SCOPES:
            with quietly():
                score = found.r_squared(scope, None if own else self.covariance)
            self.r_squared[scope][row, column] = score

    def fill_whole(self, row: int) -> None:
        """Fill in that all neurons together are themselves."""
        if not bool(constant_neurons(self.covariance).all()):
            self.r_squared["all"][row] = 1.0
        self.correlation["all"][row] = 0.0


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """What was found of all chunks.

    Attributes:
        fitted: On the data that coefficients were fitted to.
        held_out: On other data, if there are any.
        folded: The folded classifiers by width, if there is a classifier.
    """

    fitted: ReconstructionCurves
    held_out: ReconstructionCurves | None
    folded: Mapping[int, ChunkClassifiers]


def reconstruction_curves(
    grid: Grid,
    covariance: Covariance,
    held_out: Covariance | None = None,
    classifier: Classifier | None = None,
    *,
    paper: bool = False,
    eps: float = 0.0,
    progress: bool | None = False,
) -> Reconstructed:
    """Reconstruct a layer from chunks of every width.

    Args:
        grid: The chunks.
        covariance: What coefficients are fitted to.
        held_out: Other data to score on.
        classifier: Weight :math:`(K, W)` and bias :math:`(K,)` to fold them into.
        paper: Whether to follow Doimo et al. (2021) to the letter.
        eps: The unit of the dtype that features were computed in.
        progress: Whether to show a progress bar.
    """
    blank = ReconstructionCurves.blank
    tables = [blank(c, grid) for c in (covariance, held_out) if c is not None]
    folded: dict[int, ChunkClassifiers] = {}
    rows = grid.rows()
    for w in track(rows, "Reconstructing the layer", show=progress):
        if w == covariance.width:
            for table in tables:
                table.fill_whole(rows[w])
            continue
        pieces: list[FoldedClassifier] = []
        for column, chunk in enumerate(grid.chunks[w]):
            found = reconstruct(covariance, chunk, paper=paper, eps=eps)
            for table in tables:
                table.fill(rows[w], column, found)
            if classifier is not None:
                pieces.append(found.folded(*classifier))
        if pieces:
            folded[w] = ChunkClassifiers.stacked(pieces, covariance.width)
    if grid.orders is not None:
        _fill_between(grid, tables, eps)
    return Reconstructed(tables[0], tables[1] if held_out is not None else None, folded)


@contextmanager
def quietly() -> Iterator[None]:
    """Leave out warnings of what is undefined for a single chunk.

    A profile says once for all chunks of a width what is.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedWarning)
        yield


def _fill_between(
    grid: Grid, tables: Sequence[ReconstructionCurves], eps: float
) -> None:
    """Fill in R^2 at the widths without chunks, by one factorisation per order.

    Where a chunk has combinations of other neurons in it, as any with more neurons than
    samples does, its coefficients are those of least norm, found one by one.
    """
    assert grid.orders is not None
    fitted = tables[0].covariance
    others = [i for i, w in enumerate(grid.widths) if w not in grid.chunks]
    for column, order in enumerate(grid.orders if others else ()):
        known = independent_width(fitted, order, eps=eps)
        simple = [i for i in others if grid.widths[i] <= known]
        places = torch.tensor([grid.widths[i] - 1 for i in simple], dtype=torch.int64)
        for table in tables:
            data = None if table is tables[0] else table.covariance
            for scope in SCOPES:
                with quietly():
                    curve = nested_r_squared(fitted, order, scope, data, eps=eps)
                table.r_squared[scope][simple, column] = curve[places]
        for i in others[len(simple) :]:
            found = reconstruct(fitted, order[: grid.widths[i]], eps=eps)
            for table in tables:
                table.fill_r_squared(i, column, found)
