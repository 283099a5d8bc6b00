"""Classifiers and class means of a solution, and the Gram matrices they determine."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel.geometry import Geometry
from layerpeel.program.spectrum import BlockSpectrum


class Factors(ABC):
    r"""Classifiers :math:`W` and class means :math:`\bar H` of a solution.

    They are determined up to a common rotation; the Gram matrices are determined.
    """

    @property
    @abstractmethod
    def geometry(self) -> Geometry:
        """The Gram matrices of classifiers and class means, and the logits."""

    @abstractmethod
    def classifiers(self) -> Float64[Tensor, "K rank"]:
        """Return one classifier per row; columns are as few as the solution needs."""

    @abstractmethod
    def class_means(self) -> Float64[Tensor, "K rank"]:
        """Return one class mean per row, in the basis of :meth:`classifiers`."""


@dataclass(frozen=True, eq=False)
class SpectralFactors(Factors):
    r"""The least-norm factors of :math:`X = Z \operatorname{diag}(\delta) = U S V^\top`.

    .. math::
        W = \sqrt{s} \, U S^{M/(M+1)} , \qquad
        \bar H^\top = \operatorname{diag}(\delta)^{-1} V S^{1/(M+1)} / \sqrt{s}

    Attributes:
        spectrum: The singular value decomposition of :math:`X`.
        feature_weights: :math:`\delta`, with shape :math:`(K,)`.
        balance: :math:`s`.
        depth: :math:`M`.
    """

    spectrum: BlockSpectrum
    feature_weights: Float64[Tensor, " K"]
    balance: float
    depth: int = 1

    @property
    def geometry(self) -> Geometry:
        """The Gram matrices, exact where the spectrum is."""
        share = 1 / (self.depth + 1)
        delta = self.feature_weights
        return Geometry(
            self.spectrum.left_power(2 * self.depth * share) * self.balance,
            self.spectrum.right_power(2 * share)
            / torch.outer(delta, delta)
            / self.balance,
            self.spectrum.matrix / delta,
        )

    def classifiers(self) -> Float64[Tensor, "K rank"]:
        """Return :math:`W`."""
        power = self.depth / (self.depth + 1)
        return self.spectrum.left_factor(power) * math.sqrt(self.balance)

    def class_means(self) -> Float64[Tensor, "K rank"]:
        r"""Return :math:`\bar H^\top`."""
        factor = self.spectrum.right_factor(1 / (self.depth + 1))
        return factor / self.feature_weights[:, None] / math.sqrt(self.balance)


@dataclass(frozen=True, eq=False)
class ExplicitFactors(Factors):
    """Factors given as matrices, with one class per row.

    Attributes:
        rows: The classifiers, with shape :math:`(K, p)`.
        means: The class means, with shape :math:`(K, p)`.
    """

    rows: Float64[Tensor, "K p"]
    means: Float64[Tensor, "K p"]

    @property
    def geometry(self) -> Geometry:
        """The Gram matrices."""
        return Geometry.of(self.rows, self.means)

    def classifiers(self) -> Float64[Tensor, "K p"]:
        """Return the classifiers."""
        return self.rows

    def class_means(self) -> Float64[Tensor, "K p"]:
        """Return the class means."""
        return self.means
