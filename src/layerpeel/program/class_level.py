r"""The program at the level of class means: the one form that every variant shares.

.. math::
    \min_{Z, b} \; \sum_k \pi_k \, \ell(Z_{:,k} + b, k)
    + \mathcal{R}(Z \operatorname{diag}(\delta)) + \tfrac{\lambda_b}{2} \|b\|^2

Samples of a class share their feature at an optimum, so only the :math:`K \times K`
matrix of class-mean logits is left; **column** :math:`k` belongs to class :math:`k`.
Solvers see this form only: what a loss, an energy or a decay means for
:math:`\pi, \delta` and :math:`\mathcal{R}` is settled before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel.program.regulariser import Regulariser


@dataclass(frozen=True, eq=False)
class SoftmaxLoss:
    r"""Cross-entropy of the scaled and shifted logits.

    The softmax sees :math:`a_{jk} = \gamma_j (z_{jk} + b_j) / m_k + \iota_j`, and the
    target of class :math:`k` is :math:`(1 - \varepsilon_k) e_k + \varepsilon_k q`.

    Attributes:
        scale: :math:`\gamma`, with shape :math:`(K,)`.
        offset: :math:`\iota`, with shape :math:`(K,)`.
        margin: :math:`m`, with shape :math:`(K,)`.
        smoothing: :math:`\varepsilon`, with shape :math:`(K,)`.
        common: :math:`q`, a distribution over the classes, with shape :math:`(K,)`.
    """

    scale: Float64[Tensor, " K"]
    offset: Float64[Tensor, " K"]
    margin: Float64[Tensor, " K"]
    smoothing: Float64[Tensor, " K"]
    common: Float64[Tensor, " K"]

    @property
    def targets(self) -> Float64[Tensor, "K K"]:
        """The targets, one class per column."""
        own = torch.diag(1 - self.smoothing)
        return own + torch.outer(self.common, self.smoothing)

    def losses(
        self, logits: Float64[Tensor, "K K"], bias: Float64[Tensor, " K"]
    ) -> Float64[Tensor, " K"]:
        """Return the loss of every class, differentiably, with shape (K,)."""
        shifted = self.scale[:, None] * (logits + bias[:, None]) / self.margin
        shifted = shifted + self.offset[:, None]
        inner = (self.targets * shifted).sum(dim=0)
        return torch.logsumexp(shifted, dim=0) - inner


@dataclass(frozen=True, eq=False)
class SquaredLoss:
    r"""Half the squared distance :math:`\frac12 \|z_k + b - e_k\|^2` to one-hot labels."""

    def losses(
        self, logits: Float64[Tensor, "K K"], bias: Float64[Tensor, " K"]
    ) -> Float64[Tensor, " K"]:
        """Return the loss of every class, differentiably, with shape (K,)."""
        residual = logits + bias[:, None] - torch.eye(len(logits), dtype=logits.dtype)
        return residual.square().sum(dim=0) / 2


@dataclass(frozen=True, eq=False)
class ClassLevel:
    r"""The program in the class-mean logits.

    Attributes:
        weights: Loss weights :math:`\pi`, with shape :math:`(K,)`; they sum to one,
            except that class weights with smoothing leave torch's normalisation.
        feature_weights: Column weights :math:`\delta`, with shape :math:`(K,)`: ones
            for budgets and decay per class, :math:`\sqrt{n_k}` for decay per sample.
        loss: The loss of a column.
        regulariser: The norm ball or penalty on :math:`Z \operatorname{diag}(\delta)`.
        ridge: :math:`\lambda_b`; 0 for a free bias, ``None`` for no bias.
        nonnegative: Whether features are nonnegative, entry by entry.
        width: The feature dimension; ``None`` for as many as the solution needs.
    """

    weights: Float64[Tensor, " K"]
    feature_weights: Float64[Tensor, " K"]
    loss: SoftmaxLoss | SquaredLoss
    regulariser: Regulariser
    ridge: float | None = None
    nonnegative: bool = False
    width: int | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes :math:`K`."""
        return len(self.weights)

    def data_term(
        self, logits: Float64[Tensor, "K K"], bias: Float64[Tensor, " K"] | None = None
    ) -> Float64[Tensor, ""]:
        """Return the weighted loss and the ridge penalty of the bias, differentiably."""
        if bias is None:
            bias = torch.zeros_like(self.weights)
        ridge = 0.5 * (self.ridge or 0.0) * bias.square().sum()
        return self.weights @ self.loss.losses(logits, bias) + ridge
