r"""Simplex-encoded labels: cross-entropy as its regularisation vanishes.

With ever weaker decay, or ever larger energies, the logits of class means grow along the
least matrix that separates every class from every other one,

.. math::
    \min_Z \; \|Z \operatorname{diag}(\delta)\|_* \quad \text{s.t.} \quad
    \gamma_k z_{kk} - \gamma_j z_{jk} \geq m_k \quad (j \neq k) ,

with scales :math:`\gamma` and margins :math:`m` (ones for the plain cross-entropy). Every
constraint is active at its solution, for any counts, scales and margins:

.. math::
    Z = \left(I - \frac{u u^\top}{\|u\|^2}\right) \operatorname{diag}\left(
        \frac{m_k}{\gamma_k} \right) , \qquad u_k = \frac{1}{\gamma_k} .

*Proof.* Let :math:`X = Z \operatorname{diag}(\delta) = P \operatorname{diag}(x)` with the
projection :math:`P` off :math:`u` and :math:`x_k = m_k \delta_k / \gamma_k`. Its polar
factor is :math:`T \operatorname{diag}(x)` with

.. math::
    T = (P \operatorname{diag}(x^2) P)^{-1/2} = \frac{1}{\pi} \int_0^\infty
    \left( R_t - \frac{R_t u u^\top R_t}{u^\top R_t u} \right) \frac{dt}{\sqrt{t}} ,
    \qquad R_t = (\operatorname{diag}(x^2) + t)^{-1} ,

the inverse being that on the complement of :math:`u`. All its entries off the diagonal
are negative, and :math:`u^\top T = 0`; so :math:`-T_{jk} x_k \delta_k / \gamma_j > 0` are
multipliers that satisfy the conditions of this convex program.

References:
    | Imbalance Trouble: Revisiting Neural-Collapse Geometry (Thrampoulidis et al.,
    | 2022), https://arxiv.org/abs/2208.05512: the plain cross-entropy
    | On the Implicit Geometry of Cross-Entropy Parameterizations for Label-Imbalanced
    | Data (Behnia et al., 2023), https://arxiv.org/abs/2303.07608: scales (CDT) and
    | margins (LDT)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, SupportsFloat

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import one_of
from layerpeel.program.counts import checked_counts, count_groups
from layerpeel.program.cross_entropy import CrossEntropy
from layerpeel.program.factors import SpectralFactors
from layerpeel.program.limits.limit import Limit
from layerpeel.program.solution import Certificate, Status
from layerpeel.program.spectrum import BlockSpectrum


def seli(
    class_counts: Iterable[SupportsFloat],
    *,
    loss: CrossEntropy | Literal["cross_entropy"] = "cross_entropy",
    per: Literal["sample", "class"] = "sample",
) -> Limit:
    r"""Return the geometry of the cross-entropy as regularisation vanishes.

    For the plain cross-entropy, logits are those of simplex-encoded labels,
    :math:`Z = I - J / K`, however unequal the counts are; only the *factors* differ.
    With decay per sample :math:`\delta_k = \sqrt{n_k}`, and rare classes get smaller
    classifiers and longer features. With energies, or decay per class,
    :math:`\delta_k = 1`, and both are an equiangular tight frame.

    Offsets vanish in the limit: a fixed number beside growing logits. Margins
    :math:`m_k \propto 1 / \sqrt{n_k}` make the classifiers an equiangular tight frame
    under decay per sample; unequal scales never do.

    The limit is approached slowly, like :math:`1 / \log(1 / \lambda)`: at the decay of
    real training, solve the program itself.

    References:
        | Imbalance Trouble: Revisiting Neural-Collapse Geometry (Thrampoulidis et al.,
        | 2022), https://arxiv.org/abs/2208.05512
        | On the Implicit Geometry of Cross-Entropy Parameterizations for
        | Label-Imbalanced Data (Behnia et al., 2023), https://arxiv.org/abs/2303.07608

    Args:
        class_counts: Positive counts, with length :math:`K`.
        loss: The cross-entropy, with scales and margins where there are any. A sample of
            class :math:`k` keeps the gap :math:`m_k` between scaled logits.
        per: Whether features are penalised per ``"sample"``, or per ``"class"`` as by
            the energies of the Layer-Peeled Model. Programs have no bias here.

    Returns:
        The limit, scaled so that every margin is attained; its certificate is evaluated
        from the multipliers.

    Raises:
        ValueError: If the counts are invalid, the loss is another one or has label
            smoothing (its optimal logits stay finite), or has not one scale and one
            margin per class.

    Example:
        >>> limit = seli([400, 100, 100])
        >>> limit.logits.round(decimals=3).tolist()[0]
        [0.667, -0.333, -0.333]
        >>> limit.geometry.classifier_cosines[0, 1:].round(decimals=3).tolist()
        [-0.605, -0.605]
        >>> seli([400, 100, 100], per="class").geometry.classifier_cosines[0].tolist()
        [1.0, -0.5, -0.5]
    """
    counts = checked_counts(class_counts)
    one_of("per", per, ("sample", "class"))
    scale, margin = _scales_and_margins(loss, len(counts))
    roots = torch.tensor(counts, dtype=torch.float64).sqrt()
    delta = roots if per == "sample" else torch.ones_like(roots)
    groups = _interchangeable(delta, scale, margin)
    spectrum = _spectrum(groups, scale, margin * delta / scale)
    multipliers = _multipliers(spectrum, scale, delta)
    certificate = _certificate(spectrum, multipliers, scale, margin, delta)
    factors = SpectralFactors(spectrum, delta, balance=1.0)
    return Limit(Status.CLOSED_FORM, certificate, factors, multipliers)


def _scales_and_margins(
    loss: CrossEntropy | str, num_classes: int
) -> tuple[Float64[Tensor, " K"], Float64[Tensor, " K"]]:
    if isinstance(loss, str):
        one_of("loss", loss, ("cross_entropy",))
        loss = CrossEntropy()
    if loss.smoothing:
        raise ValueError(
            "`loss.smoothing` must be 0; got "
            f"{loss.smoothing!r}. With label smoothing the optimal logits stay finite "
            "as regularisation vanishes: solve a `PeeledProblem` with a small decay."
        )
    return (
        _per_class("scale", loss.scale, num_classes),
        _per_class("margin", loss.margin, num_classes),
    )


def _per_class(
    name: str, values: Sequence[float] | None, num_classes: int
) -> Float64[Tensor, " K"]:
    if values is None:
        return torch.ones(num_classes, dtype=torch.float64)
    if len(values) != num_classes:
        raise ValueError(
            f"`loss.{name}` must have one number for each of the {num_classes} classes; "
            f"got {len(values)}."
        )
    return torch.tensor(values, dtype=torch.float64)


def _interchangeable(
    delta: Float64[Tensor, " K"],
    scale: Float64[Tensor, " K"],
    margin: Float64[Tensor, " K"],
) -> tuple[tuple[int, ...], ...]:
    """Return the groups of classes of equal feature weight, scale and margin."""
    groups: dict[tuple[int, float, float], list[int]] = {}
    for g, group in enumerate(count_groups(delta.tolist())):
        for k in group.classes:
            key = (g, float(scale[k]), float(margin[k]))
            groups.setdefault(key, []).append(k)
    return tuple(tuple(classes) for classes in groups.values())


def _spectrum(
    groups: tuple[tuple[int, ...], ...],
    scale: Float64[Tensor, " K"],
    columns: Float64[Tensor, " K"],
) -> BlockSpectrum:
    """Return the singular values of the projection off 1 / scale, times the columns."""
    first = [classes[0] for classes in groups]
    sizes = torch.tensor([len(classes) for classes in groups], dtype=torch.float64)
    axis = sizes.sqrt() / scale[first]
    axis = axis / torch.linalg.vector_norm(axis)
    eye = torch.eye(len(groups), dtype=torch.float64)
    projected = (eye - torch.outer(axis, axis)) * columns[first]
    left, values, right = torch.linalg.svd(projected)
    # Exactly one singular value is zero, that of the axis projected off.
    return BlockSpectrum(
        groups, columns[first], values[:-1], left[:, :-1], right[:-1].T.contiguous()
    )


def _multipliers(
    spectrum: BlockSpectrum,
    scale: Float64[Tensor, " K"],
    delta: Float64[Tensor, " K"],
) -> Float64[Tensor, "K K"]:
    polar = BlockSpectrum(
        spectrum.groups,
        torch.ones_like(spectrum.within),
        torch.ones_like(spectrum.between),
        spectrum.left,
        spectrum.right,
    ).matrix
    # Rounding can leave a tiny one below zero; the bound is evaluated without it.
    return (-polar * delta / scale[:, None]).fill_diagonal_(0.0).clamp(min=0.0)


def _certificate(
    spectrum: BlockSpectrum,
    multipliers: Float64[Tensor, "K K"],
    scale: Float64[Tensor, " K"],
    margin: Float64[Tensor, " K"],
    delta: Float64[Tensor, " K"],
) -> Certificate:
    r"""Bound the nuclear norm from below by the multipliers.

    For any nonnegative multipliers, feasible logits have
    :math:`\sum_k m_k \sum_j \Lambda_{jk} \leq \langle A, Z \rangle \leq
    \|A \operatorname{diag}(1/\delta)\|_2 \|Z \operatorname{diag}(\delta)\|_*`.
    """
    own = multipliers.sum(dim=0)
    slope = scale[:, None] * (torch.diag(own) - multipliers) / delta
    norm = float(torch.linalg.matrix_norm(slope, ord=2))
    objective = spectrum.nuclear_norm
    # Rounding can push the bound past the objective by a few ulps.
    bound = min(float(margin @ own) / norm, objective)
    return Certificate(objective, bound)
