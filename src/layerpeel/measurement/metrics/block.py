"""Minority collapse in numbers: the block of the minority classes.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import undefined
from layerpeel._tolerances import VANISHED_NORM
from layerpeel.geometry import ClassGroups, Geometry, off_diagonal
from layerpeel.measurement.metrics.directions import directions
from layerpeel.measurement.metrics.pairs import cosines
from layerpeel.measurement.metrics.spread import Spread


@dataclass(frozen=True)
class MinorityBlock:
    """Angles and lengths of minority classes, of one kind of vector.

    A group of a single class has no cosines, and an empty one no ratio: these are NaN.

    Attributes:
        cosine: Mean cosine between minority classes: 1 under minority collapse.
        cosine_std: Standard deviation of these cosines.
        majority_cosine: Mean cosine between majority classes.
        norm_ratio: Mean norm of the majority classes over that of the minority.
    """

    cosine: float
    cosine_std: float
    majority_cosine: float
    norm_ratio: float


def classifier_block(geometry: Geometry, groups: ClassGroups) -> MinorityBlock:
    """Return the minority statistics of the classifiers.

    Args:
        geometry: The geometry of a last layer.
        groups: Which classes are frequent and which are rare.

    Returns:
        The statistics; NaN where a group has too few classes and, with a warning, where
        a vector vanished or a class has no samples.
    """
    block = _block(geometry.classifier_cosines, geometry.classifier_norms, groups)
    return said(block, groups)


def feature_block(geometry: Geometry, groups: ClassGroups) -> MinorityBlock:
    """Return the minority statistics of the class means, as for classifiers."""
    block = _block(geometry.feature_cosines, geometry.feature_norms, groups)
    return said(block, groups)


def vector_block(vectors: Float64[Tensor, "K p"], groups: ClassGroups) -> MinorityBlock:
    """Return the minority statistics of class vectors, without their Gram matrix.

    The same numbers as those of the geometry, in memory :math:`O(K p)`.

    Args:
        vectors: One vector per class, centred as wanted, with shape :math:`(K, p)`.
        groups: Which classes are frequent and which are rare.

    Returns:
        The statistics; NaN as for ``classifier_block``.
    """
    return said(unsaid_block(vectors, groups), groups)


def unsaid_block(vectors: Float64[Tensor, "K p"], groups: ClassGroups) -> MinorityBlock:
    """Return the same as :func:`vector_block`, without its warning."""
    units, norms = directions(vectors), vectors.norm(dim=1)
    rare, frequent = list(groups.minority), list(groups.majority)
    minority = Spread.over(block.values for block in cosines(units[rare]))
    majority = Spread.over(block.values for block in cosines(units[frequent]))
    return MinorityBlock(
        cosine=minority.mean if minority.count else math.nan,
        cosine_std=minority.std(),
        majority_cosine=majority.mean if majority.count else math.nan,
        norm_ratio=_ratio(float(norms[frequent].mean()), float(norms[rare].mean())),
    )


def said(block: MinorityBlock, groups: ClassGroups) -> MinorityBlock:
    """Return a block, with a warning if it has NaN though its groups have classes."""
    rare, frequent = len(groups.minority), len(groups.majority)
    lost = (
        (rare > 1 and math.isnan(block.cosine))
        or (frequent > 1 and math.isnan(block.majority_cosine))
        or (rare and frequent and math.isnan(block.norm_ratio))
    )
    if lost:
        undefined(
            "Some statistics of the minority block are undefined (NaN): a class vector "
            "has vanished, or a class has no samples."
        )
    return block


def _block(
    cosines: Float64[Tensor, "K K"],
    norms: Float64[Tensor, " K"],
    groups: ClassGroups,
) -> MinorityBlock:
    rare, frequent = list(groups.minority), list(groups.majority)
    minority = off_diagonal(cosines[rare][:, rare])
    longer, shorter = norms[frequent].mean(), norms[rare].mean()
    return MinorityBlock(
        cosine=float(minority.mean()),
        cosine_std=float((minority - minority.mean()).square().mean().sqrt()),
        majority_cosine=float(off_diagonal(cosines[frequent][:, frequent]).mean()),
        norm_ratio=_ratio(float(longer), float(shorter)),
    )


def _ratio(longer: float, shorter: float) -> float:
    """A vanished minority has no ratio: its norm is rounding, not a length."""
    return longer / shorter if shorter > VANISHED_NORM * longer else math.nan
