"""A layer's way from its input to what its readers return, as a function of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from layerpeel.edits.activations import out_of_place
from layerpeel.edits.graph import Layer

# Values that a call takes and that are not on the way: batch sizes, for instance.
External = Mapping[fx.Node, Any]


class Chain:
    """Producer, normalisation, activation, pooling and consumers, in that order.

    Args:
        model: A copy of the model, in eval mode; its modules are called.
        layer: A layer of its graph, with a producer.

    Attributes:
        activation: The activation, which leaves its input as it is, if there is one.
        externals: Calls that are not on the way, but give it batch sizes for instance.
    """

    def __init__(self, model: nn.Module, layer: Layer) -> None:
        assert layer.producer is not None
        self._model, self._layer, self._first = model, layer, layer.producer
        dtype = next(model.parameters()).dtype
        self.activation: nn.Module | None = None
        self._nodes: list[fx.Node] = list(layer.before)
        if layer.activation is not None:
            device = next(model.parameters()).device
            activation = out_of_place(layer.activation).to(device, dtype)
            self.activation = activation.requires_grad_(False)
            self._nodes.append(layer.features)
        self._nodes += layer.between
        inside = {self._first.node, *self._nodes}
        self.externals = tuple(
            dict.fromkeys(
                source
                for node in self._nodes
                for source in node.all_input_nodes
                if source not in inside
            )
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the layers that read the features."""
        return tuple(consumer.path for consumer in self._layer.consumers)

    def inputs(
        self, x: Tensor, values: Mapping[str, Tensor], external: External
    ) -> list[Tensor]:
        """Return what each consumer reads."""
        known: dict[fx.Node, Any] = dict(external)
        known[self._first.node] = self._call(self._first.path, values, x)
        for node in self._nodes:
            known[node] = self._value(node, values, known)
        return [known[c.node.all_input_nodes[0]] for c in self._layer.consumers]

    def outputs(
        self, x: Tensor, values: Mapping[str, Tensor], external: External
    ) -> list[Tensor]:
        """Return what each consumer returns."""
        read = self.inputs(x, values, external)
        pairs = zip(self.paths, read, strict=True)
        return [self._call(path, values, value) for path, value in pairs]

    def reader(self, graph: fx.Graph) -> Callable[..., dict[fx.Node, Any]]:
        """Return a function of the model's arguments that gives what is not on the way."""
        if not self.externals:
            return lambda *_, **__: {}
        short = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        short.graph_copy(graph, copies)
        short.output(tuple(copies[node] for node in self.externals))
        module = fx.GraphModule(self._model, short)
        module.graph.eliminate_dead_code()
        module.recompile()

        def read(*args: Any, **kwargs: Any) -> dict[fx.Node, Any]:  # noqa: ANN401
            with torch.no_grad():
                return dict(zip(self.externals, module(*args, **kwargs), strict=True))

        return read

    def _value(
        self, node: fx.Node, values: Mapping[str, Tensor], known: Mapping[fx.Node, Any]
    ) -> Any:  # noqa: ANN401 - calls return anything
        args, kwargs = fx.node.map_arg(
            (node.args, node.kwargs), lambda source: known[source]
        )
        if node is self._layer.features and self.activation is not None:
            own = _own(str(node.target), values) if node.op == "call_module" else {}
            value = next(iter((*args, *kwargs.values())))
            return functional_call(self.activation, own, (value,))
        if node.op == "call_module":
            return self._call(str(node.target), values, *args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _call(
        self,
        path: str,
        values: Mapping[str, Tensor],
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401 - modules return anything
        module = self._model.get_submodule(path)
        return functional_call(module, _own(path, values), args, kwargs)


def _own(path: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the values of a module by their names inside of it."""
    split = ((name.rpartition("."), value) for name, value in values.items())
    return {last: value for (home, _, last), value in split if home == path}
