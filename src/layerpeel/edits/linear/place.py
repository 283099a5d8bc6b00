"""Places where a layer could be merged into its reader, and what is in the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import fx, nn

from layerpeel._checks import EditError, LayerError, listed
from layerpeel.edits.graph import Affine, Graph, Layer
from layerpeel.edits.graph.functions import function_name, is_norm, is_view
from layerpeel.edits.graph.places import THE_OUTPUT, readers


@dataclass(frozen=True, eq=False)
class Route:
    """The calls between features and one of the layers that read them.

    Attributes:
        consumer: The layer.
        nodes: The calls between, in order.
        plain: Whether they are batch normalisations, dropout and views alone.
    """

    consumer: Affine
    nodes: tuple[fx.Node, ...]
    plain: bool


@dataclass(frozen=True, eq=False)
class Place:
    """A linear layer or convolution, its activation, and what reads that.

    Attributes:
        layer: Its place in the graph.
        producer: The layer.
        routes: The ways to the layers that read it.
        norms: The batch normalisations before the activation.
        after: Those between the activation and each layer that reads it.
        blocked: Why it cannot be merged into its reader; empty if nothing is in the way.
    """

    layer: Layer
    producer: Affine
    routes: tuple[Route, ...]
    norms: tuple[nn.Module, ...]
    after: tuple[tuple[nn.Module, ...], ...]
    blocked: str

    @property
    def path(self) -> str:
        """The path of the layer."""
        return self.producer.path

    @property
    def width(self) -> int:
        """The number of its neurons, or channels."""
        return len(self.producer.module.weight)

    @property
    def reader(self) -> Affine:
        """The layer that alone reads it."""
        return self.routes[0].consumer

    @property
    def chain(self) -> tuple[fx.Node, ...]:
        """The calls that vanish when it is merged into its reader."""
        layer = self.layer
        start = [self.producer.node, *layer.before]
        found = start if layer.features in start else [*start, layer.features]
        return (*found, *self.routes[0].nodes)


def places_of(graph: Graph) -> tuple[list[Place], list[str]]:
    """Return the places of a graph, and what is left out, each with the reason.

    A layer without an activation is a place only where one other reads it.
    """
    found, left_out = [], []
    for path in dict.fromkeys(affine.path for affine in graph.affines):
        try:
            layer = graph.layer(path)
        except LayerError as error:
            left_out.append(f"{path!r}: {error}")
            continue
        single = len(layer.consumers) == 1 and not layer.others
        if layer.producer is not None and (layer.activation is not None or single):
            found.append(_place(graph, layer, layer.producer))
        elif said := [other for other in layer.others if other != THE_OUTPUT]:
            left_out.append(
                f"{path!r}: no known activation follows; it is read by {listed(said)}"
            )
    return found, left_out


def _place(graph: Graph, layer: Layer, producer: Affine) -> Place:
    modules = dict(graph.model.named_modules())
    routes = tuple(_routes(layer, layer.features, (), modules))
    norms = _norms(layer.before, modules)
    after = tuple(_norms(route.nodes, modules) for route in routes)
    blocked = _blocked(graph, layer, producer, routes, modules)
    return Place(layer, producer, routes, norms, after, blocked)


def _norms(
    nodes: tuple[fx.Node, ...], modules: dict[str, nn.Module]
) -> tuple[nn.Module, ...]:
    return tuple(modules[str(n.target)] for n in nodes if is_norm(n, modules))


def _routes(
    layer: Layer,
    node: fx.Node,
    passed: tuple[fx.Node, ...],
    modules: dict[str, nn.Module],
) -> Iterator[Route]:
    consumers = {affine.node: affine for affine in layer.consumers}
    between = set(layer.between)
    for reader in readers(node):
        if reader in consumers:
            plain = all(is_view(n, modules) or is_norm(n, modules) for n in passed)
            yield Route(consumers[reader], passed, plain)
        elif reader in between:
            yield from _routes(layer, reader, (*passed, reader), modules)


def _blocked(
    graph: Graph,
    layer: Layer,
    producer: Affine,
    routes: tuple[Route, ...],
    modules: dict[str, nn.Module],
) -> str:
    """Return why a layer cannot be merged into its reader; empty if it can."""
    if not routes:
        others = listed(layer.others) or "nothing"
        return f"no linear layer or convolution reads it, but {others}"
    if layer.others:
        return f"it is also read by {listed(layer.others)}"
    if len(routes) > 1:
        return f"several layers read it: {listed([r.consumer.path for r in routes])}"
    consumer, between = routes[0].consumer, (*layer.before, *routes[0].nodes)
    mixed = [n for n in between if not (is_view(n, modules) or is_norm(n, modules))]
    if mixed:
        return f"pooling stands between: {listed([_said(n) for n in mixed])}"
    if isinstance(producer.module, nn.Conv2d) != isinstance(consumer.module, nn.Conv2d):
        return f"maps are flattened between it and {consumer.path!r}"
    split = [n for n in (*between, layer.features) if len(readers(n)) > 1]
    if split:
        return f"several calls read {_said(split[0])}"
    return _not_own(graph, producer, consumer, (*between, layer.features), modules)


def _not_own(
    graph: Graph,
    producer: Affine,
    consumer: Affine,
    between: tuple[fx.Node, ...],
    modules: dict[str, nn.Module],
) -> str:
    try:
        graph.check_own(producer)
        graph.check_own(consumer)
        for node in between:
            if is_norm(node, modules):
                graph.check_single(str(node.target))
    except EditError as error:
        return str(error)
    paths = [str(node.target) for node in between if node.op == "call_module"]
    everywhere = list(graph.model.named_modules(remove_duplicate=False))
    for path in paths:
        shared = [p for p, module in everywhere if module is modules[path]]
        if len(shared) > 1:
            return f"one module stands at {listed(shared)}: give each its own"
    return ""


def _said(node: fx.Node) -> str:
    return repr(str(node.target)) if node.op == "call_module" else function_name(node)
