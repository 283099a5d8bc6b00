"""A first look at model, loss and data: whether they define a risk, and which one."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from layerpeel._checks import (
    BatchError,
    LayerpeelError,
    NondeterminismError,
    NonFiniteError,
)
from layerpeel._tolerances import DETERMINISM_ULPS
from layerpeel.landscape.functional import Functional
from layerpeel.landscape.reduction import (
    check_batches,
    check_loss,
    check_reduction,
    has_own_parameters,
)
from layerpeel.measurement.sources.pairs import Pair

_EVAL_MODE = (
    "The model was in train mode, in which its outputs are others: the point is judged "
    "in eval mode, without dropout and with the running statistics of batch "
    "normalisation. Training minimises another function."
)

_OWN_PARAMETERS = (
    "`loss_fn` depends on parameters of its own, as with weight decay inside of it: they "
    "are constants here, and gradient and Hessian are those of the unregularised risk."
)


_BATCH_STATISTICS = (
    "Batch normalisation without running statistics takes those of the batch in eval "
    "mode, too: the risk is that of these very batches, not a mean over samples."
)


@dataclass(frozen=True, eq=False)
class Probe:
    """Runs a model and a loss on the largest batch.

    Attributes:
        functional: The model and the loss.
        vector: The point.
        batches: The data.
    """

    functional: Functional
    vector: Tensor
    batches: tuple[Pair, ...]

    def check(self, reduction: str) -> None:
        """Check that model and loss define a risk.

        Raises:
            BatchError: If the model does not run on the batch.
            LossError: If the loss is no scalar, or reduces otherwise.
            ValueError: If no gradient reaches the parameters.
            NonFiniteError: If outputs are NaN or infinite.
            NondeterminismError: If they are others the second time.
        """
        outputs, again = self._outputs(), self._outputs()
        loss_fn, targets = self.functional.loss_fn, self._batch.target
        with torch.no_grad():
            check_loss(loss_fn, outputs, targets)
            _check_finite(outputs)
            _check_deterministic(outputs, again)
            self._check_dependence()
            check_reduction(loss_fn, outputs, targets, reduction, len(self.batches))
            if len(self.batches) > 1:
                pairs = [(self._outputs(b), b.target) for b in self.batches]
                check_batches(loss_fn, pairs, reduction)

    def notes(self, training: Sequence[bool]) -> tuple[str, ...]:
        """Return what the caller should know about the risk.

        Args:
            training: Which modules of the caller's model are in train mode.
        """
        found = [_frozen(self.functional)]
        if any(map(_has_batch_statistics, self.functional.model.modules())):
            found.append(_BATCH_STATISTICS)
        outputs = self._outputs()
        if has_own_parameters(self.functional.loss_fn, outputs, self._batch.target):
            found.append(_OWN_PARAMETERS)
        if any(training) and self._trains_otherwise(training, outputs):
            found.append(_EVAL_MODE)
        return tuple(note for note in found if note)

    def _check_dependence(self) -> None:
        """Check that gradients reach the parameters: else all would seem critical."""
        with torch.enable_grad():
            vector = self.vector.detach().requires_grad_()
            outputs = self.functional.outputs(vector, self._batch)
        if not outputs.requires_grad:
            raise ValueError(
                "The outputs of `model` must depend on its trainable parameters through "
                "differentiable operations; no gradient reaches them. Look for `no_grad`, "
                "`detach()` or rounding in its forward pass."
            )

    @property
    def _batch(self) -> Pair:
        return max(self.batches, key=lambda batch: batch.size)

    def _outputs(self, batch: Pair | None = None) -> Tensor:
        try:
            with torch.no_grad():
                return self.functional.outputs(self.vector, batch or self._batch)
        except LayerpeelError:
            raise
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise BatchError(
                f"The model must run on the batches in {self.vector.dtype}; it raised "
                f"{type(error).__name__}: {error}. Let the loader give what the model "
                "takes, and leave conversions to other dtypes out of the model."
            ) from error

    def _trains_otherwise(self, training: Sequence[bool], outputs: Tensor) -> bool:
        # A copy: batch normalisation changes its buffers in train mode.
        copy = deepcopy(self.functional.model)
        for module, flag in zip(copy.modules(), training, strict=True):
            module.training = flag
        probe = replace(self, functional=replace(self.functional, model=copy))
        try:
            return not _same(probe._outputs(), outputs)
        except BatchError:
            # Batch normalisation refuses single samples, for one.
            return True


def _has_batch_statistics(module: nn.Module) -> bool:
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return isinstance(module, norms) and module.running_mean is None


def _frozen(functional: Functional) -> str:
    every = len(list(functional.model.named_parameters()))
    frozen = every - len(functional.parameters.names)
    if not frozen:
        return ""
    return (
        f"{frozen} of {every} parameters are frozen (`requires_grad=False`): they are "
        "constants, and the point is judged among the others alone."
    )


def _check_finite(outputs: Tensor) -> None:
    if not bool(outputs.isfinite().all()):
        raise NonFiniteError(
            "The outputs of the model must be finite; some are NaN or infinite. Look for "
            "such values in the inputs, and for weights that are too large."
        )


def _check_deterministic(outputs: Tensor, again: Tensor) -> None:
    if not _same(outputs, again):
        raise NondeterminismError(
            "The same batch must give the same outputs twice in eval mode; it does not. "
            "Look for a functional dropout with `training=True`."
        )


def _same(outputs: Tensor, again: Tensor) -> bool:
    tolerance = DETERMINISM_ULPS * torch.finfo(outputs.dtype).eps
    return outputs.shape == again.shape and bool(
        ((outputs - again).abs() <= tolerance * outputs.abs().max()).all()
    )
