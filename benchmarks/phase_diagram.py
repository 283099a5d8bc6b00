"""What a phase diagram of 200 x 200 cells costs, against a single two-group solve.

Claim: `phase_diagram` with 200 ratios and 200 energies, every cell with its own
certificate, costs at most 2,000 times one `PeeledProblem.solve` of two groups, and the
largest relative gap of its 40,000 cells is at most 1e-10. Each pair of runs is timed
back to back; the ratio is the median over pairs. A claim that fails ends the script with
code 1.

    python benchmarks/phase_diagram.py            # the claim, with 2 threads
    python benchmarks/phase_diagram.py --smoke    # 20 x 20, seconds
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch

import layerpeel as lp
from layerpeel.program.pairs.phase_diagram import phase_diagram

FULL = {"side": 200, "pairs": 7}
SMOKE = {"side": 20, "pairs": 2}
SIZES = ((5, 5), (3, 7), (7, 3), (500, 500))
CLAIM = 2000.0
LARGEST_GAP = 1e-10
# A single solve is so short that it is timed as the mean over this many.
SOLVES = 50


def seconds(run: Callable[[], object]) -> float:
    """Return the wall-clock time of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(majority: int, minority: int, side: int, pairs: int) -> float:
    """Print and return the median ratio of paired runs, and check every cell."""
    problem = lp.PeeledProblem([10] * majority + [1] * minority, energy=(1.0, 5.0))
    grids = {
        "imbalance": np.geomspace(1, 1e4, side),
        "energy": np.geomspace(0.1, 100, side),
    }

    def diagram() -> object:
        return phase_diagram(majority, minority, **grids)

    def solves() -> None:
        for _ in range(SOLVES):
            problem.solve()

    gap = float(phase_diagram(majority, minority, **grids).gap.max())
    seconds(solves)  # warm up
    timed = [(seconds(diagram), seconds(solves) / SOLVES) for _ in range(pairs)]
    ratios = [ours / single for ours, single in timed]
    ratio = statistics.median(ratios)
    ours, single = (statistics.median(column) for column in zip(*timed, strict=True))
    print(
        f"{majority:>4} + {minority:<4} diagram {1e3 * ours:7.0f} ms   one solve "
        f"{1e3 * single:5.2f} ms   ratio {ratio:6.0f} ({min(ratios):.0f} to "
        f"{max(ratios):.0f})   largest gap {gap:.0e}"
    )
    if not gap <= LARGEST_GAP:
        sys.exit(f"every gap must be at most {LARGEST_GAP:g}; got {gap:g}")
    return ratio


def main() -> None:
    """Time the diagram for several sizes of the groups."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a small size")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", lp.UndefinedWarning)  # vanished cells
    side, pairs = (SMOKE if arguments.smoke else FULL).values()
    print(
        f"{side} x {side} cells; {arguments.threads} threads; medians of {pairs} pairs"
    )
    worst = max(compare(*sizes, side, pairs) for sizes in SIZES)
    if arguments.smoke:
        print("this size is too small for the claim, which is about the full one")
        return
    holds = worst <= CLAIM
    verdict = "holds" if holds else "does not hold"
    print(f"claim (ratio at most {CLAIM:g}): {verdict} at {worst:.0f}")
    if not holds:
        sys.exit(1)


if __name__ == "__main__":
    main()
