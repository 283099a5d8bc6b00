"""The energy budgets of a peeled program: mean squared norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from layerpeel._checks import one_of, positive


@dataclass(frozen=True)
class Energy:
    r"""Mean squared norms that the classifiers and the class means may have.

    .. math::
        \frac{1}{K} \sum_k \|w_k\|^2 \leq E_W, \qquad
        \frac{1}{K} \sum_k \frac{1}{n_k} \sum_i \|h_{k,i}\|^2 \leq E_H

    Every class has the same share of the feature budget, however few samples it has;
    with ``per="sample"`` every sample has, :math:`\frac{1}{N} \sum_{k,i}
    \|h_{k,i}\|^2 \leq E_H`, which is the budget that matches weight decay per sample.
    Only the product :math:`E_W E_H` matters for the logits; the ratio rescales the
    classifiers against the features.

    References:
        | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
        | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699

    Attributes:
        classifiers: The budget :math:`E_W` of the classifiers.
        features: The budget :math:`E_H` of the features.
        per: ``"class"`` (the Layer-Peeled Model) or ``"sample"``.

    Raises:
        ValueError: If an energy is not finite and above zero.

    Example:
        >>> Energy(4.0, 9.0).nuclear_norm(10)
        60.0
    """

    classifiers: float
    features: float
    per: str = "class"

    def __post_init__(self) -> None:
        for name in ("classifiers", "features"):
            value = positive(f"energy.{name}", getattr(self, name))
            object.__setattr__(self, name, value)
        one_of("energy.per", self.per, ("class", "sample"))

    @classmethod
    def of(cls, energy: Energy | Sequence[float]) -> Energy:
        """Return an energy as it is, and a pair ``(E_W, E_H)`` as an energy.

        Raises:
            ValueError: If it is neither, or a number is not finite and above zero.
        """
        if isinstance(energy, Energy):
            return energy
        try:
            classifiers, features = map(float, energy)
        except (TypeError, ValueError):
            raise ValueError(
                "`energy` must be an `Energy` or a pair (E_W, E_H), the mean squared "
                f"norms of classifiers and features; got {energy!r}."
            ) from None
        return cls(classifiers, features)

    @classmethod
    def per_class(cls, energy: Energy | Sequence[float], what: str) -> Energy:
        """Return an energy for what is derived for a budget that classes share evenly.

        Args:
            energy: An energy, or a pair ``(E_W, E_H)``.
            what: What is derived, for the message.

        Raises:
            ValueError: If every sample has the same share instead.
        """
        checked = cls.of(energy)
        if checked.per != "class":
            raise ValueError(
                f"`energy` must be per class: {what} is derived for a budget of which "
                f"every class has the same share; got {checked}. Solve "
                "`PeeledProblem(..., energy=energy)` over the ratios of interest, or "
                'measure the energy per class, and pass `Energy(E_W, E_H, "class")`.'
            )
        return checked

    @property
    def product(self) -> float:
        """The product :math:`E_W E_H`, all that the logits depend on."""
        return self.classifiers * self.features

    @property
    def balance(self) -> float:
        r"""The ratio :math:`\sqrt{E_W / E_H}` between the two scales."""
        return math.sqrt(self.classifiers) / math.sqrt(self.features)

    def nuclear_norm(self, num_classes: int) -> float:
        r"""Return :math:`\tau = K \sqrt{E_W E_H}`, the budget of the logits.

        A logit matrix is within both energies exactly when its nuclear norm is at most
        :math:`\tau`.

        Args:
            num_classes: The number of classes :math:`K`.

        Raises:
            ValueError: If the budget overflows.
        """
        # The roots are taken one by one: their product overflows later.
        budget = num_classes * math.sqrt(self.classifiers) * math.sqrt(self.features)
        return positive("K * sqrt(E_W * E_H)", budget)
