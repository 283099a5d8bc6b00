"""A classifier on a chunk of its layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class FoldedClassifier:
    r"""A classifier on a chunk, with the reconstruction of the other neurons in it.

    .. math::
        V_S + V_C A_C^\top, \qquad b + V_C (m_C - A_C^\top m_S)

    for the neurons :math:`C` outside the chunk. Its logits are those of the full
    classifier on the reconstructed layer; neurons of the chunk enter as they are.

    Attributes:
        chunk: The neurons it reads, with shape :math:`(w,)`.
        weight: With shape :math:`(K, w)`.
        bias: With shape :math:`(K,)`.
    """

    chunk: Int64[Tensor, " w"]
    weight: Float64[Tensor, "K w"]
    bias: Float64[Tensor, " K"]

    def logits(self, features: Tensor) -> Float64[Tensor, "n K"]:
        """Return the logits of samples from all neurons, with shape :math:`(n, W)`."""
        rows = features[:, self.chunk].to(torch.float64)
        return rows @ self.weight.T + self.bias
