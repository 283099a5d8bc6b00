r"""Which layers of a network act linearly on some data, and could be merged.

References:
    | Embedding principle in depth for the loss landscape analysis of deep neural networks
    | (Bai, Luo, Xu & Zhang, 2022), https://arxiv.org/abs/2205.13283: the minimal Pearson
    | correlation, and 0.99 as the mark of an effectively linear layer
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from layerpeel._checks import LayerError, listed
from layerpeel._figures import style
from layerpeel._frames import DataFrame, data_frame
from layerpeel._json import plain
from layerpeel._warnings import warn
from layerpeel.edits.data import Data
from layerpeel.edits.graph import Graph
from layerpeel.edits.linear.layer_linearity import Judged, LayerLinearity, judged
from layerpeel.edits.linear.looking import look
from layerpeel.edits.linear.picture import draw_linearity
from layerpeel.edits.linear.place import Place, places_of
from layerpeel.edits.recording import Kept

_COLUMNS = (
    *("path", "activation", "width", "minimal_correlation", "exact", "margin"),
    *("residual", "residual_by", "on_off_entropy", "mergeable", "blocked"),
)
_HEADER = ("layer", "activation", "min corr", "exact", "margin", "residual", "merge")


@dataclass(frozen=True, eq=False)
class Linearity:
    """How linear each layer of a network acts, on some data.

    Attributes:
        rows: The layers, in the order of the forward pass.
        samples: The number of samples.
        left_out: What was not looked at, each with the reason.
    """

    rows: tuple[LayerLinearity, ...]
    samples: int
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        """The number of layers."""
        return len(self.rows)

    def __iter__(self) -> Iterator[str]:
        """The paths, in the order of the forward pass."""
        return iter(self.paths)

    def __getitem__(self, path: str) -> LayerLinearity:
        """Return a layer.

        Raises:
            KeyError: If there is none at the path.
        """
        if path in self.paths:
            return self.rows[self.paths.index(path)]
        close = get_close_matches(path, self.paths, n=3)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise KeyError(f"There is no layer at {path!r}.{hint}")

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the layers."""
        return tuple(row.path for row in self.rows)

    def minimal_correlation(self) -> Float64[Tensor, " L"]:
        """Return the smallest correlation over neurons of each layer."""
        return _numbers([row.minimal_correlation for row in self.rows])

    def residual(self) -> Float64[Tensor, " L"]:
        """Return the relative change of the readers of each layer by its lines."""
        return _numbers([row.residual for row in self.rows])

    def margin(self) -> Float64[Tensor, " L"]:
        """Return the least margin of each layer."""
        return _numbers([row.least_margin for row in self.rows])

    def entropy(self) -> Float64[Tensor, " L"]:
        """Return the mean entropy of on against off of each layer, in bits."""
        return _numbers([row.entropy for row in self.rows])

    @style()
    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the correlations of all layers, against the mark of linear ones.

        Args:
            ax: Where to draw; a figure of its own by default.

        Returns:
            The figure and the axes.

        Raises:
            ValueError: If there are no layers.
        """
        if not self.rows:
            raise ValueError("There must be layers to be drawn; there are none.")
        return draw_linearity(ax, self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, ready for JSON; undefined is ``None``."""
        rows = [row.to_dict() for row in self.rows]
        content: dict[str, Any] = plain(
            {"samples": self.samples, "layers": rows, "left_out": self.left_out}
        )
        return content

    def to_frame(self) -> DataFrame:
        """Return a ``pandas.DataFrame`` with one row per layer.

        Raises:
            ImportError: If pandas is not installed.
        """
        rows = [row.to_dict() for row in self.rows]
        table = [{name: row[name] for name in _COLUMNS} for row in rows]
        return data_frame(table, _COLUMNS).set_index("path")

    def summary(self) -> str:
        """Return a table as lines of text, one row per layer."""
        table = [_HEADER, *map(_cells, self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(n) for cell, n in zip(cells, widths, strict=True))
            for cells in table
        ]
        return "\n".join(line.rstrip() for line in (*lines, *self.left_out))

    def __repr__(self) -> str:
        """One line with what is looked at first."""
        exact = [row.path for row in self.rows if row.exact]
        can = [row.path for row in self.rows if row.mergeable]
        low = listed([f"{v:.3g}" for v in self.minimal_correlation().tolist()])
        return (
            f"Linearity({len(self)} layers, {self.samples} samples, minimal correlation "
            f"{low or 'of none'}, {len(exact)} exactly linear, {len(can)} mergeable)"
        )


