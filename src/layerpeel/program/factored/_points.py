"""Points of the factored program: from logits or given factors, and back to a solution.

Every construction spreads a singular value evenly over the layers, which is what the
penalty wants, and cuts or fills with zeros to the width.
"""

from __future__ import annotations

import numpy as np
import torch

from layerpeel._tolerances import rank_cutoff
from layerpeel.program.class_level import ClassLevel
from layerpeel.program.factored._data_term import Matrix, Vector
from layerpeel.program.factored._objective import FactorObjective, Point
from layerpeel.program.factors import ExplicitFactors, Factors


def point_of_logits(
    objective: FactorObjective, logits: Matrix, bias: Vector | None = None
) -> Point:
    """Return balanced factors of the given logits; free features."""
    program = objective.program
    left, values, right = np.linalg.svd(logits * program.feature_weights.numpy())
    roots = values ** (1 / (program.regulariser.depth + 1))
    layers = _layers(objective, left, roots)
    last = _resized(roots[:, None] * right, objective.shapes[-1])
    return Point((*layers, last), _bias(program, bias))


def rank_of(objective: FactorObjective, point: Point) -> int:
    """Return the number of directions of a point that are not rounding of zero."""
    X = objective.logits(point) * objective.program.feature_weights.numpy()
    values = np.linalg.svd(X, compute_uv=False)
    return int((values > rank_cutoff(float(values[0]), *X.shape)).sum())


def widened(objective: FactorObjective, point: Point) -> Point:
    """Return a point of fewer dimensions, filled with zeros."""
    pairs = zip(point.factors, objective.shapes, strict=True)
    return Point(tuple(_resized(part, shape) for part, shape in pairs), point.bias)


def point_of_pair(
    objective: FactorObjective,
    rows: Matrix,
    features: Matrix,
    bias: Vector | None = None,
) -> Point:
    """Return a point of classifiers (K, r) and features (r, K), in the same basis."""
    sizes = np.linalg.norm(rows, axis=0), np.linalg.norm(features, axis=1)
    order = np.argsort(-sizes[0] * sizes[1], kind="stable")
    rows, features = rows[:, order], features[order]
    last = _resized(features, objective.shapes[-1])
    if objective.program.regulariser.depth == 1:
        layers = [_resized(rows, objective.shapes[0])]
    else:
        wide = _resized(rows, objective.shapes[0])
        left, values, right = np.linalg.svd(wide, full_matrices=False)
        roots = values ** (1 / objective.program.regulariser.depth)
        layers = _layers(objective, left, roots)
        layers[-1] = layers[-1] @ _resized(right, (objective.width,) * 2)
    return Point((*layers, last), _bias(objective.program, bias))


def point_of_factors(objective: FactorObjective, factors: Factors) -> Point:
    """Return the point of a solution of this or of a similar program."""
    program = objective.program
    rows, means = factors.classifiers().numpy(), factors.class_means().numpy()
    if not program.nonnegative:
        return point_of_logits(objective, rows @ means.T)
    root = program.regulariser.balance**0.5
    features = np.maximum(means, 0.0) * program.feature_weights.numpy()[:, None] * root
    return point_of_pair(objective, rows / root, features.T)


def explicit_factors(program: ClassLevel, point: Point) -> ExplicitFactors:
    """Return classifiers and class means in the scale of the program."""
    rows = point.factors[0]
    for layer in point.factors[1:-1]:
        rows = rows @ layer
    root = program.regulariser.balance**0.5
    means = (point.factors[-1] / program.feature_weights.numpy()).T / root
    return ExplicitFactors(
        torch.from_numpy(rows * root), torch.from_numpy(np.ascontiguousarray(means))
    )


def _layers(objective: FactorObjective, left: Matrix, roots: Vector) -> list[Matrix]:
    """Return layers with the product ``left * roots ** depth``, all but the features."""
    first = _resized(left * roots, objective.shapes[0])
    inner = _resized(np.diag(roots), (objective.width,) * 2)
    return [first, *[inner] * (objective.program.regulariser.depth - 1)]


def _resized(matrix: Matrix, shape: tuple[int, int]) -> Matrix:
    """Return the leading block of a matrix, filled with zeros."""
    block = np.zeros(shape)
    rows, columns = np.minimum(shape, matrix.shape)
    block[:rows, :columns] = matrix[:rows, :columns]
    return block


def _bias(program: ClassLevel, bias: Vector | None) -> Vector:
    return np.zeros(program.num_classes) if bias is None else bias
