"""Neural collapse during training, from a plain loop: one object, hooks only."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from layerpeel._checks import (
    NonFiniteError,
    StateError,
    at_least,
    one_of,
)
from layerpeel._warnings import warn
from layerpeel.measurement.distributed.reducer import reducer
from layerpeel.measurement.layers.choice import Layers
from layerpeel.measurement.measure import measure
from layerpeel.measurement.measurement import Measurement
from layerpeel.measurement.sources.device import model_device
from layerpeel.measurement.tracking.clones import PREFIX, Clones
from layerpeel.measurement.tracking.followed_clones import FollowedClones
from layerpeel.measurement.tracking.history import History
from layerpeel.measurement.tracking.loggers import as_logger
from layerpeel.measurement.tracking.running import RunningMoments
from layerpeel.measurement.tracking.scalars import (
    OfMeasurement,
    layer_scalars,
    measured_functions,
    moment_scalars,
    running_names,
    saying_once,
)
from layerpeel.measurement.tracking.subset import FixedData

MODES = ("evaluate", "running")
_VERSION = 1
# What wrappers put before the names of parameters.
_WRAPPERS = ("_orig_mod.", "module.")


class Tracker:
    r"""Records measures of neural collapse while a network trains.

    Two modes:

    ``"evaluate"``
        ``layerpeel.measure`` on the same samples each time, in eval mode: the
        network as it is at that step. It costs a forward pass over these samples.
    ``"running"``
        The class moments of the features that training computes anyway, from hooks. It
        costs no forward pass, but mixes features of different parameters: over an epoch
        in which the network moves, NC1 comes out too large, and dropout, augmentation
        and batch statistics are in it. NC4, loss and accuracy are not told. Statistics
        begin anew after each measurement.

    The model is given back as it was after each measurement, and training goes on as it
    would have: no random state of it is touched. Inside a distributed job every process
    must call :meth:`step` at the same steps; each measures its share of the data, all
    record the same, and the first one alone writes to loggers.

    When features are NaN or infinite, training has diverged: NaN is recorded with a
    warning, and training is not interrupted. At the first measurement it is an error.

    Args:
        model: The classifier, as for ``layerpeel.measure``. For running statistics,
            the module that the training loop calls.
        loader: Batches to measure, as for ``layerpeel.measure``; the training data
            without augmentation. It is not read for running statistics.
        metrics: Names of ``MEASURED_SCALARS``, or functions of a
            :class:`~layerpeel.Measurement` by name, for other conventions
            or measures; a selection when omitted. Names of ``MOMENT_SCALARS`` for
            running statistics.
        every: Record every so many epochs, counted from 0.
        subset: How many samples to measure, drawn once, each class in proportion where
            labels are known without loading samples; all when omitted.
        seed: Seed of that draw.
        eval_loader: Held-out data, for accuracies only.
        mode: ``"evaluate"`` or ``"running"``.
        loggers: Where scalars go as well: paths ending in ``.csv`` or ``.jsonl``,
            TensorBoard writers, functions ``(scalars, step)``, or whatever
            :class:`~layerpeel.measurement.tracking.Logger` describes.
        head: Path of the head in the model; found by what it computes when omitted.
        num_classes: Number of classes; the head's outputs when omitted.
        layers: Layers to record too, as ``layerpeel.measure`` takes them: the NC1
            quotient, CDNV and numerical rank of each, named ``"path/metric"``.
        options: Further keyword arguments of ``layerpeel.measure``.
        clones: Chunks of the layer before the head to follow too: a list of numbers of
            neurons, ``"dyadic"`` for powers of two as shares of the width, or
            :class:`~layerpeel.measurement.tracking.Clones`. Chunks are drawn once from
            ``seed``. Recorded are, for each width :math:`w`, means over chunks named
            ``"clones/w/r_squared"``, ``"clones/w/residual_correlation"``,
            ``"clones/w/raw_error"`` and ``"clones/w/folded_error"``, and their standard
            deviations, ``"clones/w/r_squared_spread"`` and so on; and the network's own
            error, ``"clones/full_error"``. Running statistics tell no errors.

    Attributes:
        history: What was recorded.

    Raises:
        BatchError: If the loader can be iterated once only.
        ValueError: If an argument is out of range, or does not fit the mode.
        TypeError: If a logger is none.

    Example:
        >>> import torch
        >>> model = nn.Linear(2, 2)
        >>> inputs = torch.tensor([[2.0, 0.0], [4.0, 0.0], [0.0, 3.0]])
        >>> batches = [(inputs, torch.tensor([0, 0, 1]))]
        >>> tracker = Tracker(model, batches, metrics=["nc1_quotient", "cdnv"])
        >>> for epoch in range(2):
        ...     scalars = tracker.step(epoch)  # after the epoch's training
        >>> {name: round(value, 4) for name, value in scalars.items()}
        {'nc1_quotient': 0.1333, 'cdnv': 0.0278}
        >>> tracker.history["cdnv"].steps.tolist()
        [0, 1]
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Any] | None = None,
        *,
        metrics: Sequence[str] | Mapping[str, OfMeasurement] | None = None,
        every: int = 1,
        subset: int | None = None,
        seed: int = 0,
        eval_loader: Iterable[Any] | None = None,
        mode: str = "evaluate",
        loggers: Iterable[Any] | Any = (),  # noqa: ANN401 - one logger or several
        head: str | None = None,
        num_classes: int | None = None,
        layers: Layers | None = None,
        options: Mapping[str, Any] | None = None,
        clones: Clones | str | Sequence[int] | None = None,
    ) -> None:
        self.model, self.mode = model, one_of("mode", mode, MODES)
        self.every = at_least("every", every, 1)
        self.history = History()
        self._loggers = [as_logger(target) for target in _several(loggers)]
        self._head, self._num_classes = head, num_classes
        self._options = dict(options or {})
        self._layers = layers
        if layers is not None:
            self._options["layers"] = layers
        self._told: set[str] = set()
        self._draw = (subset, seed)
        self._clones = self._followed(clones, seed)
        self._running: RunningMoments | None = None
        self._data: FixedData | None = None
        self._functions: Mapping[str, OfMeasurement] = {}
        if mode == "running":
            self._prepare_running(metrics, subset, eval_loader)
        else:
            self._prepare_data(loader, metrics, eval_loader)

    def _followed(
        self, clones: Clones | str | Sequence[int] | None, seed: int
    ) -> FollowedClones | None:
        if clones is None:
            return None
        if self._options.get("light"):
            raise ValueError(
                "Clones need the covariance of features, which light mode leaves out. "
                "Leave `light` out of `options`, or leave `clones` out."
            )
        return FollowedClones(Clones.of(clones), seed)

    def _prepare_running(
        self, metrics: object, subset: int | None, eval_loader: object
    ) -> None:
        given = {
            "`subset`": subset is not None,
            "`eval_loader`": eval_loader is not None,
            "`layers`": self._layers is not None,
            "`options`": bool(self._options),
            "functions as `metrics`": isinstance(metrics, Mapping),
        }
        for name, is_given in given.items():
            if is_given:
                raise ValueError(
                    f"Running statistics see what training sees, and take no {name}. "
                    "Leave it out, or use `mode='evaluate'`."
                )
        self._names = running_names(metrics)  # type: ignore[arg-type]
        self._running = RunningMoments(self.model, self._head)

    def _prepare_data(
        self,
        loader: Iterable[Any] | None,
        metrics: Sequence[str] | Mapping[str, OfMeasurement] | None,
        eval_loader: Iterable[Any] | None,
    ) -> None:
        if loader is None:
            raise ValueError("`loader` must be given: `mode='evaluate'` measures it.")
        self._functions = measured_functions(metrics, evaluated=eval_loader is not None)
        self._names = tuple(self._functions)
        self._data = FixedData(loader, *self._draw)
        self._eval = None if eval_loader is None else FixedData(eval_loader, None, 0)

    # In the loop

    def step(self, epoch: int, step: int | None = None) -> dict[str, float] | None:
        """Record the metrics if the epoch is one of every ``every``.

        Args:
            epoch: The epoch that has ended, from 0.
            step: What to record it under, such as the number of updates so far; the
                epoch when omitted.

        Returns:
            The scalars; ``None`` in the epochs between.

        Raises:
            ValueError: If the step is not larger than the last one.
        """
        if epoch % self.every:
            return None
        return self.measure(epoch if step is None else step, epoch)

    def measure(self, step: int, epoch: float | None = None) -> dict[str, float]:
        """Record the metrics now.

        Args:
            step: What to record them under, larger than the last one.
            epoch: The epoch, possibly a fraction, if any.

        Returns:
            The scalars by name; NaN with a warning where undefined.

        Raises:
            ValueError: If the step is not larger than the last one.
            LayerpeelError: As ``layerpeel.measure`` does.
        """
        self.history.checked(step)
        scalars = self._scalars()
        self.history.append(step, scalars, epoch)
        if reducer().rank == 0:
            for logger in self._loggers:
                logger.write(scalars, step, epoch)
        return scalars

    def update(self, labels: Tensor) -> None:
        """Give the labels of the forward pass before, for running statistics.

        A model that takes ``labels`` as a keyword argument needs no such call.

        Args:
            labels: Class indices, with shape :math:`(B,)`.

        Raises:
            ValueError: If statistics do not run.
            BatchError: If no forward pass has that many samples.
            LabelError: If they are no class indices.
        """
        self._hooked().update(labels)

    def batch(self, labels: Tensor) -> AbstractContextManager[None]:
        """Give the labels of the forward pass inside a ``with`` block.

        Args:
            labels: Class indices, with shape :math:`(B,)`.

        Raises:
            ValueError: If statistics do not run.
        """
        return self._hooked().batch(labels)

    @property
    def awaits_labels(self) -> bool:
        """Whether running statistics have seen a forward pass without labels yet."""
        return self._running is not None and self._running.awaits_labels

    def open(self) -> None:
        """Set the hooks again after :meth:`close`; a new tracker has them set."""
        if self._running is not None:
            self._running.open()

    def close(self) -> None:
        """Remove all hooks; what was recorded stays."""
        if self._running is not None:
            self._running.close()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return the state, of tensors and plain values, for :func:`torch.save`.

        It holds the history, and what tells whether it belongs to a tracker: the names
        and shapes of the model's parameters, the mode, the metrics, the layers, the
        subset, and what chunks are drawn from.
        """
        return {
            "version": _VERSION,
            **self._identity(),
            "history": self.history.state_dict(),
            "running": None if self._running is None else self._running.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the history of a state.

        Args:
            state: What :meth:`state_dict` returned; also after a trip through JSON.

        Raises:
            StateError: If it is that of another model, mode, selection of metrics,
                layers or clones, or subset; nothing has changed then.
        """
        if state.get("version") != _VERSION:
            raise StateError(
                f"A tracker's state must have version {_VERSION}; got "
                f"{state.get('version')!r}. Pass what `Tracker.state_dict()` returned."
            )
        for name, mine in self._identity().items():
            theirs = state.get(name)
            theirs = theirs.tolist() if isinstance(theirs, Tensor) else theirs
            mine = mine.tolist() if isinstance(mine, Tensor) else mine
            if mine != theirs:
                raise StateError(_another(name, mine, theirs))
        self.history.load_state_dict(state["history"])
        if self._running is not None:
            self._running.load_state_dict(state["running"])

    def _identity(self) -> dict[str, Any]:
        indices = None if self._data is None else self._data.indices
        return {
            "mode": self.mode,
            "metrics": list(self._names),
            "model": _layout(self.model),
            "subset": None if self._draw[0] is None else list(self._draw),
            "layers": _layer_names(self._layers),
            "clones": None if self._clones is None else self._clones.identity(),
            "indices": indices,
        }

    # Values

    def _scalars(self) -> dict[str, float]:
        try:
            if self._running is not None:
                return self._running_scalars(self._running)
            measurement = saying_once(self._measured, self._told)
            return saying_once(lambda: self._values(measurement), self._told)
        except NonFiniteError as error:
            if not len(self.history):
                raise
            warn(f"Metrics are undefined (NaN): {error}")
            clones = [name for name in self.history.metrics if name.startswith(PREFIX)]
            followed = [] if self._clones is None else clones
            return dict.fromkeys([*self._names, *followed], math.nan)

    def _running_scalars(self, running: RunningMoments) -> dict[str, float]:
        try:
            moments, weight, eps = running.value(), running.weight, running.eps
        finally:
            running.reset()

        def values() -> dict[str, float]:
            found = moment_scalars(moments, weight, self._names)
            if self._clones is not None:
                found |= self._clones.moment_values(moments, eps)
            return found

        return saying_once(values, self._told)

    def _values(self, measurement: Measurement) -> dict[str, float]:
        values = {
            name: float(function(measurement))
            for name, function in self._functions.items()
        }
        if measurement.profile is not None:
            values |= layer_scalars(measurement.profile)
        if self._clones is not None:
            values |= self._clones.values(measurement, self._options)
        return values

    def _measured(self) -> Measurement:
        assert self._data is not None  # the mode is "evaluate"
        arguments: dict[str, Any] = {
            "head": self._head,
            "num_classes": self._num_classes,
            "eval_loader": None if self._eval is None else self._eval.batches,
            "device": model_device(self.model),
            # A model that is deterministic once stays so.
            "check_deterministic": not len(self.history),
            "progress": False,
        }
        arguments |= self._options
        batches = self._data.batches
        found = (
            measure(self.model, batches, **arguments)
            if self._clones is None
            else self._clones.measured(self.model, batches, arguments)
        )
        self._head = found.head
        return found

    def _hooked(self) -> RunningMoments:
        if self._running is None:
            raise ValueError(
                "Labels are for running statistics; this tracker evaluates. Pass "
                "`mode='running'`, or leave the call out."
            )
        return self._running


