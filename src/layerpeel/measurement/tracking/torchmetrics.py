"""Neural collapse as a torchmetrics metric; imported by those who use it.

The state is one tensor, since what two processes have seen is merged by a formula that
needs their counts, means and scatters together (Chan, Golub & LeVeque, 1979):
torchmetrics gathers each state and reduces it by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import reduce
from typing import Any, ClassVar

import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from layerpeel._checks import MergeError, ShapeError, at_least
from layerpeel._figures import axes, colour, style
from layerpeel.measurement.sources.finite import FiniteGuard
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.tracking.history import History
from layerpeel.measurement.tracking.scalars import moment_scalars

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError(
        "The metric needs torchmetrics, which is not installed. Run "
        "`pip install 'layerpeel[torchmetrics]'`, or use `layerpeel.Tracker`."
    ) from error


class NeuralCollapse(Metric):
    r"""Neural collapse of features, as a ``torchmetrics.Metric``.

    It is updated with the inputs of the head, and computes a dictionary of scalars: NC1
    in three forms and NC2 of the class means; with classifiers also their NC2, and NC3.
    Names and conventions are those of ``layerpeel.Tracker``.

    Statistics are float64 whatever the features are: ``half()``, ``to(torch.float16)``
    and ``set_dtype`` leave them so, and move them at most. Processes are merged exactly,
    whatever shares of the data, possibly none, they have seen.

    Args:
        num_classes: The number of classes :math:`K`.
        num_features: The number of features :math:`d`.
        weight: Classifiers, with shape :math:`(K, d)`, or the ``nn.Linear`` that is the
            head, whose weight is then read at each ``compute``. It stays the model's:
            it is no part of the metric's parameters, and clones share it.
        metrics: Which scalars to compute; all that can be told when omitted.
        kwargs: Further arguments of ``torchmetrics.Metric``.

    References:
        | Updating Formulae and a Pairwise Algorithm for Computing Sample Variances
        | (Chan, Golub & LeVeque, 1979)

    Raises:
        ShapeError: If ``weight`` has another shape.
        ValueError: If there are fewer than two classes, no feature, or a metric is
            unknown or needs ``weight``.

    Example:
        >>> metric = NeuralCollapse(2, 2, metrics=["nc1_quotient", "cdnv"])
        >>> features = torch.tensor([[2.0, 0.0], [4.0, 0.0], [0.0, 3.0], [0.0, 3.0]])
        >>> metric.update(features, torch.tensor([0, 0, 1, 1]))
        >>> {name: round(float(value), 4) for name, value in metric.compute().items()}
        {'nc1_quotient': 0.1111, 'cdnv': 0.0278}
    """

    is_differentiable: ClassVar[bool] = False  # type: ignore[misc]
    higher_is_better: ClassVar[bool] = False  # type: ignore[misc]
    # `forward` may compute on the batch and then merge: that is what moments are for.
    full_state_update: ClassVar[bool] = False  # type: ignore[misc]

    moments: Tensor

    def __init__(
        self,
        num_classes: int,
        num_features: int,
        weight: Tensor | nn.Linear | None = None,
        *,
        metrics: Sequence[str] | None = None,
        **kwargs: Any,  # noqa: ANN401 - passed on
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = at_least("num_classes", num_classes, 2)
        self.num_features = at_least("num_features", num_features, 1)
        # In a tuple a module is no submodule: its parameters are the model's.
        self._source = (weight,)
        self._metrics = None if metrics is None else tuple(metrics)
        empty = ClassMoments.empty(num_classes, num_features)
        moment_scalars_known(self._metrics, self._weight() is not None)
        self.add_state("moments", packed(empty), dist_reduce_fx=merged)

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            features: Inputs of the head, with shape :math:`(B, d)`.
            labels: Class indices, with shape :math:`(B,)`.

        Raises:
            ShapeError: If the shapes are others.
            LabelError: If labels are no class indices in :math:`[0, K)`.
            NonFiniteError: If features are NaN or infinite; nothing is added then.
        """
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise ShapeError(
                f"`features` must have shape (B, {self.num_features}); got "
                f"{tuple(features.shape)}. Pass the inputs of the head."
            )
        labels = labels.to(features.device)
        batch = ClassMoments.of(features, labels, self.num_classes)
        guard = FiniteGuard("features", self.num_classes)
        guard.bad_rows(features, labels.long())
        guard.check([str(k) for k in range(self.num_classes)])
        batch = batch.to(self.moments.device)
        self.moments = packed(unpacked(self.moments).merge(batch))

    def compute(self) -> dict[str, Tensor]:
        """Return the scalars of all that was seen, of all processes.

        Returns:
            Scalars in float64 by name; NaN with a warning where undefined.
        """
        moments = unpacked(self.moments.cpu())
        scalars = moment_scalars(moments, self._weight(), self._metrics)
        device = self.moments.device
        return {
            name: torch.tensor(value, dtype=torch.float64, device=device)
            for name, value in scalars.items()
        }

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Merge what another metric has seen.

        Args:
            incoming_state: The other metric, or its ``metric_state``.

        Raises:
            MergeError: If it has other numbers of classes or features.
        """
        other = incoming_state
        state: Any = other.metric_state if isinstance(other, NeuralCollapse) else other
        if isinstance(state, Mapping) and isinstance(state.get("moments"), Tensor):
            theirs, mine = state["moments"].shape, self.moments.shape
            if theirs != mine:
                raise MergeError(
                    "Two metrics merge when they have the same classes and features; got "
                    f"(K, d) = {_sizes(mine)} and {_sizes(theirs)}."
                )
        super().merge_state(incoming_state)
        self._computed = None

    def clone(self) -> NeuralCollapse:
        """Return a copy that reads the same head."""
        return deepcopy(self, {id(part): part for part in self._source})

    def set_dtype(self, dst_type: str | torch.dtype) -> NeuralCollapse:
        """Return the metric as it is: its statistics are float64."""
        return self

    @style()
    def plot(
        self,
        val: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]] | None = None,
        ax: Axes | None = None,
    ) -> tuple[Figure, Axes]:
        """Draw the scalars: a mark for each or, of several computations, lines.

        Args:
            val: What ``compute`` or ``forward`` returned, once or in a list; computed
                when omitted.
            ax: Where to draw; a figure of its own by default.

        Returns:
            The figure and the axes.
        """
        values = self.compute() if val is None else val
        if isinstance(values, Mapping):
            return _marks({name: float(value) for name, value in values.items()}, ax)
        history = History()
        for step, scalars in enumerate(values):
            history.append(step, {name: float(v) for name, v in scalars.items()})
        return history.plot(ax)

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ""
    ) -> nn.Module:
        """Move the state where ``fn`` moves tensors, and keep its float64."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(fn(torch.empty(0, device=tensor.device)).device)

        return super()._apply(move, exclude_state)

    def _weight(self) -> Float64[Tensor, "K d"] | None:
        (source,) = self._source
        if source is None:
            return None
        weight = source.weight if isinstance(source, nn.Linear) else source
        expected = (self.num_classes, self.num_features)
        if tuple(weight.shape) != expected:
            raise ShapeError(
                f"`weight` must have shape (K, d) = {expected}; got "
                f"{tuple(weight.shape)}."
            )
        return weight.detach().cpu().to(torch.float64, copy=True)