def linearity(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    layers: Sequence[str] | None = None,
    progress: bool | None = None,
) -> Linearity:
    r"""Measure how linear each layer acts, in one pass over the data.

    Of every linear layer or convolution that an activation follows, past batch
    normalisation in eval mode: the minimal correlation of features and pre-activations

    .. math:: \min_j |\rho(f_j, \tilde f_j)|

    over neurons that are neither constant nor without incoming or outgoing weights;
    whether all pre-activations of each neuron are inside one affine piece of the
    activation, and how far from its ends; what its readers lose if each neuron is
    replaced by its least-squares line; how often neurons switch; and whether the layer
    could be merged into its reader. The correlation alone is blind to the size of what
    a neuron adds: a high one can go with a large error.

    Args:
        model: The model, deterministic: dropout and batch normalisation in eval mode.
        loader: Batches ``(input, target)``.
        layers: Paths of layers, or of their activations; all when omitted.
        progress: Whether to show a progress bar; by default when standard error is a
            terminal.

    Returns:
        A row for each layer.

    Raises:
        LayerError: If there is no such layer.
        EditError: If the model is not deterministic or cannot be traced.
        NonFiniteError: If weights, inputs or features hold NaN or infinity.
        BatchError: If there is no sample, or the model does not run on the data.

    References:
        | Embedding principle in depth for the loss landscape analysis of deep neural
        | networks (Bai, Luo, Xu & Zhang, 2022), https://arxiv.org/abs/2205.13283

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> with torch.no_grad():
        ...     _ = model[0].weight.copy_(torch.eye(2)), model[0].bias.fill_(3.0)
        >>> x = torch.tensor([[1.0, -2.0], [-1.0, 0.0], [0.0, 1.0]])
        >>> found = linearity(model, [(x, torch.zeros(3))])
        >>> found["0"].exact, found["0"].least_margin, found["0"].mergeable
        (True, 1.0, True)
    """
    held = Data(loader, model)
    looked = looked_at(model, held, layers, progress)
    rows = tuple(each.row for each in looked.found)
    undefined: dict[str, list[str]] = {}
    for row in rows:
        for cause in row.causes:
            undefined.setdefault(cause, []).append(repr(row.path))
    for cause, paths in undefined.items():
        if "correlation" in cause:
            warn(f"Of a layer, {cause} (NaN). Layers: {listed(paths)}.")
    return Linearity(rows, looked.samples, looked.left_out)


@dataclass(frozen=True, eq=False)
class Looked:
    """What one pass over the data tells.

    Attributes:
        found: All that is known of the layers.
        samples: The number of samples.
        left_out: What was not looked at, each with the reason.
        kept: What the model did on all batches, if that was to be kept.
    """

    found: list[Judged]
    samples: int
    left_out: tuple[str, ...]
    kept: tuple[Kept, ...]


def looked_at(
    model: nn.Module,
    data: Data,
    layers: Sequence[str] | None = None,
    progress: bool | None = None,
    *,
    whole: bool = True,
    keep: bool = False,
) -> Looked:
    """Run a model once, and judge some layers; see ``look``."""
    graph = Graph(model, "layers", data.names)
    places, left_out = places_of(graph)
    if layers is not None:
        if isinstance(layers, str):
            raise ValueError(
                f"`layers` must be a list of paths; got {layers!r}. Pass [{layers!r}]."
            )
        places, left_out = _chosen(graph, places, layers), []
    seen, samples, kept = look(graph, places, data, progress, whole=whole, keep=keep)
    found = [judged(place, each) for place, each in zip(places, seen, strict=True)]
    return Looked(found, samples, tuple(left_out), kept)


def _chosen(graph: Graph, places: list[Place], paths: Sequence[str]) -> list[Place]:
    """Return the places that some paths name, in the order of the forward pass."""
    wanted = set()
    for path in paths:
        features = graph.layer(path).features
        mine = [place for place in places if place.layer.features is features]
        if not mine:
            names = listed([repr(place.path) for place in places])
            others = listed(graph.layer(path).others) or "nothing"
            raise LayerError(
                "`layers` must name linear layers or convolutions that an activation "
                f"follows, or one other layer alone; {path!r} is none: what it returns is "
                f"read by {others}. Those are: {names or 'none'}."
            )
        wanted.add(mine[0].path)
    return [place for place in places if place.path in wanted]


def _numbers(values: list[float]) -> Float64[Tensor, " L"]:
    return torch.tensor(values, dtype=torch.float64)


def _cells(row: LayerLinearity) -> tuple[str, ...]:
    how = {"exact": "", "bound": " at most", "undefined": ""}[row.residual_by]
    return (
        row.path,
        row.activation,
        f"{row.minimal_correlation:.4f}",
        "yes" if row.exact else "no",
        f"{row.least_margin:.3g}",
        f"{row.residual:.2e}{how}",
        "can be" if row.mergeable else f"no: {row.blocked}",
    )
