"""What the statistics of features cost, against work that no one can avoid.

Bars, for N = 50,000 float32 features of width 512, accumulated in float64 from batches
of 32, 256 and 4096:

- counts, means, within-class scatter and traces: at most 2.0 times one float64 product
  ``X.T @ X`` at K <= 100, and 2.5 times at K = 1000, conversion included in both;
- without the scatter (light mode): at most 3 times one ``X.double().sum(0)`` at
  K <= 100, and 8 times at K = 1000;
- faster than the textbook loop over classes, in two passes, at K = 10, at least 1.5
  times faster at K = 1000, and equal to it to 1e-9;
- all of a measurement at K = 1000, d = 2048 in less than 2 GiB.

Each pair of runs is timed back to back, since the speed of a shared machine drifts; the
printed ratio is the median over pairs. Where there is a GPU, the first bars are printed
for it too. The exit status is 1 only if the comparison with the textbook fails.

    python benchmarks/measure_features.py            # the bars, with 2 threads
    python benchmarks/measure_features.py --smoke    # seconds, for a look at the script
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from layerpeel.measurement import ClassMoments, NearestMean, measure_features
from layerpeel.measurement.statistics.accumulator import MomentsAccumulator
from layerpeel.measurement.statistics.nearest_mean import Decisions
from layerpeel.measurement.statistics.row_accumulator import RowAccumulator
from layerpeel.measurement.statistics.running_nearest_mean import RunningNearestMean

BATCHES = (32, 256, 4096)
FULL_BARS = {10: 2.0, 100: 2.0, 1000: 2.5}  # in products X.T @ X
LIGHT_BARS = {10: 3.0, 100: 3.0, 1000: 8.0}  # in sums X.double().sum(0)
TEXTBOOK_BARS = {10: 1.0, 1000: 1.5}  # how many times faster
EQUAL = 1e-9
MEMORY_BAR = 2.0  # GiB


class Size(NamedTuple):
    """How much data, and how often to time it."""

    samples: int
    width: int
    pairs: int
    rows: int  # of the runs whose memory is measured


FULL = Size(50_000, 512, 9, 20_000)
SMOKE = Size(3_000, 64, 3, 500)


def data(size: Size, classes: int, device: str) -> tuple[Tensor, Tensor]:
    """Return float32 features and labels, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (size.samples,), generator=generator)
    centres = torch.randn(classes, size.width, generator=generator)
    noise = torch.randn(size.samples, size.width, generator=generator)
    return (centres[labels] + noise).to(device), labels.to(device)


def accumulate(
    features: Tensor, labels: Tensor, classes: int, batch: int, light: bool = False
) -> ClassMoments:
    """Stream batches into class moments."""
    stream = MomentsAccumulator(classes, features.shape[1], light=light)
    for h, y in zip(features.split(batch), labels.split(batch), strict=True):
        stream.add(h, y)
    return stream.value()


def textbook(features: Tensor, labels: Tensor, classes: int) -> ClassMoments:
    """Return the same moments by a loop over classes, in two passes over each."""
    width = features.shape[1]
    count, trace = torch.zeros(2, classes, dtype=torch.float64)
    mean = torch.zeros(classes, width, dtype=torch.float64)
    scatter = torch.zeros(width, width, dtype=torch.float64)
    for k in range(classes):
        h = features[labels == k].double()
        if len(h):
            mean[k] = h.mean(0)
            centred = h - mean[k]
            own = centred.T @ centred
            count[k], trace[k] = len(h), own.trace()
            scatter += own
    return ClassMoments(count, mean, scatter, trace)


def seconds(run: Callable[[], object], device: str = "cpu") -> float:
    """Return the wall-clock time of one run."""
    start = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(
    name: str,
    run: Callable[[], object],
    unit: Callable[[], object],
    pairs: int,
    device: str = "cpu",
) -> float:
    """Print and return the median ratio of paired runs."""
    seconds(run, device), seconds(unit, device)  # warm up
    timed = [(seconds(run, device), seconds(unit, device)) for _ in range(pairs)]
    ratios = [ours / theirs for ours, theirs in timed]
    ratio = statistics.median(ratios)
    ours, theirs = (statistics.median(column) for column in zip(*timed, strict=True))
    print(
        f"{name:<44} {1e3 * ours:8.1f} ms {1e3 * theirs:8.1f} ms   ratio {ratio:5.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})",
        end="",
    )
    return ratio


def bar(holds: bool, what: str) -> None:
    """Say whether a bar holds."""
    print(f"   {what}: {'holds' if holds else 'does not hold'}")


