import numpy as np
import pytest
import torch

from layerpeel.program.convex.blocks import BlockProgram
from layerpeel.program.convex.local import Local
from layerpeel.program.convex.newton import minimise
from layerpeel.program.convex.preconditioner import Preconditioner
from layerpeel.program.convex.start import starting_factors
from tests.program.convex.cases import CASES, generator, normal
from tests.program.convex.test_local import local_at
from tests.program.reference import make_program

every = pytest.mark.parametrize("name", CASES)


def dense_matrix(operator, size):
    columns = [operator(unit) for unit in torch.eye(size, dtype=torch.float64)]
    return torch.stack(columns, dim=1)


@every
def test_is_symmetric_and_positive_on_the_projected_space(name):
    _, local = local_at(name)
    space, rng = local.space, generator(1)
    inverse = Preconditioner.at(local)
    for _ in range(5):
        v, w = (space.project(normal(rng, len(local.y))) for _ in range(2))
        assert float(v @ inverse(w)) == pytest.approx(float(w @ inverse(v)), rel=1e-9)
        assert float(v @ inverse(v)) > 0
        np.testing.assert_allclose(
            inverse(v), space.project(inverse(v)), rtol=1e-12, atol=1e-13
        )


@pytest.mark.parametrize("name", ["squared, ridge", "decay per sample"])
def test_inverts_a_diagonal_and_the_own_logits(name):
    # Without anything to project, P is the inverse of D + c q q', written out.
    _, local = local_at(name)
    blocks, space = local.space.program, local.space
    left, right, *_ = space.split(local.y)
    weight = blocks.entry_weights(local.columns)
    own = weight.diagonal()
    G, r = left.shape
    wanted = torch.zeros(2 * G * r, 2 * G * r, dtype=torch.float64)
    off = weight - torch.diag(own)
    rows, columns = off @ right.square(), off.T @ left.square()
    diagonal = torch.cat([rows.flatten(), columns.flatten()])
    wanted += torch.diag(diagonal + abs(local.multiplier))
    for g in range(G):
        q = torch.zeros(2, G, r, dtype=torch.float64)
        q[0, g], q[1, g] = right[g], left[g]
        wanted += own[g] * torch.outer(q.flatten(), q.flatten())
    found = dense_matrix(Preconditioner.at(local), len(local.y))
    found = found[: len(wanted), : len(wanted)]
    projection = dense_matrix(space.project, len(local.y))
    projection = projection[: len(wanted), : len(wanted)]
    np.testing.assert_allclose(
        found, projection @ torch.linalg.inv(wanted), rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize(
    "options",
    [{"energy": (1.0, 4.0)}, {"decay": (0.01, 0.01)}],
    ids=["budget", "decay"],
)
def test_brings_the_curvatures_closer_together(options):
    counts = np.geomspace(60, 4, 8)
    blocks = BlockProgram.of(
        make_program(counts, **options), tuple((k,) for k in range(8))
    )
    space, y = starting_factors(blocks)
    y, _ = minimise(space, y, 1e-9, 200)
    local = Local.at(space, y)
    hessian = dense_matrix(local.hessian, len(y))
    inverse = dense_matrix(Preconditioner.at(local), len(y))

    def condition(matrix):
        # Rotations of the factors have no curvature, and conjugate gradients no part.
        values = torch.linalg.eigvals(matrix).real
        values = values[values > 1e-6 * values.max()]
        return float(values.max() / values.min())

    assert condition(inverse @ hessian) < 0.6 * condition(hessian)
