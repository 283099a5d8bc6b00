"""Where in a model a layer is: at the input of its head, or at the output of a module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from layerpeel._checks import LayerError, NondeterminismError, listed
from layerpeel.measurement.clones.layer.layer_data import Consumer, Edit
from layerpeel.measurement.layers.layout import Layout, as_features, as_rows
from layerpeel.measurement.sources.batches import Batch
from layerpeel.measurement.sources.determinism import (
    _culprit,
    _same,
    check_deterministic,
)
from layerpeel.measurement.sources.forward import forward
from layerpeel.measurement.sources.head import Head
from layerpeel.measurement.sources.layer_tap import LayerTap
from layerpeel.measurement.sources.nested import tensors
from layerpeel.measurement.sources.reading import Reader


@dataclass(frozen=True, eq=False)
class LayerFacts:
    """What the first batch tells about a layer.

    Attributes:
        width: The number of neurons :math:`W`.
        eps: That of the dtype in which the features were computed.
        consumer: The one linear map that reads the layer, if there is one.
        cause: Why there is none, as a sentence.
        classifies: Whether its outputs are the logits.
        outputs: The number of logits.
    """

    width: int
    eps: float
    consumer: Consumer | None
    cause: str
    classifies: bool
    outputs: int


@runtime_checkable
class Place(Protocol):
    """A place in a model; it is to be in eval mode whenever it is used."""

    def facts(self, batch: Batch) -> LayerFacts:
        """Return what a first batch tells."""

    def check_deterministic(self, batch: Batch) -> None:
        """Run a batch twice, and compare."""

    def rows(self, batch: Batch) -> Tensor:
        """Return the features of a batch on the CPU, one row per sample."""

    def logits(self, batch: Batch, edit: Edit) -> Tensor:
        """Return the logits on edited features, on the CPU."""


@dataclass(frozen=True, eq=False)
class HeadInput:
    """The input of the head.

    Attributes:
        model: The model.
        head: Its head.
    """

    model: nn.Module
    head: Head

    def facts(self, batch: Batch) -> LayerFacts:
        """Return what the head is: the one consumer, whose outputs are the logits."""
        features, logits = self.head.run(self.model, batch)
        weight, bias = self.head.weight, self.head.bias
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        consumer = Consumer(self.head.path, weight, bias)
        eps = float(torch.finfo(features.dtype).eps)
        return LayerFacts(weight.shape[1], eps, consumer, "", True, logits.shape[1])

    def check_deterministic(self, batch: Batch) -> None:
        """Run a batch twice, and compare features and logits.

        Raises:
            NondeterminismError: If they differ.
        """
        check_deterministic(self.model, batch, self.head)

    def rows(self, batch: Batch) -> Tensor:
        """Return the head's inputs.

        Raises:
            HeadError: If the head's output is not the logits on this batch.
        """
        return self.head.run(self.model, batch)[0]

    def logits(self, batch: Batch, edit: Edit) -> Tensor:
        """Return the head's outputs on edited inputs, in float64."""
        rows = edit(self.rows(batch)).to(torch.float64) @ self.head.weight.T
        return rows if self.head.bias is None else rows + self.head.bias


