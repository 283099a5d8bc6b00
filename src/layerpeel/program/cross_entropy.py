"""The cross-entropy and its per-class variants for imbalanced data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import SupportsFloat

from layerpeel._checks import positive
from layerpeel.program._inputs import numbers

# What may be given per class: nothing, or one number for each class.
PerClass = Iterable[SupportsFloat] | None


@dataclass(frozen=True, init=False)
class CrossEntropy:
    r"""Cross-entropy, with label smoothing and per-class scales, offsets and margins.

    A sample of class :math:`k` with features :math:`h` has the loss

    .. math::
        -\sum_j t_{jk} \log \operatorname{softmax}_j\left(
        \frac{\gamma_j \, (w_j^\top h + b_j)}{m_k} + \iota_j \right), \qquad
        t_{jk} = (1 - \varepsilon) \delta_{jk} + \frac{\varepsilon}{K} .

    With class weights :math:`\omega`, the smoothed targets are weighted as in
    ``torch.nn.CrossEntropyLoss``.

    References:
        | On the Implicit Geometry of Cross-Entropy Parameterizations for
        | Label-Imbalanced Data (Behnia et al., 2023), https://arxiv.org/abs/2303.07608:
        | scales (CDT) and margins (LDT)
        | Long-Tail Learning via Logit Adjustment (Menon et al., 2020),
        | https://arxiv.org/abs/2007.07314: offsets

    Attributes:
        smoothing: Label smoothing :math:`\varepsilon \in [0, 1)`.
        scale: Factor :math:`\gamma_j > 0` on the logit of each class (CDT).
        offset: Number :math:`\iota_j` added to the logit of each class (additive logit
            adjustment), in nats.
        margin: Divisor :math:`m_k > 0` of all logits of a sample of class :math:`k`
            (LDT, with temperature :math:`1 / m_k`): a class of margin 2 needs twice the
            logit gap for the same loss.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> CrossEntropy(smoothing=0.1).smoothing
        0.1
        >>> CrossEntropy(scale=[1, 2]).scale
        (1.0, 2.0)
    """

    smoothing: float
    scale: tuple[float, ...] | None
    offset: tuple[float, ...] | None
    margin: tuple[float, ...] | None

    def __init__(
        self,
        smoothing: float = 0.0,
        scale: PerClass = None,
        offset: PerClass = None,
        margin: PerClass = None,
    ) -> None:
        if not (isinstance(smoothing, SupportsFloat) and 0 <= float(smoothing) < 1):
            raise ValueError(f"`smoothing` must lie in [0, 1); got {smoothing!r}.")
        object.__setattr__(self, "smoothing", float(smoothing))
        object.__setattr__(self, "scale", _positives("scale", scale))
        object.__setattr__(self, "offset", _finites("offset", offset))
        object.__setattr__(self, "margin", _positives("margin", margin))

    @property
    def plain(self) -> bool:
        """Whether all classes are treated alike, without scale, offset or margin."""
        return self.scale is None and self.offset is None and self.margin is None


def _positives(name: str, values: PerClass) -> tuple[float, ...] | None:
    if values is None:
        return None
    given = numbers(name, values)
    return tuple(positive(f"{name}[{k}]", value) for k, value in enumerate(given))


def _finites(name: str, values: PerClass) -> tuple[float, ...] | None:
    if values is None:
        return None
    given = numbers(name, values, example="[0.0, 0.0, -1.5]")
    if not all(map(math.isfinite, given)):
        raise ValueError(f"`{name}` must hold finite numbers; got {given!r}.")
    return given
