r"""What a prediction and a measurement share: the Gram matrices of a last layer.

Rotating features and classifiers together changes no logit, so a last layer *is* its
Gram matrices: classifiers against classifiers, class means against class means, and
classifiers against class means (the logits of the class means).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from layerpeel._checks import ShapeError
from layerpeel._figures import Diverging, axes, heatmap, style
from layerpeel._json import plain
from layerpeel._tolerances import VANISHED_NORM
from layerpeel.geometry.frames import etf_cosine

# Deviations of a few hundredths are no structure, and should not look like any.
LEAST_REACH = 0.05

# Square matrices of more classes are not written to JSON.
MOST_MATRIX_CLASSES = 100


@dataclass(frozen=True, eq=False)
class Geometry:
    r"""The geometry of :math:`K` classifiers and :math:`K` class-mean features.

    A vanished vector (norm below ``VANISHED_NORM`` of the longest of its kind) has no
    direction: its norm is reported, its cosines are NaN. A class that was never seen
    has NaN throughout its row and column.

    Attributes:
        classifier_gram: :math:`W W^\top`, with shape :math:`(K, K)`.
        feature_gram: :math:`\bar H^\top \bar H` of the class means, the same shape.
        logits: :math:`W \bar H`, with shape :math:`(K, K)`; column :math:`k` holds the
            logits of the mean feature of class :math:`k`, without bias.

    Example:
        >>> from layerpeel import simplex_etf
        >>> frame = simplex_etf(4)
        >>> geometry = Geometry.of(2 * frame, frame)
        >>> geometry.classifier_norms.round(decimals=9).tolist()
        [2.0, 2.0, 2.0, 2.0]
        >>> round(float(geometry.classifier_cosines[0, 1]), 4)
        -0.3333
    """

    classifier_gram: Float64[Tensor, "K K"]
    feature_gram: Float64[Tensor, "K K"]
    logits: Float64[Tensor, "K K"]

    @classmethod
    def of(
        cls, classifiers: Float64[Tensor, "K p"], class_means: Float64[Tensor, "_ _"]
    ) -> Geometry:
        """Compute the geometry of explicit vectors, one class per row.

        Args:
            classifiers: Rows of the last weight matrix, with shape :math:`(K, p)`.
            class_means: Mean feature of each class, with shape :math:`(K, p)`.

        Returns:
            The geometry; nothing is centred here.

        Raises:
            ShapeError: If the shapes differ.
        """
        if classifiers.shape != class_means.shape:
            raise ShapeError(
                "`classifiers` and `class_means` must have the same shape (K, p); got "
                f"{tuple(classifiers.shape)} and {tuple(class_means.shape)}."
            )
        return cls(
            classifiers @ classifiers.T,
            class_means @ class_means.T,
            classifiers @ class_means.T,
        )

    @property
    def num_classes(self) -> int:
        """The number of classes :math:`K`."""
        return len(self.classifier_gram)

    @property
    def classifier_norms(self) -> Float64[Tensor, " K"]:
        """Norms of the classifiers, with shape :math:`(K,)`."""
        return _norms(self.classifier_gram)

    @property
    def feature_norms(self) -> Float64[Tensor, " K"]:
        """Norms of the class means, with shape :math:`(K,)`."""
        return _norms(self.feature_gram)

    @property
    def classifier_cosines(self) -> Float64[Tensor, "K K"]:
        """Cosines between classifiers; NaN where one of them vanished."""
        return _cosines(self.classifier_gram)

    @property
    def feature_cosines(self) -> Float64[Tensor, "K K"]:
        """Cosines between class means; NaN where one of them vanished."""
        return _cosines(self.feature_gram)

    def about(self, weights: Float64[Tensor, " K"]) -> Geometry:
        r"""Return the geometry with class means centred by their weighted mean.

        With weights :math:`\pi` that sum to one and :math:`P = I - 1 \pi^\top`, the Gram
        matrix of the class means becomes :math:`P G P^\top` and the logits
        :math:`Z P^\top`. The classifiers stay as they are.

        Args:
            weights: The weights, with shape :math:`(K,)`, scaled to sum to one: class
                counts give the sample mean, ones the mean of the class means.
        """
        shares = weights / weights.sum()
        centre = torch.eye(self.num_classes, dtype=torch.float64) - shares
        return Geometry(
            self.classifier_gram,
            centre @ self.feature_gram @ centre.T,
            self.logits @ centre.T,
        )

    @style()
    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the cosines between classifiers, coloured about the balanced value.

        Args:
            ax: Where to draw; a figure of its own by default.

        Returns:
            The figure and the axes.
        """
        fig, ax = axes(ax)
        cosines = self.classifier_cosines.numpy()
        itself = np.eye(self.num_classes, dtype=bool)
        balanced = etf_cosine(self.num_classes)
        reach = np.nanmax(abs(cosines - balanced), where=~itself, initial=LEAST_REACH)
        scale = Diverging(balanced, balanced - reach, balanced + reach)
        names = [str(k) for k in range(self.num_classes)]
        heatmap(ax, cosines, names, scale, muted=itself)
        ax.set_title("cosines between classifiers")
        return fig, ax

    def to_dict(self) -> dict[str, Any]:
        """Return norms, cosines and logits, ready for JSON; undefined is ``None``.

        Matrices of more than ``MOST_MATRIX_CLASSES`` classes are left out: written as
        text they would fill hundreds of megabytes.
        """
        content: dict[str, Tensor] = {
            "classifier_norms": self.classifier_norms,
            "feature_norms": self.feature_norms,
        }
        if self.num_classes <= MOST_MATRIX_CLASSES:
            content |= {
                "classifier_cosines": self.classifier_cosines,
                "feature_cosines": self.feature_cosines,
                "logits": self.logits,
            }
        return {name: plain(values) for name, values in content.items()}

    def block_cosine(self, classes: Sequence[int]) -> float:
        """Return the mean cosine between the classifiers of some classes.

        Args:
            classes: At least two class indices.

        Returns:
            The mean over pairs; NaN when a classifier of the block vanished, or for a
            block of fewer than two classes, which has no pair.
        """
        return block_mean(self.classifier_cosines, classes)


def block_mean(matrix: Float64[Tensor, "K K"], classes: Sequence[int]) -> float:
    """Return the mean over pairs of different classes; NaN without a pair."""
    block = matrix[list(classes)][:, list(classes)]
    return float(off_diagonal(block).mean())


def off_diagonal(matrix: Float64[Tensor, "m m"]) -> Float64[Tensor, " entries"]:
    """Return the entries off the diagonal, row by row."""
    return matrix[~torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)]


def _norms(gram: Tensor) -> Tensor:
    return gram.diagonal().clamp(min=0).sqrt()


def _cosines(gram: Tensor) -> Tensor:
    norms = _norms(gram)
    vanished = norms <= VANISHED_NORM * norms.nan_to_num().max()
    scale = norms.masked_fill(vanished, torch.nan)
    # Rounding can push a cosine past one by an ulp; NaN stays NaN under clamp.
    return (gram / torch.outer(scale, scale)).clamp(-1, 1)
