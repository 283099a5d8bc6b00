r"""Rank: how many dimensions some vectors use, by four counts.

All four are between 1 and the numerical rank, which counts every direction above
rounding; the others weigh directions by their share.

References:
    | The effective rank: A measure of effective dimensionality
    | (Roy & Vetterli, 2007), https://ieeexplore.ieee.org/document/7098875
    | A theory of multineuronal dimensionality, dynamics and measurement
    | (Gao et al., 2017), https://doi.org/10.1101/214262: participation ratio
    | Sampling from large matrices: An approach through geometric functional analysis
    | (Rudelson & Vershynin, 2007), https://arxiv.org/abs/math/0503442: numerical (here:
    | stable) rank
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import one_of, undefined
from layerpeel._tolerances import rank_cutoff
from layerpeel.measurement.statistics.conventions import seen

SPECTRA: Mapping[str, str] = MappingProxyType(
    {
        "singular": "singular values of the vectors, as Roy and Vetterli define it",
        "eigen": "their squares, the eigenvalues of the vectors' second moment",
    }
)
"""Whose shares an effective rank is of, by name."""


@dataclass(frozen=True)
class Ranks:
    """The dimensions that some vectors use.

    Attributes:
        numerical: Singular values above rounding.
        effective: Exponential of the entropy of the singular values' shares.
        participation: Participation ratio of their squares.
        stable: Sum of their squares over the largest.
    """

    numerical: int
    effective: float
    participation: float
    stable: float


def ranks(
    vectors: Float64[Tensor, "m n"],
    *,
    most: int | None = None,
    resolution: float = 0.0,
) -> Ranks:
    """Return all ranks of some vectors, with their default conventions.

    Args:
        vectors: One vector per row, with shape :math:`(m, n)`. Rows with NaN are left
            out.
        most: How many dimensions they have at most: :math:`K - 1` for centred class
            vectors, whose last singular value is rounding of what was subtracted.
        resolution: The length up to which a vector is rounding noise, as from
            ``metrics.resolution``. The numerical
            rank counts nothing that such vectors can make.

    Returns:
        The ranks; NaN with a warning for vectors that are all zero, whose numerical
        rank is zero.

    Example:
        >>> from layerpeel import simplex_etf
        >>> ranks(simplex_etf(4)).numerical, round(ranks(simplex_etf(4)).effective, 9)
        (3, 3.0)
    """
    rows = seen(vectors)
    singular = torch.linalg.svdvals(rows)[:most]
    if not bool((singular > 0).any()):
        nan = undefined("Ranks but the numerical one are undefined (NaN) for zero.")
        return Ranks(0, nan, nan, nan)
    return Ranks(
        _numerical(singular, rows, least=resolution * len(rows) ** 0.5),
        _effective(singular, "singular"),
        _participation(singular, "eigen"),
        _stable(singular),
    )


def numerical_rank(
    matrix: Float64[Tensor, "m n"], *, cutoff: float | None = None
) -> int:
    """Return the number of singular values above a cutoff.

    Args:
        matrix: Vectors as rows, or a covariance, with shape :math:`(m, n)`. Rows with
            NaN are left out.
        cutoff: The largest singular value that counts as zero. By default that of
            LAPACK, ``max(m, n) * eps`` times the largest: what rounding leaves of an
            exact zero. What noise leaves is larger, and needs its own.

    Example:
        >>> numerical_rank(torch.tensor([[1.0, 1.0], [2.0, 2.0]]).double())
        1
    """
    rows = seen(matrix)
    return _numerical(torch.linalg.svdvals(rows), rows, cutoff)


def effective_rank(
    matrix: Float64[Tensor, "m n"], *, spectrum: str = "singular"
) -> float:
    r"""Return :math:`\exp(-\sum_i p_i \log p_i)` for the shares of a spectrum.

    Args:
        matrix: Vectors as rows, with shape :math:`(m, n)`. Rows with NaN are left out.
            Of a covariance, whose singular values are its eigenvalues, ``"singular"``
            gives what ``"eigen"`` gives of the centred vectors.
        spectrum: A key of ``SPECTRA``: what :math:`p_i` are shares of. Singular values
            by default, as in the definition of Roy and Vetterli (2007).

    Returns:
        The rank; NaN with a warning for a zero matrix.

    Raises:
        ValueError: If the spectrum is unknown.

    Example:
        >>> round(effective_rank(torch.eye(5, 7).double()), 9)
        5.0
    """
    return _effective(torch.linalg.svdvals(seen(matrix)), spectrum)


def participation_ratio(
    matrix: Float64[Tensor, "m n"], *, spectrum: str = "eigen"
) -> float:
    r"""Return :math:`(\sum_i \lambda_i)^2 / \sum_i \lambda_i^2` of a spectrum.

    Args:
        matrix: As for :func:`effective_rank`.
        spectrum: A key of ``SPECTRA``. Eigenvalues by default: the ratio is defined for
            variances.

    Returns:
        The ratio; NaN with a warning for a zero matrix.

    Raises:
        ValueError: If the spectrum is unknown.

    Example:
        >>> participation_ratio(torch.diag(torch.tensor([1.0, 1.0, 0.0])).double())
        2.0
    """
    return _participation(torch.linalg.svdvals(seen(matrix)), spectrum)


def stable_rank(matrix: Float64[Tensor, "m n"]) -> float:
    r"""Return :math:`\|A\|_F^2 / \|A\|_2^2`.

    Args:
        matrix: Vectors as rows, with shape :math:`(m, n)`. Rows with NaN are left out.

    Returns:
        The rank; NaN with a warning for a zero matrix.

    Example:
        >>> stable_rank(torch.diag(torch.tensor([2.0, 1.0, 1.0])).double())
        1.5
    """
    return _stable(torch.linalg.svdvals(seen(matrix)))


def _numerical(
    singular: Tensor, rows: Tensor, cutoff: float | None = None, least: float = 0.0
) -> int:
    if not len(singular):
        return 0
    if cutoff is None:
        cutoff = max(rank_cutoff(float(singular[0]), *rows.shape), least)
    return int((singular > cutoff).sum())


def _shares(singular: Tensor, spectrum: str) -> Float64[Tensor, " r"] | None:
    """Return the shares of a spectrum; ``None`` when it is zero."""
    one_of("spectrum", spectrum, SPECTRA)
    if not bool((singular > 0).any()):
        return None
    relative = singular / singular[0]  # squares of tiny numbers would be zero
    values = relative if spectrum == "singular" else relative.square()
    return values / values.sum()


def _effective(singular: Tensor, spectrum: str) -> float:
    shares = _shares(singular, spectrum)
    if shares is None:
        return undefined("The effective rank of zero is undefined (NaN).")
    return float(torch.special.entr(shares).sum().exp())


def _participation(singular: Tensor, spectrum: str) -> float:
    shares = _shares(singular, spectrum)
    if shares is None:
        return undefined("The participation ratio of zero is undefined (NaN).")
    return float(1 / shares.square().sum())


def _stable(singular: Tensor) -> float:
    shares = _shares(singular, "eigen")
    if shares is None:
        return undefined("The stable rank of zero is undefined (NaN).")
    return float(1 / shares[0])
