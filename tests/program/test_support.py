"""Set LAYERPEEL_UPDATE_GOLDEN=1 to write the tables of docs/support.md anew."""

import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from layerpeel.program.problem import PeeledProblem
from layerpeel.program.solution import Status
from layerpeel.program.support import (
    HOLDS,
    LOSSES,
    Cell,
    guarantee,
    largest_rank,
    support_matrix,
    support_tables,
)
from tests.program import reference

PAGE = Path(__file__).parents[2] / "docs" / "support.md"
MARK = "<!-- tables -->\n"
ALLOWED = {
    "closed form": {Status.CLOSED_FORM},
    "certified": {Status.CERTIFIED},
    # A cell says what is proved at least: a width may be enough, a bound may be met.
    "best found": {Status.STATIONARY, Status.CERTIFIED, Status.CLOSED_FORM},
}


def test_the_page_holds_the_tables():
    text = PAGE.read_text(encoding="utf-8")
    written = text.partition(MARK)[0] + MARK + "\n" + support_tables() + "\n"
    if os.environ.get("LAYERPEEL_UPDATE_GOLDEN") == "1":
        PAGE.write_text(written, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == written


def by_support():
    cells = defaultdict(list)
    for cell in support_matrix():
        cells[cell.support].append(cell)
    return cells


CELLS = by_support()


def rotated(cells, *axes):
    """One cell for every combination of some axes; the others take turns."""
    groups = defaultdict(list)
    for cell in cells:
        groups[tuple(axis(cell) for axis in axes)].append(cell)
    return [
        members[7 * turn % len(members)] for turn, members in enumerate(groups.values())
    ]


def attribute(name):
    return lambda cell: getattr(cell, name)


def family(cell):
    return cell.loss.partition(" with ")[0], cell.holds.partition(" per ")[0]


SHAPE = [attribute(name) for name in ("features", "bias", "layers")]
CERTIFIED = rotated(
    CELLS["certified"],
    attribute("loss"),
    attribute("width"),
    attribute("counts"),
    *SHAPE,
)
BEST_FOUND = rotated(CELLS["best found"], family, *SHAPE)
CONVEX = rotated(
    [
        cell
        for name in ("closed form", "certified")
        for cell in CELLS[name]
        if (cell.features, cell.layers, cell.width) == ("free", "1", "K or more")
    ],
    attribute("loss"),
    attribute("bias"),
    attribute("counts"),
)


def evaluated(program, solution):
    """The objective by numpy alone."""
    logits, bias = solution.logits.numpy(), solution.bias.numpy()
    if not program.nonnegative:
        return reference.objective(program, logits, bias)
    value = reference.data_term(program, logits, bias)
    if program.regulariser.multiplier is None:
        return value
    factors = solution.classifiers().numpy(), solution.class_means().numpy()
    return value + reference.factor_penalty(program, *factors)


def check(cell):
    program, solution = cell.problem().class_level(), cell.problem().solve()
    certificate = solution.certificate
    assert solution.status in ALLOWED[cell.support]
    # Bound and objective are evaluated on different ways, each with its rounding.
    assert certificate.lower_bound <= certificate.objective * (1 + 1e-13)
    if solution.status.success:
        assert certificate.gap <= 1e-8
    value = evaluated(program, solution)
    assert value == pytest.approx(certificate.objective, rel=1e-9, abs=1e-14)
    check_feasible(program, solution)
    return program, solution


def check_feasible(program, solution):
    W, H = (
        solution.factors.classifiers().numpy(),
        solution.factors.class_means().numpy(),
    )
    np.testing.assert_allclose(W @ H.T, solution.logits, rtol=0, atol=1e-12)
    assert W.shape[1] <= (program.width or W.shape[1])
    if program.nonnegative:
        assert H.min(initial=0) >= 0
    if program.regulariser.budget is not None:
        G = H * program.feature_weights.numpy()[:, None]
        spent = np.linalg.norm(W) * np.linalg.norm(G)
        assert spent <= program.regulariser.budget * (1 + 1e-9)


def test_every_closed_form_is_one():
    assert len(CELLS["closed form"]) > 300
    for cell in CELLS["closed form"]:
        check(cell)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_certified_cell_is_certified(loss):
    cells = [cell for cell in CERTIFIED if cell.loss == loss]
    assert cells
    for cell in cells:
        check(cell)


@pytest.mark.parametrize("loss", LOSSES)
def test_convex_cells_agree_with_an_interior_point_solver(loss):
    for cell in (cell for cell in CONVEX if cell.loss == loss):
        program = cell.problem().class_level()
        value, _, _ = reference.cvxpy_solve(program)
        solution = cell.problem().solve()
        assert solution.objective == pytest.approx(value, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("layers", ["1", "2 or more"])
@pytest.mark.parametrize("features", ["free", "nonnegative"])
def test_the_best_found_is_not_beaten_by_other_descents(features, layers):
    cells = [c for c in BEST_FOUND if (c.features, c.layers) == (features, layers)]
    assert len(cells) >= 5
    for index, cell in enumerate(cells):
        program, solution = check(cell)
        if index % 5 == 0:
            found = descended(program, seed=index)
            assert solution.objective <= found * (1 + 1e-9) + 1e-12


def descended(program, seed, starts=2):
    """The best of a few descents on the factors, with numerical gradients of numpy."""
    K = program.num_classes
    p = program.width or K
    generator = np.random.default_rng(seed)
    bounds = None
    if program.nonnegative:
        bounds = [(None, None)] * (K * p) + [(0, None)] * (p * K) + [(None, None)] * K
    runs = [
        minimize(
            lambda x: factor_objective(program, x, p),
            np.abs(generator.normal(size=2 * K * p + K)),
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 40, "maxfun": 600},
        )
        for _ in range(starts)
    ]
    return min(run.fun for run in runs)


def factor_objective(program, x, p):
    K = program.num_classes
    W, H = x[: K * p].reshape(K, p), x[K * p : 2 * K * p].reshape(K, p)
    bias = x[2 * K * p :] * (program.ridge is not None)
    budget = program.regulariser.budget
    if budget is None:
        loss = reference.data_term(program, W @ H.T, bias)
        return loss + reference.factor_penalty(program, W, H)
    spent = np.linalg.norm(W) * np.linalg.norm(
        H * program.feature_weights[:, None].numpy()
    )
    scale = min(1.0, budget / spent) if spent > 0 else 1.0
    return reference.data_term(program, scale * W @ H.T, bias)


def test_what_raises_says_what_to_do():
    cells = CELLS["raises"]
    assert {(cell.layers, cell.holds.split()[0]) for cell in cells} == {
        ("2 or more", "energy")
    }
    with pytest.raises(ValueError, match=r"`energy` must be .* pair \(E_W, E_H\)"):
        cells[0].problem()


@pytest.mark.parametrize(
    ("keywords", "rank"),
    [
        ({}, 2),
        ({"features": "nonnegative"}, 3),
        ({"loss": "mse"}, 3),
        ({"loss": "mse", "bias": "free"}, 2),
        ({"loss": "mse", "bias": 0.1}, 3),
    ],
    ids=str,
)
def test_the_largest_rank_is_reached_and_not_passed(keywords, rank):
    problem = PeeledProblem([3, 2, 1], weight_decay=(1e-4, 1e-4), **keywords)
    assert largest_rank(problem.class_level()) == rank
    assert problem.solve().factors.classifiers().shape[1] == rank


@pytest.mark.parametrize("width", [None, 3, 2])
def test_a_width_that_fits_keeps_the_guarantee(width):
    kept = PeeledProblem([3, 2, 1], energy=(1, 1), width=width).class_level()
    assert guarantee(kept) == "certified"


def test_a_cell_names_what_it_builds():
    cell = Cell(
        "squared error",
        "nonnegative",
        "2 or more",
        HOLDS[2],
        "less",
        "free bias",
        "equal",
    )
    problem = cell.problem()
    assert (problem.depth, problem.width, problem.bias) == (2, 1, "free")
    assert problem.features == "nonnegative"
    assert cell.support == "best found"
