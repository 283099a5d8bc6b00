"""Weight decay on every layer and on the features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsFloat

from layerpeel._checks import one_of, positive


@dataclass(frozen=True, init=False)
class Decay:
    r"""Penalties :math:`\frac{\lambda_j}{2} \|W_j\|_F^2` and one on the features.

    ``Decay(lam_W, features=lam_H)`` is the unconstrained-features model of one layer;
    ``Decay(lam_WM, ..., lam_W1, features=lam_H)`` has :math:`M` linear layers
    :math:`W_M \cdots W_1` on top of the features. Features are penalised by

    .. math::
        \frac{\lambda_H}{2} \sum_{k,i} \|h_{k,i}\|^2 \; (\text{per sample}) \qquad
        \text{or} \qquad
        \frac{\lambda_H}{2} \sum_k \frac{1}{n_k} \sum_i \|h_{k,i}\|^2 \;
        (\text{per class}) .

    Decay per sample is what weight decay on earlier layers comes closest to; decay per
    class is the penalised twin of the Layer-Peeled Model.

    References:
        | A Geometric Analysis of Neural Collapse with Unconstrained Features (Zhu et
        | al., 2021), https://arxiv.org/abs/2105.02375
        | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data
        | (Dang et al., 2023), https://arxiv.org/abs/2301.00437: several layers

    Attributes:
        layers: The decays of the layers, last layer first, with length :math:`M`.
        features: The decay :math:`\lambda_H` of the features.
        per: ``"sample"`` or ``"class"``.

    Raises:
        ValueError: If there is no layer, or a decay is not finite and above zero.

    Example:
        >>> Decay(5e-4, 5e-4, features=1e-3).depth
        2
        >>> Decay.of((5e-4, 1e-3)) == Decay(5e-4, features=1e-3)
        True
    """

    layers: tuple[float, ...]
    features: float
    per: str

    def __init__(
        self, *layers: SupportsFloat, features: float, per: str = "sample"
    ) -> None:
        if not layers:
            raise ValueError(
                "`Decay` must have the decay of at least one layer; got none. "
                "Write `Decay(lam_W, features=lam_H)`."
            )
        checked = tuple(
            positive(f"weight_decay.layers[{j}]", value)
            for j, value in enumerate(layers)
        )
        object.__setattr__(self, "layers", checked)
        checked_features = positive("weight_decay.features", features)
        object.__setattr__(self, "features", checked_features)
        object.__setattr__(self, "per", one_of("per", per, ("sample", "class")))

    @classmethod
    def of(cls, weight_decay: Decay | Sequence[float]) -> Decay:
        """Return a decay as it is, and a tuple ``(..., lam_H)`` as a decay per sample.

        Raises:
            ValueError: If it is neither, or a number is not finite and above zero.
        """
        if isinstance(weight_decay, Decay):
            return weight_decay
        try:
            *layers, features = map(float, weight_decay)
        except (TypeError, ValueError):
            layers, features = [], 0.0
        if not layers:
            raise ValueError(
                "`weight_decay` must be a `Decay` or a tuple (lam_W, ..., lam_H) of at "
                f"least two decays, the features' last; got {weight_decay!r}."
            )
        return cls(*layers, features=features)

    @property
    def depth(self) -> int:
        """The number of linear layers :math:`M`."""
        return len(self.layers)

    @property
    def multiplier(self) -> float:
        r"""The factor :math:`c = (\lambda_H \prod_j \lambda_j)^{1/(M+1)}`.

        The penalties of all factors of :math:`X` have the minimum
        :math:`\frac{M+1}{2} c \sum_i \sigma_i(X)^{2/(M+1)}`; for one layer,
        :math:`\sqrt{\lambda_W \lambda_H}` times the nuclear norm.
        """
        logs = math.fsum(map(math.log, (*self.layers, self.features)))
        return math.exp(logs / (self.depth + 1))
