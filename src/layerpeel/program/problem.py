"""The peeled problem: class counts, a loss and an energy, and its solution."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import SupportsFloat

from layerpeel._checks import one_of, positive
from layerpeel._tolerances import CERTIFIED_GAP
from layerpeel.program.balanced import solve_balanced
from layerpeel.program.certificate import certify
from layerpeel.program.counts import CountGroup, checked_counts, one_or_two_groups
from layerpeel.program.dual_path import solve_two_groups
from layerpeel.program.energy import Energy
from layerpeel.program.solution import Solution, Status
from layerpeel.program.spectrum import BlockSpectrum
from layerpeel.program.two_groups import TwoGroups

LOSSES = ("cross_entropy",)


@dataclass(frozen=True, init=False)
class PeeledProblem:
    r"""The last layer of a network, peeled off: free features under an energy budget.

    .. math::
        \min_{W, H} \; \frac{1}{N} \sum_{k} \sum_{i=1}^{n_k} \ell(W h_{k,i}, k)
        \quad \text{s.t.} \quad \frac{1}{K} \sum_k \|w_k\|^2 \leq E_W , \quad
        \frac{1}{K} \sum_k \frac{1}{n_k} \sum_i \|h_{k,i}\|^2 \leq E_H

    Nonconvex as it stands, it is convex in the class-mean logits, and solved globally
    here for balanced counts and for two groups of equally frequent classes. It needs a
    width of at least the rank of the logits, which is at most :math:`K - 1`.

    References:
        | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
        | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699

    Args:
        class_counts: The number of samples of each class, or any positive weights in
            the same proportions, with length :math:`K \geq 2`.
        loss: The loss; ``"cross_entropy"``.
        energy: The budgets :math:`(E_W, E_H)`, for instance those measured in a trained
            network.

    Raises:
        ValueError: If a count or an energy is not finite and above zero, if there are
            fewer than two classes or more than two distinct counts, or if the loss is
            unknown.

    Example:
        >>> problem = PeeledProblem([500] * 5 + [10] * 5, energy=(1.0, 5.0))
        >>> solution = problem.solve()
        >>> solution.status.name, solution.certificate.gap < 1e-10
        ('CERTIFIED', True)
        >>> minority = solution.classifiers()[5:]
        >>> bool((minority == minority[0]).all())  # 50 > collapse_threshold = 12.19
        True
    """

    class_counts: tuple[float, ...]
    loss: str
    energy: Energy

    def __init__(
        self,
        class_counts: Iterable[SupportsFloat],
        *,
        loss: str = "cross_entropy",
        energy: Energy | Sequence[float],
    ) -> None:
        counts = checked_counts(class_counts)
        one_or_two_groups(counts)
        object.__setattr__(self, "class_counts", counts)
        object.__setattr__(self, "loss", one_of("loss", loss, LOSSES))
        object.__setattr__(self, "energy", Energy.of(energy))
        self.energy.nuclear_norm(len(counts))

    @property
    def num_classes(self) -> int:
        """The number of classes :math:`K`."""
        return len(self.class_counts)

    def solve(self, gap_tol: float = CERTIFIED_GAP) -> Solution:
        """Solve the problem globally.

        Args:
            gap_tol: The relative gap to an evaluated lower bound up to which the
                solution calls itself certified.

        Returns:
            The solution. Its status is ``CLOSED_FORM`` for balanced counts; otherwise
            ``CERTIFIED`` if the evaluated gap is at most ``gap_tol``, and else
            ``STATIONARY``.

        Raises:
            ValueError: If ``gap_tol`` is not finite and above zero.
        """
        positive("gap_tol", gap_tol)
        tau = self.energy.nuclear_norm(self.num_classes)
        groups = one_or_two_groups(self.class_counts)
        spectrum, facts = _solve(groups, tau)
        counts = [group.count for group in groups]
        certificate, log_objective = certify(spectrum, counts, tau)
        status = Status.of_gap(certificate.gap, gap_tol)
        if len(groups) == 1:
            status = Status.CLOSED_FORM
        stats = {"log_objective": log_objective, **facts}
        return Solution(status, certificate, self.energy, spectrum, stats)


def two_group_program(groups: Sequence[CountGroup], tau: float) -> TwoGroups:
    """Return the scalar program of two groups of equally frequent classes."""
    majority, minority = groups
    return TwoGroups(
        majority=len(majority.classes),
        minority=len(minority.classes),
        log_ratio=_log_ratio(majority.count, minority.count),
        tau=tau,
    )


def _solve(
    groups: Sequence[CountGroup], tau: float
) -> tuple[BlockSpectrum, Mapping[str, float]]:
    """Return the optimal logits and facts about the search."""
    if len(groups) == 1:
        return solve_balanced(len(groups[0].classes), tau), {}
    logits = solve_two_groups(two_group_program(groups, tau))
    spectrum = logits.spectrum(groups[0].classes, groups[1].classes)
    return spectrum, {"evaluations": logits.evaluations}


def _log_ratio(larger: float, smaller: float) -> float:
    """Return the log of a ratio of counts; ratios near one keep their digits."""
    if larger < 2 * smaller:
        return math.log1p((larger - smaller) / smaller)
    return math.log(larger) - math.log(smaller)
