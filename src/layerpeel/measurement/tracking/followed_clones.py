"""Clones over the course of training: the same chunks at every measurement, as scalars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jaxtyping import Float64
from torch import Tensor, nn

from layerpeel._checks import ShapeError, listed, undefined
from layerpeel._warnings import warn
from layerpeel.measurement.clones.profile.curves import deviation
from layerpeel.measurement.clones.profile.reconstruction_curves import (
    Classifier,
    Grid,
    Reconstructed,
    reconstruction_curves,
)
from layerpeel.measurement.distributed.reducer import (
    AbstractReducer,
    LocalReducer,
    reducer,
)
from layerpeel.measurement.measure import measure
from layerpeel.measurement.measurement import Measurement
from layerpeel.measurement.shared_data import bare
from layerpeel.measurement.sources.head import Head
from layerpeel.measurement.statistics.covariance import Covariance
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.tracking.chunk_reader import ChunkReader
from layerpeel.measurement.tracking.clones import FULL_ERROR, PREFIX, Clones
from layerpeel.measurement.tracking.head_rows import HeadRows, first_head

_CACHE_BYTES = 2**30
_CAUSES = {
    "r_squared": "no neuron that they are judged by varies, or there is none",
    "residual_correlation": "they miss fewer than two neurons by more than rounding",
    "folded_error": "the features do not fit into `cache_bytes`, and folding needs a "
    "second look at them. Take a smaller `subset`, or a larger `cache_bytes` in `options`",
}


class FollowedClones:
    """Measures the same chunks of the layer before the head again and again.

    Args:
        clones: Which chunks.
        seed: Seed of their draw.
    """

    def __init__(self, clones: Clones, seed: int) -> None:
        self._clones, self._seed = clones, seed
        self._width, self._grid = 0, Grid((), {}, clones.repeats)
        self._path: str | None = None
        self._reader: ChunkReader | None = None

    def identity(self) -> dict[str, Any]:
        """Return what tells whether other curves go on with these, ready for JSON."""
        return {**self._clones.to_dict(), "seed": self._seed}

    def measured(
        self, model: nn.Module, batches: Iterable[Any], arguments: Mapping[str, Any]
    ) -> Measurement:
        """Measure a model, and read chunks of the features that are computed for it.

        Args:
            model: The model.
            batches: Its data.
            arguments: Keyword arguments of ``layerpeel.measure``.

        Raises:
            ShapeError: If the head reads another number of neurons than before.
            ValueError: If a width is none of a chunk of this layer.
            LayerpeelError: As ``layerpeel.measure`` does.
        """
        together, bare_model = _together(arguments), bare(model)
        head = self._head_of(bare_model, batches, arguments)
        limit = arguments.get("cache_bytes", _CACHE_BYTES)
        grid = self._grid_of(head.module.in_features)
        reader = ChunkReader(grid, head.weight, head.bias, limit)
        rows = HeadRows(bare_model, head.module, together.data(batches), reader.add)
        with rows:
            measurement = measure(model, rows, **{**arguments, "head": head.path})
        self._reader = reader
        return measurement

    def _head_of(
        self, model: nn.Module, batches: Iterable[Any], arguments: Mapping[str, Any]
    ) -> Head:
        """Return the head; it is looked for once."""
        module = None if self._path is None else model.get_submodule(self._path)
        if self._path is not None and isinstance(module, nn.Linear):
            return Head(self._path, module)
        path, device = arguments["head"], arguments["device"]
        head = first_head(model, batches, path, _together(arguments), device)
        self._path = head.path
        return head

    def values(
        self, measurement: Measurement, arguments: Mapping[str, Any]
    ) -> dict[str, float]:
        """Return the scalars of what was measured last.

        Args:
            measurement: What :meth:`measured` returned.
            arguments: As they were given to it.
        """
        assert self._reader is not None  # a measurement was made
        reader, self._reader = self._reader, None
        together = _together(arguments)
        eps = max(together.gathered(reader.eps))
        bias = measurement.bias
        weight = measurement.weight
        classifier = weight, weight.new_zeros(len(weight)) if bias is None else bias
        found = self._reconstructed(measurement.moments, eps, classifier)
        folded = reader.folded_errors(found.folded, together)
        tables = self._tables(found) | {
            "raw_error": reader.raw_errors(together),
            "folded_error": self._grid.table() if folded is None else folded,
        }
        return {FULL_ERROR: 1 - measurement.accuracy, **self._scalars(tables)}

    def moment_values(self, moments: ClassMoments, eps: float) -> dict[str, float]:
        """Return the scalars that class moments tell: all but errors.

        Args:
            moments: Of the inputs of the head.
            eps: The unit of the dtype of the features.

        Raises:
            ShapeError: If there are other numbers of neurons than before.
            ValueError: If a width is none of a chunk of this layer.
        """
        self._grid_of(moments.width)
        return self._scalars(self._tables(self._reconstructed(moments, eps)))

    def _grid_of(self, width: int) -> Grid:
        """Return the chunks, which are drawn once."""
        if not self._grid.widths:
            self._grid, self._width = self._clones.grid(width, self._seed), width
        if width != self._width:
            raise ShapeError(
                f"The head must read the {self._width} neurons that chunks were drawn "
                f"of; it now reads {width}. Make another tracker for another network."
            )
        return self._grid

    def _reconstructed(
        self, moments: ClassMoments, eps: float, classifier: Classifier | None = None
    ) -> Reconstructed:
        covariance = whole_covariance(moments)
        _warn_of_few(covariance)
        return reconstruction_curves(
            self._grid, covariance, classifier=classifier, eps=eps
        )

    def _tables(self, found: Reconstructed) -> dict[str, Float64[Tensor, "m r"]]:
        scope = self._clones.scope
        return {
            "r_squared": found.fitted.r_squared[scope],
            "residual_correlation": found.fitted.correlation[scope],
        }

    def _scalars(
        self, tables: Mapping[str, Float64[Tensor, "m r"]]
    ) -> dict[str, float]:
        """Return means over chunks and their spread, by width."""
        columns: dict[str, list[float]] = {}
        for name, table in tables.items():
            columns[name] = table.nanmean(1).tolist()
            self._tell_undefined(name, columns[name])
        if self._grid.repeats > 1:
            for name, table in tables.items():
                columns[f"{name}_spread"] = deviation(table).tolist()
        return {
            f"{PREFIX}{w}/{name}": values[row]
            for row, w in enumerate(self._grid.widths)
            for name, values in columns.items()
        }

    def _tell_undefined(self, name: str, means: list[float]) -> None:
        pairs = zip(self._grid.widths, means, strict=True)
        widths = [w for w, mean in pairs if mean != mean]
        if widths:
            undefined(
                f"`{name}` of chunks of {listed(widths)} neurons is undefined (NaN): "
                f"{_CAUSES[name]}."
            )


def whole_covariance(moments: ClassMoments) -> Covariance:
    r"""Return the covariance without regard to classes.

    .. math::
        T = S + \sum_k n_k (\mu_k - m)(\mu_k - m)^\top

    Args:
        moments: Moments per class, with their scatter.

    Example:
        >>> import torch
        >>> h = torch.tensor([[0.0, 1.0], [0.0, 3.0], [5.0, 5.0]])
        >>> moments = ClassMoments.of(h, torch.tensor([0, 0, 1]), num_classes=2)
        >>> torch.allclose(whole_covariance(moments).scatter, Covariance.of(h).scatter)
        True
    """
    assert moments.scatter is not None  # light statistics are refused before
    seen = moments.count > 0
    count, means = moments.count[seen], moments.mean[seen]
    # About one of the means sums are small, and a constant feature is exactly so.
    away = means - means[0]
    mean = count @ away / count.sum()
    spread = (away - mean) * count.sqrt()[:, None]
    return Covariance(
        count.sum().long(), means[0] + mean, moments.scatter + spread.T @ spread
    )


def _together(arguments: Mapping[str, Any]) -> AbstractReducer:
    return reducer() if arguments.get("distributed", True) else LocalReducer()


def _warn_of_few(covariance: Covariance) -> None:
    count, width = int(covariance.count), covariance.width
    if count - 1 < width:
        # As something undefined, which a tracker tells once.
        warn(
            f"There should be more samples than neurons; got {count} for {width}. Chunks "
            f"of {max(1, count - 1)} neurons then reconstruct everything. Take a larger "
            "`subset`."
        )