def _several(loggers: Any) -> Iterable[Any]:  # noqa: ANN401 - one logger or several
    return loggers if isinstance(loggers, tuple | list) else (loggers,)


def _layout(model: nn.Module) -> str:
    """Return a digest of the names and shapes of a model's parameters."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        for wrapper in _WRAPPERS:
            name = name.removeprefix(wrapper)
        digest.update(f"{name} {tuple(parameter.shape)}\n".encode())
    return digest.hexdigest()


def _layer_names(layers: Any) -> str | list[str] | None:  # noqa: ANN401 - as `measure`
    """Return a choice of layers as text: paths, and the names of types."""
    if layers is None or isinstance(layers, str):
        return layers
    chosen = layers if isinstance(layers, Sequence) else [layers]
    return [one if isinstance(one, str) else one.__qualname__ for one in chosen]


def _another(name: str, mine: object, theirs: object) -> str:
    if name in ("model", "indices"):
        what = {
            "model": "parameters of other names or shapes",
            "indices": "other samples, drawn from other data or in another order",
        }[name]
        return f"A tracker's state must belong to it; this one is about {what}."
    return (
        f"A tracker's state must belong to it; its `{name}` is {theirs!r}, and this "
        f"tracker's is {mine!r}. Make the tracker as it was."
    )
