r"""From a problem in a user's words to the program in the class-mean logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from layerpeel._checks import listed
from layerpeel._tolerances import LEAST_WEIGHT
from layerpeel.program.class_level import ClassLevel, SoftmaxLoss, SquaredLoss
from layerpeel.program.counts import count_groups
from layerpeel.program.cross_entropy import CrossEntropy
from layerpeel.program.decay import Decay
from layerpeel.program.energy import Energy
from layerpeel.program.mse import MSE
from layerpeel.program.regulariser import Regulariser


def class_level(
    class_counts: Sequence[float],
    *,
    loss: CrossEntropy | MSE,
    holds: Energy | Decay | None,
    class_weights: Sequence[float] | None = None,
    ridge: float | None = None,
    nonnegative: bool = False,
    width: int | None = None,
) -> ClassLevel:
    r"""Return the class-level program.

    Class weights :math:`\omega` and label smoothing :math:`\varepsilon` mix as in
    ``torch.nn.CrossEntropyLoss``, where every *target* class has its weight: the loss of
    a sample of class :math:`k` is :math:`m_k = (1 - \varepsilon) \omega_k +
    \varepsilon \bar\omega` times a cross-entropy against the target
    :math:`((1 - \varepsilon) \omega_k e_k + \varepsilon \omega / K) / m_k`, and the sum
    is divided by :math:`\sum_k n_k \omega_k`.

    Args:
        class_counts: Positive counts, with length :math:`K`; those that differ by
            rounding only are made equal.
        loss: The loss.
        holds: The budgets or the decay.
        class_weights: Loss weights :math:`\omega`, equal when omitted.
        ridge: The ridge of the bias, 0 for a free one, ``None`` for none.
        nonnegative: Whether features are nonnegative.
        width: The feature dimension; ``None`` for as many as needed.

    Raises:
        ValueError: If the weight of a class in the loss is below ``LEAST_WEIGHT``.
    """
    counts = _evened(class_counts)
    omega = torch.ones_like(counts)
    if class_weights is not None:
        omega = torch.tensor(class_weights, dtype=torch.float64)
        omega = omega / omega.max()  # only proportions matter, and sums may overflow
    smoothing = loss.smoothing if isinstance(loss, CrossEntropy) else 0.0
    mass = (1 - smoothing) * omega + smoothing * omega.mean()
    # Divided by the largest first: counts of 1e300 must not overflow in the sum.
    shares = counts / counts.max()
    weights = shares * mass / (shares * omega).sum()
    _refuse_vanishing(weights)
    if isinstance(holds, Energy):
        regulariser = Regulariser.of_energy(holds, counts.tolist())
    else:
        assert holds is not None  # exactly one of the two is there
        regulariser = Regulariser.of_decay(holds)
    delta = counts.sqrt() if holds.per == "sample" else torch.ones_like(counts)
    terms: SoftmaxLoss | SquaredLoss = SquaredLoss()
    if isinstance(loss, CrossEntropy):
        terms = _softmax_loss(
            loss, smoothing * omega.mean() / mass, omega / omega.sum()
        )
    return ClassLevel(weights, delta, terms, regulariser, ridge, nonnegative, width)


def alike(program: ClassLevel) -> tuple[tuple[int, ...], ...]:
    """Return the classes grouped by all that the program knows of them.

    Larger loss weights come first.
    """
    features = [program.weights, program.feature_weights]
    if isinstance(program.loss, SoftmaxLoss):
        loss = program.loss
        features += [loss.scale, loss.offset, loss.margin, loss.smoothing]
        if loss.smoothing.any():  # the common target has no share otherwise
            features.append(loss.common)
    rows = torch.stack(features, dim=1).tolist()
    groups: dict[tuple[float, ...], list[int]] = {}
    for k, row in enumerate(rows):
        groups.setdefault(tuple(row), []).append(k)
    ordered = sorted(groups.items(), key=lambda item: -item[0][0])
    return tuple(tuple(classes) for _, classes in ordered)


def _refuse_vanishing(weights: Float64[Tensor, " K"]) -> None:
    if bool((weights >= LEAST_WEIGHT).all()):  # NaN is refused as well
        return
    lost = (~(weights >= LEAST_WEIGHT)).nonzero().flatten().tolist()
    raise ValueError(
        "`class_counts`, times `class_weights`, must give every class a share of the "
        f"loss of at least {LEAST_WEIGHT:g}; those of the classes {listed(lost)} are "
        "smaller. Leave these classes out, or bring counts and weights closer together."
    )


def _evened(class_counts: Sequence[float]) -> Float64[Tensor, " K"]:
    counts = torch.empty(len(class_counts), dtype=torch.float64)
    for group in count_groups(class_counts):
        counts[list(group.classes)] = group.count
    return counts


def _softmax_loss(
    loss: CrossEntropy, smoothing: Float64[Tensor, " K"], common: Float64[Tensor, " K"]
) -> SoftmaxLoss:
    def per_class(values: Sequence[float] | None, default: float) -> Tensor:
        if values is None:
            return torch.full_like(common, default)
        return torch.tensor(values, dtype=torch.float64)

    return SoftmaxLoss(
        per_class(loss.scale, 1.0),
        per_class(loss.offset, 0.0),
        per_class(loss.margin, 1.0),
        smoothing,
        common,
    )
