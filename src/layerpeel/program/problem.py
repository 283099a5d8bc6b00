"""The peeled problem: class counts, a loss, what holds it small, and its solution."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, SupportsFloat

import torch
from jaxtyping import Float
from torch import Tensor

from layerpeel._checks import ShapeError, at_least, one_of, positive
from layerpeel._tolerances import CERTIFIED_GAP
from layerpeel.program._inputs import Array, numbers, real_tensor, usable_device
from layerpeel.program.class_level import ClassLevel
from layerpeel.program.counts import checked_counts
from layerpeel.program.cross_entropy import CrossEntropy
from layerpeel.program.decay import Decay
from layerpeel.program.energy import Energy
from layerpeel.program.mse import MSE
from layerpeel.program.reduction import class_level
from layerpeel.program.routes import Request, choose_route
from layerpeel.program.solution import Solution

Loss = CrossEntropy | MSE

LOSSES: dict[str, Loss] = {"cross_entropy": CrossEntropy(), "mse": MSE()}
"""The losses that a word stands for."""


@dataclass(frozen=True, init=False)
class PeeledProblem:
    r"""The last layer of a network, peeled off: free features under an energy budget.

    With budgets, the Layer-Peeled Model (Fang et al. 2021):

    .. math::
        \min_{W, H, b} \; \frac{1}{N} \sum_{k} \sum_{i=1}^{n_k}
        \ell(W h_{k,i} + b, k)
        \quad \text{s.t.} \quad \frac{1}{K} \sum_k \|w_k\|^2 \leq E_W , \quad
        \frac{1}{K} \sum_k \frac{1}{n_k} \sum_i \|h_{k,i}\|^2 \leq E_H

    With weight decay, the unconstrained-features model of :math:`M` linear layers:

    .. math::
        \min_{W_j, H, b} \; \frac{1}{N} \sum_{k,i} \ell(W_M \cdots W_1 h_{k,i} + b, k)
        + \sum_j \frac{\lambda_j}{2} \|W_j\|_F^2 + \frac{\lambda_H}{2} \|H\|_F^2
        + \frac{\lambda_b}{2} \|b\|^2

    Nonconvex as they stand, all of one layer with free features are convex in the
    class-mean logits and solved globally, with proof. The guide "How to choose" says
    which variant describes which network, and the support matrix what is proved where.

    References:
        | Exploring Deep Neural Networks via Layer-Peeled Model: Minority Collapse in
        | Imbalanced Training (Fang et al., 2021), https://arxiv.org/abs/2101.12699
        | A Geometric Analysis of Neural Collapse with Unconstrained Features (Zhu et
        | al., 2021), https://arxiv.org/abs/2105.02375
        | Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data
        | (Dang et al., 2023), https://arxiv.org/abs/2301.00437

    Args:
        class_counts: The number of samples of each class, or any positive numbers, such
            as effective counts, with length :math:`K \geq 2`. With decay per sample
            their size matters, otherwise their proportions do.
        loss: A :class:`CrossEntropy`, an :class:`MSE`, or ``"cross_entropy"``,
            ``"mse"``.
        energy: The budgets, an :class:`Energy` or a pair :math:`(E_W, E_H)`, for
            instance those measured in a trained network.
        weight_decay: Instead of budgets: a :class:`Decay`, or a tuple
            :math:`(\lambda_{W_M}, \ldots, \lambda_{W_1}, \lambda_H)` per sample.
        bias: ``None`` for none, ``"free"``, or the ridge :math:`\lambda_b > 0`.
        features: ``"free"``, or ``"nonnegative"`` for features behind a ReLU.
        class_weights: Loss weight of each class, normalised as in
            ``torch.nn.CrossEntropyLoss``; equal weights when omitted.
        width: The feature dimension; large enough when omitted.

    Raises:
        ValueError: If a count, weight, energy or decay is not finite and above zero, if
            there are fewer than two classes, if not exactly one of ``energy`` and
            ``weight_decay`` is given, or if a per-class sequence does not have
            :math:`K` entries.

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
    loss: Loss
    energy: Energy | None
    weight_decay: Decay | None
    bias: str | float | None
    features: str
    class_weights: tuple[float, ...] | None
    width: int | None

    def __init__(
        self,
        class_counts: Iterable[SupportsFloat],
        *,
        loss: Loss | str = "cross_entropy",
        energy: Energy | Sequence[float] | None = None,
        weight_decay: Decay | Sequence[float] | None = None,
        bias: str | float | None = None,
        features: str = "free",
        class_weights: Iterable[SupportsFloat] | None = None,
        width: int | None = None,
    ) -> None:
        counts = checked_counts(class_counts)
        _refuse_both(energy, weight_decay)
        values: dict[str, Any] = {
            "class_counts": counts,
            "loss": _named_loss(loss),
            "energy": None if energy is None else Energy.of(energy),
            "weight_decay": None if weight_decay is None else Decay.of(weight_decay),
            "bias": _checked_bias(bias),
            "features": one_of("features", features, ("free", "nonnegative")),
            "class_weights": _checked_weights(class_weights, len(counts)),
            "width": None if width is None else at_least("width", width, 1),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        _check_lengths(values["loss"], len(counts))
        self.class_level()

    @classmethod
    def from_network(
        cls,
        class_counts: Iterable[SupportsFloat],
        weight: Float[Tensor, "K p"] | Array,
        class_means: Float[Tensor, "K p"] | Array,
        *,
        centring: str = "sample",
        per: str = "class",
        **variant: Any,  # noqa: ANN401 (passed on as they are)
    ) -> PeeledProblem:
        r"""Return the problem with the energies of a network's last layer.

        Args:
            class_counts: The number of training samples of each class.
            weight: The classifiers, with shape :math:`(K, p)`.
            class_means: Mean feature of each class, with shape :math:`(K, p)`.
            centring: What features are measured about: the mean of all samples
                (``"sample"``), the mean of the class means (``"class"``), or the origin
                (``"none"``). The first two centre the classifiers by their mean too.
                Under imbalance an optimum of the program has a mean of its own, so only
                ``"none"`` reads the energies of an exact optimum back exactly; real
                features have a mean that the program does not know, hence the default.
            per: Whether the features' energy is averaged over classes or over samples.
            **variant: Further arguments of :class:`PeeledProblem`, such as
                ``bias="free"``.

        Raises:
            ShapeError: If ``weight`` and ``class_means`` are not both :math:`(K, p)`.
            ValueError: If an argument is invalid, an energy is zero, or ``energy`` or
                ``weight_decay`` is given, which is what the network has to say.

        Example:
            >>> from layerpeel.geometry import simplex_etf
            >>> frame = simplex_etf(3)
            >>> network = PeeledProblem.from_network([9, 9, 9], 2 * frame, 3 * frame)
            >>> round(network.energy.classifiers, 9), round(network.energy.features, 9)
            (4.0, 9.0)
        """
        counts = checked_counts(class_counts)
        one_of("centring", centring, ("sample", "class", "none"))
        one_of("per", per, ("class", "sample"))
        _refuse_energies(variant)
        rows = real_tensor("weight", weight)
        means = real_tensor("class_means", class_means)
        _check_network(len(counts), rows, means)
        shares = torch.tensor(counts, dtype=torch.float64)
        shares = shares / shares.sum()
        if centring != "none":
            rows = rows - rows.mean(dim=0)
            means = means - (
                shares @ means if centring == "sample" else means.mean(dim=0)
            )
        squares = means.square().sum(dim=1)
        features = shares @ squares if per == "sample" else squares.mean()
        energy = Energy(float(rows.square().sum(dim=1).mean()), float(features), per)
        return cls(counts, energy=energy, **variant)

    @property
    def num_classes(self) -> int:
        """The number of classes :math:`K`."""
        return len(self.class_counts)

    @property
    def depth(self) -> int:
        """The number of linear layers on top of the features."""
        return self.weight_decay.depth if self.weight_decay else 1

    def class_level(self) -> ClassLevel:
        """Return the program in the class-mean logits, the form that solvers see."""
        return class_level(
            self.class_counts,
            loss=self.loss,
            holds=self.energy or self.weight_decay,
            class_weights=self.class_weights,
            ridge=0.0 if isinstance(self.bias, str) else self.bias,
            nonnegative=self.features == "nonnegative",
            width=self.width,
        )

    def as_decay(self) -> PeeledProblem:
        r"""Return the problem with weight decay that has the same solution.

        Budgets become the decay that :func:`equivalent_decay` finds, per class where the
        energies are; everything else stays. For another decay than the equivalent one,
        use ``dataclasses.replace(problem, energy=None, weight_decay=...)``.

        References:
            | Neural Collapse for Unconstrained Feature Model under Cross-entropy Loss
            | with Imbalanced Data (Hong & Ling, 2023), https://arxiv.org/abs/2309.09725:
            | the nuclear norm behind both

        Raises:
            ValueError: If there is no such decay: see :func:`equivalent_decay`.

        Example:
            >>> problem = PeeledProblem([90, 30, 10, 3], energy=(1.0, 4.0))
            >>> twin = problem.as_decay()
            >>> twin.energy, twin.weight_decay.per
            (None, 'class')
            >>> bool((problem.solve().logits - twin.solve().logits).abs().max() < 1e-6)
            True
        """
        # Equivalence is about problems: it imports this module.
        from layerpeel.program.equivalence import equivalent_decay

        return replace(self, energy=None, weight_decay=equivalent_decay(self))

    def as_energy(self) -> PeeledProblem:
        r"""Return the problem with budgets that has the same solution.

        Weight decay becomes the energies that :func:`equivalent_energy` finds, those of
        its own solution; everything else stays.

        References:
            | Neural Collapse for Unconstrained Feature Model under Cross-entropy Loss
            | with Imbalanced Data (Hong & Ling, 2023), https://arxiv.org/abs/2309.09725:
            | the nuclear norm behind both

        Raises:
            ValueError: If there are no such energies: see :func:`equivalent_energy`.

        Example:
            >>> problem = PeeledProblem([50, 50, 50], weight_decay=(1e-3, 1e-3))
            >>> twin = problem.as_energy()
            >>> twin.weight_decay, twin.energy.per
            (None, 'sample')
            >>> bool((problem.solve().logits - twin.solve().logits).abs().max() < 1e-9)
            True
        """
        from layerpeel.program.equivalence import equivalent_energy

        return replace(self, weight_decay=None, energy=equivalent_energy(self))

    def solve(
        self,
        gap_tol: float = CERTIFIED_GAP,
        method: str = "auto",
        *,
        max_steps: int | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> Solution:
        """Solve the problem, globally where that is possible.

        Args:
            gap_tol: The relative gap to an evaluated lower bound up to which the
                solution calls itself certified.
            method: ``"auto"`` takes the strongest that applies: ``"closed_form"``;
                ``"grouped"``, which reduces classes that are alike to a few numbers and
                proves the optimum; ``"spectral"``, the same without that reduction;
                ``"factored"``, the best of several descents on the factors themselves,
                which proves nothing by itself.
            max_steps: The largest number of steps of an iterative solver: Newton steps,
                or steps of each descent on the factors; its own default when omitted.
            seed: Seed of the random starts of ``"factored"``.
            device: Where ``"grouped"`` and ``"spectral"`` compute.

        Returns:
            The solution. ``status`` says what is proved: ``CLOSED_FORM`` is a theorem,
            ``CERTIFIED`` an evaluated gap of at most ``gap_tol``, anything else no more
            than its ``certificate`` shows.

        Raises:
            ValueError: If ``gap_tol`` is not finite and above zero, ``max_steps`` or
                ``seed`` is not a whole number, or the method does not apply to this
                problem.
            DeviceError: If there is no such device, or it has no float64.
        """
        positive("gap_tol", gap_tol)
        if max_steps is not None:
            at_least("max_steps", max_steps, 1)
        at_least("seed", seed, 0)
        request = Request(gap_tol, max_steps, seed, usable_device(device))
        program = self.class_level()
        return choose_route(program, method).solve(program, request)


def _named_loss(loss: Loss | str) -> Loss:
    if isinstance(loss, str):
        return LOSSES[one_of("loss", loss, LOSSES)]
    if not isinstance(loss, CrossEntropy | MSE):
        raise ValueError(
            "`loss` must be a `CrossEntropy(...)`, an `MSE()`, or one of "
            f"{', '.join(map(repr, LOSSES))}; got {loss!r}."
        )
    return loss


def _refuse_both(energy: object, weight_decay: object) -> None:
    if (energy is None) == (weight_decay is None):
        got = "neither" if energy is None else "both"
        raise ValueError(
            "Exactly one of `energy` (budgets on mean squared norms) and `weight_decay` "
            f"(penalties) must be given; got {got}."
        )


def _refuse_energies(variant: Mapping[str, object]) -> None:
    given = [name for name in ("energy", "weight_decay") if name in variant]
    if given:
        raise ValueError(
            f"`from_network` must read the energies off the network; got `{given[0]}` as "
            "well. Leave it out, or build the problem with `PeeledProblem(...)`."
        )


def _checked_bias(bias: str | float | None) -> str | float | None:
    if bias is None or bias == "free":
        return bias
    if isinstance(bias, str | bool):
        raise ValueError(
            '`bias` must be None, "free", or the ridge penalty of the bias, a number '
            f"above 0; got {bias!r}."
        )
    return positive("bias", bias)


def _checked_weights(
    weights: Iterable[SupportsFloat] | None, num_classes: int
) -> tuple[float, ...] | None:
    if weights is None:
        return None
    given = numbers("class_weights", weights, example="[1.0, 1.0, 5.0]")
    checked = tuple(
        positive(f"class_weights[{k}]", value) for k, value in enumerate(given)
    )
    _check_length("class_weights", len(checked), num_classes)
    return checked


def _check_lengths(loss: Loss, num_classes: int) -> None:
    if isinstance(loss, CrossEntropy):
        for name in ("scale", "offset", "margin"):
            values = getattr(loss, name)
            if values is not None:
                _check_length(f"loss.{name}", len(values), num_classes)


def _check_length(name: str, length: int, num_classes: int) -> None:
    if length != num_classes:
        raise ValueError(
            f"`{name}` must have one number for each of the {num_classes} classes; got "
            f"{length}."
        )


def _check_network(num_classes: int, weight: Tensor, class_means: Tensor) -> None:
    shape = weight.shape
    if shape != class_means.shape or len(shape) != 2 or shape[0] != num_classes:
        raise ShapeError(
            f"`weight` and `class_means` must both have shape (K, p) with K = "
            f"{num_classes}; got {tuple(weight.shape)} and {tuple(class_means.shape)}."
        )