class ModuleOutput:
    """The output of a module, after its activation where one follows.

    Args:
        model: The model.
        path: The module's path.
        maps: A key of ``MAPS``.

    Raises:
        LayerError: If there is no such module.
    """

    def __init__(self, model: nn.Module, path: str, maps: str) -> None:
        self._model, self._path, self._maps = model, path, maps
        self._tap = LayerTap(model, path)
        self._axis, self._width = 1, 0

    def facts(self, batch: Batch) -> LayerFacts:
        """Return who reads the module's output, and where its neurons are.

        Raises:
            LayerError: If the module is not called once, or does not return features.
        """
        layout = _AxisHooks(self._model, self._path)
        try:
            logits = self._run(batch)
        finally:
            layout.remove()
        self._axis = self._checked_axis(layout.axis)
        rows = self._rows_of(self._tap.features, batch)
        self._width = rows.shape[1]
        consumer, cause = self._consumer()
        eps = float(torch.finfo(self._tap.features.dtype).eps)
        classifies = consumer is not None and _gives(self._tap.consumers[0], logits)
        outputs = logits.shape[1]
        return LayerFacts(self._width, eps, consumer, cause, classifies, outputs)

    def check_deterministic(self, batch: Batch) -> None:
        """Run a batch twice, and compare features and logits.

        Raises:
            NondeterminismError: If they differ.
        """
        first, second = ((self._run(batch), self._tap.features) for _ in range(2))
        if not _same(first, second):
            raise NondeterminismError(
                "The same batch must give the same features twice in eval mode; it does "
                f"not. {_culprit(self._model, batch)} Make it deterministic in eval mode,"
                " or pass `check_deterministic=False`."
            )

    def rows(self, batch: Batch) -> Tensor:
        """Return the features, pooled or flattened.

        Raises:
            LayerError: If they are not those of the first batch in kind.
        """
        self._run(batch)
        rows = self._rows_of(self._tap.features, batch)
        if rows.shape[1] != self._width:
            raise LayerError(
                "A layer must give as many features for all batches; "
                f"{self._path!r} gave {self._width}, then {rows.shape[1]}. Pass "
                "`maps='pooled'`, or make the inputs the same size."
            )
        return rows

    def logits(self, batch: Batch, edit: Edit) -> Tensor:
        """Return the network's logits with other features in this place."""
        with self._tap.replacing(lambda features: self._edited(features, edit)):
            logits = forward(self._model, batch)
        return logits.cpu()

    def _run(self, batch: Batch) -> Tensor:
        with self._tap:
            return forward(self._model, batch)

    def _checked_axis(self, axis: int | None) -> int:
        shape = tuple(self._tap.features.shape)
        if axis is not None or self._maps == "flattened":
            return 1 if axis is None else axis
        raise LayerError(
            f"It must be clear what the neurons of a layer are; the output of "
            f"{self._path!r} has shape {shape}, which in a model with 1-d convolutions "
            "may be (samples, features, positions) or (samples, tokens, features). "
            "Choose the convolution, norm or linear layer next to it."
        )

    def _rows_of(self, features: Tensor, batch: Batch) -> Tensor:
        if not features.ndim or len(features) != len(batch.labels):
            raise LayerError(
                "A layer must give features of each sample along its first axis; "
                f"{self._path!r} gave shape {tuple(features.shape)} for "
                f"{len(batch.labels)} samples. Choose another module."
            )
        return as_features(features.cpu(), self._axis, self._maps)

    def _edited(self, features: Tensor, edit: Edit) -> Tensor:
        """Edit the neurons, at each position where they are those of pooled maps."""
        values = features.cpu()
        rows = edit(as_rows(values, self._axis, self._maps))
        if values.ndim < 3 or self._maps == "flattened":
            return rows.reshape(values.shape)
        shape = values.movedim(self._axis, -1).shape
        return rows.reshape(shape).movedim(-1, self._axis)

    def _consumer(self) -> tuple[Consumer | None, str]:
        """Return the linear map that alone reads the layer, or why there is none."""
        cause = self._no_consumer(self._tap.consumers)
        if cause:
            return None, cause
        reader = self._tap.consumers[0]
        if reader.weight is None:
            return None, _not_linear(reader)
        weight = _float64(reader.weight)
        bias = weight.new_zeros(len(weight))
        if reader.bias is not None:
            bias = _float64(reader.bias)
        return Consumer(reader.name, weight, bias), ""

    def _no_consumer(self, readers: tuple[Reader, ...]) -> str:
        if not readers:
            return "nothing reads it: it is what the network returns, or left aside"
        if len(readers) > 1:
            number = "two" if len(readers) == 2 else str(len(readers))
            names = [reader.name for reader in readers]
            last = names.pop()
            return f"{number} consumers read it: {listed(names)} and {last}"
        reader = readers[0]
        if reader.weight is None:
            return _not_linear(reader)
        if reader.whole and reader.weight.shape[1] == self._width:
            return ""
        if self._tap.features.ndim < 3:
            return f"{reader.name} does not read its neurons in their order"
        return (
            f"maps: neurons are {_NEURONS[self._maps]}, and {reader.name} reads "
            "something else of each sample"
        )


_NEURONS = {
    "pooled": "channels, the means over all positions",
    "flattened": "all entries at all positions",
}


class _AxisHooks:
    """Finds out on which axis the output of a module has its features."""

    def __init__(self, model: nn.Module, path: str) -> None:
        self._layout = Layout(model)
        self._module = model.get_submodule(path)
        self.axis: int | None = 1
        self._handles = [
            module.register_forward_hook(self._see, with_kwargs=True)
            for module in model.modules()
        ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _see(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,  # noqa: ANN401 - a module may return anything
    ) -> None:
        output = next(tensors(result), None)
        if output is None:
            return
        axis = self._layout.note(module, (*args, *kwargs.values()), output)
        if module is self._module:
            self.axis = self._layout.assumed(output) if axis is None else axis


def _not_linear(reader: Reader) -> str:
    where = "" if reader.name == reader.function else f" in {reader.name!r}"
    return f"a consumer that is no linear layer: {reader.function}{where} reads it"


def _gives(reader: Reader, logits: Tensor) -> bool:
    """Whether what a linear function returned are the logits, perhaps cast."""
    output = reader.output
    if output is None or output.shape != logits.shape:
        return False
    # NaN is reported where it matters.
    return torch.equal(output.to(logits).nan_to_num(), logits.nan_to_num())


def _float64(values: Tensor) -> Tensor:
    # First to the CPU: some accelerators have no float64.
    return values.detach().cpu().to(torch.float64, copy=True)
