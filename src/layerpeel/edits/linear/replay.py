"""What a layer read, from what the layer before it was kept to have returned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import fx, nn

from layerpeel.edits.linear.place import Place
from layerpeel.edits.recording import Kept
from layerpeel.measurement.sources.forward import evaluating


def with_features(
    model: nn.Module, kept: Sequence[Kept], places: Iterable[Place], path: str
) -> tuple[Kept, ...]:
    """Return what was kept, with what a layer read; nothing if that is not known.

    Args:
        model: The model that was run.
        kept: What was kept of the run.
        places: The places that were looked at.
        path: The path of the layer.
    """
    for place in places:
        for route in place.routes:
            known = bool(kept) and place.producer.path in kept[0].returned
            if route.consumer.path != path or not known:
                continue
            read = route.consumer.node.all_input_nodes[0]
            if (part := _part(model, place.producer.node, read)) is not None:
                return _replayed(part, kept, place.producer.path)
    return ()


def _replayed(part: nn.Module, kept: Sequence[Kept], path: str) -> tuple[Kept, ...]:
    with evaluating(part), torch.no_grad():
        # A copy, as an activation may work in place.
        return tuple(
            replace(each, features=part(each.returned[path].clone())) for each in kept
        )


def _part(model: nn.Module, start: fx.Node, end: fx.Node) -> fx.GraphModule | None:
    """Return the calls from one node to another; nothing if they need other inputs."""
    needed, open_ = {start, end}, [end]
    while open_:
        node = open_.pop()
        if node is start:
            continue
        if node.op in ("placeholder", "get_attr"):
            return None
        new = [each for each in node.all_input_nodes if each not in needed]
        needed.update(new)
        open_ += new
    part = fx.Graph()
    copies = {start: part.placeholder("returned")}
    for node in start.graph.nodes:
        if node in needed and node is not start:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(copies[end])
    return fx.GraphModule(model, part)
