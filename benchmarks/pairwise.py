"""Metrics of all pairs of classes, in units of one product of the class means.

The class-distance normalised variance and the kernels of generalised neural collapse
look at every pair of classes. They take their distances from blocks of the Gram matrix
and recompute those that cancel, so that they should cost no more than a few times one
``M @ M.T`` in float64, anywhere in space, and memory that is linear in the classes.

Claim: at 1,000 classes and 2,048 features, at most 3 times the product. Ratios are
medians over pairs of runs.

    python benchmarks/pairwise.py            # the claim, with 2 threads
    python benchmarks/pairwise.py --smoke    # seconds, for a look at the script
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from layerpeel.measurement import cdnv
from layerpeel.measurement.metrics.kernels import kernel_energy

FULL = {"classes": 1000, "width": 2048, "pairs": 15}
SMOKE = {"classes": 60, "width": 32, "pairs": 3}
CLAIM = 3.0


def places(classes: int, width: int) -> dict[str, Tensor]:
    """Return class means to look at, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    half = classes // 2
    merged = torch.cat([means[:half], means[:1] + 1e-4 * means[half:]])
    tens = means[:10].repeat_interleave(-(-classes // 10), 0)[:classes]
    mixed = means[:10].repeat(-(-classes // 10), 1)[:classes]
    return {
        "spread out": means,
        "far away": means + 1e4,
        "half of them close": merged,
        "in ten tight clusters": tens + 1e-4 * means,
        "in ten clusters, mixed": mixed + 1e-4 * means,
    }


def seconds(run: Callable[[], object]) -> float:
    """Return the wall-clock time of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(
    name: str, run: Callable[[], object], product: Callable[[], object], pairs: int
) -> float:
    """Print and return the median ratio of paired runs."""
    seconds(run), seconds(product)  # warm up
    timed = [(seconds(run), seconds(product)) for _ in range(pairs)]
    ratios = [ours / theirs for ours, theirs in timed]
    ratio = statistics.median(ratios)
    ours, theirs = (statistics.median(column) for column in zip(*timed, strict=True))
    print(
        f"{name:<44} {1e3 * ours:8.1f} ms {1e3 * theirs:8.1f} ms   ratio {ratio:.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )
    return ratio


def main() -> None:
    """Time the metrics of pairs on class means that cancel and that do not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a small size")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    classes, width, pairs = (SMOKE if arguments.smoke else FULL).values()
    variances = torch.ones(classes, dtype=torch.float64)
    print(
        f"K = {classes}, d = {width}, float64; {arguments.threads} threads; median of "
        f"{pairs} pairs; second column: M @ M.T"
    )
    ratios = []
    for place, means in places(classes, width).items():
        runs: dict[str, Callable[[], object]] = {
            "CDNV": lambda means=means: cdnv(means, variances),
            "log kernel": lambda means=means: kernel_energy(means, "log"),
            "Riesz kernel": lambda means=means: kernel_energy(means, "riesz"),
        }
        for name, run in runs.items():
            ratio = compare(
                f"{name}, means {place}",
                run,
                lambda means=means: means @ means.T,
                pairs,
            )
            ratios.append(ratio)
    if arguments.smoke:
        print("this size is too small for the claim, which is about the full one")
    else:
        verdict = "holds" if max(ratios) <= CLAIM else "does not hold"
        print(f"claim (ratios at most {CLAIM:g}): {verdict} at {max(ratios):.2f}")


if __name__ == "__main__":
    main()
