"""The statistics of all layers of a network, in the order of execution."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from layerpeel._checks import MergeError, UndefinedWarning, listed, one_of
from layerpeel._figures import style
from layerpeel._frames import DataFrame, data_frame
from layerpeel._json import plain
from layerpeel._warnings import warn
from layerpeel.measurement.layers.layer_statistics import LayerStatistics
from layerpeel.measurement.layers.picture import Curves, draw_profile
from layerpeel.measurement.statistics.statistic import Part, Statistic

COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "cdnv": "mean class-distance normalised variance; 0 when collapsed",
        "nc1_quotient": "within-class over between-class variance; 0 when collapsed",
        "numerical_rank": "directions in which the features vary",
        "effective_rank": "exponential of the entropy of singular values",
        "participation_ratio": "squared sum of variances over sum of their squares",
        "linearity": "smallest |correlation| of output and input over units",
        "median_linearity": "median of the same",
        "on_off_entropy": "entropy of on against off in bits, mean over units",
        "dead_units": "units that are zero on every sample",
    }
)
"""The metrics of a profile, by name. The last four are those of nonlinearities only."""


@dataclass(frozen=True, eq=False)
class LayerProfile(Statistic):
    """What happens to the classes from layer to layer.

    Each metric is a column: a tensor with one entry per layer. Linearity, on/off entropy
    and dead units are NaN for layers that are no elementwise nonlinearities. What else
    is undefined is NaN with one warning, which names cause and layers.

    Attributes:
        maps: How maps and tokens became features, a key of ``MAPS``.
        paths: Paths of the modules, in the order of execution.
        layers: Their statistics.
        left_out: What was not measured although ``layers`` meant it, each with the
            reason.

    Example:
        >>> from layerpeel.measurement.layers.observer import LayerObserver
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
        >>> with torch.no_grad():
        ...     _ = model[0].weight.copy_(torch.eye(2)), model[0].bias.zero_()
        >>> observer = LayerObserver(model, num_classes=2)
        >>> with observer:
        ...     _ = model(torch.tensor([[1.0, 0.0], [2.0, 1.0], [-1.0, 1.0]]))
        >>> observer.fold(torch.tensor([0, 0, 1]))
        >>> profile = observer.value()
        >>> profile.paths, profile.numerical_rank().tolist()
        (('0', '1'), [2.0, 2.0])
        >>> profile["1"].kind, round(profile["1"].linearity(), 4)
        ('ReLU', 0.982)
    """

    maps: str
    paths: tuple[str, ...]
    layers: tuple[LayerStatistics, ...]
    left_out: tuple[str, ...] = ()

    @classmethod
    def empty(cls, maps: str = "pooled") -> LayerProfile:
        """Return the profile of no data, the neutral element of ``merge``."""
        return cls(maps, (), ())

    def __len__(self) -> int:
        """The number of layers."""
        return len(self.paths)

    def __iter__(self) -> Iterator[str]:
        """The paths, in the order of execution."""
        return iter(self.paths)

    def __getitem__(self, path: str) -> LayerStatistics:
        """Return the statistics of a layer.

        Raises:
            KeyError: If there is none at the path.
        """
        if path in self.paths:
            return self.layers[self.paths.index(path)]
        close = get_close_matches(path, self.paths, n=3)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise KeyError(f"The profile has no layer at {path!r}.{hint}")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the types of the modules."""
        return tuple(layer.kind for layer in self.layers)

    @property
    def num_classes(self) -> int:
        """The number of classes; 0 without layers."""
        return self.layers[0].moments.num_classes if self.layers else 0

    @property
    def num_samples(self) -> int:
        """The number of samples; 0 without layers."""
        return self.layers[0].num_samples if self.layers else 0

    def widths(self) -> Float64[Tensor, " L"]:
        """Return the number of features of each layer."""
        return _numbers([layer.width for layer in self.layers])

    def nc1_quotient(
        self, centring: str = "sample", pooling: str = "pooled"
    ) -> Float64[Tensor, " L"]:
        """Return the NC1 quotient of each layer; see ``LayerStatistics`` for it.

        Args:
            centring: About which mean class means are centred.
            pooling: How within-class covariances are combined.
        """
        return self._each(lambda layer: layer.nc1_quotient(centring, pooling))

    def cdnv(self) -> Float64[Tensor, " L"]:
        """Return the mean class-distance normalised variance of each layer."""
        return self._each(LayerStatistics.cdnv)

    def numerical_rank(self, tolerance: float | None = None) -> Float64[Tensor, " L"]:
        """Return the number of directions in which the features of each layer vary.

        Args:
            tolerance: The share of the largest singular value that counts as zero.
        """
        return self._each(lambda layer: layer.numerical_rank(tolerance))

    def effective_rank(self) -> Float64[Tensor, " L"]:
        """Return the effective rank of the features of each layer."""
        return self._each(LayerStatistics.effective_rank)

    def participation_ratio(self) -> Float64[Tensor, " L"]:
        """Return the participation ratio of the features of each layer."""
        return self._each(LayerStatistics.participation_ratio)

    def linearity(self) -> Float64[Tensor, " L"]:
        """Return the smallest correlation over units of each nonlinearity."""
        return self._each(LayerStatistics.linearity, of_units=True)

    def median_linearity(self) -> Float64[Tensor, " L"]:
        """Return the median correlation over units of each nonlinearity."""
        return self._each(LayerStatistics.median_linearity, of_units=True)

    def on_off_entropy(self) -> Float64[Tensor, " L"]:
        """Return the mean entropy of on against off of each nonlinearity, in bits."""
        return self._each(LayerStatistics.on_off_entropy, of_units=True)

    def dead_units(self) -> Float64[Tensor, " L"]:
        """Return the number of dead units of each nonlinearity."""
        return self._each(LayerStatistics.dead_units, of_units=True)

    def column(self, name: str) -> Float64[Tensor, " L"]:
        """Return a metric of all layers by its name.

        Args:
            name: A key of ``COLUMNS``.

        Raises:
            ValueError: If there is no such metric.
        """
        column: Float64[Tensor, " L"] = getattr(self, one_of("name", name, COLUMNS))()
        return column

    @style()
    def plot(
        self, ax: Axes | None = None, *, panel: str | None = None
    ) -> tuple[Figure, Axes]:
        """Draw collapse, ranks and linearity over depth, one above another.

        Nonlinearities are shaded.

        Args:
            ax: Where to draw one panel; a figure of its own by default.
            panel: ``"collapse"``, ``"ranks"`` or ``"units"``. When omitted, all of them,
                or with ``ax`` the first.

        Returns:
            The figure, and the axes of the first panel.

        Raises:
            ValueError: If there are no layers, or no such panel.
        """
        if not self.paths:
            raise ValueError("A profile must have layers to be drawn; this has none.")
        with _silenced():
            columns = {name: self.column(name).numpy() for name in COLUMNS}
        curves = Curves(self.paths, columns, self.widths().numpy(), self.num_classes)
        return draw_profile(ax, curves, panel)

    def to_dict(self) -> dict[str, Any]:
        """Return all metrics of all layers, ready for JSON; undefined is ``None``."""
        content: dict[str, Any] = plain(
            {
                "maps": self.maps,
                "num_samples": self.num_samples,
                "num_classes": self.num_classes,
                "layers": self._rows(),
                "left_out": self.left_out,
            }
        )
        return content

    def to_frame(self) -> DataFrame:
        """Return a ``pandas.DataFrame`` with one row per layer.

        Raises:
            ImportError: If pandas is not installed.
        """
        names = ("path", "kind", "width", *COLUMNS)
        return data_frame(self._rows(), names).set_index("path")

    def __repr__(self) -> str:
        """One line with what is looked at first."""
        with _silenced():
            collapse = [f"{v:.3g}" for v in self.nc1_quotient().tolist()]
        change = f", NC1 quotient {collapse[0]} to {collapse[-1]}" if collapse else ""
        left = f", {len(self.left_out)} left out" if self.left_out else ""
        return (
            f"LayerProfile({len(self)} layers{left}, {self.num_samples} samples, maps "
            f"{self.maps}{change})"
        )

    def parts(self) -> dict[str, Part]:
        """Return tensors and settings by name, those of layers by their number."""
        parts: dict[str, Part] = {"maps": self.maps}
        parts |= {f"left_out.{i}": text for i, text in enumerate(self.left_out)}
        for i, (path, layer) in enumerate(zip(self.paths, self.layers, strict=True)):
            parts[f"paths.{i}"] = path
            parts |= {f"layers.{i}.{key}": v for key, v in layer.parts().items()}
        return parts

    @classmethod
    def from_parts(cls, parts: Mapping[str, Part]) -> LayerProfile:
        """Build a profile from what :meth:`parts` returned.

        Raises:
            KeyError: If a part is missing.
        """
        paths = _in_order(parts, "paths.")
        layers = [
            LayerStatistics.from_parts(_below(parts, f"layers.{i}."))
            for i in range(len(paths))
        ]
        left_out = _in_order(parts, "left_out.")
        return cls(str(parts["maps"]), paths, tuple(layers), left_out)

    def _rows(self) -> list[dict[str, Any]]:
        with _silenced():
            columns = {name: self.column(name).tolist() for name in COLUMNS}
        return [
            {"path": path, "kind": layer.kind, "width": layer.width}
            | {name: values[i] for name, values in columns.items()}
            for i, (path, layer) in enumerate(zip(self.paths, self.layers, strict=True))
        ]

    def _each(
        self, metric: Callable[[LayerStatistics], float], *, of_units: bool = False
    ) -> Float64[Tensor, " L"]:
        """Return a metric of every layer, with one warning per cause."""
        causes: dict[str, list[str]] = {}
        values = []
        for path, layer in zip(self.paths, self.layers, strict=True):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UndefinedWarning)
                applies = layer.nonlinear or not of_units
                values.append(metric(layer) if applies else torch.nan)
            for warning in caught:
                causes.setdefault(str(warning.message), []).append(repr(path))
        for cause, paths in causes.items():
            warn(f"{cause} Layers: {listed(paths)}.")
        return _numbers(values)

    def _merged(self, other: LayerProfile) -> LayerProfile:
        if not self.paths or not other.paths:
            return self if self.paths else other
        pairs = zip(self.layers, other.layers, strict=True)
        left_out = tuple(sorted({*self.left_out, *other.left_out}))
        merged = tuple(mine.merge(theirs) for mine, theirs in pairs)
        return LayerProfile(self.maps, self.paths, merged, left_out)

    def _check_mergeable(self, other: object) -> None:
        if not isinstance(other, LayerProfile):
            raise MergeError(
                f"A LayerProfile merges with another one; got {type(other).__name__}."
            )
        if self.maps != other.maps:
            raise MergeError(
                "Two LayerProfile values merge when they agree in `maps`; got "
                f"{self.maps!r} and {other.maps!r}. Measure both the same way."
            )
        if self.paths and other.paths and self.paths != other.paths:
            alone = sorted({*self.paths} ^ {*other.paths})
            what = f"only one has {listed(alone)}" if alone else "their order differs"
            raise MergeError(
                f"Two LayerProfile values merge when they have the same layers; {what}. "
                "Measure the same model with the same `layers`."
            )

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> LayerProfile:
        layers = tuple(layer._mapped(function) for layer in self.layers)
        return LayerProfile(self.maps, self.paths, layers, self.left_out)


def _numbers(values: list[float]) -> Float64[Tensor, " L"]:
    return torch.tensor(values, dtype=torch.float64)


def _below(parts: Mapping[str, Part], prefix: str) -> dict[str, Part]:
    return {
        key.removeprefix(prefix): part
        for key, part in parts.items()
        if key.startswith(prefix)
    }


def _in_order(parts: Mapping[str, Part], prefix: str) -> tuple[str, ...]:
    texts = _below(parts, prefix)
    return tuple(str(texts[str(i)]) for i in range(len(texts)))


def _silenced() -> warnings.catch_warnings[None]:
    """Ignore undefined metrics: where this is used, they are seen as such."""
    return warnings.catch_warnings(action="ignore", category=UndefinedWarning)
