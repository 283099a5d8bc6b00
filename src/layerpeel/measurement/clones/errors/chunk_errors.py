r"""How often a classifier errs that reads only a chunk of its layer.

Three ways to read a chunk :math:`S` of :math:`w` of :math:`W` neurons:

- raw, as in the paper: :math:`V_S h_S + b`, nothing refitted;
- rescaled: :math:`\tfrac{W}{w} V_S h_S + b`, which has the size of the full logits;
- folded: the least-squares reconstruction of the other neurons is put into the weights.

Decisions are those of ``argmax``: of equal logits the first class wins. With a single
logit, the class is its sign, and zero is an error.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from layerpeel._checks import ShapeError, class_indices, one_of
from layerpeel.measurement.clones.chunks import checked_chunk, dyadic_sizes
from layerpeel.measurement.clones.errors.decisions import wrong_decisions
from layerpeel.measurement.clones.errors.doublings import ChunkSums, Doublings
from layerpeel.measurement.clones.errors.running_argmax import RunningArgmax
from layerpeel.measurement.clones.reconstruction.folded import FoldedClassifier
from layerpeel.measurement.clones.reconstruction.reconstruction import Reconstruction
from layerpeel.measurement.statistics.moments import check_rows

__all__ = [
    "READINGS",
    "ChunkClassifiers",
    "DyadicTree",
    "checked_classifier",
    "chunk_errors",
    "dyadic_errors",
    "wrong_decisions",
]

READINGS = ("raw", "rescaled")

# Logits held at a time, of all chunks: about 2 MB, which a core's cache holds, and never
# so few samples that calls cost more than the work.
_BLOCK_ENTRIES = 2**18
_BLOCK_ROWS = 32


@dataclass(frozen=True, eq=False)
class ChunkClassifiers:
    """Classifiers that each read a chunk of one size.

    Attributes:
        chunks: The neurons they read, with shape :math:`(r, w)`.
        weight: With shape :math:`(r, K, w)`.
        bias: With shape :math:`(r, K)`.
        width: The number of neurons :math:`W` of the layer.
    """

    chunks: Int64[Tensor, "r w"]
    weight: Float64[Tensor, "r K w"]
    bias: Float64[Tensor, "r K"]
    width: int

    @classmethod
    def of(
        cls,
        weight: Tensor,
        bias: Tensor | None,
        chunks: Int64[Tensor, "r w"],
        reading: str = "raw",
    ) -> ChunkClassifiers:
        """Restrict a classifier to chunks, with its own weights and the whole bias.

        Args:
            weight: Classifiers on the layer, with shape :math:`(K, W)`.
            bias: Their bias, with shape :math:`(K,)`, or ``None``.
            chunks: Distinct neurons a row, with shape :math:`(r, w)`.
            reading: ``"raw"``, the weights as they are; or ``"rescaled"`` by the share
                of neurons that are left out.

        Raises:
            ShapeError: If there is no matrix of weights, or the bias does not fit.
            ValueError: If ``reading`` is another word, or a chunk is none of the layer.
        """
        v, b = checked_classifier(weight, bias)
        for chunk in chunks:
            checked_chunk(chunk, v.shape[1])
        raw = one_of("reading", reading, READINGS) == "raw"
        scale = 1.0 if raw else v.shape[1] / chunks.shape[1]
        restricted = v[:, chunks].movedim(1, 0) * scale
        return cls(chunks, restricted, b.expand(len(chunks), -1), v.shape[1])

    @classmethod
    def folded(
        cls,
        weight: Tensor,
        bias: Tensor | None,
        reconstructions: Iterable[Reconstruction],
    ) -> ChunkClassifiers:
        """Fold reconstructions from chunks of one size into a classifier.

        Args:
            weight: Classifiers on the layer, with shape :math:`(K, W)`.
            bias: Their bias, with shape :math:`(K,)`, or ``None``.
            reconstructions: Of the layer, at least one.
        """
        found = [item.folded(weight, bias) for item in reconstructions]
        return cls.stacked(found, weight.shape[1])

    @classmethod
    def stacked(
        cls, classifiers: Sequence[FoldedClassifier], width: int
    ) -> ChunkClassifiers:
        """Put classifiers of one size together.

        Args:
            classifiers: At least one.
            width: The number of neurons :math:`W` of the layer.
        """
        return cls(
            torch.stack([item.chunk for item in classifiers]),
            torch.stack([item.weight for item in classifiers]),
            torch.stack([item.bias for item in classifiers]),
            width,
        )

    def wrong(self, features: Tensor, labels: Tensor) -> Int64[Tensor, " r"]:
        """Count the samples that each classifier gets wrong.

        Counts of batches add up.

        Args:
            features: Of the whole layer, with shape :math:`(n, W)`.
            labels: Class indices, with shape :math:`(n,)`.

        Raises:
            ShapeError: If the shapes disagree.
            LabelError: If a label is no class index.
        """
        count, classes, size = self.weight.shape
        wrong = torch.zeros(count, dtype=torch.int64)
        most = count * (classes + size)
        for columns, y in _blocks(features, labels, self.width, classes, most):
            logits = torch.baddbmm(
                self.bias[..., None], self.weight, columns[self.chunks]
            )
            wrong += wrong_decisions(logits, y)
        return wrong


class DyadicTree:
    r"""All disjoint chunks of all sizes :math:`\lfloor W / 2^i \rfloor` of an order.

    The logits of a chunk of twice the size are the sum of those of its halves, so that
    all of them take twice the additions of a single pass of the classifier. Where a size
    is odd its chunks have no halves; they are then computed from the features.

    Args:
        weight: Classifiers on the layer, with shape :math:`(K, W)`; read as they are.
        bias: Their bias, with shape :math:`(K,)`, or ``None``.
        permutation: An order of the :math:`W` neurons.

    Attributes:
        sizes: The sizes of chunks, smallest first.

    Raises:
        ShapeError: If there is no matrix of weights, the bias does not fit, or the order
            does not have all neurons.
        ValueError: If the order repeats a neuron.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, permutation: Int64[Tensor, " W"]
    ) -> None:
        v, self._bias = checked_classifier(weight, bias)
        self._biased = bool(self._bias.any())
        order = checked_chunk(permutation, v.shape[1])
        if len(order) != v.shape[1]:
            raise ShapeError(
                f"`permutation` must order all {v.shape[1]} neurons; got "
                f"{len(order)}. Draw one with `draw_permutation`."
            )
        self._classes, self._width = v.shape
        self.sizes = dyadic_sizes(v.shape[1])
        self._chunks = Doublings(order, self.sizes)
        self._weights = self._chunks.weights(v)

    def wrong(
        self, features: Tensor, labels: Tensor
    ) -> dict[int, Int64[Tensor, " chunks"]]:
        r"""Count the samples that each chunk gets wrong, by size.

        Counts of batches add up.

        Args:
            features: Of the whole layer, with shape :math:`(n, W)`.
            labels: Class indices, with shape :math:`(n,)`.

        Returns:
            For each size :math:`w`, one count for each of the :math:`\lfloor W / w
            \rfloor` chunks of
            :func:`~layerpeel.measurement.clones.disjoint_chunks`.

        Raises:
            ShapeError: If the shapes disagree.
            LabelError: If a label is no class index.
        """
        rows, classes = self._chunks.rows, self._classes
        wrong = torch.zeros(rows, dtype=torch.int64)
        logits, decisions = self._chunks.sums(0), RunningArgmax(rows, 0, classes)
        for columns, y in _blocks(features, labels, self._width, classes, 4 * rows):
            if logits.values.shape[1] != len(y):
                logits = self._chunks.sums(len(y))
                decisions = RunningArgmax(rows, len(y), classes)
            wrong += self._wrong(columns, y, logits, decisions).sum(1)
        return self._chunks.by_size(wrong)

    def _wrong(
        self,
        columns: Float64[Tensor, "W n"],
        labels: Int64[Tensor, " n"],
        logits: ChunkSums,
        decisions: RunningArgmax,
    ) -> Bool[Tensor, "rows n"]:
        """Return which samples each chunk gets wrong, class by class.

        At a time there are the logits of one class and the largest so far, of all
        chunks, which a core's cache holds.
        """
        features = self._chunks.gathered(columns)
        if self._classes == 1:
            self._fill(logits, 0, features)
            return logits.values * (2 * labels - 1) <= 0
        decisions.begin(labels)
        for k in range(self._classes):
            self._fill(logits, k, features)
            decisions.enter(k, logits.values)
        return decisions.wrong()

    def _fill(self, logits: ChunkSums, k: int, features: list[Tensor]) -> None:
        """Write the logits of a class of all chunks."""
        logits.fill([weight[k] for weight in self._weights], features)
        if self._biased:
            logits.values.add_(self._bias[k])


