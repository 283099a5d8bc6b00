"""Every metric of a last layer: how its vectors lie, on top of neural collapse."""

from __future__ import annotations

import math
from functools import cached_property

from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import undefined
from layerpeel.geometry import Geometry, GeometryDistance, geometry_distance
from layerpeel.measurement.collapse_metrics import CollapseMetrics
from layerpeel.measurement.metrics.angles import (
    Angles,
    angles,
    frame_geometry,
    principal_angles,
)
from layerpeel.measurement.metrics.block import MinorityBlock, said, unsaid_block
from layerpeel.measurement.metrics.energies import energies
from layerpeel.measurement.metrics.kernels import KernelEnergy, kernel_energy
from layerpeel.measurement.metrics.one_vs_rest import one_vs_rest
from layerpeel.measurement.metrics.rank import Ranks, ranks
from layerpeel.measurement.metrics.resolution import resolution
from layerpeel.measurement.remembered import remembered
from layerpeel.measurement.statistics.conventions import seen


class LayerMetrics(CollapseMetrics):
    """The metrics of an observed last layer; arguments as for neural collapse."""

    # Many classes

    def kernel_energy(
        self,
        of: str = "class_means",
        kernel: str = "log",
        centring: str = "sample",
        *,
        centred: bool = True,
        exponent: float = 1.0,
        correction: int = 0,
    ) -> KernelEnergy:
        """Return how evenly class directions are spread over the sphere.

        Class means about the global mean by default, as Wu & Papyan (2024) measure it.
        See :func:`layerpeel.measurement.kernel_energy`.
        """
        return kernel_energy(
            self.vectors(of, centring, centred=centred),
            kernel,
            exponent=exponent,
            correction=correction,
        )

    def one_vs_rest(
        self, of: str = "classifiers", centring: str = "none", *, centred: bool = False
    ) -> Float64[Tensor, " K"]:
        """Return the distance of each class direction to the hull of the others.

        Uncentred by default: on the sphere of Jiang et al. (2023) vectors are as they
        are. Costly for many classes: see
        :func:`layerpeel.measurement.one_vs_rest`.
        """
        return one_vs_rest(self.vectors(of, centring, centred=centred))

    @remembered
    def ranks(
        self, of: str = "class_means", centring: str = "sample", *, centred: bool = True
    ) -> Ranks:
        """Return how many dimensions class vectors use, at most :math:`K - 1` centred."""
        rows = seen(self.vectors(of, centring, centred=centred))
        about = centred if of == "classifiers" else centring != "none"
        noise = resolution(self.moments) if of == "class_means" else 0.0
        most = len(rows) - 1 if about else None
        return ranks(rows, most=most, resolution=noise)

    # Geometry

    @remembered
    def geometry(self, centring: str = "sample", *, centred: bool = True) -> Geometry:
        """Return the geometry of classifiers and class means.

        It holds three :math:`(K, K)` matrices.

        Args:
            centring: A key of ``CENTRINGS``, for the class means.
            centred: Whether to subtract the mean row of the classifiers.

        Returns:
            The geometry; NaN for the features of classes without samples.

        Raises:
            ValueError: If the choice is unknown.
        """
        return Geometry.of(self._classifiers(centred), self._means(centring))

    def distance(
        self,
        predicted: Geometry | str,
        centring: str = "sample",
        *,
        centred: bool = True,
    ) -> GeometryDistance:
        """Return the distance to a predicted geometry, whatever its scale.

        Args:
            predicted: A geometry, such as that of a solved program, or a key of
                ``FRAMES``.
            centring: How the prediction's class means are centred.
            centred: Whether the prediction's classifiers have no mean row.
        """
        geometry = self.geometry(centring, centred=centred)
        return geometry_distance(geometry, self._predicted(predicted))

    def angles(
        self,
        predicted: Geometry | str,
        centring: str = "sample",
        *,
        centred: bool = True,
    ) -> Angles:
        """Return how far angles are from those of a predicted geometry, in radians.

        Args:
            predicted: As for :meth:`distance`.
            centring: As for :meth:`distance`.
            centred: As for :meth:`distance`.
        """
        geometry = self.geometry(centring, centred=centred)
        return angles(geometry, self._predicted(predicted))

    def principal_angles(
        self, centring: str = "sample", *, centred: bool = True
    ) -> Float64[Tensor, " angles"]:
        """Return the angles between the spaces of classifiers and class means.

        In radians, largest first; all zero under NC3. Classes without samples are left
        out of both.
        """
        means = self._means(centring)
        rows = self._classifiers(centred)[~means.isnan().any(1)]
        # Vectors that were centred together span one dimension less than they are.
        of_rows = len(rows) - (centred and len(rows) == self.num_classes)
        of_means = len(rows) - (centring != "none")
        return principal_angles(rows, seen(means), most=(of_rows, of_means))

    @property
    def classifier_block(self) -> MinorityBlock:
        """Angles and lengths of the minority's row-centred classifiers.

        NaN where a group has too few classes and, with a warning, where a classifier
        vanished.
        """
        return said(self._classifier_block, self.groups)

    @property
    def feature_block(self) -> MinorityBlock:
        """Angles and lengths of the minority's class means about the sample mean.

        NaN as for :attr:`classifier_block`, and with a warning for classes without
        samples.
        """
        return said(self._feature_block, self.groups)

    @property
    def minority_cosine(self) -> float:
        """Mean cosine between minority classifiers, 1 under minority collapse.

        NaN with a warning for fewer than two classes, or if a classifier vanished.
        """
        return _cosine("minority", self.groups.minority, self._classifier_block.cosine)

    @property
    def majority_cosine(self) -> float:
        """Mean cosine between majority classifiers; NaN as for the minority."""
        block = self._classifier_block
        return _cosine("majority", self.groups.majority, block.majority_cosine)

    def energy(self, convention: str = "sample_mean") -> tuple[float, float]:
        """Return :math:`(E_W, E_H)` (see :func:`layerpeel.measurement.energies`).

        Args:
            convention: A key of ``ENERGY_CONVENTIONS``.

        Raises:
            ValueError: If the convention is unknown.
        """
        return energies(self.moments, self.weight, convention)

    @cached_property
    def _classifier_block(self) -> MinorityBlock:
        return unsaid_block(self._classifiers(True), self.groups)

    @cached_property
    def _feature_block(self) -> MinorityBlock:
        return unsaid_block(self._means(), self.groups)

    def _predicted(self, predicted: Geometry | str) -> Geometry:
        if isinstance(predicted, Geometry):
            return predicted
        return frame_geometry(predicted, self.num_classes)


def _cosine(group: str, classes: tuple[int, ...], value: float) -> float:
    """Return a mean cosine, or say why there is none."""
    if len(classes) < 2:
        return undefined(
            f"The {group} cosine is undefined (NaN): there are {len(classes)} {group} "
            "classes, and a cosine needs two. Name the minority with `minority=[...]`."
        )
    if math.isnan(value):
        return undefined(
            f"The {group} cosine is undefined (NaN): a {group} classifier has vanished, "
            "and has no direction."
        )
    return value