def time_statistics(size: Size, device: str) -> None:
    """Time full and light moments for every number of classes and size of batch."""
    for classes, most in FULL_BARS.items():
        h, y = data(size, classes, device)
        for batch in BATCHES:
            ratio = compare(
                f"{device}: full, K = {classes}, batches of {batch}",
                lambda h=h, y=y, K=classes, b=batch: accumulate(h, y, K, b),
                lambda h=h: (lambda x: x.T @ x)(h.double()),
                size.pairs,
                device,
            )
            bar(ratio <= most, f"at most {most:g}")
    for classes, most in LIGHT_BARS.items():
        h, y = data(size, classes, device)
        for batch in BATCHES:
            ratio = compare(
                f"{device}: light, K = {classes}, batches of {batch}",
                lambda h=h, y=y, K=classes, b=batch: accumulate(h, y, K, b, light=True),
                lambda h=h: h.double().sum(0),
                size.pairs,
                device,
            )
            bar(ratio <= most, f"at most {most:g}")


def time_textbook(size: Size) -> bool:
    """Time the textbook loop against ours, and return whether they are equal."""
    equal = True
    for classes, least in TEXTBOOK_BARS.items():
        h, y = data(size, classes, "cpu")
        ratio = compare(
            f"textbook loop against ours, K = {classes}",
            lambda h=h, y=y, K=classes: textbook(h, y, K),
            lambda h=h, y=y, K=classes: accumulate(h, y, K, 256),
            max(3, size.pairs // 3),
        )
        bar(ratio >= least, f"at least {least:g}")
        error = difference(textbook(h, y, classes), accumulate(h, y, classes, 256))
        equal &= error <= EQUAL
        print(f"  largest relative difference {error:.1e}", end="")
        bar(error <= EQUAL, f"at most {EQUAL:g}")
    return equal


def difference(a: ClassMoments, b: ClassMoments) -> float:
    """Return the largest difference of a part, relative to the largest of its entries."""
    pairs = [(a.count, b.count), (a.mean, b.mean), (a.trace, b.trace)]
    pairs.append((a.scatter, b.scatter))
    return max(float((x - y).abs().max() / x.abs().max()) for x, y in pairs)


def measure_peak(rows: int, width: int, classes: int, light: bool) -> None:
    """Run in a process of its own: print how much memory a measurement adds, in GiB."""
    before = peak_memory()
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(classes, width, generator=generator)
    row_stream = RowAccumulator(classes, width, light=light)
    running = RunningNearestMean(classes, width)
    batches = range(0, rows, 256)
    for seed in batches:
        h, y, z = batch_of(seed, weight)
        predictions = row_stream.add(h, y, z)
        if light:
            running.add(Decisions(h, y, predictions))
    moments = row_stream.value().moments
    if light:
        running.value()
    else:
        parts = (batch_of(seed, weight) for seed in batches)
        NearestMean.of((Decisions(h, y, z.argmax(1)) for h, y, z in parts), moments)
    print(json.dumps((peak_memory() - before) / 2**20))


def peak_memory() -> int:
    """Return the most memory that this process has held, in KiB.

    Linux hands ``ru_maxrss`` down from the process that started this one, which may have
    held more; the high-water mark in ``/proc`` is the process's own.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (line,) = [x for x in status.read_text().splitlines() if x.startswith("VmHWM:")]
    return int(line.split()[1])


def batch_of(seed: int, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, labels and logits that are drawn anew from a seed."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, len(weight), (256,), generator=generator)
    noise = torch.randn(256, weight.shape[1], generator=generator)
    features = weight[labels] + noise
    return features, labels, features @ weight.T


def print_memory(size: Size) -> None:
    """Print the memory that measurements with many classes take."""
    for width, classes, light in ((2048, 1000, False), (512, 10_000, True)):
        code = (
            f"import sys; sys.path.insert(0, {sys.path[0]!r}); "
            "from measure_features import measure_peak; "
            f"measure_peak({size.rows}, {width}, {classes}, {light})"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        peak = json.loads(done.stdout)
        kind = "light, one pass" if light else "full, two passes"
        print(f"memory, K = {classes}, d = {width}, {kind}: {peak:.2f} GiB", end="")
        bar(peak < MEMORY_BAR, f"less than {MEMORY_BAR:g}")


def main() -> int:
    """Print all bars, and return 1 if ours is not equal to the textbook."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a small size")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size = SMOKE if arguments.smoke else FULL
    print(
        f"N = {size.samples}, d = {size.width}, float32; {arguments.threads} threads; "
        f"median of {size.pairs} pairs; second column: the unit"
    )
    if arguments.smoke:
        print("this size is too small for the bars, which are about the full one")
    time_statistics(size, "cpu")
    if torch.cuda.is_available():
        time_statistics(size, "cuda")
    equal = time_textbook(size)
    h, y = data(size, 100, "cpu")
    weight = torch.randn(100, size.width, generator=torch.Generator().manual_seed(1))
    compare(
        "measure_features: all of it, NC4 included",
        lambda: measure_features(h, y, weight=weight, progress=False),
        lambda: (lambda x: x.T @ x)(h.double()),
        max(3, size.pairs // 3),
    )
    print("   for information")
    print_memory(size)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
