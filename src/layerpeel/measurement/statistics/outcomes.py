"""What the logits of a sample say: its decision, its loss and its margin."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from layerpeel.measurement.statistics.margins import logit_margins

# Logits held in float64 at a time: 8 MB, which thousands of classes soon reach.
_LOGITS = 2**20


class Outcomes(NamedTuple):
    """The outcome of each of some samples.

    Attributes:
        predictions: Index of the largest logit, with shape :math:`(n,)`.
        losses: Cross-entropy of the logits, with shape :math:`(n,)`.
        margins: Margin of the logits, with shape :math:`(n,)`.
    """

    predictions: Int64[Tensor, " n"]
    losses: Float64[Tensor, " n"]
    margins: Float64[Tensor, " n"]


def outcomes(logits: Tensor, labels: Int64[Tensor, " n"]) -> Outcomes:
    """Return the outcome of each sample, computed in float64.

    Args:
        logits: Logits of any floating type, with shape :math:`(n, K)`.
        labels: Valid class indices, with shape :math:`(n,)`.

    Raises:
        ShapeError: If there are fewer than two logits, or not one label a sample.
    """
    rows = max(1, _LOGITS // max(1, logits.shape[1]))
    parts = [
        _outcomes(z.detach().to(torch.float64), y)
        for z, y in zip(
            torch.split(logits, rows), torch.split(labels, rows), strict=True
        )
    ]
    return Outcomes(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _outcomes(logits: Tensor, labels: Tensor) -> Outcomes:
    losses = cross_entropy(logits, labels, reduction="none")
    return Outcomes(logits.argmax(1), losses, logit_margins(logits, labels))
