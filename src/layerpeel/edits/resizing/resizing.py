r"""Exchange the modules around a layer for ones of another width.

A layer has a producer, which returns its neurons or channels; modules that treat each of
them by itself, which are batch normalisations and PReLUs; and consumers, which read them.
With another width, neuron :math:`j` of the new layer is a copy of neuron
``sources[j]`` of the old one, or a null neuron, with zero weights, where that is -1. The
consumers read it with weights that are combinations of the old ones: with a mixing
matrix :math:`M` of shape (old, new) they are :math:`\sum_i M_{ij} a_i`, where
:math:`a_i` are all weights that read neuron :math:`i`. A copy must be read with shares:
outputs stay the same for every input where
:math:`\sum_j M_{ij} [\text{sources}_j = k] = [i = k]`.

How to use it::

    graph = Graph(model, "layer")
    resizing = Resizing(graph, graph.layer(path))  # checks all that must hold
    resizing.width  # of the old layer
    resizing.blocks(consumer)  # its weights by neuron: (out, old, places)
    edited = resizing.model(sources, mixing)  # the new model; once per graph

or, to exchange consumers in another way, ``graph.replaced({**resizing.rows(sources),
consumer.path: resizing.reader(consumer, blocks, bias)})``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, fx, nn

from layerpeel._checks import EditError, listed
from layerpeel.edits.graph import Affine, Graph, Layer
from layerpeel.edits.graph.functions import BATCH_NORMS
from layerpeel.edits.resizing.channels import Channels
from layerpeel.edits.resizing.passed import check_views, check_width_unread
from layerpeel.edits.resizing.rebuilt import rebuilt_affine, rebuilt_norm, rebuilt_prelu


class Resizing:
    """A layer whose width may change, and all modules that then change with it.

    Args:
        graph: The graph of the model, made with ``argument="layer"``.
        layer: A layer of that graph.

    Attributes:
        producer: The linear layer or convolution that returns the neurons.
        consumers: Those that read them.
        width: The number of neurons, or channels.
        channels: Where the values of each neuron are in what the modules hold.

    Raises:
        EditError: If the layer cannot have another width, and why.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> graph = Graph(model, "layer")
        >>> resizing = Resizing(graph, graph.layer("0"))
        >>> kept, mixing = torch.tensor([0, 2]), torch.eye(3).double()
        >>> one_less = resizing.model(kept, mixing[:, kept])
        >>> one_less[0].out_features, one_less[2].in_features
        (2, 2)
    """

    def __init__(self, graph: Graph, layer: Layer) -> None:
        self._graph, self._layer = graph, layer
        self._modules = dict(graph.model.named_modules())
        self.producer: Affine = _producer(layer)
        self.consumers = layer.consumers
        weight = self.producer.module.weight
        _check_filled(self.producer)
        self.channels = Channels(
            len(weight), isinstance(self.producer.module, nn.Linear)
        )
        _check_read(layer)
        for affine in (self.producer, *self.consumers):
            graph.check_own(affine)
            _check_ungrouped(affine)
        self._check_between()
        for consumer in self.consumers:
            check_views(self.producer, layer, consumer, self._modules)
            self._check_columns(consumer)
        check_width_unread(self._nodes(), self.channels.last)

    @property
    def width(self) -> int:
        """The number of neurons, or channels."""
        return self.channels.width

    @property
    def norms(self) -> tuple[str, ...]:
        """The paths of the batch normalisations between producer and consumers."""
        return tuple(
            p for p in self._paths() if isinstance(self._modules[p], BATCH_NORMS)
        )

    @property
    def prelus(self) -> tuple[str, ...]:
        """The paths of the PReLUs that have a slope per neuron."""
        return tuple(
            p for p in self._paths()
            if isinstance(self._modules[p], nn.PReLU)
            and self._modules[p].num_parameters > 1
        )  # fmt: skip

    @property
    def holds_bias(self) -> bool:
        """Whether there is a bias before the activation, for null neurons."""
        return bool(self._bias_home())

    def row_axes(self) -> dict[str, int]:
        """Return the names of all values that there are per neuron, with their axis."""
        paths = (self.producer.path, *self.norms, *self.prelus)
        return {name: 0 for path in paths for name in self._values(path)}

    def column_axes(self) -> dict[str, int]:
        """Return the names of the weights that read neurons, with the axis of those."""
        return {f"{consumer.path}.weight": 1 for consumer in self.consumers}

    def blocks(self, consumer: Affine) -> Float[Tensor, "out old places"]:
        """Return the weights of a consumer, by the neuron that they read."""
        return self.channels.split(consumer.module.weight.detach(), 1).flatten(2)

    def rows(
        self, sources: Int64[Tensor, " new"], null_bias: float | Tensor = 0.0
    ) -> dict[str, nn.Module]:
        """Return producer, batch normalisations and PReLUs for other neurons, by path.

        Args:
            sources: The old neuron that each new one is a copy of; -1 is a null neuron,
                with zero weights.
            null_bias: The pre-activation of null neurons: one for all, or one each, in
                order.

        Raises:
            EditError: If null neurons are to have a bias, and nothing before the
                activation has one.
        """
        home = self._bias_home() if bool((sources < 0).any()) else ""
        self._check_bias(home, null_bias)
        fill = {home: null_bias}
        found: dict[str, nn.Module] = {}
        path, module = self.producer.path, self.producer.module
        weight = self.channels.gathered(module.weight.detach(), 0, sources)
        bias = self._gathered(module.bias, sources, fill.get(path, 0.0))
        found[path] = rebuilt_affine(module, weight, bias)
        for path in self.norms:
            found[path] = self._norm(path, sources, fill.get(path, 0.0))
        for path in self.prelus:
            prelu = self._modules[path]
            slopes = self._gathered(prelu.weight, sources, 0.25)
            found[path] = rebuilt_prelu(prelu, slopes)
        return found

    def columns(
        self,
        mixing: Float64[Tensor, "old new"],
        shifts: Mapping[str, Tensor] | None = None,
    ) -> dict[str, nn.Module]:
        """Return the consumers for other neurons, by path.

        Args:
            mixing: How the weights that read each new neuron are made of the old ones.
            shifts: What to add to the biases of consumers, by their path. Those without
                a bias are given one.
        """
        found: dict[str, nn.Module] = {}
        for consumer in self.consumers:
            module = consumer.module
            weight = self.channels.mixed(module.weight.detach(), 1, mixing)
            bias = _shifted(module, (shifts or {}).get(consumer.path))
            found[consumer.path] = rebuilt_affine(module, weight, bias)
        return found

    def reader(
        self,
        consumer: Affine,
        blocks: Float[Tensor, "out new places"],
        bias: Tensor | None = None,
    ) -> nn.Module:
        """Return a consumer with other weights.

        Args:
            consumer: One of the consumers.
            blocks: Its weights by the neuron that they read, as :meth:`blocks` returns
                them, in any dtype.
            bias: Its bias; the one it has when omitted.
        """
        module = consumer.module
        kernel = module.weight.shape[2:]
        places = self.channels.split(module.weight, 1).shape[2]
        split = blocks.to(module.weight).reshape(*blocks.shape[:2], places, *kernel)
        weight = Channels(blocks.shape[1], self.channels.last).joined(split, 1)
        kept = module.bias if bias is None else bias
        return rebuilt_affine(module, weight, None if kept is None else kept.detach())

    def model(
        self,
        sources: Int64[Tensor, " new"],
        mixing: Float64[Tensor, "old new"],
        *,
        shifts: Mapping[str, Tensor] | None = None,
        null_bias: float | Tensor = 0.0,
    ) -> nn.Module:
        """Return the model with other neurons; see :meth:`rows` and :meth:`columns`."""
        rows = self.rows(sources, null_bias)
        return self._graph.replaced({**rows, **self.columns(mixing, shifts)})

    def _gathered(
        self, values: Tensor | None, sources: Tensor, fill: float | Tensor
    ) -> Tensor | None:
        if values is None:
            return None
        return self.channels.gathered(values.detach(), 0, sources, fill)

    def _norm(self, path: str, sources: Tensor, bias: float | Tensor) -> nn.Module:
        """Return a batch normalisation for other neurons; of null ones an identity."""
        norm = self._modules[path]
        fills = {"weight": 1.0, "running_var": 1.0, "bias": bias}
        return rebuilt_norm(
            norm,
            {
                name: self._gathered(getattr(norm, name), sources, fills.get(name, 0.0))
                for name in ("weight", "bias", "running_mean", "running_var")
            },
        )

    def _bias_home(self) -> str:
        """Return the module whose bias is the pre-activation of a null neuron."""
        # That of the last batch normalisation, so that it holds in train mode as well.
        for path in reversed(self._layer.norms):
            if self._modules[path].bias is not None:
                return path
        return self.producer.path if self.producer.module.bias is not None else ""

    def _check_bias(self, home: str, bias: float | Tensor) -> None:
        if not home and bool((torch.as_tensor(bias) != 0).any()):
            raise EditError(
                "Null neurons with a bias need one in the layer or its batch "
                f"normalisation; {self.producer.path!r} has none. Pass `alpha=0.0`, or "
                "give it a bias of zeros."
            )

    def _paths(self) -> tuple[str, ...]:
        """Return the paths of the modules between producer and consumers."""
        nodes = (*self._layer.before, self._layer.features, *self._layer.between)
        called = [str(node.target) for node in nodes if node.op == "call_module"]
        return tuple(path for path in called if path != self.producer.path)

    def _values(self, path: str) -> list[str]:
        """Return the names of the parameters and buffers of a module that has some."""
        module = self._modules[path]
        named = (*module.named_parameters(), *module.named_buffers())
        return [f"{path}.{name}" for name, value in named if value.ndim]

    def _nodes(self) -> Iterator[fx.Node]:
        yield self.producer.node
        yield from self._layer.before
        yield self._layer.features
        yield from self._layer.between

    def _check_between(self) -> None:
        for path in (*self.norms, *self.prelus):
            self._graph.check_single(path)
            module = self._modules[path]
            size = len(module.weight) if path in self.prelus else module.num_features
            plain = (*BATCH_NORMS, nn.PReLU)
            if type(module) not in plain or size % self.width:
                raise EditError(
                    "Batch normalisations and PReLUs next to a layer of another width "
                    f"must be plain, with one entry per neuron or several; {path!r} is a "
                    f"{type(module).__name__} with {size}, for {self.width} neurons. "
                    "Choose another layer."
                )

    def _check_columns(self, consumer: Affine) -> None:
        ins = consumer.module.weight.shape[1]
        maps = isinstance(consumer.module, nn.Conv2d)
        if ins % self.width or (maps and ins != self.width):
            raise EditError(
                f"What reads a layer of another width must read all of its {self.width} "
                f"neurons, with as many weights for each; {consumer.path!r} has {ins} "
                "inputs. Choose another layer."
            )


def _check_filled(affine: Affine) -> None:
    if not affine.module.weight.numel():
        raise EditError(
            "A layer whose width changes must have neurons, and something to read; "
            f"{affine.path!r} has weights of shape {tuple(affine.module.weight.shape)}. "
            "Build a layer with at least one neuron instead."
        )


def _producer(layer: Layer) -> Affine:
    if layer.producer is None:
        raise EditError(
            "A layer that changes its width must be an nn.Linear or nn.Conv2d; "
            f"{layer.path!r} is none. Name the layer before it."
        )
    return layer.producer


def _check_read(layer: Layer) -> None:
    if layer.others:
        raise EditError(
            f"Only linear layers and convolutions may read a layer that changes its "
            f"width; {layer.path!r} is also read by {listed(layer.others)}. Choose a "
            "layer inside of a block, with nothing but batch normalisation, an "
            "activation, pooling and dropout before the next one."
        )
    if not layer.consumers:
        raise EditError(
            f"A linear layer or convolution must read a layer that changes its width; "
            f"none reads {layer.path!r}. Choose an earlier layer."
        )


def _check_ungrouped(affine: Affine) -> None:
    groups = getattr(affine.module, "groups", 1)
    if groups != 1:
        raise EditError(
            "Convolutions at a layer that changes its width must have one group; "
            f"{affine.path!r} has {groups}. Choose a layer between plain convolutions."
        )


def _shifted(module: nn.Linear | nn.Conv2d, shift: Tensor | None) -> Tensor | None:
    if shift is None:
        return None if module.bias is None else module.bias.detach().clone()
    old = 0.0 if module.bias is None else module.bias.detach().double()
    return (old + shift.to(module.weight.device).double()).to(module.weight.dtype)
