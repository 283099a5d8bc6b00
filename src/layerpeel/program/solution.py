"""What every solve returns: how it ended, what is proved, and the geometry found."""

from __future__ import annotations

import enum
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._tolerances import RESOLVED_GAP
from layerpeel.geometry import Geometry
from layerpeel.program.factors import Factors


class Status(enum.Enum):
    """How a solve ended. The value is the sentence shown to the user."""

    CLOSED_FORM = "A formula; that it is a global optimum is a theorem."
    CERTIFIED = "The objective is within `gap_tol` of an evaluated lower bound."
    STATIONARY = (
        "The solver stopped, but the evaluated gap is above `gap_tol`: nothing is "
        "proved to that accuracy. Read `certificate.gap`, or loosen `gap_tol`."
    )
    MAX_STEPS = "The step limit was reached. Raise it, or loosen the tolerances."
    NONFINITE = (
        "A non-finite value appeared. Check that counts and energies are of a "
        "reasonable size."
    )

    @classmethod
    def of_gap(cls, gap: float, gap_tol: float) -> Status:
        """Return what an evaluated relative gap proves."""
        if not math.isfinite(gap):
            return cls.NONFINITE
        return cls.CERTIFIED if gap <= gap_tol else cls.STATIONARY

    @property
    def success(self) -> bool:
        """Whether the solution may be relied on; it is then proved, up to ``gap_tol``."""
        return self in {Status.CLOSED_FORM, Status.CERTIFIED}


@dataclass(frozen=True)
class Certificate:
    r"""An evaluated lower bound :math:`\ell \leq f^\star \leq f`.

    The bound holds up to the rounding of its own evaluation in float64, and no relative
    gap below ``RESOLVED_GAP``, a few times the unit of float64, is claimed: factors in
    float64 do not attain an objective more exactly than that.

    Attributes:
        objective: The attained value :math:`f`.
        lower_bound: The bound :math:`\ell`.
        scaled_gap: The relative gap, where it was evaluated in units of the objective:
            a loss of ``exp(-1000)`` is zero in float64, its relative gap is not.

    Example:
        >>> Certificate(objective=2.0, lower_bound=1.5).gap
        0.25
    """

    objective: float
    lower_bound: float
    scaled_gap: float | None = None

    @property
    def gap(self) -> float:
        r"""The relative gap :math:`(f - \ell) / |f|`.

        Relative to the objective itself: a loss can be as small as 1e-12, where an
        absolute tolerance would certify anything. At least ``RESOLVED_GAP``, except
        for an objective of exactly zero that is its own bound.
        """
        gap = self.scaled_gap
        if gap is None:
            if self.objective == self.lower_bound == 0:
                return 0.0
            gap = self.absolute_gap / max(abs(self.objective), sys.float_info.min)
        return RESOLVED_GAP if gap < RESOLVED_GAP else gap

    @property
    def absolute_gap(self) -> float:
        r"""The gap :math:`f - \ell`."""
        return self.objective - self.lower_bound


@dataclass(frozen=True, eq=False)
class Solution:
    r"""The solution of a peeled program.

    Logits are :math:`Z = W \bar H`: **column** :math:`k` holds the logits of the mean
    feature of class :math:`k`, which every sample of the class shares at an optimum.
    Classifiers and features are determined up to a common rotation; their Gram
    matrices, and hence :attr:`geometry`, are determined exactly. With several linear
    layers, the classifiers are the rows of their product.

    References:
        | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
        | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699

    Attributes:
        status: How the solve ended; ``status.value`` is a sentence.
        certificate: The objective and an evaluated lower bound.
        factors: Classifiers and class means.
        bias: The bias, with shape :math:`(K,)`; zeros for a program without one.
        stats: Facts about the solve, for instance ``log_objective``, which is finite
            where the objective underflows.

    Example:
        >>> from layerpeel.program import PeeledProblem
        >>> solution = PeeledProblem([100, 100, 100], energy=(1.0, 4.0)).solve()
        >>> solution.logits.tolist()
        [[2.0, -1.0, -1.0], [-1.0, 2.0, -1.0], [-1.0, -1.0, 2.0]]
        >>> solution.geometry.classifier_norms.tolist()
        [1.0, 1.0, 1.0]
        >>> solution.geometry.feature_norms.tolist()
        [2.0, 2.0, 2.0]
    """

    status: Status
    certificate: Certificate
    factors: Factors = field(repr=False)
    bias: Float64[Tensor, " K"] = field(repr=False)
    stats: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stats", MappingProxyType(dict(self.stats)))

    def __reduce__(self) -> tuple[type[Solution], tuple[object, ...]]:
        """Pickle and copy what was solved: a read-only view can be neither."""
        parts = (self.status, self.certificate, self.factors, self.bias)
        return Solution, (*parts, dict(self.stats))

    @property
    def objective(self) -> float:
        """The mean loss over all samples, and the penalties where there are any."""
        return self.certificate.objective

    @property
    def logits(self) -> Float64[Tensor, "K K"]:
        """Logits :math:`Z`, one class mean per column, without the bias."""
        return self.geometry.logits

    @cached_property
    def geometry(self) -> Geometry:
        """The Gram matrices of classifiers and class means, and the logits."""
        return self.factors.geometry

    def classifiers(self, width: int | None = None) -> Float64[Tensor, "K p"]:
        r"""Return classifiers :math:`w_k`, in the basis of :meth:`class_means`.

        Args:
            width: The dimension :math:`p`, at least the rank of the logits; :math:`K`
                when omitted.

        Returns:
            One classifier per row, with shape :math:`(K, p)`.

        Raises:
            ValueError: If ``width`` is smaller than the rank of the logits.
        """
        return _padded(self.factors.classifiers(), width)

    def class_means(self, width: int | None = None) -> Float64[Tensor, "K p"]:
        r"""Return class means :math:`\bar h_k`, in the basis of :meth:`classifiers`.

        Args:
            width: The dimension :math:`p`, at least the rank of the logits; :math:`K`
                when omitted.

        Returns:
            One class mean per row, with shape :math:`(K, p)`.

        Raises:
            ValueError: If ``width`` is smaller than the rank of the logits.
        """
        return _padded(self.factors.class_means(), width)


def _padded(
    factor: Float64[Tensor, "K rank"], width: int | None
) -> Float64[Tensor, "K p"]:
    rows, rank = factor.shape
    width = max(rows, rank) if width is None else width
    if width < rank:
        raise ValueError(
            f"`width` must be at least {rank}, the rank of the logits; got "
            f"{width}. In fewer dimensions this solution does not exist."
        )
    return torch.nn.functional.pad(factor, (0, width - rank))
