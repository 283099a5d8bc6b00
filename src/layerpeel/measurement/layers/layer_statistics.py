"""What is accumulated for one layer, and the metrics that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import one_of, undefined
from layerpeel._tolerances import covariance_rank_tolerance, rounding_noise
from layerpeel.measurement.metrics.cdnv import cdnv
from layerpeel.measurement.metrics.nc1 import nc1_quotient, within_variance
from layerpeel.measurement.metrics.resolution import resolution, resolved_means
from layerpeel.measurement.statistics.affine_fit import AffineFit
from layerpeel.measurement.statistics.covariance import Covariance
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.statistics.patterns import UnitPatterns
from layerpeel.measurement.statistics.statistic import Statistic


@dataclass(frozen=True, eq=False)
class LayerStatistics(Statistic):
    r"""The statistics of one layer's outputs.

    Attributes:
        kind: The name of the module's type.
        dtype: The type of its outputs, such as ``"float32"``; the statistics are float64.
        moments: Moments of the features per class, without the scatter.
        covariance: Covariance of the features; ``None`` when there are too many.
        patterns: On/off patterns of the units of an elementwise nonlinearity; otherwise
            ``None``. Of maps that were pooled, each channel is a unit, and every position
            an observation.
        fit: Outputs against inputs of the same units; ``None`` where ``patterns`` is.

    Example:
        >>> layer = LayerStatistics.empty(10, 64, kind="ReLU", fit=True)
        >>> layer.width, layer.num_samples, layer.nonlinear
        (64, 0, True)
    """

    kind: str
    dtype: str
    moments: ClassMoments
    covariance: Covariance | None
    patterns: UnitPatterns | None
    fit: AffineFit | None

    @classmethod
    def empty(
        cls,
        num_classes: int,
        width: int,
        *,
        kind: str,
        dtype: str = "float32",
        covariance: bool = True,
        fit: bool = False,
    ) -> LayerStatistics:
        """Return the statistics of no data, the neutral element of ``merge``.

        Args:
            num_classes: The number of classes :math:`K`.
            width: The number of features :math:`d`.
            kind: The name of the module's type.
            dtype: The type of its outputs.
            covariance: Whether to keep the :math:`(d, d)` covariance.
            fit: Whether the layer is an elementwise nonlinearity.
        """
        return cls(
            kind,
            dtype,
            ClassMoments.empty(num_classes, width, light=True),
            Covariance.empty(width) if covariance else None,
            UnitPatterns.empty(width) if fit else None,
            AffineFit.empty(width) if fit else None,
        )

    @property
    def width(self) -> int:
        """The number of features :math:`d`."""
        return self.moments.width

    @property
    def num_samples(self) -> int:
        """The number of samples."""
        return self.moments.num_samples

    @property
    def nonlinear(self) -> bool:
        """Whether the layer is an elementwise nonlinearity."""
        return self.fit is not None

    # Collapse

    def nc1_quotient(self, centring: str = "sample", pooling: str = "pooled") -> float:
        r"""Return :math:`\mathrm{tr}\, S_W / \mathrm{tr}\, S_B`, zero under collapse.

        Args:
            centring: ``"sample"`` for class means about the mean of all samples,
                ``"class"`` for means about the mean of the class means.
            pooling: A key of ``POOLINGS``.

        Returns:
            The quotient; NaN with a warning when the class means coincide.

        Raises:
            ValueError: If a convention is unknown.
        """
        one_of("centring", centring, ("sample", "class"))
        within = within_variance(self.moments, pooling)
        return nc1_quotient(within, resolved_means(self.moments, centring))

    def cdnv(self) -> float:
        """Return the mean class-distance normalised variance, zero under collapse.

        Returns:
            The mean over pairs of classes; NaN with a warning when two means coincide.

        References:
            | On the Role of Neural Collapse in Transfer Learning
            | (Galanti, György & Hutter, 2021), https://arxiv.org/abs/2112.15121
        """
        moments = self.moments
        means, variances = moments.class_means, moments.class_variances
        return cdnv(means, variances, resolution=resolution(moments))

    # Rank

    @property
    def singular_values(self) -> Float64[Tensor, " d"] | None:
        r"""Singular values of the centred features over :math:`\sqrt{n}`, largest first.

        ``None`` without a covariance.
        """
        return None if self.covariance is None else self.covariance.eigenvalues.sqrt()

    def numerical_rank(self, tolerance: float | None = None) -> float:
        """Return the number of directions in which the features vary.

        Args:
            tolerance: The share of the largest singular value up to which one counts as
                zero. By default, what rounding of the outputs, in their dtype, and of
                the covariance may leave of a zero. The former is a share of the outputs
                as they are: far from the origin it hides small variations.

        Returns:
            The rank; NaN with a warning without a covariance or samples.
        """
        s = self._spectrum("numerical rank")
        if s is None:
            return torch.nan
        noise = self._noise(s) if tolerance is None else tolerance * float(s[0])
        return float((s > noise).sum())

    def effective_rank(self) -> float:
        r"""Return :math:`\exp(-\sum_i p_i \log p_i)` for shares of singular values.

        Returns:
            The rank; NaN with a warning when the features are constant up to rounding
            of the outputs, or without a
            covariance.

        References:
            | The effective rank: A measure of effective dimensionality
            | (Roy & Vetterli, 2007), https://ieeexplore.ieee.org/document/7098875
        """
        known = self._known("effective rank")
        if known is None:
            return torch.nan
        return float(torch.special.entr(known / known.sum()).sum().exp())

    def participation_ratio(self) -> float:
        r"""Return :math:`(\mathrm{tr}\, C)^2 / \mathrm{tr}\, C^2` of the covariance.

        Returns:
            The ratio; NaN with a warning when the features are constant up to rounding
            of the outputs, or without a
            covariance.

        References:
            | A theory of multineuronal dimensionality, dynamics and measurement
            | (Gao et al., 2017), https://doi.org/10.1101/214262
        """
        known = self._known("participation ratio")
        if known is None:
            return torch.nan
        share = (known / known[0]).square()
        return float(share.sum().square() / share.square().sum())

    # Units of nonlinearities

    def linearity(self) -> float:
        """Return the smallest absolute correlation of output and input over units.

        Returns:
            The minimum, see :meth:`AffineFit.linearity`; NaN with a warning when every
            unit is constant, or the layer is no elementwise nonlinearity.
        """
        return undefined(_LINEAR) if self.fit is None else self.fit.linearity()

    def median_linearity(self) -> float:
        """Return the median of the same over units; undefined where that is."""
        return undefined(_LINEAR) if self.fit is None else self.fit.median_linearity()

    def on_off_entropy(self) -> float:
        """Return the entropy of on against off in bits, averaged over units.

        Returns:
            The mean, between 0 where no unit switches and 1; NaN with a warning when the
            layer is no elementwise nonlinearity.
        """
        if self.patterns is None:
            return undefined(_LINEAR)
        return float(self.patterns.entropy.mean())

    def dead_units(self) -> float:
        """Return the number of units that are zero on every observation.

        Returns:
            The number; NaN with a warning when the layer is no elementwise nonlinearity.
        """
        if self.patterns is None:
            return undefined(_LINEAR)
        return float(self.patterns.dead.sum())

    def with_samples(
        self, moments: ClassMoments, covariance: Covariance | None
    ) -> LayerStatistics:
        """Return the statistics with other moments and covariance of features."""
        return self._replaced({"moments": moments, "covariance": covariance})

    def with_units(self, patterns: UnitPatterns, fit: AffineFit) -> LayerStatistics:
        """Return the statistics with other patterns and fit of units."""
        return self._replaced({"patterns": patterns, "fit": fit})

    def _spectrum(self, what: str) -> Tensor | None:
        s = self.singular_values
        if s is None:
            undefined(
                f"The {what} is undefined (NaN): no covariance was kept of features wider "
                "than `covariance_limit`. Pass `maps='pooled'`, or look on through a "
                "`LayerObserver` with a higher `covariance_limit`."
            )
        elif not self.num_samples:
            undefined(f"The {what} is undefined (NaN): there are no samples.")
            return None
        return s

    def _known(self, what: str) -> Tensor | None:
        """Return the singular values above noise: many small ones make a difference."""
        s = self._spectrum(what)
        if s is None:
            return None
        known = s[s > self._noise(s)]
        if not len(known):
            undefined(_NO_SPREAD)
            return None
        return known

    def _noise(self, s: Tensor) -> float:
        """Return the largest singular value that rounding may leave of a zero."""
        eps = torch.finfo(getattr(torch, self.dtype)).eps
        share = covariance_rank_tolerance(self.width, eps)
        size = 0.0 if self.covariance is None else self.covariance.size
        return max(share * float(s[0]), rounding_noise(size, eps))


_NO_SPREAD = (
    "The rank of constant features is undefined (NaN); these are, up to rounding of the "
    "outputs."
)
_LINEAR = (
    "Linearity, on/off entropy and dead units are those of elementwise nonlinearities, "
    "and undefined (NaN) for other layers."
)
