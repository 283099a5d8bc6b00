"""What the class moments cost, against the matrix product that no one can avoid.

Claim: accumulating counts, means and within-class scatter of float32 features in
float64, for N = 50,000, d = 512 and K = 100, costs at most twice one float64 product
``X.T @ X`` of the same size. The product is given X in float64; the accumulation starts
from float32 and converts. Each pair of runs is timed back to back, since the speed of a
shared machine drifts; the printed ratio is the median over pairs.

    python benchmarks/measure_features.py            # the claim, with 2 threads
    python benchmarks/measure_features.py --smoke    # seconds, for a look at the script
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from layerpeel.measurement import measure_features
from layerpeel.measurement.statistics.accumulator import MomentsAccumulator

FULL = {"samples": 50_000, "width": 512, "classes": 100, "pairs": 15}
SMOKE = {"samples": 4_000, "width": 64, "classes": 10, "pairs": 3}
CLAIM = 2.0


def data(samples: int, width: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return float32 features, labels and classifiers, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (samples,), generator=generator)
    centres = torch.randn(classes, width, generator=generator)
    noise = torch.randn(samples, width, generator=generator)
    return centres[labels] + noise, labels, centres


def accumulate(features: Tensor, labels: Tensor, classes: int, batch: int) -> None:
    """Stream batches into class moments."""
    stream = MomentsAccumulator(classes, features.shape[1])
    for h, y in zip(features.split(batch), labels.split(batch), strict=True):
        stream.add(h, y)
    stream.value()


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
    """Time the accumulation, and for information everything that is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a small size")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size = SMOKE if arguments.smoke else FULL
    samples, width, classes, pairs = size.values()
    features, labels, weight = data(samples, width, classes)
    doubles = features.double()

    def product() -> Tensor:
        return doubles.T @ doubles

    print(
        f"N = {samples}, d = {width}, K = {classes}, float32; {arguments.threads} threads; "
        f"median of {pairs} pairs; second column: X.T @ X in float64"
    )
    ratio = compare(
        "class moments, batches of 128",
        lambda: accumulate(features, labels, classes, 128),
        product,
        pairs,
    )
    compare(
        "class moments, in one go",
        lambda: accumulate(features, labels, classes, samples),
        product,
        pairs,
    )
    compare(
        "measure_features: all of it, NC4 included",
        lambda: measure_features(features, labels, weight=weight, progress=False),
        product,
        max(3, pairs // 3),
    )
    if arguments.smoke:
        print("this size is too small for the claim, which is about the full one")
    else:
        verdict = "holds" if ratio <= CLAIM else "does not hold"
        print(f"claim (first ratio at most {CLAIM:g}): {verdict} at {ratio:.2f}")


if __name__ == "__main__":
    main()
