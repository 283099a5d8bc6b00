"""The caller's loss function, and what it does over the samples of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from layerpeel._checks import LossError
from layerpeel.edits.data import Batch, Data
from layerpeel.edits.graph.editable import check_editable
from layerpeel.landscape.functional import copied_loss
from layerpeel.landscape.reduction import check_loss, reductions
from layerpeel.measurement.sources.forward import evaluating

LossFunction = Callable[[Any, Any], Any]


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss function in float64 that is known to average, or to sum, over samples.

    Attributes:
        function: Takes outputs and targets, returns a scalar.
        reduction: ``"mean"`` or ``"sum"``.
    """

    function: LossFunction
    reduction: str

    def __call__(self, outputs: Any, target: Any) -> Any:  # noqa: ANN401 - the caller's
        """Return the loss of a batch."""
        return self.function(outputs, target)

    @classmethod
    def of(cls, function: LossFunction, model: nn.Module, data: Data) -> Loss:
        """Look at what a loss function does with the halves of a batch.

        Args:
            function: Takes outputs and targets and returns a scalar.
            model: What gives the outputs; it stays as it is.
            data: What it runs on.

        Raises:
            LossError: If it gives no scalar with a gradient, or neither averages nor
                sums over samples and there are several batches.
        """
        if isinstance(function, Loss):
            return function
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        double = copied_loss(function, torch.float64, device)
        with evaluating(model), torch.no_grad():
            batches = list(islice(iter(data), 2))
            found = [_reduced(double, model, batch) for batch in batches]
        common = set.intersection(*found)
        if common == {"other"} and len(batches) == 1:
            # Of a single batch the loss is the risk, whatever it does.
            return cls(double, "mean")
        if not common or common == {"other"}:
            raise LossError(
                "`loss_fn` must average, or sum, over the samples of a batch; this one "
                "does neither. With class weights or `ignore_index`, for instance, "
                "batches do not add up to the loss of the data: pass all as one batch."
            )
        said = str(getattr(function, "reduction", "mean"))
        return cls(double, said if said in common else next(iter(common)))


def known_loss(
    function: LossFunction | None, model: nn.Module, data: Data | None
) -> Loss | None:
    """Return what is known of a caller's loss function; nothing of none.

    Raises:
        EditError: If batch normalisation or dropout is in train mode.
        NonFiniteError: If the model holds NaN or infinity.
        LossError: See :meth:`Loss.of`.
    """
    if function is None or data is None:
        return None
    check_editable(model)
    return Loss.of(function, model, data)


def _reduced(function: LossFunction, model: nn.Module, batch: Batch) -> set[str]:
    outputs: Tensor = batch.run(model).double()
    target = batch.double().target
    check_loss(function, outputs, target)
    return reductions(function, outputs, target)
