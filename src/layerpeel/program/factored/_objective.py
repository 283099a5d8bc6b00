r"""The program in its factors: classifiers, layers between, features and a bias.

With a penalty all factors have the same coefficient :math:`c`: rescaling them by
constants of product one leaves the logits unchanged, so nothing is lost. With a budget
both factors lie in a ball, which is the shadow of a sphere of one dimension more:
normalising is smooth, and a budget that is not spent is an interior point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from layerpeel._tolerances import EPS
from layerpeel.program.class_level import ClassLevel, SoftmaxLoss
from layerpeel.program.factored._data_term import DataTerm, Matrix, Vector


@dataclass(frozen=True)
class Point:
    """Factors, classifiers first, whose product is X; and the bias."""

    factors: tuple[Matrix, ...]
    bias: Vector


@dataclass(frozen=True, eq=False)
class FactorObjective:
    """A smooth function of one vector that holds all factors and the bias."""

    program: ClassLevel
    width: int

    @cached_property
    def _data_term(self) -> DataTerm:
        return DataTerm(self.program)

    @cached_property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The shapes of the factors."""
        K, p = self.program.num_classes, self.width
        inner = [(p, p)] * (self.program.regulariser.depth - 1)
        return ((K, p), *inner, (p, K))

    @cached_property
    def logarithmic(self) -> bool:
        """Whether the logarithm is minimised: under a budget a loss has a long tail."""
        budget = self.program.regulariser.budget
        return budget is not None and isinstance(self.program.loss, SoftmaxLoss)

    @cached_property
    def lower(self) -> Vector:
        """The lower bounds: zero for nonnegative features, else none."""
        feature = 0.0 if self.program.nonnegative else -np.inf
        bounds = [np.full(n, -np.inf) for n in self._lengths]
        *_, features = bounds
        features[: math.prod(self.shapes[-1])] = feature
        return np.concatenate([*bounds, np.full(self._bias_length, -np.inf)])

    @property
    def _bias_length(self) -> int:
        return 0 if self.program.ridge is None else self.program.num_classes

    @property
    def _lengths(self) -> list[int]:
        slack = 0 if self.program.regulariser.budget is None else 1
        return [math.prod(shape) + slack for shape in self.shapes]

    def pack(self, point: Point) -> Vector:
        """Return the vector of a point; one outside of the budget is scaled down."""
        parts = [factor.ravel() for factor in point.factors]
        budget = self.program.regulariser.budget
        if budget is not None:
            radius = budget ** (1 / len(parts))
            parts = [np.append(part, _slack(part, radius)) for part in parts]
        return np.concatenate([*parts, point.bias[: self._bias_length]])

    def unpack(self, x: Vector) -> Point:
        """Return the factors, within the budget where there is one, and the bias."""
        parts, bias = self._split(x)
        budget = self.program.regulariser.budget
        if budget is not None:
            radius = budget ** (1 / len(parts))
            parts = [radius * part / np.linalg.norm(part) for part in parts]
        factors = tuple(
            part[: math.prod(shape)].reshape(shape)
            for part, shape in zip(parts, self.shapes, strict=True)
        )
        return Point(factors, bias)

    def _split(self, x: Vector) -> tuple[list[Vector], Vector]:
        """Return the entries of each factor, with its slack, and the bias."""
        *parts, bias = np.split(x, np.cumsum(self._lengths))
        return parts, bias if bias.size else np.zeros(self.program.num_classes)

    def logits(self, point: Point) -> Matrix:
        """Return the logits without the bias."""
        product = point.factors[0]
        for factor in point.factors[1:]:
            product = product @ factor
        logits: Matrix = product / self.program.feature_weights.numpy()
        return logits

    def value(self, x: Vector) -> float:
        """Return the objective, never its logarithm."""
        return self._value_and_parts(x)[0]

    def value_and_gradient(self, x: Vector) -> tuple[float, Vector]:
        """Return what is minimised, and its gradient."""
        value, parts, bias = self._value_and_parts(x)
        gradient = np.concatenate([*parts, bias[: self._bias_length]])
        if not self.logarithmic:
            return value, gradient
        # Below the smallest normal number there is no slope left to follow.
        floor = np.finfo(np.float64).tiny
        return math.log(max(value, floor)), gradient / max(value, floor)

    def scale(self, value: float) -> float:
        """Return the size of a difference of values that counts as one."""
        if self.logarithmic:
            return 1.0
        spent = self.program.regulariser.multiplier is not None
        # A squared error within a budget may be exactly zero: it has no scale itself.
        return abs(value) if spent or value > self.rounding else 0.5

    @property
    def rounding(self) -> float:
        """The squared error that rounding of the logits leaves of zero."""
        return (8 * EPS * self.program.num_classes) ** 2

    def unit(self, x: Vector) -> float:
        """Return the size of a gradient that counts as one."""
        reach = max(1.0, float(np.linalg.norm(x)))
        return self.scale(self.value_and_gradient(x)[0]) / reach

    def _value_and_parts(self, x: Vector) -> tuple[float, list[Vector], Vector]:
        point = self.unpack(x)
        value, slope = self._data_term(self.logits(point) + point.bias[:, None])
        ridge = self.program.ridge or 0.0
        bias = slope.sum(axis=1) + ridge * point.bias
        value += ridge / 2 * float(point.bias @ point.bias)
        slopes = _chain(point.factors, slope / self.program.feature_weights.numpy())
        multiplier = self.program.regulariser.multiplier
        if multiplier is None:
            return value, self._through_balls(x, slopes), bias
        energy = sum(float(np.vdot(factor, factor)) for factor in point.factors)
        parts = [
            (slope + multiplier * factor).ravel()
            for slope, factor in zip(slopes, point.factors, strict=True)
        ]
        return value + multiplier / 2 * energy, parts, bias

    def _through_balls(self, x: Vector, slopes: list[Matrix]) -> list[Vector]:
        """Return the gradient through the normalisation: the radial part drops out."""
        assert self.program.regulariser.budget is not None
        radius = self.program.regulariser.budget ** (1 / len(slopes))
        parts = []
        for part, slope in zip(self._split(x)[0], slopes, strict=True):
            norm = np.linalg.norm(part)
            unit, raw = part / norm, np.append(slope.ravel(), 0.0)
            parts.append((raw - unit * (unit @ raw)) * (radius / norm))
        return parts


def _slack(part: Vector, radius: float) -> float:
    """Return the coordinate that lifts a part to the sphere, never quite zero.

    At zero it would stay zero, by symmetry: the budget would have to be spent.
    """
    norm = float(np.linalg.norm(part))
    return math.sqrt(max(radius**2 - norm**2, (0.1 * norm) ** 2))


def _chain(factors: tuple[Matrix, ...], slope: Matrix) -> list[Matrix]:
    """Return the gradient in each factor, from the gradient in their product."""
    right = [factors[-1]]  # right[-1 - j] is the product of the factors after j
    for factor in factors[-2:0:-1]:
        right.append(factor @ right[-1])
    gradients, carried = [], slope  # carried: slope times the factors before j
    for factor, after in zip(factors, reversed(right), strict=False):
        gradients.append(carried @ after.T)
        carried = factor.T @ carried
    return [*gradients, carried]
