"""Where in a graph a path leads, and who reads what stands there."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from torch import fx, nn

from layerpeel._checks import LayerError, listed
from layerpeel.edits.graph.functions import (
    activation_of,
    function_name,
    is_channelwise,
    is_norm,
    reads_shape,
)
from layerpeel.edits.graph.layer import Affine, Layer

INPUT = "input"
THE_OUTPUT = "the output of the model"
AFFINE = (nn.Linear, nn.Conv2d)
_MOST_LISTED = 16


class Places:
    """The layers of a graph, found by path.

    Args:
        model: The model whose calls these are.
        graph: Its calls.
        returned: What each module returned, by path.
        calls: How often each module is called, by path.
        argument: What the caller calls the path of a layer, for messages.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: fx.Graph,
        returned: Mapping[str, fx.Node],
        calls: Mapping[str, int],
        argument: str,
    ) -> None:
        self._model, self._graph, self._argument = model, graph, argument
        self._returned, self._calls = returned, calls
        self._modules = dict(model.named_modules())

    def layer(self, path: str) -> Layer:
        """Return what a path names; see :meth:`Graph.layer`."""
        node = self.node(path)
        before: list[fx.Node] = []
        features, activation = node, activation_of(node, self._modules)
        if activation is None:
            features, activation = self._followed(node, before)
        norms = [str(n.target) for n in before if is_norm(n, self._modules)]
        consumers: list[Affine] = []
        between: list[fx.Node] = []
        others: list[str] = []
        self._read_by(features, consumers, between, others)
        return Layer(
            path, self.affine(node), tuple(norms), tuple(before), activation, features,
            tuple(consumers), tuple(between), tuple(others),
        )  # fmt: skip

    def node(self, path: str) -> fx.Node:
        """Return the node of the value that a module returns.

        Raises:
            LayerError: If there is no such module, or it is not called exactly once.
        """
        paths = list(dict(self._model.named_modules(remove_duplicate=False)))
        if path == INPUT and path not in paths:
            nodes: list[fx.Node] = list(self._graph.nodes)
            return next(node for node in nodes if node.op == "placeholder")
        if path not in paths or not path:
            raise LayerError(_unknown(self._argument, path, paths))
        shared = self._model.get_submodule(path)
        path = next(p for p, m in self._modules.items() if m is shared)
        if self._calls.get(path) != 1 or path not in self._returned:
            raise LayerError(self._not_once(path))
        return self._returned[path]

    def affine(self, node: fx.Node) -> Affine | None:
        """Return the linear layer or convolution that a node calls, if it does."""
        if node.op != "call_module":
            return None
        module = self._modules[str(node.target)]
        if not isinstance(module, AFFINE):
            return None
        return Affine(str(node.target), module, node)

    def _not_once(self, path: str) -> str:
        kind = type(self._modules[path]).__name__
        start = "A layer must be called once per forward pass and return one tensor; "
        calls = self._calls.get(path, 0)
        if calls == 0 and isinstance(self._model, fx.GraphModule):
            return (
                f"{start}{path!r} is not called itself, as the pass of this model is "
                "written out. Name the last layer inside of it."
            )
        times = {0: "not called", 1: "called once, but returns something else"}
        how = times.get(calls, f"called {calls} times")
        return (
            f"{start}{path!r} ({kind}) is {how}. Give each call a module of its own, or "
            "choose another module."
        )

    def _followed(
        self, node: fx.Node, passed: list[fx.Node]
    ) -> tuple[fx.Node, nn.Module | None]:
        """Return the features, past batch normalisation and the activation."""
        current, seen, kept = node, list[fx.Node](), 0
        while len(found := readers(current)) == 1:
            current = found[0]
            activation = activation_of(current, self._modules)
            if activation is not None and type(activation) is not nn.Identity:
                passed += seen
                return current, activation
            if not is_channelwise(current, self._modules):
                break
            seen.append(current)
            kept = len(seen) if is_norm(current, self._modules) else kept
        # Without an activation, what batch normalisation returns are the features.
        passed += seen[:kept]
        return (seen[kept - 1] if kept else node), None

    def _read_by(
        self,
        features: fx.Node,
        consumers: list[Affine],
        between: list[fx.Node],
        others: list[str],
    ) -> None:
        for reader in readers(features):
            affine = self.affine(reader)
            if affine is not None:
                consumers.append(affine)
            elif is_channelwise(reader, self._modules):
                between.append(reader)
                self._read_by(reader, consumers, between, others)
            else:
                others.append(self._said(reader))

    def _said(self, node: fx.Node) -> str:
        if node.op == "call_module":
            kind = type(self._modules[str(node.target)]).__name__
            return f"{str(node.target)!r} ({kind})"
        return THE_OUTPUT if node.op == "output" else function_name(node)


def readers(node: fx.Node) -> list[fx.Node]:
    """Return the nodes that read the values of a node."""
    return [user for user in node.users if not reads_shape(user)]


def _unknown(argument: str, path: str, paths: list[str]) -> str:
    close = get_close_matches(str(path), [p for p in paths if p], n=3)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return (
        f"`{argument}` must be the path of a module, or 'input'; the model has none at "
        f"{path!r}.{hint} Its modules are "
        f"{listed([repr(p) for p in paths if p], _MOST_LISTED)}."
    )
