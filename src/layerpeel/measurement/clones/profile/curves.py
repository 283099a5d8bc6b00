"""What chunks of every width do on one set of data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._json import plain

READINGS: Mapping[str, str] = MappingProxyType(
    {
        "raw": "the classifier restricted to the chunk",
        "rescaled": "the same, scaled by the share of neurons left out",
        "folded": "the reconstruction of the others folded into the classifier",
    }
)
"""How a chunk is read, by name."""


@dataclass(frozen=True, eq=False)
class CloneCurves:
    r"""Errors and reconstruction by chunks, on the training set or on held-out data.

    A row belongs to a width, a column to a chunk. What could not be computed is NaN:
    all errors without a classifier, and at the width of the layer what concerns neurons
    outside the chunk.

    Attributes:
        count: The number of samples.
        full_error: The error of the whole network, in :math:`[0, 1]`.
        errors: Error of chunks by reading, a key of ``READINGS``; each with shape
            :math:`(m, r)`.
        r_squared: :math:`R^2` of linear reconstruction by scope, ``"all"`` neurons or
            those of the ``"complement"``; each with shape :math:`(m, r)`.
        correlation: Mean absolute correlation of what is missed, by scope; the same.
        expected: The expected raw error of random chunks, without drawing any
            (:class:`~layerpeel.measurement.clones.GaussianCurve`), with shape
            :math:`(m,)`.
    """

    count: int
    full_error: float
    errors: Mapping[str, Float64[Tensor, "m r"]]
    r_squared: Mapping[str, Float64[Tensor, "m r"]]
    correlation: Mapping[str, Float64[Tensor, "m r"]]
    expected: Float64[Tensor, " m"]

    @property
    def raw(self) -> Float64[Tensor, "m r"]:
        """Error with the classifier restricted to the chunk, as in the protocol."""
        return self.errors["raw"]

    @property
    def rescaled(self) -> Float64[Tensor, "m r"]:
        """Error with the restricted classifier scaled by :math:`W / w`."""
        return self.errors["rescaled"]

    @property
    def folded(self) -> Float64[Tensor, "m r"]:
        """Error with the reconstruction folded into the classifier."""
        return self.errors["folded"]

    @property
    def clone_score(self) -> Float64[Tensor, " m"]:
        """Mean raw error less mean folded error, with shape :math:`(m,)`.

        A clone can be read as it is: the score is near zero. Mere low rank is
        reconstructed just as well, and has a large one.
        """
        return self.raw.nanmean(1) - self.folded.nanmean(1)

    @property
    def has_errors(self) -> bool:
        """Whether there was a classifier to read chunks with."""
        return not math.isnan(self.full_error)

    def means(self, scope: str) -> dict[str, Float64[Tensor, " m"]]:
        """Return the mean over chunks of everything, by name; each :math:`(m,)`.

        Args:
            scope: ``"all"`` or ``"complement"``.
        """
        return {
            **{
                f"{name}_error": table.nanmean(1) for name, table in self.errors.items()
            },
            "expected_error": self.expected,
            "r_squared": self.r_squared[scope].nanmean(1),
            "residual_correlation": self.correlation[scope].nanmean(1),
        }

    def spreads(self, scope: str) -> dict[str, Float64[Tensor, " m"]]:
        """Return the standard deviation over chunks, by the names of :meth:`means`.

        NaN for fewer than two chunks.
        """
        return {
            **{f"{name}_error": deviation(t) for name, t in self.errors.items()},
            "r_squared": deviation(self.r_squared[scope]),
            "residual_correlation": deviation(self.correlation[scope]),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON; undefined numbers are ``None``."""
        content: dict[str, Any] = plain(
            {
                "count": self.count,
                "full_error": self.full_error,
                "errors": dict(self.errors),
                "expected_errors": self.expected,
                "r_squared": dict(self.r_squared),
                "residual_correlation": dict(self.correlation),
            }
        )
        return content


def deviation(table: Float64[Tensor, "m r"]) -> Float64[Tensor, " m"]:
    """Return the standard deviation of each row, NaN left out."""
    known = (~table.isnan()).sum(1)
    centred = table - table.nanmean(1, keepdim=True)
    squares = centred.square().nansum(1)
    freedom = torch.where(known > 1, known - 1.0, torch.nan)
    return (squares / freedom).sqrt()
