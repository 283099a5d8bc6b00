"""The space that the class means span, in which both NC4 and NC1 take place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from layerpeel.measurement.statistics.conventions import centred_means, global_mean
from layerpeel.measurement.statistics.moments import ClassMoments

# Scores of samples against all classes that are held at a time: 32 MB.
_SCORES = 2**22


@dataclass(frozen=True, eq=False)
class MeanSubspace:
    r"""The affine space through the class means, of at most :math:`K - 1` dimensions.

    What is orthogonal to it adds the same to the distance to every class mean, and is
    not seen by :math:`S_B^+`: a sample's coordinates here are all that both need.

    Attributes:
        origin: A point of the space, with shape :math:`(d,)`.
        basis: Orthonormal directions as rows, with shape :math:`(r, d)`; ``None`` where
            coordinates are the features themselves, about the origin.
        means: Coordinates of the class means, with shape :math:`(K, r)`; NaN for
            classes without samples.
        present: Which classes have samples, with shape :math:`(K,)`.
    """

    origin: Float64[Tensor, " d"]
    basis: Float64[Tensor, "r d"] | None
    means: Float64[Tensor, "K r"]
    present: Bool[Tensor, " K"]

    @classmethod
    def of(cls, moments: ClassMoments) -> MeanSubspace:
        """Return the space of the class means of some moments.

        Light moments give no basis, which takes :math:`O(K^2 d)` time, and up to
        :math:`d^2` memory: whole features are as good for distances.
        """
        present = moments.count > 0
        origin = global_mean(moments, "class")
        centred = centred_means(moments, "class")
        if moments.light:
            return cls(origin, None, centred, present)
        _, basis = mean_directions(centred[present])
        return cls(origin, basis, centred @ basis.T, present)

    def coordinates(self, features: Tensor) -> Float64[Tensor, "n r"]:
        """Return the coordinates of features with shape :math:`(n, d)`."""
        centred = features.detach().to(torch.float64) - self.origin
        return centred if self.basis is None else centred @ self.basis.T

    def nearest(self, coordinates: Float64[Tensor, "n r"]) -> Int64[Tensor, " n"]:
        """Return the class whose mean is nearest; the first of several equally near."""
        # |z - m|^2 is smallest where z.m - |m|^2 / 2 is largest.
        offset = self.means.square().sum(1) / 2
        rows = max(1, _SCORES // len(offset))
        return torch.cat(
            [
                (part @ self.means.T)
                .sub_(offset)
                .masked_fill_(~self.present, -torch.inf)
                .argmax(1)
                for part in torch.split(coordinates, rows)
            ]
        )


def mean_directions(
    centred_means: Float64[Tensor, "K d"],
) -> tuple[Float64[Tensor, " r"], Float64[Tensor, "r d"]]:
    """Return singular values and orthonormal directions of the space of class means.

    Args:
        centred_means: Centred means of classes that have samples.

    Returns:
        At most :math:`K - 1` of each, largest first, and no more than :math:`d`.
    """
    rank = max(0, min(len(centred_means) - 1, centred_means.shape[1]))
    _, singular, directions = torch.linalg.svd(centred_means, full_matrices=False)
    return singular[:rank], directions[:rank]
