r"""A wide layer as an ensemble: disjoint chunks are its members.

Cut a layer into :math:`P` chunks :math:`S_p` that share no neuron and leave none out.
With :math:`z_p = P \, V_{S_p} h_{S_p} + b` the network's own logits are the members'
mean, exactly and whatever the chunks:

.. math::
    \frac{1}{P} \sum_p z_p = V h + b .

So the network is an ensemble of its chunks already, averaged over logits. Where clones
are exact the members agree; how far they disagree on an input is a score of uncertainty
that costs nothing. **That score is experimental**: compare it with the largest softmax
probability on data of your own, by :func:`error_detection`, before using it.

References:
    | Redundant representations help generalization in wide neural networks
    | (Doimo, Glielmo, Goldt & Laio, 2021), https://arxiv.org/abs/2106.03485: chunks
    | Neural Network Ensembles, Cross Validation, and Active Learning
    | (Krogh & Vedelsby, 1994): the error of a mean and its members' ambiguity
    | Bayesian Active Learning for Classification and Preference Learning
    | (Houlsby, Huszár, Ghahramani & Lengyel, 2011), https://arxiv.org/abs/1112.5745:
    | information
    | A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural
    | Networks (Hendrycks & Gimpel, 2016), https://arxiv.org/abs/1610.02136: softmax, AUROC
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from layerpeel._checks import ShapeError, class_indices, one_of, undefined

SCORES: Mapping[str, str] = MappingProxyType(
    {
        "variance": "variance of the members' logits, summed over classes",
        "votes": "share of members that decide otherwise than their mean",
        "information": "entropy of the mean probabilities less the mean entropy",
    }
)
"""How disagreement is scored, by name. Larger is less certain."""

BASELINE = "max_softmax"
"""The score to beat: one less the largest softmax probability of the network."""


@dataclass(frozen=True, eq=False)
class ChunkEnsemble:
    """The logits of disjoint chunks of one layer.

    Attributes:
        members: Logits of each chunk, scaled so that their mean is the network's, with
            shape :math:`(P, n, C)`.
    """

    members: Float64[Tensor, "P n C"]

    @property
    def logits(self) -> Float64[Tensor, "n C"]:
        """The mean of the members, which is the logits of the network."""
        return self.members.mean(0)

    @property
    def ambiguity(self) -> Float64[Tensor, " n"]:
        r"""Mean squared distance of the members' logits from their mean.

        For any target :math:`t` the members' mean squared error is that of the network
        and this: :math:`\frac1P \sum_p \|z_p - t\|^2 = \|z - t\|^2 + \mathrm{ambiguity}`.
        """
        return (self.members - self.logits).square().sum(2).mean(0)

    def disagreement(self, score: str = "information") -> Float64[Tensor, " n"]:
        """Return how far the members disagree on each sample. Experimental.

        Args:
            score: A key of ``SCORES``.

        Raises:
            ValueError: If the score is unknown.
        """
        one_of("score", score, SCORES)
        if score == "variance":
            return self.ambiguity
        if score == "votes":
            agree = self.members.argmax(2) == self.logits.argmax(1)
            return 1 - agree.to(torch.float64).mean(0)
        shares = self.members.softmax(2)
        entropy = torch.special.entr(shares).sum(2).mean(0)
        # Never below zero, but for rounding: entropy is concave.
        gain: Tensor = torch.special.entr(shares.mean(0)).sum(1) - entropy
        return gain.clamp(min=0)


@dataclass(frozen=True)
class ErrorDetection:
    """How well scores tell wrong decisions of the network from right ones.

    Attributes:
        auroc: Area under the receiver operating characteristic of each score, by name:
            the chance that a wrong decision scores higher than a right one.
        wrong: The number of wrong decisions.
        total: The number of decisions.
    """

    auroc: Mapping[str, float]
    wrong: int
    total: int

    @property
    def winner(self) -> str | None:
        """The name of the best score, the baseline where it ties; ``None`` if undefined."""
        defined = {name: area for name, area in self.auroc.items() if area == area}
        if not defined:
            return None
        return max(defined, key=lambda name: (defined[name], name == BASELINE))


def chunk_ensemble(
    features: Tensor, weight: Tensor, bias: Tensor, chunks: Sequence[Tensor]
) -> ChunkEnsemble:
    """Return the logits of disjoint chunks that together are the layer.

    Args:
        features: The layer's output, with shape :math:`(n, W)`.
        weight: The classifier's weights, with shape :math:`(C, W)`.
        bias: Its bias, with shape :math:`(C,)`.
        chunks: Indices of each chunk's neurons, not necessarily of equal number.

    Raises:
        ShapeError: If the shapes disagree.
        ValueError: If a neuron is in no chunk or in several, or there is no chunk.

    Example:
        >>> h = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
        >>> halves = torch.arange(4).split(2)
        >>> parts = chunk_ensemble(h, torch.ones(1, 4), torch.zeros(1), halves)
        >>> parts.members.flatten().tolist(), parts.logits.tolist()
        ([6.0, 14.0], [[10.0]])
    """
    _check_shapes(features, weight, bias)
    _check_partition(chunks, features.shape[1])
    h, v, b = (t.detach().to("cpu", torch.float64) for t in (features, weight, bias))
    parts = [len(chunks) * (h[:, s] @ v[:, s].T) + b for s in map(Tensor.cpu, chunks)]
    return ChunkEnsemble(torch.stack(parts))


def error_detection(ensemble: ChunkEnsemble, labels: Tensor) -> ErrorDetection:
    """Compare disagreement with the baseline as scores of wrong decisions.

    Args:
        ensemble: The members on some data.
        labels: Class indices, with shape :math:`(n,)`.

    Returns:
        The areas, NaN with a warning if all decisions are right or all are wrong.

    Raises:
        ShapeError: If there is not one label per sample.
        LabelError: If a label is no class index.
    """
    logits = ensemble.logits
    labels = class_indices(labels, logits.shape[1]).cpu()
    if len(labels) != len(logits):
        raise ShapeError(
            f"`labels` must have shape ({len(logits)},) to match the ensemble; got "
            f"{tuple(labels.shape)}."
        )
    wrong = logits.argmax(1) != labels
    scores = {BASELINE: 1 - logits.softmax(1).amax(1)}
    scores |= {name: ensemble.disagreement(name) for name in SCORES}
    counts = int(wrong.sum()), len(wrong)
    if counts[0] in (0, len(wrong)):
        nan = undefined(
            "Detection of errors is undefined (NaN): it needs right and wrong decisions; "
            f"{counts[0]} of {counts[1]} are wrong."
        )
        return ErrorDetection(MappingProxyType(dict.fromkeys(scores, nan)), *counts)
    areas = {name: _auroc(score, wrong) for name, score in scores.items()}
    return ErrorDetection(MappingProxyType(areas), *counts)


def _auroc(scores: Float64[Tensor, " n"], positive: Bool[Tensor, " n"]) -> float:
    """Return the chance that a positive scores higher than a negative; ties are half."""
    negatives = scores[~positive].sort().values
    low = torch.searchsorted(negatives, scores[positive])
    high = torch.searchsorted(negatives, scores[positive], right=True)
    return float((low + high).to(torch.float64).mean() / 2 / len(negatives))


def _check_shapes(features: Tensor, weight: Tensor, bias: Tensor) -> None:
    fits = features.ndim == weight.ndim == 2 and features.shape[1] == weight.shape[1]
    if not fits or tuple(bias.shape) != (weight.shape[0],):
        raise ShapeError(
            "`features`, `weight` and `bias` must have shapes (n, W), (C, W) and (C,); "
            f"got {tuple(features.shape)}, {tuple(weight.shape)} and "
            f"{tuple(bias.shape)}."
        )


def _check_partition(chunks: Sequence[Tensor], width: int) -> None:
    neurons = torch.cat([s.flatten().cpu() for s in chunks]) if len(chunks) else None
    if neurons is None or not torch.equal(
        neurons.sort().values, torch.arange(width, dtype=neurons.dtype)
    ):
        got = 0 if neurons is None else len(neurons)
        raise ValueError(
            f"`chunks` must hold each of the {width} neurons exactly once; got "
            f"{len(chunks)} chunks with {got} in all. Cut a permutation into pieces: "
            f"`torch.randperm({width}).split(size)`."
        )