def moment_scalars_known(names: Sequence[str] | None, has_weight: bool) -> None:
    """Check names of metrics, on two classes made for the purpose.

    Raises:
        ValueError: If one is unknown, or needs the classifiers and there are none.
    """
    eye = torch.eye(2, dtype=torch.float64)
    moments = ClassMoments.of(eye, torch.arange(2), 2)
    moment_scalars(moments, eye if has_weight else None, names)


def packed(moments: ClassMoments) -> Float64[Tensor, "K_plus_d d_plus_2"]:
    """Return moments as one matrix: means, counts and traces above the scatter."""
    assert moments.scatter is not None  # this module makes no light moments
    above = torch.cat([moments.mean, moments.count[:, None], moments.trace[:, None]], 1)
    below = torch.nn.functional.pad(moments.scatter, (0, 2))
    return torch.cat([above, below])


def unpacked(matrix: Float64[Tensor, "K_plus_d d_plus_2"]) -> ClassMoments:
    """Return the moments that :func:`packed` has packed."""
    classes, width = _sizes(matrix.shape)
    above, below = matrix[:classes], matrix[classes:]
    return ClassMoments(
        above[:, width], above[:, :width], below[:, :width], above[:, width + 1]
    )


def merged(stack: Tensor) -> Tensor:
    """Merge the packed moments of several processes.

    Args:
        stack: With shape :math:`(P, K + d, d + 2)`.
    """
    return packed(reduce(ClassMoments.merge, map(unpacked, stack)))


def _sizes(shape: Sequence[int]) -> tuple[int, int]:
    """Return the numbers of classes and of features."""
    width = shape[1] - 2
    return shape[0] - width, width


def _marks(values: Mapping[str, float], ax: Axes | None) -> tuple[Figure, Axes]:
    """Draw one mark for each value, the first on top."""
    fig, ax = axes(ax, height=60 + 20.0 * len(values))
    places = range(len(values))
    ax.plot(
        list(values.values()),
        list(places),
        "o",
        color=colour("measured"),
        clip_on=False,
    )
    ax.set_yticks(list(places), list(values))
    ax.set(ylim=(len(values) - 0.5, -0.5), xlabel="value")
    known = [value for value in values.values() if value == value]
    if known and min(known) > 0 and max(known) > 10 * min(known):
        ax.set_xscale("log")
    return fig, ax
