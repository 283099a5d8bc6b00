"""What is a sample, what a feature and what a position in the output of a module.

The first axis are samples. Convolutions have their features on the second axis, layers
that act on tokens on the last. What lies between, such as a nonlinearity, has its
features where its input has them.
"""

from __future__ import annotations

import math
import weakref

import torch
from torch import Tensor, nn

from layerpeel.measurement.sources.nested import tensors

_LAST = (
    nn.Bilinear,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.LayerNorm,
    nn.Linear,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.Transformer,
    nn.TransformerDecoder,
    nn.TransformerDecoderLayer,
    nn.TransformerEncoder,
    nn.TransformerEncoderLayer,
)
# The base classes of convolutions, batch and instance norms, and pooling.
_SECOND = (
    nn.modules.batchnorm._NormBase,
    nn.modules.conv._ConvNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._MaxPoolNd,
    nn.GroupNorm,
)
_SEQUENCE_CONVOLUTIONS = (nn.Conv1d, nn.ConvTranspose1d)


class Layout:
    """Knows the axis of features of tensors, as modules return them.

    Args:
        model: The model they are from.
    """

    def __init__(self, model: nn.Module) -> None:
        self._sequences_either_way = any(
            isinstance(module, _SEQUENCE_CONVOLUTIONS) for module in model.modules()
        )
        # By identity, with a reference that tells whether the tensor still lives.
        self._known: dict[int, tuple[weakref.ref[Tensor], int]] = {}

    def forget(self) -> None:
        """Forget all tensors: the next ones are of another batch."""
        self._known.clear()

    def note(self, module: nn.Module, inputs: object, output: Tensor) -> int | None:
        """Return the axis of features of an output, and remember it.

        Args:
            module: The module that returned it.
            inputs: The module's arguments.
            output: The output.

        Returns:
            The axis; ``None`` when neither the module nor its input tells, see
            :meth:`assumed`.
        """
        axis = self._axis(module, inputs, output)
        if axis is not None:
            self._known[id(output)] = (weakref.ref(output), axis)
        return axis

    def assumed(self, output: Tensor) -> int | None:
        """Return the usual axis of features: the second of maps, the last of tokens.

        Returns:
            The axis; ``None`` for three axes in a model with 1-d convolutions, where
            both are usual.
        """
        if output.ndim != 3:
            return 1
        return None if self._sequences_either_way else 2

    def _axis(self, module: nn.Module, inputs: object, output: Tensor) -> int | None:
        if output.ndim < 3:
            return 1
        if isinstance(module, _LAST):
            return output.ndim - 1
        if isinstance(module, _SECOND):
            return 1
        for value in (output, *tensors(inputs)):
            alive, axis = self._known.get(id(value), (None, 1))
            if alive is not None and alive() is value and value.shape == output.shape:
                return axis
        return None


def width_of(values: Tensor, axis: int, maps: str) -> int:
    """Return the number of features that :func:`as_features` gives."""
    if values.ndim < 2:
        return 1
    if maps == "flattened":
        return math.prod(values.shape[1:])
    return values.shape[axis]


def as_rows(values: Tensor, axis: int, maps: str) -> Tensor:
    """Return observations of units as rows.

    Args:
        values: A tensor whose first axis are samples.
        axis: Its axis of features.
        maps: ``"pooled"`` when every position is an observation of the units, one per
            feature; ``"flattened"`` when every position has units of its own.

    Returns:
        Observations, with shape (observations, units); a view where possible.
    """
    if values.ndim < 2:
        return values.reshape(-1, 1)
    if maps == "flattened":
        return values.flatten(1)
    return values.movedim(axis, -1).flatten(0, -2)


def as_features(values: Tensor, axis: int, maps: str) -> Tensor:
    """Return one row of features per sample, a tensor of its own.

    Args:
        values: A tensor whose first axis are samples.
        axis: Its axis of features.
        maps: ``"pooled"`` for the mean over the other axes, in float64, and
            ``"flattened"`` for all of them as features.
    """
    if values.ndim < 2:
        return values.reshape(-1, 1).clone()
    if maps == "flattened" or values.ndim == 2:
        return values.flatten(1).clone()
    positions = [i for i in range(1, values.ndim) if i != axis]
    return values.mean(positions, dtype=torch.float64)
