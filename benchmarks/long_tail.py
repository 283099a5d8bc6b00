"""Long tails: all counts distinct, against one singular value decomposition.

Claim: class counts from 1280 to 5 in geometric steps, unrounded, energies (1, 10) and
the harder (1, 100). K = 100 is solved to a relative gap of 1e-9, K = 1000 to 1e-8 in at
most 100 times one full K x K float64 SVD on the same machine; the goal is 60. Beside it,
what plain accelerated proximal gradient reaches: one SVD a step to project on the
nuclear-norm ball, restarted by the gradient, with the same certificate.

    python benchmarks/long_tail.py                  # the claim, with 2 threads
    python benchmarks/long_tail.py --device cuda    # K = 1000 and 4000 on a GPU
    python benchmarks/long_tail.py --smoke          # seconds, for a look at the script
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

import layerpeel as lp

ENERGIES = ((1.0, 10.0), (1.0, 100.0))
FULL = {100: 1e-9, 1000: 1e-8}
SMOKE = {60: 1e-9}
CUDA = {1000: 1e-8, 4000: 1e-8}
CLAIM, CLAIMED_AT = 100, 1000
# Proximal gradient gets this many singular value decompositions.
BUDGET = {60: 100, 100: 1000, 1000: 150}


def problem_of(classes: int, energy: tuple[float, float]) -> lp.PeeledProblem:
    """Return the long-tailed problem."""
    return lp.PeeledProblem(np.geomspace(1280, 5, classes), energy=energy)


def timed_svd(classes: int, device: str) -> float:
    """Return the seconds of one full singular value decomposition."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(classes, classes, generator=generator, dtype=torch.float64)
    matrix = matrix.to(device)
    torch.linalg.svd(matrix)
    times = []
    for _ in range(3):
        _synchronise(device)
        start = time.perf_counter()
        torch.linalg.svd(matrix)
        _synchronise(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def proximal(problem: lp.PeeledProblem) -> Iterator[tuple[int, float]]:
    """Yield decompositions used and relative gap of accelerated proximal gradient."""
    program = problem.class_level()
    tau, weights = program.regulariser.budget, program.weights
    assert tau is not None
    step = 2 / float(weights.max())  # the softmax has curvature at most 1/2
    point = previous = torch.zeros(len(weights), len(weights), dtype=torch.float64)
    momentum, used = 1.0, 0
    while True:
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = point + (momentum - 1) / following * (point - previous)
        previous, point = point, _onto_ball(ahead - step * _slope(ahead, weights), tau)
        momentum, used = following, used + 1
        if float(((ahead - point) * (point - previous)).sum()) > 0:
            momentum = 1.0  # the gradient points back
        if used & (used - 1) == 0 or used % 50 == 0:
            yield used, _gap(point, weights, tau)


def _slope(logits: Tensor, weights: Tensor) -> Tensor:
    return (torch.softmax(logits, 0) - torch.eye(len(weights)).to(logits)) * weights


def _onto_ball(matrix: Tensor, tau: float) -> Tensor:
    U, S, Vt = torch.linalg.svd(matrix)
    excess = (S.cumsum(0) - tau) / torch.arange(1, len(S) + 1)
    level = excess[int((excess < S).sum()) - 1].clamp(min=0)
    return (U * (S - level).clamp(min=0)) @ Vt


def _gap(logits: Tensor, weights: Tensor, tau: float) -> float:
    """Return the Frank-Wolfe gap over the loss; the certificate with weight one."""
    slope = _slope(logits, weights)
    losses = torch.logsumexp(logits, 0) - logits.diagonal()
    gap = (slope * logits).sum() + tau * torch.linalg.matrix_norm(slope, 2)
    return float(gap / (weights @ losses))


def compare(
    classes: int, energy: tuple[float, float], goal: float, device: str
) -> bool:
    """Print one solve beside the baseline; return whether its claims hold."""
    problem, unit = problem_of(classes, energy), timed_svd(classes, device)
    start = time.perf_counter()
    solution = problem.solve(gap_tol=goal, device=device)
    seconds = time.perf_counter() - start
    gap, ratio = solution.certificate.gap, seconds / unit
    print(
        f"K = {classes}, energy {energy}: {ratio:.0f} SVDs, gap {gap:.1e} "
        f"({solution.stats['steps']:.0f} Newton steps, "
        f"{solution.stats['hessian_products']:.0f} Hessian products; "
        f"one SVD {unit * 1e3:.0f} ms, objective {solution.objective:.12g})"
    )
    if device == "cpu":
        _print_baseline(problem, unit, BUDGET[classes])
    return gap <= goal and (classes != CLAIMED_AT or ratio <= CLAIM)


def _print_baseline(problem: lp.PeeledProblem, unit: float, budget: int) -> None:
    start = time.perf_counter()
    for used, gap in proximal(problem):
        spent = (time.perf_counter() - start) / unit
        if used & (used - 1) == 0 or used >= budget:
            print(
                f"    proximal gradient, step {used:4d}: {spent:5.0f} SVDs, gap {gap:.1e}"
            )
        if used >= budget:
            return


def main() -> int:
    """Run the comparison and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a small size, in seconds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes = SMOKE if options.smoke else CUDA if options.device == "cuda" else FULL
    held = [
        compare(classes, energy, goal, options.device)
        for classes, goal in sizes.items()
        for energy in ENERGIES
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process: {peak:.2f} GiB")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