def chunk_errors(
    features: Tensor, labels: Tensor, classifiers: ChunkClassifiers
) -> Float64[Tensor, " r"]:
    """Return the share of samples that each classifier on a chunk gets wrong.

    Args:
        features: Of the whole layer, with shape :math:`(n, W)`.
        labels: Class indices, with shape :math:`(n,)`.
        classifiers: What decides.

    Returns:
        Errors, with shape :math:`(r,)`; NaN without samples.

    Raises:
        ShapeError: If the shapes disagree.
        LabelError: If a label is no class index.

    Example:
        >>> weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> features = torch.tensor([[2.0, 1.0], [1.0, 2.0], [0.0, 3.0], [-1.0, 1.0]])
        >>> both = ChunkClassifiers.of(weight, None, torch.tensor([[0], [1]]))
        >>> chunk_errors(features, torch.tensor([0, 1, 1, 1]), both).tolist()
        [0.5, 0.25]
    """
    return classifiers.wrong(features, labels).double() / len(labels)


def dyadic_errors(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    permutation: Int64[Tensor, " W"],
) -> dict[int, Float64[Tensor, " chunks"]]:
    """Return the raw errors of all disjoint chunks of an order, by dyadic size.

    Args:
        features: Of the whole layer, with shape :math:`(n, W)`.
        labels: Class indices, with shape :math:`(n,)`.
        weight: Classifiers on the layer, with shape :math:`(K, W)`.
        bias: Their bias, with shape :math:`(K,)`, or ``None``.
        permutation: An order of the :math:`W` neurons.

    Raises:
        ShapeError: If the shapes disagree.
        LabelError: If a label is no class index.
        ValueError: If the order repeats a neuron.
    """
    wrong = DyadicTree(weight, bias, permutation).wrong(features, labels)
    return {size: count.double() / len(labels) for size, count in wrong.items()}


