"""A model as a graph of calls: who reads a layer, and what stands between.

All edits share it. It holds a copy of the model that is traced by ``torch.fx``, so that
the caller's stays as it is. What cannot be traced or edited is named, with a way out.

An edited model keeps the names of its modules. A model that is an ``nn.Sequential`` down
to the place of the edit remains one; all others become a ``torch.fx.GraphModule``, with
the same modules, without those that no pass calls, and a forward pass written out.
"""

from __future__ import annotations

import inspect
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from layerpeel._checks import EditError, LayerError, NonFiniteError, listed
from layerpeel.edits._functions import (
    activation_of,
    dropout_module,
    function_name,
    is_dropout,
    is_view,
    reads_shape,
)

INPUT = "input"
_AFFINE = (nn.Linear, nn.Conv2d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_MOST_LISTED = 16
_ONE_MODE = (
    "The forward pass is another one in train mode; an edited model that is no "
    "nn.Sequential always has that of eval mode. Move what differs into modules of their "
    "own."
)
# Where an edited model keeps what its containers returned.
_INSIDE = "layerpeel_containers"


@dataclass(frozen=True, eq=False)
class Affine:
    """A call of a linear layer or a convolution.

    Attributes:
        path: The path of the module.
        module: The module, of the copied model.
        node: Its call.
    """

    path: str
    module: nn.Linear | nn.Conv2d
    node: fx.Node


@dataclass(frozen=True, eq=False)
class Layer:
    """A place in the network, and what is around it.

    Attributes:
        path: The path that named it; ``"input"`` for the input of the network.
        producer: The linear layer or convolution that it names, if it is one.
        norms: The paths of the batch normalisations between that and the features.
        activation: The activation that returns the features, if one does.
        features: The node that returns the features.
        consumers: The linear layers and convolutions that read them.
        others: What else reads them, in words.
    """

    path: str
    producer: Affine | None
    norms: tuple[str, ...]
    activation: nn.Module | None
    features: fx.Node
    consumers: tuple[Affine, ...]
    others: tuple[str, ...]


class _Tracer(fx.Tracer):
    """Remembers what each module returned, also of those that it looks into."""

    def __init__(self) -> None:
        super().__init__()
        self.returned: dict[str, fx.Node] = {}
        self.calls: Counter[str] = Counter()

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - a module returns anything
        path = self.path_of_module(m)
        value = super().call_module(m, forward, args, kwargs)
        self.calls[path] += 1
        if isinstance(value, fx.Proxy):
            self.returned[path] = value.node
        return value


class Graph:
    """The calls of a model.

    It can be edited once: the edited model is made of the modules that it holds.

    Args:
        model: The model; it is copied.
        argument: What the caller calls the path of a layer, for messages.
        given: The names of arguments that the data give; all others that have a default
            stay at it.

    Attributes:
        model: The copy.
        graph: Its calls.
        notes: What an edited model of this graph does not keep.

    Raises:
        EditError: If the model is not deterministic or cannot be traced.
        NonFiniteError: If it holds NaN or infinity.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> layer = Graph(model).layer("0")
        >>> layer.activation, [consumer.path for consumer in layer.consumers]
        (ReLU(), ['2'])
    """

    def __init__(
        self, model: nn.Module, argument: str = "after", given: Collection[str] = ()
    ) -> None:
        check_editable(model)
        self.model = deepcopy(model)
        self._argument = argument
        self._training = {p: m.training for p, m in self.model.named_modules()}
        for module in self.model.modules():
            module.training = False
        self._dropouts: list[fx.Node] = []
        self.notes: tuple[str, ...] = ()
        if isinstance(self.model, fx.GraphModule):
            self._read(self.model)
        else:
            tracer = _Tracer()
            self.graph = _traced(tracer, self.model, given)
            self._returned, self._calls = tracer.returned, tracer.calls
            self._compare(given)
        self._modules = dict(self.model.named_modules())
        self._check_functions()

    def layer(self, path: str) -> Layer:
        """Return what a path names, after its activation where one follows.

        Batch normalisations and views between a layer and its activation are passed.

        Raises:
            LayerError: If there is no such module, or it is not called exactly once.
        """
        node = self._node(path)
        norms: list[str] = []
        features, activation = node, activation_of(node, self._modules)
        if activation is None:
            features, activation = self._followed(node, norms)
        consumers, others = self._read_by(features)
        return Layer(
            path, self._producer(node), tuple(norms), activation, features,
            tuple(consumers), tuple(others),
        )  # fmt: skip

    def name_for(self, after: str, consumer: Affine) -> str:
        """Return an unused path for a module to insert, next to its reader."""
        parent, _, _ = consumer.path.rpartition(".")
        home, _, last = after.rpartition(".")
        base = last if home == parent else after.replace(".", "_")
        start = f"{parent}.{base}_deeper" if parent else f"{base}_deeper"
        name, number = start, 2
        while name in self._modules or f"{name}_act" in self._modules:
            name, number = f"{start}{number}", number + 1
        return name

    def follower(self, affine: Affine) -> nn.Module | None:
        """Return the module that alone reads a layer, if one does."""
        readers = _readers(affine.node)
        if len(readers) != 1 or readers[0].op != "call_module":
            return None
        return self._modules.get(str(readers[0].target))

    def check_own(self, affine: Affine) -> None:
        """Check that a layer is of a plain type, called once, and shares no weights.

        Raises:
            EditError: If it is not.
        """
        if type(affine.module) not in _AFFINE:
            raise EditError(
                f"The edited layer must be a plain nn.Linear or nn.Conv2d; "
                f"{affine.path!r} is a {type(affine.module).__name__}. Remove its "
                "parametrisation first, with `torch.nn.utils.parametrize`."
            )
        if self._calls[affine.path] != 1:
            raise EditError(
                f"The edited layer must be called once per forward pass; {affine.path!r} "
                f"is called {self._calls[affine.path]} times. Give each call a module of "
                "its own."
            )
        self._check_untied(affine)

    def inserted(
        self, before: Affine, modules: Mapping[str, nn.Module], reader: nn.Module
    ) -> nn.Module:
        """Return the model with modules before a layer, and another module as that layer.

        Args:
            before: A layer of this graph.
            modules: The modules to insert, in order, by path.
            reader: What takes the place of the layer.
        """
        # Modules that are inserted follow the flag of the layer that reads them.
        flag = self._training[before.path]
        if self._is_sequential(before.path):
            self._splice(before.path, modules)
            self.model.set_submodule(before.path, reader)
            edited = self.model
        else:
            edited = self._rewired(before, modules, reader)
        for path, module in edited.named_modules():
            module.training = self._training.get(path, flag)
        return edited

    def _compare(self, given: Collection[str]) -> None:
        """Find what the model does otherwise in train mode."""
        for module in self.model.modules():
            module.training = True
        try:
            other = list(_traced(_Tracer(), self.model, given).nodes)
        except EditError:
            other = []
        for module in self.model.modules():
            module.training = False
        mine = list(self.graph.nodes)
        if [_call(node) for node in mine] != [_call(node) for node in other]:
            self.notes = (_ONE_MODE,)
            return
        for node, trained in zip(mine, other, strict=True):
            if node.kwargs != trained.kwargs and is_dropout(node):
                self._dropouts.append(node)
            elif str((node.args, node.kwargs)) != str((trained.args, trained.kwargs)):
                self.notes = (_ONE_MODE,)

    def _read(self, model: fx.GraphModule) -> None:
        """Take the calls of a model that has them written out, by an edit for instance."""
        self.graph = model.graph
        nodes = {node.name: node for node in self.graph.nodes}
        called = [node for node in nodes.values() if node.op == "call_module"]
        self._returned = {str(node.target): node for node in called}
        self._calls = Counter(str(node.target) for node in called)
        # What modules return that an earlier edit has looked into.
        for path, name in model.meta.get(_INSIDE, {}).items():
            if name in nodes and path not in self._returned:
                self._returned[path], self._calls[path] = nodes[name], 1

    def _node(self, path: str) -> fx.Node:
        paths = list(dict(self.model.named_modules(remove_duplicate=False)))
        if path == INPUT and path not in paths:
            nodes: list[fx.Node] = list(self.graph.nodes)
            return next(node for node in nodes if node.op == "placeholder")
        if path not in paths or not path:
            raise LayerError(_unknown(self._argument, path, paths))
        shared = self.model.get_submodule(path)
        path = next(p for p, m in self._modules.items() if m is shared)
        if self._calls[path] != 1 or path not in self._returned:
            raise LayerError(self._not_once(path))
        return self._returned[path]

    def _not_once(self, path: str) -> str:
        kind = type(self._modules[path]).__name__
        start = "A layer must be called once per forward pass and return one tensor; "
        if self._calls[path] == 0 and isinstance(self.model, fx.GraphModule):
            return (
                f"{start}{path!r} is not called itself, as the pass of this model is "
                "written out. Name the last layer inside of it."
            )
        times = {0: "not called", 1: "called once, but returns something else"}
        how = times.get(self._calls[path], f"called {self._calls[path]} times")
        return (
            f"{start}{path!r} ({kind}) is {how}. Give each call a module of its own, or "
            "choose another module."
        )

    def _producer(self, node: fx.Node) -> Affine | None:
        if node.op != "call_module":
            return None
        module = self._modules[str(node.target)]
        if not isinstance(module, _AFFINE):
            return None
        return Affine(str(node.target), module, node)

    def _followed(
        self, node: fx.Node, norms: list[str]
    ) -> tuple[fx.Node, nn.Module | None]:
        """Return the features, past batch normalisation and the activation."""
        last = current = node
        while len(readers := _readers(current)) == 1:
            current = readers[0]
            activation = activation_of(current, self._modules)
            if activation is not None and type(activation) is not nn.Identity:
                return current, activation
            if self._is_norm(current):
                norms.append(str(current.target))
                last = current
            elif not is_view(current, self._modules):
                break
        return last, None

    def _read_by(self, features: fx.Node) -> tuple[list[Affine], list[str]]:
        consumers: list[Affine] = []
        others: list[str] = []
        for reader in _readers(features):
            affine = self._producer(reader)
            if affine is not None:
                consumers.append(affine)
            elif is_view(reader, self._modules):
                more = self._read_by(reader)
                consumers += more[0]
                others += more[1]
            else:
                others.append(self._said(reader))
        return consumers, others

    def _said(self, node: fx.Node) -> str:
        if node.op == "call_module":
            kind = type(self._modules[str(node.target)]).__name__
            return f"{str(node.target)!r} ({kind})"
        return "the output of the model" if node.op == "output" else function_name(node)

    def _is_norm(self, node: fx.Node) -> bool:
        if node.op != "call_module":
            return False
        return isinstance(self._modules[str(node.target)], _BATCH_NORMS)

    def _check_functions(self) -> None:
        for node in self.graph.nodes:
            if is_dropout(node) and node.kwargs.get("training", True) is True:
                raise EditError(
                    "The model must be deterministic; it calls functional dropout with "
                    "`training=True`. Pass `training=self.training`, or use nn.Dropout."
                )

    def _check_untied(self, affine: Affine) -> None:
        mine = {id(p) for p in affine.module.parameters()}
        tied = [
            name
            for name, p in self.model.named_parameters(remove_duplicate=False)
            if id(p) in mine and name.rpartition(".")[0] != affine.path
        ]
        if tied:
            raise EditError(
                f"The edited layer must have weights of its own; those of {affine.path!r} "
                f"are tied to {listed(tied)}. Untie them, with a copy of the parameter."
            )

    def _is_sequential(self, path: str) -> bool:
        parts = path.split(".")[:-1]
        parents = [".".join(parts[:i]) for i in range(len(parts) + 1)]
        return all(
            type(self.model.get_submodule(parent)) is nn.Sequential
            for parent in parents
        )

    def _splice(self, path: str, modules: Mapping[str, nn.Module]) -> None:
        parent, _, last = path.rpartition(".")
        container = self.model.get_submodule(parent)
        children = list(container.named_children())
        for name, _ in children:
            delattr(container, name)
        for name, child in children:
            if name == last:
                for new, module in modules.items():
                    container.add_module(new.rpartition(".")[2], module)
            container.add_module(name, child)

    def _rewired(
        self, before: Affine, modules: Mapping[str, nn.Module], reader: nn.Module
    ) -> nn.Module:
        source = last = before.node.all_input_nodes[0]
        with self.graph.inserting_before(before.node):
            for path, module in modules.items():
                parent, _, name = path.rpartition(".")
                self.model.get_submodule(parent).add_module(name, module)
                last = self.graph.call_module(path, (last,))
        before.node.replace_input_with(source, last)
        self.model.set_submodule(before.path, reader)
        for node in self._dropouts:
            self._as_module(node)
        self.graph.lint()
        edited = fx.GraphModule(self.model, self.graph, type(self.model).__name__)
        edited.meta[_INSIDE] = {
            path: node.name
            for path, node in self._returned.items()
            if self._calls[path] == 1 and path != node.target
        }
        return edited

    def _as_module(self, node: fx.Node) -> None:
        """Put a module in place of a dropout function that follows the training flag."""
        name = f"{node.name}_module"
        kind = dropout_module(node)
        self.model.add_module(name, kind(node.kwargs.get("p", 0.5)))
        with self.graph.inserting_before(node):
            new = self.graph.call_module(name, (node.args[0],))
        node.replace_all_uses_with(new)
        self.graph.erase_node(node)
        for path, returned in self._returned.items():
            self._returned[path] = new if returned is node else returned


def check_editable(model: nn.Module) -> None:
    """Check that a model is deterministic, and its weights finite.

    Raises:
        EditError: If batch normalisation or dropout is in train mode.
        NonFiniteError: If a parameter or buffer holds NaN or infinity.
    """
    random = [p for p, m in model.named_modules() if _is_random(m)]
    if random:
        kinds = {type(model.get_submodule(p)).__name__ for p in random}
        raise EditError(
            "Dropout and batch normalisation must be in eval mode, or the model is no "
            f"fixed function of its input; in train mode are {listed(random)} "
            f"({', '.join(sorted(kinds))}). Call `model.eval()` first."
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise NonFiniteError(
                f"The weights of a model must be finite; {name!r} holds NaN or infinity. "
                "Load a checkpoint from before training diverged."
            )


def _is_random(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return module.training or module.running_mean is None
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.training and module.p > 0
    return isinstance(module, nn.RReLU) and module.training


def _traced(tracer: _Tracer, model: nn.Module, given: Collection[str]) -> fx.Graph:
    # Arguments with defaults stay at them: a proxy is never None, and would mislead.
    defaults = {
        name: parameter.default
        for i, (name, parameter) in enumerate(
            inspect.signature(model.forward).parameters.items()
        )
        if parameter.default is not inspect.Parameter.empty
        and name not in given
        and (i > 0 or given)
    }
    try:
        graph = tracer.trace(model, concrete_args=defaults or None)
    except Exception as error:  # of any kind: tracing runs the model's own code
        raise EditError(_untraceable(model, error)) from error
    for node in graph.nodes:
        name = str(node.target).rpartition("_")[0]
        if node.op == "placeholder" and name in defaults:
            node.target = name
    return graph


def _untraceable(model: nn.Module, error: Exception) -> str:
    inside = (str(Path(torch.__file__).parent), __file__)
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if not f.filename.startswith(inside)]
    where = f" at {mine[-1].line!r}, line {mine[-1].lineno}" if mine else ""
    return (
        f"The forward pass of {type(model).__name__} must be traceable by torch.fx; it "
        f"stops{where}: {type(error).__name__}: {error}. Branches and loops must not "
        "depend on the values of tensors: move such code into a module of its own and "
        "edit what it is called from, or write the branch with `torch.where`."
    )


def _call(node: fx.Node) -> tuple[str, str]:
    return node.op, str(node.target)


def _readers(node: fx.Node) -> list[fx.Node]:
    return [user for user in node.users if not reads_shape(user)]


def _unknown(argument: str, path: str, paths: list[str]) -> str:
    close = get_close_matches(path, paths, n=3)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return (
        f"`{argument}` must be the path of a module, or 'input'; the model has none at "
        f"{path!r}.{hint} Its modules are "
        f"{listed([repr(p) for p in paths if p], _MOST_LISTED)}."
    )
