"""Features that come chunk by chunk, from whatever yields them, as a source of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import BatchError
from layerpeel._progress import track
from layerpeel.measurement.sources.arrays import (
    AnyArray,
    checked_labels,
    linear_rows,
    own_tensor,
)
from layerpeel.measurement.sources.rows import Rows


class ChunkRows:
    """A source of rows: chunks of features and labels, of any size and number.

    Chunks are copied: a generator may fill the same arrays over and over.

    Args:
        chunks: Pairs of features, with shape :math:`(m, d)`, and class indices, with
            shape :math:`(m,)`.
        weight: Classifiers, with shape :math:`(K, d)`.
        bias: Their bias, with shape :math:`(K,)`, or ``None``.
        progress: Whether to show a progress bar; on a terminal when omitted.

    Attributes:
        repeatable: Whether the chunks can be iterated again: a list can, a generator
            cannot.

    Raises:
        BatchError: If ``chunks`` cannot be iterated at all.
    """

    def __init__(
        self,
        chunks: AnyArray,
        weight: Float64[Tensor, "K d"],
        bias: Float64[Tensor, " K"] | None,
        progress: bool | None = None,
    ) -> None:
        if not isinstance(chunks, Iterable):
            raise BatchError(
                "Without `labels`, `features` must be an iterable of (features, labels) "
                f"chunks; got a {type(chunks).__name__}. Pass `labels`, or such chunks."
            )
        self._chunks, self._progress = chunks, progress
        self._weight, self._bias = weight, bias
        self.repeatable = not isinstance(chunks, Iterator)

    def __call__(self) -> Iterator[Rows]:
        """Yield features, labels and logits, chunk by chunk.

        Raises:
            BatchError: If there is no sample, or a chunk is no pair.
            ShapeError: If shapes disagree.
            LabelError: If labels are no class indices in :math:`[0, K)`.
        """
        classes, width = self._weight.shape
        seen = 0
        for chunk in track(self._chunks, "Measuring features", show=self._progress):
            features, labels = _pair(chunk)
            if not len(features):
                continue
            indices = checked_labels(features, own_tensor(labels), width, classes)
            seen += len(indices)
            yield linear_rows(features, indices, self._weight, self._bias)
        if not seen:
            raise BatchError(
                "Chunks of features must hold at least one sample; there was none. A "
                "generator that was iterated before is exhausted: make it anew."
            )


def _pair(chunk: object) -> tuple[Tensor, object]:
    if isinstance(chunk, tuple | list) and len(chunk) == 2:
        features = own_tensor(chunk[0])
        if features.ndim:
            return features, chunk[1]
        raise BatchError(
            "A chunk must hold the features of samples, with shape (m, d); got the "
            f"single value {features.item()!r}. Pass pairs of arrays."
        )
    got = f"a {type(chunk).__name__}"
    if isinstance(chunk, tuple | list):
        got += f" of {len(chunk)} items"
    raise BatchError(
        f"A chunk must be a pair (features, labels); got {got}. For one array of all "
        "features, pass `labels` as well."
    )
