"""How often chunks of every width err, read in each of three ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from layerpeel._progress import track
from layerpeel.measurement.clones.errors.chunk_errors import ChunkClassifiers
from layerpeel.measurement.clones.errors.gaussian_curve import GaussianCurve
from layerpeel.measurement.clones.layer.layer_data import LayerData
from layerpeel.measurement.clones.profile.curves import READINGS
from layerpeel.measurement.clones.profile.reconstruction_curves import Grid
from layerpeel.measurement.clones.reconstruction.reconstruction import reconstruct
from layerpeel.measurement.statistics.covariance import Covariance

# Each error of a hidden layer takes a pass of the network: so many chunks are read.
HIDDEN_REPEATS = 5

# Expected errors take the square of the number of classes, for every sample and width.
GAUSSIAN_CLASSES = 32


@dataclass(frozen=True, eq=False)
class ErrorCurves:
    """Errors of chunks of every width on some data.

    Attributes:
        full: The error of the whole network; NaN without a classifier.
        errors: By reading, each with shape :math:`(m, r)`.
        expected: The expected raw error, with shape :math:`(m,)`.
    """

    full: float
    errors: Mapping[str, Float64[Tensor, "m r"]]
    expected: Float64[Tensor, " m"]

    @classmethod
    def unknown(cls, grid: Grid) -> ErrorCurves:
        """Return curves without a classifier."""
        tables = {reading: grid.table() for reading in READINGS}
        return cls(math.nan, tables, grid.table()[:, 0])


def expects(logits: int) -> bool:
    """Whether the expected error is computed for so many logits."""
    return 2 <= logits <= GAUSSIAN_CLASSES


def error_curves(
    grid: Grid,
    data: LayerData,
    folded: Mapping[int, ChunkClassifiers],
    *,
    progress: bool | None = False,
) -> ErrorCurves:
    """Read chunks of the input of the last layer, in one pass over the data.

    Args:
        grid: The chunks.
        data: Samples of a layer whose consumer gives the logits.
        folded: Folded classifiers of every width of chunks below the layer's.
        progress: Whether to show a progress bar.
    """
    assert data.consumer is not None
    weight, bias = data.consumer.weight, data.consumer.bias
    whole = ChunkClassifiers.of(weight, bias, torch.arange(data.width)[None])
    readers = {("raw", data.width): whole}
    for w, classifiers in folded.items():
        readers["folded", w] = classifiers
        for reading in ("raw", "rescaled"):
            chosen = grid.chunks[w], reading
            readers[reading, w] = ChunkClassifiers.of(weight, bias, *chosen)
    detailed = sorted(grid.chunks)
    curve = GaussianCurve.empty(detailed)
    counts: dict[tuple[str, int], Int64[Tensor, " r"]] = {
        key: torch.zeros(len(reader.chunks), dtype=torch.int64)
        for key, reader in readers.items()
    }
    samples = 0
    for features, labels in track(data.samples(), "Reading chunks", show=progress):
        samples += len(labels)
        for key, reader in readers.items():
            counts[key] += reader.wrong(features, labels)
        if expects(len(weight)):
            part = GaussianCurve.of(features, labels, weight, bias, detailed)
            curve = curve.merge(part)
    return _curves(grid, data.width, counts, samples, curve)


def hidden_error_curves(
    grid: Grid,
    data: LayerData,
    covariance: Covariance,
    *,
    paper: bool = False,
    progress: bool | None = False,
) -> ErrorCurves:
    """Read chunks of a hidden layer: each by a pass of the rest of the network.

    Neurons outside the chunk are zero for the raw error and for the rescaled one, and
    reconstructed for the folded one. For a linear consumer that is the same as
    restricting it, or folding into it.

    Args:
        grid: The chunks, of which the first ``HIDDEN_REPEATS`` of a width are read.
        data: Samples of the layer.
        covariance: What reconstructions are fitted to.
        paper: Whether to follow Doimo et al. (2021) to the letter.
        progress: Whether to show a progress bar.
    """
    widths = [w for w in sorted(grid.chunks) if w < data.width]
    repeats = range(min(HIDDEN_REPEATS, grid.repeats))
    counts = {("raw", data.width): torch.tensor([data.wrong(None)])}
    for w, column in track(
        list(product(widths, repeats)), "Reading chunks", show=progress
    ):
        chunk = grid.chunks[w][column]
        found = reconstruct(covariance, chunk, paper=paper, eps=data.eps)
        edits = _edits(chunk, data.width, found.coefficients, covariance.mean)
        for reading, edit in edits.items():
            before = counts.get((reading, w), torch.empty(0, dtype=torch.int64))
            wrong = torch.tensor([data.wrong(edit)])
            counts[reading, w] = torch.cat([before, wrong])
    nothing = GaussianCurve.empty(widths)
    return _curves(grid, data.width, counts, data.count, nothing)


def _curves(
    grid: Grid,
    width: int,
    counts: Mapping[tuple[str, int], Int64[Tensor, " r"]],
    samples: int,
    curve: GaussianCurve,
) -> ErrorCurves:
    """Put counts of wrong decisions into tables."""
    rows = grid.rows()
    curves = ErrorCurves.unknown(grid)
    full = int(counts["raw", width][0]) / samples
    for reading, table in curves.errors.items():
        if width in rows:
            table[rows[width]] = full
        for (name, w), wrong in counts.items():
            if name == reading and w < width:
                table[rows[w], : len(wrong)] = wrong.double() / samples
    if bool(curve.count):
        curves.expected[[rows[int(w)] for w in curve.widths]] = curve.errors
        if width in rows:  # one chunk of all neurons: nothing is random
            curves.expected[rows[width]] = full
    return ErrorCurves(full, curves.errors, curves.expected)


def _edits(
    chunk: Int64[Tensor, " w"],
    width: int,
    coefficients: Float64[Tensor, "w W"],
    mean: Float64[Tensor, " W"],
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return what each reading makes of features."""
    mask = torch.zeros(width, dtype=torch.float64)
    mask[chunk] = 1.0
    offset = mean - mean[chunk] @ coefficients

    def masked(features: Tensor) -> Tensor:
        return features * mask.to(features)

    def rescaled(features: Tensor) -> Tensor:
        return masked(features) * (width / len(chunk))

    def reconstructed(features: Tensor) -> Tensor:
        kept = features[..., chunk.to(features.device)]
        return kept @ coefficients.to(features) + offset.to(features)

    return {"raw": masked, "rescaled": rescaled, "folded": reconstructed}
