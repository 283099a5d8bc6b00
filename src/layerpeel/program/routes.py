r"""Which solver takes which program, and what it proves: the support matrix, as code.

Rules are tried from the top; the first that applies decides. A closed form beats a
reduction by symmetry, that beats the general convex solver, and where nothing can be
proved the best of several descents is returned and called that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch

from layerpeel._checks import one_of
from layerpeel.program.class_level import ClassLevel, SoftmaxLoss, SquaredLoss
from layerpeel.program.closed import (
    solve_affine_frames,
    solve_balanced,
    solve_nonnegative,
    solve_orthogonal_frames,
)
from layerpeel.program.closed.interpolation import interpolates, solve_interpolation
from layerpeel.program.convex import solve_convex
from layerpeel.program.factored import solve_deep_cross_entropy, solve_factored
from layerpeel.program.pairs.pair import is_pair, solve_pair
from layerpeel.program.reduction import alike
from layerpeel.program.solution import Solution

METHODS = ("auto", "closed_form", "grouped", "spectral", "factored")
"""What ``PeeledProblem.solve`` takes for ``method``."""

Proof = Literal["closed form", "certified", "best found"]


@dataclass(frozen=True)
class Request:
    """What a caller asks of a solve, beside the program.

    Attributes:
        gap_tol: The relative gap to reach.
        max_steps: The limit on the steps of an iterative solver; ``None`` for its own.
        seed: Seed of random starts.
        device: Where to compute.
    """

    gap_tol: float
    max_steps: int | None
    seed: int
    device: torch.device

    @property
    def newton_steps(self) -> int:
        """The limit on Newton steps of the convex solver."""
        return self.max_steps or 200

    @property
    def descent_steps(self) -> int:
        """The limit on the steps of each descent on the factors."""
        return self.max_steps or 5000


@dataclass(frozen=True)
class Route:
    """A solver for a program.

    Attributes:
        method: The method's name, one of ``METHODS`` without ``"auto"``.
        proof: What its solution proves, tolerances and rounding permitting.
        solve: The solver.
    """

    method: str
    proof: Proof
    solve: Callable[[ClassLevel, Request], Solution]


def choose_route(program: ClassLevel, method: str = "auto") -> Route:
    """Return the strongest solver for a program, or the one of a given name.

    Raises:
        ValueError: If the method is unknown or does not apply.
    """
    one_of("method", method, METHODS)
    routes = [route for applies, route in _RULES if applies(program)]
    for route in routes:
        if method in ("auto", route.method):
            return route
    usable = dict.fromkeys(route.method for route in routes)
    raise ValueError(
        f"`method={method!r}` does not apply to this problem. "
        f"Use one of {', '.join(map(repr, ('auto', *usable)))}."
    )


# What holds of a program ------------------------------------------------------------


def _softmax(program: ClassLevel) -> bool:
    return isinstance(program.loss, SoftmaxLoss)


def _one_layer(program: ClassLevel) -> bool:
    return program.regulariser.depth == 1


def _all_alike(program: ClassLevel) -> bool:
    return len(alike(program)) == 1


def _matched(program: ClassLevel) -> bool:
    """Whether the loss weighs classes as the features' decay does."""
    ratio = program.weights / program.feature_weights.square()
    return bool((ratio / ratio[0] - 1).abs().max() < 1e-12)


def _wide(program: ClassLevel) -> bool:
    return program.width is None or program.width >= program.num_classes


def _is_balanced(program: ClassLevel) -> bool:
    wide = program.width is None or program.width >= program.num_classes - 1
    plain = _softmax(program) and _one_layer(program) and not program.nonnegative
    return plain and wide and _all_alike(program)


def _is_separable(program: ClassLevel) -> bool:
    """Whether classes decouple: cross-entropy of one layer, nonnegative features."""
    loss = program.loss
    if not isinstance(loss, SoftmaxLoss) or not program.nonnegative:
        return False
    rows = [loss.scale, loss.offset]
    if loss.smoothing.any():
        rows.append(loss.common)
    even = all(bool((row == row[0]).all()) for row in rows)
    unbiased = program.ridge is None or _all_alike(program)
    return even and unbiased and _one_layer(program)


def _is_diagonal(program: ClassLevel) -> bool:
    """Whether squared error without a bias has orthogonal frames as its solution."""
    return (
        isinstance(program.loss, SquaredLoss)
        and program.ridge is None
        and (program.regulariser.budget is None or _wide(program) or _matched(program))
    )


