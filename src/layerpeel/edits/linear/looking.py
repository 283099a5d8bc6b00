"""One pass over the data that looks at every place: pre-activations, features, readers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from layerpeel._checks import NonFiniteError
from layerpeel._progress import track
from layerpeel.edits.data import Data
from layerpeel.edits.graph import Graph
from layerpeel.edits.linear.place import Place
from layerpeel.edits.passes import rows_of
from layerpeel.edits.recording import Keeper, Kept
from layerpeel.measurement.sources.forward import evaluating
from layerpeel.measurement.statistics.affine_fit import AffineFit
from layerpeel.measurement.statistics.covariance import Covariance
from layerpeel.measurement.statistics.patterns import UnitPatterns

# The joint covariance of pre-activations and features costs (2 d)^2 numbers, and as many
# products per row. Wider layers get a bound that needs d of them.
MOST_JOINT = 256


@dataclass(eq=False)
class Seen:
    """What was seen of a place.

    Attributes:
        fit: Moments of each neuron's pre-activations and features.
        patterns: How often each neuron is on.
        joint: The covariance of pre-activations and features; ``None`` of wide layers.
        squares: Sums of squares of what each reader returned, by path.
        reshaped: The readers before which features changed their shape.
        axes: The largest number of axes of the features.
        whole: Whether moments were taken, rather than the range of pre-activations alone.
    """

    fit: AffineFit
    patterns: UnitPatterns
    joint: Covariance | None
    squares: dict[str, float] = field(default_factory=dict)
    reshaped: set[str] = field(default_factory=set)
    axes: int = 0
    whole: bool = True


class _Probe(nn.Module):
    """Calls a function with what it is given."""

    def __init__(self, see: Callable[..., None]) -> None:
        super().__init__()
        self._see = see

    def forward(self, *values: Tensor) -> None:
        self._see(*values)


class _Watch:
    """Folds what passes at one place."""

    def __init__(self, place: Place, *, whole: bool) -> None:
        self.place = place
        width = place.width
        joint = Covariance.empty(2 * width) if whole and width <= MOST_JOINT else None
        fit, patterns = AffineFit.empty(width), UnitPatterns.empty(width)
        self.seen = Seen(fit, patterns, joint, whole=whole)
        self.returned: dict[str, Tensor] = {}
        self._before: Tensor | None = None
        self._shape: torch.Size | None = None

    def enter(self, values: Tensor) -> None:
        # A copy: the activation may work in place. Of a range none is needed.
        if self.seen.whole:
            self._before = values.detach().clone()
        else:
            self._add_range(values)

    def leave(self, values: Tensor) -> None:
        module, seen = self.place.producer.module, self.seen
        seen.axes, self._shape = max(seen.axes, values.ndim), values.shape
        if not seen.whole:
            if self.place.layer.activation is None:
                self._add_range(values)
            return
        before = values if self._before is None else self._before
        self._before = None
        x, y = rows_of(before.detach(), module), rows_of(values.detach(), module)
        seen.fit = seen.fit.to(x.device).merge(AffineFit.of(x, y))
        seen.patterns = seen.patterns.to(x.device).merge(UnitPatterns.of(y))
        if seen.joint is not None:
            both = Covariance.of(torch.cat([x, y], 1))
            seen.joint = seen.joint.to(x.device).merge(both)

    def _add_range(self, values: Tensor) -> None:
        found = _range(rows_of(values.detach(), self.place.producer.module))
        self.seen.fit = self.seen.fit.to(values.device).merge(found)

    def read(self, path: str, values: Tensor) -> None:
        if values.shape != self._shape:
            self.seen.reshaped.add(path)

    def answered(self, path: str, values: Tensor) -> None:
        # A copy: what follows may work in place.
        self.returned[path] = values.detach().clone()
        if not self.seen.whole:
            return
        squares = float(values.detach().double().square().sum())
        self.seen.squares[path] = self.seen.squares.get(path, 0.0) + squares

    def result(self) -> Seen:
        seen = self.seen
        seen.fit, seen.patterns = seen.fit.to("cpu"), seen.patterns.to("cpu")
        seen.joint = None if seen.joint is None else seen.joint.to("cpu")
        fit, path = seen.fit, self.place.path
        ends = [fit.input_low, fit.input_high]
        ends += [fit.output_low, fit.output_high] if seen.whole else []
        _check_finite(path, all(bool(end.isfinite().all()) for end in ends))
        for reader, squares in seen.squares.items():
            _check_finite(reader, math.isfinite(squares))
        return seen


def _check_finite(path: str, finite: bool) -> None:
    if not finite:
        raise NonFiniteError(
            f"Features must be finite; those at {path!r} are NaN or infinite on the "
            "data. Normalise the data, or look for overflow in the layers before."
        )


def _range(inputs: Tensor) -> AffineFit:
    """Return the range of the inputs alone; all else is NaN."""
    none = inputs.new_full((inputs.shape[1],), torch.nan, dtype=torch.float64)
    # Each by itself: `aminmax` along rows takes ten times as long.
    low, high = inputs.amin(0).double(), inputs.amax(0).double()
    count = torch.tensor(len(inputs), device=inputs.device)
    return AffineFit(count, none, none, none, none, none, low, high, none, none)


def look(
    graph: Graph,
    places: list[Place],
    data: Data,
    progress: bool | None = None,
    *,
    whole: bool = True,
    keep: bool = False,
) -> tuple[list[Seen], int, tuple[Kept, ...]]:
    """Run a model once over the data.

    Args:
        graph: Its graph; calls are added to it, so that it cannot be edited after.
        places: Where to look.
        data: The data.
        progress: Whether to show a progress bar.
        whole: Whether to take moments, rather than the range of pre-activations alone,
            which costs little.
        keep: Whether to keep what the model and the readers return, if that is not
            too much.

    Returns:
        What was seen at each place, the number of samples, and what was kept.

    Raises:
        NonFiniteError: If there are values that are not finite.
    """
    watches = [_Watch(place, whole=whole) for place in places]
    for watch in watches:
        _attach(graph, watch)
    model = fx.GraphModule(graph.model, graph.graph)
    samples, keeper = 0, Keeper()
    with evaluating(model), torch.no_grad():
        for batch in track(data, "linearity", show=progress):
            output = batch.run(model)
            samples += batch.size
            if keep and not keeper.full:
                returned = {k: v for w in watches for k, v in w.returned.items()}
                keeper.add(Kept(batch, None, output.clone(), returned))
    return [watch.result() for watch in watches], samples, keeper.kept


def _attach(graph: Graph, watch: _Watch) -> None:
    place = watch.place
    features = place.layer.features
    if place.layer.activation is not None:
        source = features.all_input_nodes[0]
        _probe(graph, watch.enter, source, before=features)
    _probe(graph, watch.leave, features, after=features)
    for route in place.routes:
        path, node = route.consumer.path, route.consumer.node
        _probe(graph, _named(watch.read, path), node.all_input_nodes[0], before=node)
        _probe(graph, _named(watch.answered, path), node, after=node)


def _named(
    function: Callable[[str, Tensor], None], path: str
) -> Callable[[Tensor], None]:
    return lambda values: function(path, values)


def _probe(
    graph: Graph,
    see: Callable[..., None],
    values: fx.Node,
    *,
    before: fx.Node | None = None,
    after: fx.Node | None = None,
) -> None:
    name = f"layerpeel_probe_{len(graph.graph.nodes)}"
    graph.model.add_module(name, _Probe(see))
    if before is not None:
        with graph.graph.inserting_before(before):
            graph.graph.call_module(name, (values,))
    elif after is not None:
        with graph.graph.inserting_after(after):
            graph.graph.call_module(name, (values,))
