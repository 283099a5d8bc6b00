"""The loader's batches, as edits run models on them: once to look, once to check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from layerpeel._checks import BatchError, NonFiniteError, listed
from layerpeel.measurement.sources.device import model_device
from layerpeel.measurement.sources.forward import evaluating
from layerpeel.measurement.sources.nested import moved, tensors

_LABEL_KEYS = ("labels", "label")
# What models raise on batches that they do not take. A pass that was traced without an
# argument asserts that it stays away.
_REFUSALS = (
    *(AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError),
)


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch: ``loss_fn(model(*args, **kwargs), target)``.

    Attributes:
        args: Positional arguments of the model.
        kwargs: Keyword arguments of the model.
        target: Class indices or values, with one row per sample.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    target: Tensor

    @property
    def size(self) -> int:
        """The number of samples."""
        return len(self.target)

    def double(self) -> Batch:
        """Return the batch with floating numbers in float64."""
        kwargs = {key: _doubled(item) for key, item in self.kwargs.items()}
        return Batch(
            tuple(_doubled(a) for a in self.args), kwargs, _doubled(self.target)
        )

    def run(self, model: nn.Module) -> Tensor:
        """Return the first tensor that the model returns.

        Raises:
            BatchError: If the model does not run on the batch, or returns none.
        """
        try:
            output = model(*self.args, **self.kwargs)
        except _REFUSALS as error:
            raise BatchError(
                "The model must run on the batches as the loader gives them; it raised "
                f"{type(error).__name__}: {error}. Let the loader give what the model "
                "takes: tensors of its dtype, shape and argument names."
            ) from error
        found = next(tensors(getattr(output, "logits", output)), None)
        if found is None:
            raise BatchError(
                f"The model must return a tensor; got a {type(output).__name__}."
            )
        return found


class Data:
    """A loader that is read several times.

    Args:
        loader: Batches ``(input, target)``, where a mapping as input becomes keyword
            arguments; or mappings with ``"labels"`` or ``"label"``.
        model: The batches go where it is.

    Raises:
        BatchError: If a batch has another form, or there is no sample.
    """

    def __init__(self, loader: Iterable[Any], model: nn.Module) -> None:
        if not isinstance(loader, Iterable):
            raise BatchError(
                "`data` must be an iterable of batches `(input, target)`; got a "
                f"{type(loader).__name__}. Pass a DataLoader, or a list with one batch."
            )
        # An iterator has no second pass: what it yields is kept.
        self._loader = list(loader) if isinstance(loader, Iterator) else loader
        self._device = model_device(model) or torch.device("cpu")

    def __iter__(self) -> Iterator[Batch]:
        """Read the batches that hold samples."""
        found = False
        for raw in self._loader:
            batch = self._batch(raw)
            if batch.size:
                found = True
                yield batch
        if not found:
            raise BatchError(
                "`data` must yield at least one sample; it yielded none. A generator "
                "that was iterated before is exhausted: make it anew, or pass a list."
            )

    @property
    def loader(self) -> Iterable[Any]:
        """The loader, or what it yielded if it has no second pass."""
        return self._loader

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the arguments that the first batch gives by name."""
        # Global random states stay as they are in this context: loaders draw from them.
        with evaluating(nn.Identity()):
            return tuple(next(iter(self)).kwargs)

    def _batch(self, raw: object) -> Batch:
        inputs, target = _split(raw)
        target = torch.as_tensor(target).to(self._device)
        if target.ndim == 0:
            raise BatchError(
                "A batch must hold samples with one target each; got a single target. "
                "Wrap the data set in `torch.utils.data.DataLoader(dataset, 64)`."
            )
        inputs = moved(inputs, self._device)
        _check_finite(inputs)
        if isinstance(inputs, Mapping):
            return Batch((), inputs, target)
        return Batch((inputs,), {}, target)


def _check_finite(inputs: object) -> None:
    for tensor in tensors(inputs):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise NonFiniteError(
                "The inputs must be finite; a batch holds NaN or infinity. Clean the "
                "data, or leave those samples out."
            )


def _split(raw: object) -> tuple[Any, Any]:
    if isinstance(raw, tuple | list) and len(raw) == 2:
        return raw[0], raw[1]
    got = f"a {type(raw).__name__}"
    if isinstance(raw, Mapping):
        found = [key for key in _LABEL_KEYS if key in raw]
        if len(found) == 1:
            rest = {key: item for key, item in raw.items() if key not in found}
            return rest, raw[found[0]]
        got += f" with {listed(sorted(map(repr, raw)))}"
    elif isinstance(raw, tuple | list):
        got += f" of {len(raw)} items"
    raise BatchError(
        "A batch must be `(input, target)`, or a mapping with either 'labels' or "
        f"'label'; got {got}. Wrap the loader, for instance in "
        "`[(x, y) for x, y, *_ in loader]`."
    )


def _doubled(value: Any) -> Any:  # noqa: ANN401 - keeps its type
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    return value
