r"""Budgets and weight decay: the two say the same, if they average alike.

A program with a budget :math:`\|X\|_* \leq \tau` on :math:`X = Z
\operatorname{diag}(\delta)` has the solution of the one with the penalty
:math:`\mu \|X\|_*`, where :math:`\mu` is the multiplier of the budget at the optimum, the
spectral norm of the gradient of the loss in :math:`X`. As the penalties of both factors
are equal at an optimum, :math:`\lambda_W \|W\|_F^2 = \lambda_H \sum_k \delta_k^2
\|h_k\|^2 = \mu \|X\|_*`, and the decays follow from the energies and back.

What is averaged must be averaged alike. The Layer-Peeled Model, whose budget is an
average over classes (:math:`\delta_k = 1`), is the unconstrained-features model with decay
*per class*. Weight decay per sample (:math:`\delta_k = \sqrt{n_k}`) is another model as
soon as counts differ: it belongs to the budget per sample.

References:
    | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
    | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699: budgets
    | A Geometric Analysis of Neural Collapse with Unconstrained Features (Zhu et al.,
    | 2021), https://arxiv.org/abs/2105.02375: weight decay
    | Neural Collapse for Unconstrained Feature Model under Cross-entropy Loss with
    | Imbalanced Data (Hong & Ling, 2023), https://arxiv.org/abs/2309.09725: the nuclear
    | norm behind both
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel.program.decay import Decay
from layerpeel.program.energy import Energy
from layerpeel.program.multiplier import log_multiplier
from layerpeel.program.problem import PeeledProblem
from layerpeel.program.solution import Solution

# The gap of the solve that is read: a multiplier is as accurate as the root of it.
_GAP_TOL = 1e-12

# A solution is as good as proved up to this gap, where rounding stops the solver short
# of the one asked for.
_PROVED_GAP = 1e-8


def equivalent_decay(problem: PeeledProblem) -> Decay:
    r"""Return the weight decay under which a problem with budgets has its solution.

    With :math:`n = K` for energies per class and :math:`n = N` per sample,

    .. math::
        \lambda_W = \mu \sqrt{\frac{n E_H}{K E_W}} , \qquad
        \lambda_H = \mu \sqrt{\frac{K E_W}{n E_H}} .

    The decay is per class where the energy is, and per sample likewise. Loss, class
    weights, bias and features stay as they are: the two problems have the same logits,
    bias, classifiers and class means.

    References:
        | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
        | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699
        | Neural Collapse for Unconstrained Feature Model under Cross-entropy Loss with
        | Imbalanced Data (Hong & Ling, 2023), https://arxiv.org/abs/2309.09725

    Args:
        problem: A problem with ``energy``, and a solution that is proved.

    Returns:
        The decay, for ``PeeledProblem(..., weight_decay=...)``.

    Raises:
        ValueError: If the problem has weight decay already, its solution is not proved,
            the budget is not spent, so that no decay has this solution, or its
            multiplier is not in the range of floats.

    Example:
        >>> counts = [90, 30, 10, 3]
        >>> problem = PeeledProblem(counts, energy=(1.0, 4.0))
        >>> decay = equivalent_decay(problem)
        >>> round(decay.layers[0], 4), round(decay.features, 4), decay.per
        (0.0553, 0.0138, 'class')
        >>> twin = PeeledProblem(counts, weight_decay=decay)
        >>> bool((problem.solve().logits - twin.solve().logits).abs().max() < 1e-6)
        True
    """
    energy = problem.energy
    if energy is None:
        raise ValueError(
            "`problem` must have budgets to find the equivalent decay of; it has weight "
            "decay already. `equivalent_energy` is the way back."
        )
    log_mu = log_multiplier(problem.class_level(), _proved(problem))
    if log_mu == -math.inf:
        raise ValueError(
            f"The budget of `problem` must bind; with {energy} the loss is at its least "
            "inside of it, and no weight decay has this solution. Lower the energies."
        )
    log_balance = 0.5 * math.log(
        _averaged_over(problem, energy.per) / problem.num_classes
    )
    log_balance -= math.log(energy.balance)
    layer, features = math.exp(log_mu + log_balance), math.exp(log_mu - log_balance)
    if not min(layer, features) > 0:
        raise ValueError(
            "The multiplier of the budget must be above the smallest float; its "
            f"logarithm is {log_mu:.6g}. Lower the energies."
        )
    return Decay(layer, features=features, per=energy.per)


def equivalent_energy(problem: PeeledProblem) -> Energy:
    r"""Return the budgets within which a problem with weight decay has its solution.

    The mean squared norms of the solution's own classifiers and features, averaged over
    classes where the decay is per class, and over samples likewise.

    References:
        | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
        | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699
        | Neural Collapse for Unconstrained Feature Model under Cross-entropy Loss with
        | Imbalanced Data (Hong & Ling, 2023), https://arxiv.org/abs/2309.09725

    Args:
        problem: A problem with ``weight_decay`` of one layer, and a solution that is
            proved.

    Returns:
        The energy, for ``PeeledProblem(..., energy=...)``.

    Raises:
        ValueError: If the problem has budgets already or several layers, its solution is
            not proved, or it is zero, which no positive budget gives.

    Example:
        >>> problem = PeeledProblem([50, 50, 50], weight_decay=(1e-3, 1e-3))
        >>> energy = equivalent_energy(problem)
        >>> energy.per
        'sample'
        >>> twin = PeeledProblem([50, 50, 50], energy=energy)
        >>> bool((problem.solve().logits - twin.solve().logits).abs().max() < 1e-9)
        True
    """
    decay = problem.weight_decay
    if decay is None:
        raise ValueError(
            "`problem` must have weight decay to find the equivalent energy of; it has "
            "budgets already. `equivalent_decay` is the way back."
        )
    if decay.depth > 1:
        raise ValueError(
            "`problem` must have one layer: the decays of "
            f"{decay.depth} layers penalise a quasi-norm of the logits, and no budget on "
            "classifiers and features is equivalent."
        )
    solution = _proved(problem)
    geometry = solution.geometry
    classifiers = float(geometry.classifier_gram.diagonal().mean())
    squares = geometry.feature_gram.diagonal()
    features = float(_class_shares(problem, decay.per) @ squares)
    if not min(classifiers, features) > 0:
        raise ValueError(
            f"The solution of `problem` must not be zero; with {decay} it is, and only "
            "a budget of zero gives that. Lower the weight decay."
        )
    return Energy(classifiers, features, decay.per)


def _proved(problem: PeeledProblem) -> Solution:
    """Return the solution, which must be a global one for the equivalence to hold."""
    solution = problem.solve(_GAP_TOL)
    if solution.status.success or solution.certificate.gap <= _PROVED_GAP:
        return solution
    raise ValueError(
        "The solution of `problem` must be proved to be global; its relative gap is "
        f"{solution.certificate.gap:.3g}. Leave out `width`, or what else makes the "
        "problem nonconvex."
    )


def _averaged_over(problem: PeeledProblem, per: str) -> float:
    """Return how many classes or samples the feature energy is an average of."""
    return math.fsum(problem.class_counts) if per == "sample" else problem.num_classes


def _class_shares(problem: PeeledProblem, per: str) -> Float64[Tensor, " K"]:
    """Return how much each class counts in that average."""
    counts = torch.tensor(problem.class_counts, dtype=torch.float64)
    members = counts if per == "sample" else torch.ones_like(counts)
    return members / members.sum()