def checked_classifier(
    weight: Tensor, bias: Tensor | None
) -> tuple[Float64[Tensor, "K W"], Float64[Tensor, " K"]]:
    """Return a classifier in float64 on the CPU, with a bias of zero if it has none.

    Raises:
        ShapeError: If there is no matrix of weights, or the bias does not fit.
    """
    if weight.ndim != 2:
        raise ShapeError(
            "`weight` must have shape (K, W), one classifier a row; got "
            f"{tuple(weight.shape)}. Pass the weight of the last linear layer."
        )
    v = weight.detach().to("cpu", torch.float64)
    if bias is None:
        return v, v.new_zeros(len(v))
    if bias.shape != (len(v),):
        raise ShapeError(
            f"`bias` must have shape ({len(v)},) to match `weight`; got "
            f"{tuple(bias.shape)}."
        )
    return v, bias.detach().to("cpu", torch.float64)


def _blocks(
    features: Tensor, labels: Tensor, width: int, classes: int, entries: int
) -> Iterator[tuple[Float64[Tensor, "W n"], Int64[Tensor, " n"]]]:
    """Yield neurons of a few samples at a time, which are ordered by their class.

    Args:
        features: With shape :math:`(n, W)`.
        labels: With shape :math:`(n,)`.
        width: The number of neurons that there must be.
        classes: The number of logits.
        entries: Numbers that a sample takes.
    """
    check_rows(features, labels)
    if features.shape[1] != width:
        raise ShapeError(
            f"`features` must have shape (n, {width}), one column per neuron; got "
            f"{tuple(features.shape)}. Pass those of the whole layer."
        )
    order = class_indices(labels, max(classes, 2)).argsort(stable=True)
    rows = max(_BLOCK_ROWS, _BLOCK_ENTRIES // max(1, entries))
    for start in range(0, len(order), rows):
        block = order[start : start + rows]
        columns = features.detach()[block].to("cpu", torch.float64).T.contiguous()
        yield columns, labels[block].long().cpu()
