"""Class moments of the features that training itself computes, as they pass the head.

They cost no further pass over the data. They describe no network that ever was: the
features of an epoch's first batch come from other parameters than those of its last,
dropout and augmentation are on, and batch normalisation uses batch statistics. What
moves while an epoch lasts therefore counts as variability within classes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from layerpeel._checks import BatchError, class_indices
from layerpeel.measurement.distributed.reducer import reducer
from layerpeel.measurement.sources.batches import Batch
from layerpeel.measurement.sources.finite import FiniteGuard
from layerpeel.measurement.sources.forward import evaluating
from layerpeel.measurement.sources.head import Head, find_head
from layerpeel.measurement.sources.nested import tensors
from layerpeel.measurement.statistics.accumulator import MomentsAccumulator
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.statistics.statistic import Part

# Forward passes whose labels are awaited; older ones are let go, so that features do
# not pile up in a loop that gives no labels.
_MOST_WAITING = 64
_LABEL_KEYS = ("labels", "label")


class RunningMoments:
    """Accumulates the moments of the inputs of a model's head while it trains.

    Hooks are set on the model and, once the first batch has told which it is, on its
    head. Only calls in training mode count. They are removed by :meth:`close`.

    Args:
        model: The module that the training loop calls.
        head: Path of its head; found on the first batch when omitted.
    """

    def __init__(self, model: nn.Module, head: str | None = None) -> None:
        self._model, self._path = model, head
        self._head: Head | None = None
        self._calls: list[tuple[Tensor, Tensor]] = []
        self._waiting: deque[Tensor] = deque(maxlen=_MOST_WAITING)
        self._searching = False
        self._kept: ClassMoments | None = None
        self._eps = 0.0
        self._handles: list[RemovableHandle] = []
        self.open()

    @property
    def awaits_labels(self) -> bool:
        """Whether a forward pass has no labels yet."""
        return bool(self._waiting)

    @property
    def weight(self) -> Float64[Tensor, "K d"]:
        """The classifiers as they are now.

        Raises:
            BatchError: If no batch has passed yet.
        """
        return self._found().weight

    @property
    def eps(self) -> float:
        """The unit of the dtype of features, the coarsest in any process."""
        return float(max(reducer().gathered(self._eps)))

    def update(self, labels: Tensor) -> None:
        """Say which classes the samples of the forward pass before belong to.

        Of several passes since the last call, the labels are those of all together if
        their number is right, and those of the last one otherwise.

        Args:
            labels: Class indices, with shape :math:`(B,)`.

        Raises:
            BatchError: If no forward pass has that many samples.
            LabelError: If the labels are no class indices.
        """
        labels = class_indices(labels.detach().cpu(), self._num_classes())
        features = self._features_for(len(labels))
        self._waiting.clear()
        self._eps = max(self._eps, torch.finfo(features.dtype).eps)
        bad = self._guard.bad_rows(features, labels)
        self._stream.add(features[~bad], labels[~bad])

    @contextmanager
    def batch(self, labels: Tensor) -> Iterator[None]:
        """Take the labels of the forward pass inside the context."""
        self._waiting.clear()
        yield
        self.update(labels)

    def value(self) -> ClassMoments:
        """Return the moments of what has passed since the last reset, in all processes.

        Raises:
            BatchError: If nothing has.
            NonFiniteError: If features were NaN or infinite; those count for nothing.
        """
        job = reducer()
        with job.errors():
            self._found()
            self._guard.check([str(k) for k in range(self._num_classes())])
        moments = job.merge(self._moments())
        if not moments.num_samples:
            raise BatchError(_NOTHING)
        return moments

    def reset(self) -> None:
        """Begin anew."""
        self._kept = None
        self._waiting.clear()
        self._calls.clear()
        if self._head is not None:
            self._begin(self._head)

    def open(self) -> None:
        """Set the hooks, where they are not set."""
        if not self._handles:
            before = self._model.register_forward_pre_hook(
                self._before, with_kwargs=True
            )
            self._handles.append(before)
            if self._head is not None:
                self._watch(self._head)

    def close(self) -> None:
        """Remove all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._waiting.clear()
        self._calls.clear()

    def state_dict(self) -> dict[str, Part] | None:
        """Return the moments of the epoch so far; ``None`` without any."""
        moments = self._moments()
        if moments is None or not moments.num_samples:
            return None
        return moments.parts()

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.reset()
        if state is not None:
            values = {
                name: torch.as_tensor(value, dtype=torch.float64)
                for name, value in state.items()
            }
            self._kept = ClassMoments.from_parts(values)

    def _before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Find the head on the first batch, and forget calls of a pass that failed."""
        if self._searching or not module.training:
            return
        self._calls.clear()
        if self._head is None:
            self._find(args, kwargs)

    def _find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        count = next((len(t) for t in tensors((args, kwargs)) if t.ndim), 0)
        batch = Batch(args, kwargs, torch.zeros(count, dtype=torch.int64))
        self._searching = True
        try:
            with evaluating(self._model):
                head = find_head(self._model, batch, self._path)
        finally:
            self._searching = False
        self._begin(head)
        self._head = head
        self._watch(head)

    def _watch(self, head: Head) -> None:
        # The head first: where it is the model itself, its call is seen before its end.
        self._handles += [
            head.module.register_forward_hook(self._at_head, with_kwargs=True),
            self._model.register_forward_hook(self._after, with_kwargs=True),
        ]

    def _begin(self, head: Head) -> None:
        classes, width = head.module.weight.shape
        self._stream = MomentsAccumulator(classes, width)
        self._guard = FiniteGuard("features", classes)

    def _at_head(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Tensor,
    ) -> None:
        if self._model.training and not self._searching:
            features = next(tensors((args, kwargs)))
            self._calls.append((features.detach(), output.detach()))

    def _after(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,  # noqa: ANN401 - a model may return anything
    ) -> None:
        if self._searching or not module.training:
            return
        features = nearest(self._calls, output)
        self._calls.clear()
        if features is None:
            return
        self._waiting.append(features)
        given = [kwargs[key] for key in _LABEL_KEYS if key in kwargs]
        # Models of Hugging Face are given the labels, to compute the loss.
        if given and isinstance(given[0], Tensor) and given[0].ndim == 1:
            self.update(given[0])

    def _features_for(self, count: int) -> Tensor:
        waiting = list(self._waiting)
        if sum(map(len, waiting)) != count:
            waiting = waiting[-1:]
        if sum(map(len, waiting)) != count or not waiting:
            passed = ", ".join(str(len(part)) for part in self._waiting) or "none"
            raise BatchError(
                f"`labels` must belong to the forward pass before, one for each sample; "
                f"got {count}, and since the last call passed: {passed}. Call "
                "`update(labels)` once after each `model(...)` in training mode, on the "
                "module that was given to the tracker; labels that the model takes as a "
                "keyword argument are read by themselves."
            )
        return torch.cat(waiting)

    def _moments(self) -> ClassMoments | None:
        if self._head is None:
            return self._kept
        moments = self._stream.value()
        return moments if self._kept is None else self._kept.merge(moments)

    def _num_classes(self) -> int:
        return self._found().module.out_features

    def _found(self) -> Head:
        if self._head is None:
            raise BatchError(_NOTHING)
        return self._head


def nearest(
    calls: list[tuple[Tensor, Tensor]],
    output: Any,  # noqa: ANN401 - a model may return anything
) -> Tensor | None:
    """Return the rows of the head's inputs whose outputs are the model's logits.

    A head may be called several times, or on every token of a sequence; the call, and
    of each sample the row, whose output is nearest to the logits is the one.

    Args:
        calls: Inputs and outputs of each call of the head in a forward pass.
        output: What the model returned.

    Returns:
        Features on the CPU, in memory of their own; ``None`` if no call fits.
    """
    best: tuple[float, Tensor] | None = None
    for inputs, outputs in calls:
        logits = _logits(output, outputs.shape[-1])
        if logits is None or len(outputs) != len(logits):
            continue
        count, classes = logits.shape
        rows = outputs.reshape(count, -1, classes)
        distance, row = (rows - logits[:, None].to(rows)).abs().amax(2).min(1)
        index = torch.arange(count, device=row.device)
        chosen = inputs.reshape(count, -1, inputs.shape[-1])[index, row]
        total = float(distance.nan_to_num().sum())
        # The last of equals, as `find_head` does.
        if best is None or total <= best[0]:
            best = total, chosen.cpu()
    return None if best is None else best[1]


def _logits(output: Any, classes: int) -> Tensor | None:  # noqa: ANN401 - see above
    held = getattr(output, "logits", output)
    return next(
        (t.detach() for t in tensors(held) if t.ndim == 2 and t.shape[1] == classes),
        None,
    )


_NOTHING = (
    "Running statistics need at least one labelled batch; none has passed since the last "
    "reset. Train with the module that was given to the tracker, in training mode, and "
    "call `update(labels)` after each `model(...)`."
)
