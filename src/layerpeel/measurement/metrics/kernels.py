r"""Kernels on pairwise distances: uniformity of many classes on a sphere.

More than :math:`p + 1` class vectors in :math:`p` dimensions cannot be a simplex. What
takes its place is spread as evenly as the sphere allows, and a kernel that repels
close pairs measures how evenly: low energy, and little variation between pairs.

References:
    | Generalizing and Decoupling Neural Collapse via Hyperspherical Uniformity Gap
    | (Liu, Yu, Weller & Schölkopf, 2023), https://arxiv.org/abs/2303.06484: the kernels
    | Linguistic Collapse: Neural Collapse in (Large) Language Models
    | (Wu & Papyan, 2024), https://arxiv.org/abs/2405.17767: mean and variation of the
    | logarithmic kernel over pairs of class means
    | Generalized Neural Collapse for a Large Number of Classes
    | (Jiang et al., 2023), https://arxiv.org/abs/2310.05351
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import at_least, one_of, positive, undefined
from layerpeel.measurement.metrics.directions import directions
from layerpeel.measurement.metrics.pairs import squared_distances
from layerpeel.measurement.metrics.spread import Spread
from layerpeel.measurement.statistics.conventions import seen

KERNELS: Mapping[str, str] = MappingProxyType(
    {
        "log": "the logarithm of the inverse distance, of no free parameter",
        "riesz": "a power of the inverse distance; high powers see the closest pairs "
        "alone",
    }
)
"""Kernels on distances, by name; the first is the default."""


@dataclass(frozen=True)
class KernelEnergy:
    """A kernel over all pairs of class directions.

    Attributes:
        mean: Mean of the kernel over pairs.
        std: Standard deviation over pairs; zero for a simplex ETF.
        simplex: The mean for a simplex ETF of as many classes, which no arrangement
            goes below.
        excess: How far the mean is above that; zero for a simplex ETF. Positive for
            more classes than fit, however even.
        least_distance: The least distance of two directions, at most 2.
    """

    mean: float
    std: float
    simplex: float
    excess: float
    least_distance: float


def kernel_energy(
    vectors: Float64[Tensor, "K p"],
    kernel: str = "log",
    *,
    exponent: float = 1.0,
    correction: int = 0,
) -> KernelEnergy:
    r"""Return a kernel's mean and spread over pairs of class directions.

    With :math:`u_k = v_k / \|v_k\|`, the kernels are

    .. math::
        \log \frac{1}{\|u_j - u_k\|}, \qquad \|u_j - u_k\|^{-s} .

    Squared distances between :math:`K` unit vectors are at most
    :math:`2K/(K-1)` on average, and both kernels are convex and decreasing in them:
    so no mean is below the kernel at :math:`\sqrt{2K/(K-1)}`, the distance in a simplex.

    Args:
        vectors: One vector per class, centred as wanted, with shape :math:`(K, p)`.
            Rows with NaN (classes without samples) are left out, also of :math:`K`.
        kernel: A key of ``KERNELS``. The logarithm by default: it needs no exponent.
        exponent: The power :math:`s > 0` of the Riesz kernel. One by default, the
            Coulomb energy: the power :math:`p - 2` that makes the kernel harmonic
            overflows for the widths of networks.
        correction: What is subtracted from the number of pairs in the standard
            deviation; 0, since the pairs are all there are.

    Returns:
        The statistics; NaN with a warning when a vector vanished, for fewer than two
        classes, and when two directions coincide (their kernel is infinite). The
        deviation is NaN with a warning for no more pairs than the correction.

    Raises:
        ValueError: If the kernel is unknown, the exponent not above zero, or the
            correction no integer of at least 0.

    Example:
        >>> from layerpeel import simplex_etf
        >>> energy = kernel_energy(simplex_etf(4), "riesz", exponent=2.0)
        >>> round(energy.mean, 12), round(energy.std, 12)
        (0.375, 0.0)
    """
    one_of("kernel", kernel, KERNELS)
    power = positive("exponent", exponent)
    at_least("correction", correction, 0)
    units = directions(seen(vectors))
    cause = _undefined_cause(units)
    if cause:
        nan = undefined(cause)
        return KernelEnergy(nan, nan, nan, nan, nan)
    spread, least = Spread(), 4.0
    for block in squared_distances(units):
        spread = spread.merge(Spread.of(_kernel(block.values, kernel, power)))
        least = min(least, float(block.values.min()))
    simplex = _simplex(len(units), kernel, power)
    if least == 0:
        nan = undefined("Kernel energies are undefined (NaN): two directions coincide.")
        return KernelEnergy(nan, nan, simplex, nan, 0.0)
    return KernelEnergy(
        mean=spread.mean,
        std=_std(spread, correction),
        simplex=simplex,
        excess=spread.mean - simplex,
        least_distance=least**0.5,
    )


def _undefined_cause(units: Float64[Tensor, "K p"]) -> str:
    if len(units) < 2:
        return "Kernel energies are undefined (NaN): they need two classes."
    if bool(units.isnan().any()):
        return "Kernel energies are undefined (NaN): some class vectors have vanished."
    return ""


def _std(spread: Spread, correction: int) -> float:
    if spread.count <= correction:
        return undefined(
            f"The deviation of kernel energies is undefined (NaN): `correction` is "
            f"{correction}, and there are {spread.count} pairs."
        )
    return spread.std(correction)


def _kernel(
    squared: Float64[Tensor, " m"], kernel: str, power: float
) -> Float64[Tensor, " m"]:
    return squared.log() / -2 if kernel == "log" else squared.pow(-power / 2)


def _simplex(classes: int, kernel: str, power: float) -> float:
    squared = torch.full((1,), 2 * classes / (classes - 1), dtype=torch.float64)
    return float(_kernel(squared, kernel, power))
