"""The part of an edited model that comes after what was edited."""

from __future__ import annotations

from collections.abc import Collection

from torch import fx, nn

from layerpeel._checks import EditError
from layerpeel.edits.graph.tracing import Tracer, traced


def rest_of(
    model: nn.Module, path: str, given: Collection[str] = ()
) -> fx.GraphModule | None:
    """Return what a model does with what a module reads.

    Args:
        model: The model; its modules are shared.
        path: The path of the module.
        given: The names of arguments that the data give.

    Returns:
        A model that takes the features; ``None`` if the output depends on other things
        as well, as on the input past the features.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> rest = rest_of(model, "2")
        >>> [node.name for node in rest.graph.nodes]
        ['features', '_2', 'output']
    """
    try:
        graph = _graph(model, given)
    except EditError:
        return None
    # A residual block that is called as a whole is found by its parent.
    paths = (path, path.rpartition(".")[0])
    called = [n for n in graph.nodes if n.op == "call_module" and n.target in paths]
    if len(called) != 1 or len(called[0].all_input_nodes) != 1:
        return None
    source = called[0].all_input_nodes[0]
    needed = _needed(graph, source)
    if any(node.op == "placeholder" for node in needed - {source}):
        return None
    part = fx.Graph()
    copies = {source: part.placeholder("features")}
    for node in graph.nodes:
        if node in needed and node is not source:
            copies[node] = part.node_copy(node, copies.__getitem__)
    return fx.GraphModule(model, part)


def _graph(model: nn.Module, given: Collection[str]) -> fx.Graph:
    if isinstance(model, fx.GraphModule):
        return model.graph
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        return traced(Tracer(), model, given)
    finally:
        for module, flag in flags:
            module.training = flag


def _needed(graph: fx.Graph, source: fx.Node) -> set[fx.Node]:
    """Return what the output is made of, back to the features."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    needed, open_ = {source, output}, [output]
    while open_:
        for node in open_.pop().all_input_nodes:
            if node not in needed:
                needed.add(node)
                open_.append(node)
    return needed