def _is_affine(program: ClassLevel) -> bool:
    """Whether squared error with a bias has a closed form."""
    if not isinstance(program.loss, SquaredLoss) or program.ridge is None:
        return False
    solvable = _all_alike(program) if program.ridge else _matched(program)
    # A ridge makes directions differ in worth: how few of them share a budget is open.
    open_case = program.ridge and program.regulariser.budget and not _wide(program)
    return solvable and not open_case and not program.nonnegative


def _is_convex(program: ClassLevel) -> bool:
    return _one_layer(program) and not program.nonnegative


def _is_cone(program: ClassLevel) -> bool:
    """Whether a bound over nonnegative features is evaluated, tight so far."""
    return _one_layer(program) and program.nonnegative and _wide(program)


def _is_deep_softmax(program: ClassLevel) -> bool:
    deep = _softmax(program) and not _one_layer(program)
    return deep and not program.nonnegative


# What is done about it --------------------------------------------------------------


def _formula(
    solve: Callable[[ClassLevel, float], Solution],
) -> Callable[[ClassLevel, Request], Solution]:
    return lambda program, request: solve(program, request.gap_tol)


def _solve_separable(program: ClassLevel, request: Request) -> Solution:
    solution = solve_nonnegative(replace(program, width=None), request.gap_tol)
    return _within_width(program, request, solution)


def _solve_pair(program: ClassLevel, request: Request) -> Solution:
    solution = solve_pair(program, alike(program), request.gap_tol)
    return _within_width(program, request, solution)


def _solve_grouped(program: ClassLevel, request: Request) -> Solution:
    return _convex(program, alike(program), request)


def _solve_spectral(program: ClassLevel, request: Request) -> Solution:
    singles = tuple((k,) for k in range(program.num_classes))
    return _convex(program, singles, request)


def _convex(
    program: ClassLevel, groups: tuple[tuple[int, ...], ...], request: Request
) -> Solution:
    solution = solve_convex(
        replace(program, width=None),
        groups,
        request.gap_tol,
        device=request.device,
        max_steps=request.newton_steps,
    )
    return _within_width(program, request, solution)


def _within_width(
    program: ClassLevel, request: Request, solution: Solution
) -> Solution:
    """Return the solution where it fits the width, and else the best that does."""
    if program.width is None or _rank(solution) <= program.width:
        return solution
    return solve_factored(
        program,
        request.gap_tol,
        seed=request.seed,
        bound=solution.certificate.lower_bound,
        max_steps=request.descent_steps,
    )


def _rank(solution: Solution) -> int:
    """Return the width that a solution takes: collapsed classes take none."""
    if "collapsed" in solution.stats:
        return len(solution.bias) - int(solution.stats["collapsed"])
    return solution.factors.classifiers().shape[1]


def _solve_deep(program: ClassLevel, request: Request) -> Solution:
    return solve_deep_cross_entropy(
        program, request.gap_tol, seed=request.seed, max_steps=request.descent_steps
    )


def _solve_factored(program: ClassLevel, request: Request) -> Solution:
    return solve_factored(
        program, request.gap_tol, seed=request.seed, max_steps=request.descent_steps
    )


_RULES: tuple[tuple[Callable[[ClassLevel], bool], Route], ...] = (
    (_is_balanced, Route("closed_form", "closed form", _formula(solve_balanced))),
    (_is_separable, Route("closed_form", "closed form", _solve_separable)),
    (
        _is_diagonal,
        Route("closed_form", "closed form", _formula(solve_orthogonal_frames)),
    ),
    (_is_affine, Route("closed_form", "closed form", _formula(solve_affine_frames))),
    (interpolates, Route("closed_form", "closed form", _formula(solve_interpolation))),
    (
        lambda program: is_pair(program, alike(program)) and _is_convex(program),
        Route("grouped", "certified", _solve_pair),
    ),
    (_is_convex, Route("grouped", "certified", _solve_grouped)),
    (_is_convex, Route("spectral", "certified", _solve_spectral)),
    (_is_cone, Route("factored", "certified", _solve_factored)),
    (_is_deep_softmax, Route("factored", "best found", _solve_deep)),
    (lambda program: True, Route("factored", "best found", _solve_factored)),
)
