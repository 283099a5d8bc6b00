r"""Neural collapse of a last layer, each metric with its conventions as arguments.

Sources and formulas stand with the functions that are called, in
:mod:`layerpeel.measurement.metrics`. Choices that published measurements make
differently are arguments here, and are described in
:mod:`layerpeel.measurement.statistics.conventions`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import ArrayLike
from torch import Tensor

from layerpeel._checks import ShapeError, one_of, undefined
from layerpeel.measurement.metrics.bias import bias_distance
from layerpeel.measurement.metrics.cdnv import cdnv
from layerpeel.measurement.metrics.margins import class_margins
from layerpeel.measurement.metrics.nc1 import nc1, nc1_quotient, within_variance
from layerpeel.measurement.metrics.nc2 import (
    NC2,
    general_orthogonal_distance,
    nc2,
    orthogonal_distance,
)
from layerpeel.measurement.metrics.nc3 import duality_cosines, nc3, nc3_product
from layerpeel.measurement.metrics.nc5 import nc5
from layerpeel.measurement.metrics.resolution import (
    resolution,
    resolved_means,
    without_noise,
)
from layerpeel.measurement.observation import Observation
from layerpeel.measurement.remembered import remembered
from layerpeel.measurement.statistics.conventions import (
    POOLINGS,
    global_mean,
    row_centred,
)
from layerpeel.measurement.statistics.moments import ClassMoments

VECTORS = ("classifiers", "class_means")
"""The two kinds of class vectors of a last layer, by name."""


class CollapseMetrics(Observation):
    """Neural collapse of an observed last layer: NC1 to NC5, bias and margins.

    Arguments that many of them share: ``of`` names the class vectors, an entry of
    ``VECTORS``; ``centring`` is a key of ``CENTRINGS`` for class means; ``centred`` says
    whether to subtract the mean row of the classifiers, which softmax does not see.
    Unknown choices raise a ``ValueError``.
    """

    # Neural collapse

    @remembered
    def nc1(self, centring: str = "sample", pooling: str = "pooled") -> float:
        r"""Return :math:`\mathrm{tr}(S_W S_B^+) / K`.

        See :func:`layerpeel.measurement.nc1`.

        Args:
            centring: Global mean in :math:`S_B`, ``"sample"`` (as in the code of Fang
                et al. 2021) or ``"class"``.
            pooling: A key of ``POOLINGS``; ``"class"`` keeps frequent classes from
                deciding under imbalance.

        Returns:
            The ratio, zero under full collapse; NaN with a warning in light mode, if what
            the pooling needs was not measured, or when the class means coincide.

        Raises:
            ValueError: If a choice is unknown.
        """
        one_of("pooling", pooling, POOLINGS)
        between = self._between(centring)
        if self.light:
            return undefined(_LIGHT_NC1)
        within = self._pooled() if pooling == "pooled" else self._class_averaged()
        if within is None:
            return undefined(_NO_CLASS_AVERAGE)
        return nc1(within, between, resolution=resolution(self.moments))

    def nc1_quotient(self, centring: str = "sample", pooling: str = "pooled") -> float:
        r"""Return :math:`\mathrm{tr}\, S_W / \mathrm{tr}\, S_B`.

        Args:
            centring: As for :meth:`nc1`.
            pooling: As for :meth:`nc1`.

        Returns:
            The quotient of total variances; NaN with a warning when the class means
            coincide.

        Raises:
            ValueError: If a choice is unknown.
        """
        within = within_variance(self.moments, pooling)
        return nc1_quotient(within, self._between(centring))

    @remembered
    def cdnv(self) -> float:
        """Return the class-distance normalised variance, averaged over pairs.

        NaN with a warning when two class means coincide up to rounding.
        """
        moments = self.moments
        means, variances = moments.class_means, moments.class_variances
        return cdnv(means, variances, resolution=resolution(moments))

    def nc2_classifiers(self, *, centred: bool = True, correction: int = 0) -> NC2:
        """Return how far the classifiers are from a simplex ETF.

        Args:
            centred: Whether to subtract the mean row, which softmax does not see.
            correction: As for :func:`layerpeel.measurement.nc2`.
        """
        return nc2(self._classifiers(centred), correction)

    def nc2_means(self, centring: str = "sample", *, correction: int = 0) -> NC2:
        """Return how far the class means are from a simplex ETF.

        Args:
            centring: A key of ``CENTRINGS``.
            correction: As for :func:`layerpeel.measurement.nc2`.

        Raises:
            ValueError: If the choice is unknown.
        """
        return nc2(self._means(centring), correction)

    def orthogonal_distance(
        self, of: str = "classifiers", centring: str = "none", *, centred: bool = False
    ) -> float:
        """Return how far class vectors are from an orthogonal frame of equal lengths.

        Uncentred by default, as Dang et al. (2023) measure it: an orthogonal frame has a
        mean, and without it would be a simplex.
        """
        return orthogonal_distance(self.vectors(of, centring, centred=centred))

    def general_orthogonal_distance(
        self,
        of: str = "classifiers",
        norms: Sequence[float] | None = None,
        centring: str = "none",
        *,
        centred: bool = False,
    ) -> float:
        """Return how far class vectors are from orthogonal ones of some lengths.

        Args:
            of: An entry of ``VECTORS``.
            norms: The predicted lengths up to a factor, one per class; by default those
                of the vectors, so that only right angles count.
            centring: As for :meth:`orthogonal_distance`.
            centred: As for :meth:`orthogonal_distance`.
        """
        vectors = self.vectors(of, centring, centred=centred)
        return general_orthogonal_distance(vectors, norms)

    def nc3(
        self,
        centring: str = "sample",
        *,
        centred: bool = True,
        normalisation: str = "matrix",
    ) -> float:
        r"""Return :math:`\| W/\|W\|_F - M/\|M\|_F \|_F`, or the same by rows.

        See :func:`layerpeel.measurement.nc3`.

        Args:
            centring: A key of ``CENTRINGS``, for the class means. About the mean by
                default, where ETFs are; ``"none"`` is used with orthogonal frames.
            centred: Whether to subtract the mean row of the classifiers.
            normalisation: A key of ``NORMALISATIONS``.

        Raises:
            ValueError: If a choice is unknown.
        """
        means = self._means(centring)
        return nc3(self._classifiers(centred), means, normalisation)

    def duality_cosines(
        self, centring: str = "sample", *, centred: bool = True
    ) -> Float64[Tensor, " K"]:
        """Return the cosine of each class's classifier and mean, one under NC3.

        NaN, without a warning, for classes without samples, and where a vector vanished.
        """
        means = self._means(centring)
        return duality_cosines(self._classifiers(centred), means)

    def nc3_product(
        self,
        frame: str = "simplex",
        centring: str | None = None,
        *,
        centred: bool | None = None,
    ) -> float:
        """Return the distance of the class means' logits to those of a frame.

        Args:
            frame: A key of ``FRAMES``.
            centring: A key of ``CENTRINGS``, for the class means. By default what the
                frame needs: ``"sample"`` for the simplex, and ``"none"`` for the
                orthogonal frame (Dang et al. 2023).
            centred: Whether to subtract the mean row of the classifiers; by default for
                the simplex.

        Raises:
            ValueError: If a choice is unknown.
        """
        simplex = frame == "simplex"
        if centring is None:
            centring = "sample" if simplex else "none"
        rows = self._classifiers(simplex if centred is None else centred)
        return nc3_product(rows, self._means(centring), frame)

    def nc4(self) -> float:
        """Return the share of samples decided like the nearest class mean.

        One under NC4; ``nearest_mean`` has it by class, and says against which means.
        NaN with a warning if it was not measured.
        """
        if self.nearest_mean is None:
            return undefined(_NO_NC4)
        return self.nearest_mean.agreement

    def nc5(
        self,
        outside: ClassMoments | Float64[Tensor, " _"] | ArrayLike,
        centring: str = "sample",
    ) -> float:
        """Return the mean absolute cosine of outside data with the class means.

        Zero under NC5 (Ammar et al. 2023). See
        :func:`layerpeel.measurement.nc5`.

        Args:
            outside: Moments of features of out-of-distribution data in the same layer,
                or their mean, a tensor or an array with shape :math:`(d,)`.
            centring: A key of ``CENTRINGS``: the point about which both are taken. The
                global mean by default, so that moving all features changes nothing;
                ``"none"`` is uncentred.

        Raises:
            ShapeError: If the width is another one.
        """
        mean = _mean(outside)
        if mean.shape != (self.width,):
            raise ShapeError(
                f"The mean of the outside data must have shape ({self.width},), the "
                f"features of this layer; got {tuple(mean.shape)}."
            )
        centre = global_mean(self.moments, centring)
        about = (mean.to(centre) - centre)[None]
        noise = resolution(self.moments)
        return nc5(self._means(centring), without_noise(about, noise)[0])

    def bias_distance(
        self, centring: str = "sample", *, centred: bool = False
    ) -> float:
        r"""Return :math:`\|W \mu_G + b\|`, zero under collapse of balanced classes.

        Args:
            centring: Which global mean :math:`\mu_G`: ``"sample"`` or ``"class"``.
            centred: Whether to remove the mean logit first, which softmax does not see.
        """
        one_of("centring", centring, ("sample", "class"))
        mean = global_mean(self.moments, centring)
        return bias_distance(self.weight, self.bias, mean, centred=centred)

    def class_margins(
        self, unit: str = "logits", centring: str = "sample"
    ) -> Float64[Tensor, " K"]:
        """Return by how much each class wins at its mean.

        Args:
            unit: A key of ``MARGINS``.
            centring: A key of ``CENTRINGS``, for cosines: they are between row-centred
                classifiers and centred means. Logits and boundaries need neither.
        """
        cosine = unit == "cosine"
        means = self._means(centring if cosine else "none")
        return class_margins(self._classifiers(cosine), self.bias, means, unit)

    # Class vectors

    def vectors(
        self, of: str, centring: str = "sample", *, centred: bool = True
    ) -> Float64[Tensor, "K d"]:
        """Return one vector per class; NaN for the means of classes without samples.

        Args:
            of: An entry of ``VECTORS``.
            centring: A key of ``CENTRINGS``, for class means.
            centred: Whether to subtract the mean row, for classifiers.

        Raises:
            ValueError: If a choice is unknown.
        """
        means = self._means(centring)
        if one_of("of", of, VECTORS) == "class_means":
            return means
        return self._classifiers(centred)

    def _means(self, centring: str = "sample") -> Float64[Tensor, "K d"]:
        """Return the centred class means; those that are rounding noise are zero."""
        return resolved_means(self.moments, centring)

    def _classifiers(self, centred: bool) -> Float64[Tensor, "K d"]:
        return row_centred(self.weight) if centred else self.weight

    def _pooled(self) -> Float64[Tensor, "d d"] | None:
        scatter = self.moments.scatter
        return None if scatter is None else scatter / self.num_samples

    def _class_averaged(self) -> Float64[Tensor, "d d"] | None:
        nearest = self.nearest_mean
        return None if nearest is None else nearest.class_averaged_covariance

    def _between(self, centring: str) -> Float64[Tensor, "K d"]:
        # S_B of uncentred means is not a scatter between classes.
        return self._means(one_of("centring", centring, ("sample", "class")))


def _mean(outside: ClassMoments | Tensor | ArrayLike) -> Tensor:
    if isinstance(outside, ClassMoments):
        return global_mean(outside)
    if isinstance(outside, Tensor):
        return outside
    return torch.from_numpy(np.array(outside, dtype=np.float64))


_LIGHT_NC1 = (
    "The NC1 ratio is undefined (NaN): a light measurement has no within-class "
    "covariance. Measure with `light=False`, or use `nc1_quotient` or `cdnv`."
)
_NO_CLASS_AVERAGE = (
    "The class-averaged NC1 ratio is undefined (NaN): the average needs a second look "
    "at all data. Measure them together with `nc4='second_pass'`, or use "
    "`pooling='pooled'`."
)
_NO_NC4 = (
    "NC4 is undefined (NaN): it was not measured. Measure with `nc4='second_pass'` or "
    "`nc4='one_pass'`."
)
