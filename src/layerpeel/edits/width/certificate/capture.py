r"""What a layer reads, and what the risk would gain from what its readers return."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from layerpeel._tolerances import OUTPUT_ULPS
from layerpeel.edits.data import Batch, Data
from layerpeel.edits.graph import Graph, Layer
from layerpeel.edits.loss import LossFunction
from layerpeel.edits.passes import hooked, is_sum, weighted_loss
from layerpeel.edits.width.certificate.chain import Chain
from layerpeel.edits.width.certificate.layout import Layout, check_layer
from layerpeel.measurement.sources.forward import evaluating

# What rounding of the outputs is like.
_ROUNDED = 1 + OUTPUT_ULPS * 2.0**-52


@dataclass(frozen=True, eq=False)
class Held:
    r"""One batch, as it is at the layer.

    Attributes:
        x: What the producer reads.
        errors: :math:`e_c`, the gradient of the risk on all data with respect to what
            each consumer returns.
        doubts: How far rounding of the outputs may move each error; looked at in
            float64 only.
        external: Other values that calls on the way take.
    """

    x: Tensor
    errors: tuple[Tensor, ...]
    doubts: tuple[Tensor, ...]
    external: dict[fx.Node, Any]


@dataclass(frozen=True, eq=False)
class Capture:
    """A layer with its data, in one dtype.

    Attributes:
        chain: The way through the layer.
        layout: The parameters of its neurons.
        values: Parameters and buffers of the copy of the model, by name.
        batches: The data.
    """

    chain: Chain
    layout: Layout
    values: dict[str, Tensor]
    batches: tuple[Held, ...]

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor]:
        r"""All :math:`\theta_s` and all :math:`a_s`, one per row."""
        return self.layout.rows(self.values)


class Site:
    """Where neurons are looked at: a layer of a model, with data and a loss.

    Args:
        graph_or_model: The graph that the layer is of, or a model with its modules.
        layer: The layer.
        data: The data.
        loss_fn: Takes outputs and targets and returns the mean, or sum, over the batch.

    Raises:
        EditError: If the layer's neurons cannot be split.
    """

    def __init__(
        self,
        graph_or_model: Graph | nn.Module,
        layer: Layer,
        data: Data,
        loss_fn: LossFunction,
    ) -> None:
        check_layer(graph_or_model, layer)
        if isinstance(graph_or_model, Graph):
            graph_or_model = graph_or_model.model
        self.model: nn.Module = graph_or_model
        self.layer, self._data, self._loss_fn = layer, data, loss_fn
        self.layout = Layout.of(self.model, layer)

    @cached_property
    def quick(self) -> Capture:
        """The layer in the model's own dtype, or in float32 if that is shorter."""
        dtype = next(self.model.parameters()).dtype
        dtype = torch.promote_types(dtype, torch.float32)
        return self.exact if dtype == torch.float64 else self._captured(dtype)

    @cached_property
    def exact(self) -> Capture:
        """The layer in float64."""
        return self._captured(torch.float64)

    @property
    def doubts(self) -> tuple[tuple[Tensor, ...], ...]:
        """How far rounding of the outputs may move each error, per batch."""
        return tuple(batch.doubts for batch in self.exact.batches)

    def _captured(self, dtype: torch.dtype) -> Capture:
        # What does not train needs no graph: the passes before the consumers are cheap.
        copy = deepcopy(self.model).to(dtype).requires_grad_(False)
        chain = Chain(copy, self.layer)
        external = chain.reader(self.layer.features.graph)
        found: list[Held] = []
        total = 0.0
        with evaluating(copy):
            for batch in _cast(self._data, dtype):
                x, errors, weight = self._held(copy, chain, batch, 1.0)
                doubts: tuple[Tensor, ...] = ()
                if dtype == torch.float64:
                    # At once: in another pass, loaders that shuffle give other batches.
                    _, moved, _ = self._held(copy, chain, batch, _ROUNDED)
                    pairs = zip(errors, moved, strict=True)
                    doubts = tuple((a - b).abs() for a, b in pairs)
                given = external(*batch.args, **batch.kwargs)
                found.append(Held(x, errors, doubts, given))
                total += weight
        divisor = 1.0 if is_sum(self._loss_fn) else total
        for held in found:
            for error in (*held.errors, *held.doubts):
                error.div_(divisor)
        values = {**dict(copy.named_parameters()), **dict(copy.named_buffers())}
        return Capture(chain, self.layout, values, tuple(found))

    def _held(
        self, copy: nn.Module, chain: Chain, batch: Batch, factor: float
    ) -> tuple[Tensor, tuple[Tensor, ...], float]:
        """Return what the producer reads, weighted errors, and the weight of a batch."""
        seen: dict[str, Tensor] = {}

        def reads(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            # A copy: what follows may work in place.
            seen[""] = args[0].detach().clone()

        def returns(
            path: str, _: nn.Module, args: tuple[Any, ...], output: Tensor
        ) -> Tensor:
            seen[path] = torch.zeros_like(output, requires_grad=True)
            return output.detach() + seen[path]

        assert self.layer.producer is not None
        with ExitStack() as stack, torch.enable_grad():
            first = copy.get_submodule(self.layer.producer.path)
            stack.enter_context(hooked(first, reads))
            for path in chain.paths:
                module = copy.get_submodule(path)
                stack.enter_context(hooked(module, partial(returns, path)))
            loss, weight = weighted_loss(copy, self._scaled(factor), batch)
            if is_sum(self._loss_fn):
                weight = 1.0
            zeros = [seen[path] for path in chain.paths]
            found = torch.autograd.grad(loss, zeros, materialize_grads=True)
        return seen[""], tuple(weight * error.detach() for error in found), weight

    def _scaled(self, factor: float) -> Callable[[Any, Any], Any]:
        if factor == 1.0:
            return self._loss_fn
        return lambda outputs, target: self._loss_fn(outputs * factor, target)


class _Cast(Batch):
    """A batch that is in the dtype to compute in."""

    def double(self) -> Batch:
        """Return the batch itself."""
        return self


def _cast(data: Data, dtype: torch.dtype) -> Iterator[Batch]:
    for batch in data:
        if dtype == torch.float64:
            yield batch.double()
            continue
        kwargs = {key: _to(value, dtype) for key, value in batch.kwargs.items()}
        args = tuple(_to(value, dtype) for value in batch.args)
        yield _Cast(args, kwargs, _to(batch.target, dtype))


def _to(value: Any, dtype: torch.dtype) -> Any:  # noqa: ANN401 - keeps its type
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    return value
