r"""Supervised contrastive learning: the class means that full batches end in.

The loss is convex in the Gram matrix of the features, which may be averaged over all
permutations within classes. Raising the similarity within each class to :math:`\rho^2`
then keeps it positive semidefinite and lowers the loss; so samples of a class share their
feature, for any counts, and only the Gram matrix of the classes is left.

References:
    | Dissecting Supervised Contrastive Learning (Graf et al., 2021),
    | https://arxiv.org/abs/2102.08817: balanced classes
    | Supervised Contrastive Representation Learning: Landscape Analysis with
    | Unconstrained Features (Behnia & Thrampoulidis, 2024),
    | https://arxiv.org/abs/2402.18884: the convex form, and imbalance
    | Symmetric Neural-Collapse Representations with Supervised Contrastive Loss: The
    | Impact of ReLU and Batching (Kini et al., 2023), https://arxiv.org/abs/2306.07960:
    | nonnegative features
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, SupportsFloat

import numpy as np
import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from layerpeel._checks import listed, positive
from layerpeel._figures import style
from layerpeel._json import plain
from layerpeel._tolerances import CERTIFIED_GAP
from layerpeel.geometry import Geometry
from layerpeel.program.counts import CountGroup, checked_counts, count_groups
from layerpeel.program.limits.contrastive_gram import GramProgram
from layerpeel.program.solution import Certificate, Status
from layerpeel.program.spectrum import BlockSpectrum

# The program of G groups has about G^2 / 2 variables and is solved by dense Newton steps.
MOST_DISTINCT_COUNTS = 30


@dataclass(frozen=True, eq=False)
class ContrastiveFrame:
    r"""The class means that minimise a contrastive loss.

    Attributes:
        status: How they were found.
        certificate: The loss above ``constant``, and a lower bound on that. The rest
            can be far below the rounding of the loss itself.
        constant: The part of the loss that no features can change.
        spectrum: The Gram matrix of the class means by its singular values.
    """

    status: Status
    certificate: Certificate
    constant: float
    spectrum: BlockSpectrum = field(repr=False)

    @property
    def loss(self) -> float:
        """The loss attained."""
        return self.constant + self.certificate.objective

    @property
    def feature_gram(self) -> Float64[Tensor, "K K"]:
        """The Gram matrix of the class means, with shape :math:`(K, K)`."""
        return self.spectrum.matrix

    @property
    def geometry(self) -> Geometry:
        """Its geometry with the class means themselves as classifiers."""
        return Geometry(self.feature_gram, self.feature_gram, self.feature_gram)

    @property
    def feature_cosines(self) -> Float64[Tensor, "K K"]:
        """Cosines between class means."""
        return self.geometry.feature_cosines

    def class_means(self) -> Float64[Tensor, "K rank"]:
        """Return one class mean per row, determined up to a rotation.

        For nonnegative features, the rows as they are returned are nonnegative.
        """
        return self.spectrum.left_factor()

    @style()
    def plot(self, ax: Axes | None = None) -> tuple[Figure, Axes]:
        """Draw the cosines between class means.

        Args:
            ax: Where to draw; a figure of its own by default.

        Returns:
            The figure and the axes.
        """
        fig, ax = self.geometry.plot(ax)
        ax.set_title("cosines between class means")
        return fig, ax

    def to_dict(self) -> dict[str, Any]:
        """Return status, loss and cosines, ready for JSON."""
        return {
            "status": self.status.name,
            "loss": self.loss,
            "gap": plain(self.certificate.gap),
            "feature_cosines": plain(self.feature_cosines),
        }


def supervised_contrastive(
    class_counts: Iterable[SupportsFloat],
    *,
    radius: float = 1.0,
    nonnegative: bool = False,
) -> ContrastiveFrame:
    r"""Return the class means that minimise the supervised contrastive loss.

    .. math::
        \sum_i \frac{1}{n_{y_i} - 1} \sum_{p \neq i, \, y_p = y_i} - \log
        \frac{\exp(h_i^\top h_p)}{\sum_{a \neq i} \exp(h_i^\top h_a)} ,
        \qquad \|h_i\| \leq \rho ,

    over all samples at once; a temperature :math:`t` on unit features is the radius
    :math:`\rho = 1 / \sqrt{t}`. Its constant is :math:`\sum_k n_k \log(n_k - 1)`.

    * Balanced: a simplex equiangular tight frame, with the value
      :math:`N \log(n - 1 + n (K - 1) e^{-\rho^2 K / (K - 1)})`. By Jensen's inequality,
      mean similarities bound the loss, and those between classes cannot be below
      :math:`-\rho^2 / (K - 1)` on average.
    * Imbalanced: not a simplex frame. The convex program of the Gram matrix is solved,
      and certified, over one cosine per pair of groups of equal counts. Rare classes
      come closer together at a small radius, and may coincide beside one frequent class;
      as the radius grows, the simplex returns. Cosines are accurate as far as the loss
      depends on them: with counts a million to one, rare ones to a few digits.
    * Nonnegative features, any counts: an orthogonal frame. Similarities between classes
      are at best zero, and all of them can be.

    References:
        | Dissecting Supervised Contrastive Learning (Graf et al., 2021),
        | https://arxiv.org/abs/2102.08817
        | Supervised Contrastive Representation Learning: Landscape Analysis with
        | Unconstrained Features (Behnia & Thrampoulidis, 2024),
        | https://arxiv.org/abs/2402.18884
        | Symmetric Neural-Collapse Representations with Supervised Contrastive Loss: The
        | Impact of ReLU and Batching (Kini et al., 2023),
        | https://arxiv.org/abs/2306.07960

    Args:
        class_counts: Counts above 1, with length :math:`K`: a sample needs another one of
            its class. At most ``MOST_DISTINCT_COUNTS`` distinct ones, unless features are
            nonnegative.
        radius: The norm :math:`\rho` of the features.
        nonnegative: Whether features are nonnegative, entry by entry.

    Returns:
        The class means; :math:`K - 1` dimensions hold them for balanced classes,
        :math:`K` for nonnegative features.

    Raises:
        ValueError: If a count is not above 1, the radius is not finite and above zero, or
            there are too many distinct counts.

    Example:
        >>> frame = supervised_contrastive([8] * 3)
        >>> frame.feature_cosines[0].tolist(), round(frame.loss, 6)
        ([1.0, -0.5, -0.5], 56.592663)
        >>> rare = supervised_contrastive([500] * 5 + [50] * 5, radius=3.0)
        >>> rare.status.name, rare.feature_cosines[8:, 8:].round(decimals=3).tolist()
        ('CERTIFIED', [[1.0, 0.008], [0.008, 1.0]])
    """
    counts = checked_counts(class_counts)
    _refuse_single_samples(counts)
    square = positive("radius", radius) ** 2
    constant = math.fsum(n * math.log(n - 1) for n in counts)
    groups = count_groups(counts)
    if nonnegative:
        excess = _orthogonal_excess(counts, square)
        status, spectrum = Status.CLOSED_FORM, _orthogonal(len(counts), square)
        certificate = Certificate(excess, excess)
    elif len(groups) == 1:
        excess = _balanced_excess(len(counts), groups[0].count, square)
        status, spectrum = Status.CLOSED_FORM, _simplex(len(counts), square)
        certificate = Certificate(excess, excess)
    else:
        certificate, spectrum = _grouped(groups, square)
        status = Status.of_gap(certificate.gap, CERTIFIED_GAP)
    return ContrastiveFrame(status, certificate, constant, spectrum)


def peeled_contrastive(
    num_classes: int, count: float, *, feature_energy: float
) -> ContrastiveFrame:
    r"""Return the class means of the layer-peeled contrastive loss, for balanced classes.

    .. math::
        \frac{1}{N} \sum_i \frac{1}{n} \sum_{p : \, y_p = y_i} - \log
        \frac{\exp(h_i^\top h_p)}{\sum_a \exp(h_i^\top h_a)} , \qquad
        \frac{1}{N} \sum_i \|h_i\|^2 \leq E_H .

    In contrast to :func:`supervised_contrastive`, a sample is one of its own positives,
    the loss is a mean, and only the mean squared norm is bounded. The minimum is
    :math:`\log(n + n (K - 1) e^{-E_H K / (K - 1)})`, at a simplex equiangular tight
    frame, by the same inequality; the constant is :math:`\log n`.

    References:
        | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
        | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699

    Args:
        num_classes: The number of classes :math:`K \geq 2`.
        count: The number of samples :math:`n \geq 1` of each class.
        feature_energy: The mean squared norm :math:`E_H`.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> round(peeled_contrastive(3, 8, feature_energy=1.0).loss, 6)
        2.448423
    """
    counts = checked_counts([count] * num_classes)
    energy = positive("feature_energy", feature_energy)
    if counts[0] < 1:
        raise ValueError(f"`count` must be at least 1; got {count!r}.")
    rest = (num_classes - 1) * math.exp(-energy * num_classes / (num_classes - 1))
    excess = math.log1p(rest)
    return ContrastiveFrame(
        Status.CLOSED_FORM,
        Certificate(excess, excess),
        math.log(count),
        _simplex(num_classes, energy),
    )


def _refuse_single_samples(counts: tuple[float, ...]) -> None:
    single = [f"class {k}: {count:g}" for k, count in enumerate(counts) if count <= 1]
    if single:
        raise ValueError(
            "`class_counts` must be above 1, as a sample is contrasted with another one "
            f"of its class; got {listed(single)}. Leave those classes out."
        )


def _balanced_excess(num_classes: int, count: float, square: float) -> float:
    nearness = math.exp(-square * num_classes / (num_classes - 1))
    odds = count * (num_classes - 1) / (count - 1) * nearness
    return num_classes * count * math.log1p(odds)


def _orthogonal_excess(counts: tuple[float, ...], square: float) -> float:
    total, nearness = math.fsum(counts), math.exp(-square)
    return math.fsum(n * math.log1p((total - n) / (n - 1) * nearness) for n in counts)


def _simplex(num_classes: int, square: float) -> BlockSpectrum:
    """Return the Gram matrix of a simplex frame."""
    value = square * num_classes / (num_classes - 1)
    none = torch.zeros(1, 0, dtype=torch.float64)
    spread = torch.tensor([value], dtype=torch.float64)
    return BlockSpectrum((tuple(range(num_classes)),), spread, none[0], none, none)


def _orthogonal(num_classes: int, square: float) -> BlockSpectrum:
    """Return the Gram matrix of an orthogonal frame, with unit vectors as factors."""
    eye = torch.eye(num_classes, dtype=torch.float64)
    values = torch.full((num_classes,), square, dtype=torch.float64)
    groups = tuple((k,) for k in range(num_classes))
    return BlockSpectrum(groups, torch.zeros_like(values), values, eye, eye)


def _grouped(
    groups: tuple[CountGroup, ...], square: float
) -> tuple[Certificate, BlockSpectrum]:
    """Solve the convex program of several groups."""
    if len(groups) > MOST_DISTINCT_COUNTS:
        raise ValueError(
            f"`class_counts` must have at most {MOST_DISTINCT_COUNTS} distinct values; "
            f"got {len(groups)}. Give classes of similar counts their mean count."
        )
    program = GramProgram(
        np.array([float(len(group.classes)) for group in groups]),
        np.array([group.count for group in groups]),
        square,
    )
    found = program.solve()
    objective = math.exp(found.log_excess)
    certificate = Certificate(objective, objective * (1 - found.gap), found.gap)
    cosines = torch.from_numpy(found.cosines)
    between = program.cone_of(found.cosines)
    values, vectors = torch.linalg.eigh(torch.from_numpy(between) * square)
    spectrum = BlockSpectrum(
        tuple(group.classes for group in groups),
        square * (1 - cosines.diagonal()),
        values.clamp(min=0.0),
        vectors,
        vectors,
    )
    return certificate, spectrum
