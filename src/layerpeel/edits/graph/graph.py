"""A model as a graph of calls: who reads a layer, and what stands between.

All edits share it. It holds a copy of the model that is traced by ``torch.fx``, so that
the caller's stays as it is. What cannot be traced or edited is named, with a way out.

An edited model keeps the names of its modules. Where modules are only exchanged, it keeps
its class and its forward pass. Where calls are inserted or removed, a model that is an
``nn.Sequential`` down to that place remains one; all others become a
``torch.fx.GraphModule``, with the same modules, without those that no pass calls, and a
forward pass written out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from torch import fx, nn

from layerpeel._checks import EditError, listed
from layerpeel.edits.graph.editable import check_editable, check_unhooked, copied
from layerpeel.edits.graph.functions import dropout_module, is_dropout, reads_shape
from layerpeel.edits.graph.layer import Affine, Layer
from layerpeel.edits.graph.places import AFFINE, Places, readers
from layerpeel.edits.graph.sequences import is_sequence, splice
from layerpeel.edits.graph.tracing import Tracer, traced

_ONE_MODE = (
    "The forward pass is another one in train mode; an edited model that is no "
    "nn.Sequential always has that of eval mode. Move what differs into modules of their "
    "own."
)
# Where an edited model keeps what its containers returned.
_INSIDE = "layerpeel_containers"


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
        notes: What a model with other calls would not keep of this one.

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
        self.model = copied(model)
        self._training = {p: m.training for p, m in self.model.named_modules()}
        for module in self.model.modules():
            module.training = False
        self.graph: fx.Graph
        self._dropouts: list[fx.Node] = []
        self.notes: tuple[str, ...] = ()
        self._returned: dict[str, fx.Node] = {}
        self._calls: Counter[str] = Counter()
        if isinstance(self.model, fx.GraphModule):
            self._read(self.model)
        else:
            tracer = Tracer()
            self.graph = traced(tracer, self.model, given)
            self._returned, self._calls = tracer.returned, tracer.calls
            self._compare(given)
        self._modules = dict(self.model.named_modules())
        self._places = Places(
            self.model, self.graph, self._returned, self._calls, argument
        )
        self._check_functions()

    def layer(self, path: str) -> Layer:
        """Return what a path names, after its activation where one follows.

        Batch normalisation, pooling, dropout and views are passed, on the way to the
        activation and to the layers that read it.

        Raises:
            LayerError: If there is no such module, or it is not called exactly once.
        """
        return self._places.layer(path)

    @property
    def affines(self) -> tuple[Affine, ...]:
        """The calls of linear layers and convolutions, in the order of the pass."""
        found = (self._places.affine(node) for node in self.graph.nodes)
        return tuple(affine for affine in found if affine is not None)

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
        found = readers(affine.node)
        if len(found) != 1 or found[0].op != "call_module":
            return None
        return self._modules.get(str(found[0].target))

    def check_own(self, affine: Affine) -> None:
        """Check that a layer is of a plain type, called once, and shares no weights.

        Raises:
            EditError: If it is not.
        """
        if type(affine.module) not in AFFINE:
            raise EditError(
                f"The edited layer must be a plain nn.Linear or nn.Conv2d; "
                f"{affine.path!r} is a {type(affine.module).__name__}. Remove its "
                "parametrisation first, with `torch.nn.utils.parametrize`."
            )
        self.check_single(affine.path)

    def check_single(self, path: str) -> None:
        """Check that a module is called once, without hooks, and its weights are its own.

        Raises:
            EditError: If it is not.
        """
        check_unhooked(self._modules[path], path)
        self._check_unread(path)
        if self._calls[path] != 1:
            raise EditError(
                f"The edited layer must be called once per forward pass; {path!r} is "
                f"called {self._calls[path]} times. Give each call a module of its own."
            )
        self._check_untied(path)

    def replaced(self, modules: Mapping[str, nn.Module]) -> nn.Module:
        """Return the model with other modules at some paths, and the pass as it is."""
        for path, module in modules.items():
            self.model.set_submodule(path, module)
        return self._restored(self.model)

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
        if is_sequence(self.model, [before.path]):
            splice(self.model, before.path, modules)
            self.model.set_submodule(before.path, reader)
            return self._restored(self.model, flag)
        self._insert(before, modules)
        self.model.set_submodule(before.path, reader)
        return self._restored(self._written_out(), flag)

    def removed(
        self, calls: Iterable[fx.Node], reader: Affine, merged: nn.Module
    ) -> nn.Module:
        """Return the model without some calls in a row, and another module after them.

        Args:
            calls: The calls to remove, in order: each alone reads the one before.
            reader: The layer that alone reads the last one.
            merged: What takes the place of that layer.
        """
        chain = list(calls)
        paths = [str(node.target) for node in chain if node.op == "call_module"]
        plain = len(paths) == len(chain)
        if plain and is_sequence(self.model, [reader.path, *paths]):
            for path in paths:
                parent, _, name = path.rpartition(".")
                delattr(self.model.get_submodule(parent), name)
            self.model.set_submodule(reader.path, merged)
            return self._restored(self.model)
        reader.node.replace_input_with(chain[-1], chain[0].all_input_nodes[0])
        for node in reversed(chain):
            self._erase(node)
        self.model.set_submodule(reader.path, merged)
        return self._restored(self._written_out())

    def _erase(self, node: fx.Node) -> None:
        """Erase a call that nothing reads, but for its shape in calls erased before."""
        for user in list(node.users):
            if not reads_shape(user):
                raise EditError(
                    f"Nothing may read what a removed layer returned; {user} reads the "
                    f"shape of {node}. Take shapes from the input, as `x.shape[0]`."
                )
            self._erase(user)
        self.graph.erase_node(node)

    def _insert(self, before: Affine, modules: Mapping[str, nn.Module]) -> None:
        source = last = before.node.all_input_nodes[0]
        with self.graph.inserting_before(before.node):
            for path, module in modules.items():
                parent, _, name = path.rpartition(".")
                self.model.get_submodule(parent).add_module(name, module)
                last = self.graph.call_module(path, (last,))
        before.node.replace_input_with(source, last)

    def _written_out(self) -> fx.GraphModule:
        """Return the model with its calls as they are now."""
        for node in self._dropouts:
            self._as_module(node)
        self.graph.lint()
        edited = fx.GraphModule(self.model, self.graph, type(self.model).__name__)
        alive = set(self.graph.nodes)
        edited.meta[_INSIDE] = {
            path: node.name
            for path, node in self._returned.items()
            if self._calls[path] == 1 and path != node.target and node in alive
        }
        return edited

    def _restored(self, edited: nn.Module, flag: bool = False) -> nn.Module:
        """Return a model with the training flags of the caller's."""
        for path, module in edited.named_modules():
            kept = self._training.get(path)
            if kept is None:
                kept = self._training.get(path.rpartition(".")[0], flag)
            module.training = kept
        return edited

    def _compare(self, given: Collection[str]) -> None:
        """Find what the model does otherwise in train mode."""
        for module in self.model.modules():
            module.training = True
        try:
            other = list(traced(Tracer(), self.model, given).nodes)
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

    def _check_functions(self) -> None:
        for node in self.graph.nodes:
            if is_dropout(node) and node.kwargs.get("training", True) is True:
                raise EditError(
                    "The model must be deterministic; it calls functional dropout with "
                    "`training=True`. Pass `training=self.training`, or use nn.Dropout."
                )

    def _check_unread(self, path: str) -> None:
        """Check that the pass does not read the weights of a module by themselves."""
        nodes = (node for node in self.graph.nodes if node.op == "get_attr")
        read = {str(node.target) for node in nodes}
        mine = sorted(name for name in read if name.rpartition(".")[0] == path)
        if mine:
            raise EditError(
                "The weights of an edited layer may be read by calls of that layer "
                f"alone; the forward pass of the model reads {listed(mine)} itself. Move "
                "penalties and tied products out of the model."
            )

    def _check_untied(self, path: str) -> None:
        mine = {id(p) for p in self.model.get_submodule(path).parameters()}
        tied = [
            name
            for name, p in self.model.named_parameters(remove_duplicate=False)
            if id(p) in mine and name.rpartition(".")[0] != path
        ]
        if tied:
            raise EditError(
                f"The edited layer must have weights of its own; those of {path!r} "
                f"are tied to {listed(tied)}. Untie them, with a copy of the parameter."
            )

    def _as_module(self, node: fx.Node) -> None:
        """Put a module in place of a dropout function that follows the training flag."""
        if node not in set(self.graph.nodes):
            return
        name = f"{node.name}_module"
        kind = dropout_module(node)
        self.model.add_module(name, kind(node.kwargs.get("p", 0.5)))
        with self.graph.inserting_before(node):
            new = self.graph.call_module(name, (node.args[0],))
        node.replace_all_uses_with(new)
        self.graph.erase_node(node)
        for path, returned in self._returned.items():
            self._returned[path] = new if returned is node else returned


def _call(node: fx.Node) -> tuple[str, str]:
    return node.op, str(node.target)
