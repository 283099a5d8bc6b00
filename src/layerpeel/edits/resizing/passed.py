"""What in a forward pass would not hold for a layer of another width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import fx, nn

from layerpeel._checks import EditError
from layerpeel.edits.graph import Affine, Layer
from layerpeel.edits.graph.functions import function_name, is_norm, is_view, reads_shape


def check_views(
    producer: Affine, layer: Layer, consumer: Affine, modules: Mapping[str, nn.Module]
) -> None:
    """Check that the neurons of a layer are where its consumer takes them to be.

    Raises:
        EditError: If a view has the number of channels in it, or the consumer reads
            something else than neurons.
    """
    modules = dict(modules)
    maps = isinstance(producer.module, nn.Conv2d)
    for node in layer.before:
        _check_view(node, modules)
        if maps and _flattens(node, modules):
            raise EditError(
                "Maps of a layer that changes its width must be flattened after its "
                f"activation and batch normalisation; {node.format_node()} is before. "
                "Exchange them."
            )
    for node in _path(layer.features, consumer):
        _check_view(node, modules)
        if not maps:
            _check_rows(node, modules)
        maps = maps and not _flattens(node, modules)
    if maps != isinstance(consumer.module, nn.Conv2d):
        raise EditError(
            f"The layer {consumer.path!r} must read the neurons of {layer.path!r}, "
            "rather than places of maps. Write `torch.flatten(x, 1)` before it."
        )


def check_width_unread(nodes: Iterable[fx.Node], last: bool) -> None:
    """Check that the forward pass does not compute with the number of neurons.

    Args:
        nodes: All nodes whose values have one entry or channel per neuron.
        last: Whether neurons are on the last axis, rather than the second one.

    Raises:
        EditError: If it does.
    """
    for node in nodes:
        for user in filter(reads_shape, node.users):
            for reader, axis in _axes(user):
                if axis not in ((0,) if last else (0, 2, 3, -1, -2)):
                    raise EditError(
                        "The forward pass must not compute with the number of neurons "
                        f"of a layer that changes its width; {reader} reads it. Take "
                        "shapes as `x.size(0)`, and flatten with `torch.flatten(x, 1)`."
                    )


def _path(features: fx.Node, consumer: Affine) -> list[fx.Node]:
    """Return the calls between the features and a consumer, in order."""
    path: list[fx.Node] = []
    node = consumer.node.all_input_nodes[0]
    while node is not features:
        path.insert(0, node)
        node = node.all_input_nodes[0]
    return path


def _check_view(node: fx.Node, modules: dict[str, nn.Module]) -> None:
    name = function_name(node)
    if name not in ("view", "reshape"):
        return
    shape = _shape(node)
    if not shape or shape[-1] != -1:
        raise EditError(
            f"A view next to a layer that changes its width must leave the number of "
            f"its columns open; {node.format_node()} has it in it. Write "
            "`torch.flatten(x, 1)`, or `x.view(x.size(0), -1)`."
        )


def _check_rows(node: fx.Node, modules: dict[str, nn.Module]) -> None:
    """Check that a call treats rows of neurons one by one."""
    if not is_view(node, modules) and not is_norm(node, modules):
        raise EditError(
            "What a linear layer that changes its width returns must not be pooled, as "
            f"that would mix its neurons; {node.format_node()} does so. Choose another "
            "layer."
        )


def _flattens(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a call makes rows of maps.

    Raises:
        EditError: If it makes something else of them.
    """
    name = function_name(node)
    if name == "mean":
        keeps = node.kwargs.get(
            "keepdim", node.args[2] if len(node.args) > 2 else False
        )
        return not keeps
    if name == "flatten":
        start, end = _range(node)
        good = start == 1 and end in (-1, 3)
    elif node.op == "call_module":
        module = modules[str(node.target)]
        if not isinstance(module, nn.Flatten):
            return False
        good = module.start_dim == 1 and module.end_dim in (-1, 3)
    elif name in ("view", "reshape"):
        good = len(_shape(node)) == 2
    elif name == "ravel":
        good = False
    else:
        return False
    if not good:
        raise EditError(
            "Maps of a layer that changes its width must be flattened to one row per "
            f"sample; {node.format_node()} does not. Write `torch.flatten(x, 1)`."
        )
    return True


def _shape(node: fx.Node) -> tuple[Any, ...]:
    """Return the shape that a view is given."""
    given = node.args[1:] or tuple(node.kwargs.values())
    if len(given) == 1 and isinstance(given[0], tuple | list):
        return tuple(given[0])
    return tuple(given)


def _range(node: fx.Node) -> tuple[Any, Any]:
    start = node.kwargs.get("start_dim", node.args[1] if len(node.args) > 1 else 0)
    end = node.kwargs.get("end_dim", node.args[2] if len(node.args) > 2 else -1)
    return start, end


def _axes(user: fx.Node) -> list[tuple[fx.Node, Any]]:
    """Return who reads which axis of a shape; ``None`` is all of them."""
    name = function_name(user)
    asked = str(user.args[1]) if name == "getattr" else name
    if asked in ("dim", "ndim", "device", "dtype"):
        return []
    if asked == "size" and (len(user.args) > 1 or "dim" in user.kwargs):
        return [(user, user.args[1] if len(user.args) > 1 else user.kwargs["dim"])]
    if asked == "numel":
        return [(user, None)]
    return [
        (reader, reader.args[1] if function_name(reader) == "getitem" else None)
        for reader in user.users
    ]
