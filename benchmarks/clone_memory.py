"""Memory of chunks of a wide layer: what they take above its features.

50,000 float32 samples of 4,096 neurons and 10 classes, half of them to fit and half to
score on: the covariances of both, reconstructions from chunks of several widths, scored
in sample and held out (R^2 and residual correlation), their folded classifiers and the
errors of these. In a process of its own, whose high-water mark is read before and after.

Claim: at most 1 GiB above the features themselves. A claim that fails ends the
script with code 1.

    python benchmarks/clone_memory.py            # the claim, with 1 thread, minutes
    python benchmarks/clone_memory.py --smoke    # seconds, for a look at the script
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from layerpeel.measurement.clones import (
    ChunkClassifiers,
    chunk_errors,
    draw_chunks,
    reconstruct,
)
from layerpeel.measurement.statistics.covariance import Covariance

MEMORY_CLAIM = 1.0  # GiB


class Size(NamedTuple):
    """How much data, and the widths of chunks."""

    samples: int
    width: int
    classes: int
    chunks: tuple[int, ...]


FULL = Size(50_000, 4096, 10, (128, 512, 2048))
SMOKE = Size(600, 64, 5, (8, 32))


def layer(size: Size) -> tuple[Tensor, Tensor, Tensor]:
    """Return float32 features of noisy clones, labels, and their classifier.

    Block by block, so that drawing takes no more memory than the features.
    """
    generator = torch.Generator().manual_seed(0)
    signals = size.width // 16
    mixing = torch.randn(signals, size.width, generator=generator) / signals**0.5
    weight = torch.randn(size.classes, size.width, generator=generator)
    features = torch.empty(size.samples, size.width)
    for block in torch.split(features, 256):
        torch.randn(block.shape, generator=generator, out=block)
        drawn = torch.randn(len(block), signals, generator=generator)
        block.mul_(0.3).addmm_(drawn, mixing).add_(1)
    return features, (features @ weight.T).argmax(1), weight


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


def measure_peak(size: Size, threads: int) -> None:
    """Run in a process of its own: print memory above the features in GiB, and lines."""
    torch.set_num_threads(threads)
    # What the libraries themselves take at their first product is not counted.
    square = torch.eye(64, dtype=torch.float64)
    torch.linalg.cholesky(square @ square)
    features, labels, weight = layer(size)
    before = peak_memory()
    lines = profile(features, labels, weight, size.chunks)
    above = (peak_memory() - before) / 2**20
    held = features.numel() * features.element_size() / 2**30
    print(json.dumps({"above": above, "features": held, "lines": lines}))


def profile(
    features: Tensor, labels: Tensor, weight: Tensor, widths: tuple[int, ...]
) -> list[str]:
    """Fit to one half, score on both, and say what took how long."""
    half = len(features) // 2
    start = time.perf_counter()
    fitted, scored = Covariance.of(features[:half]), Covariance.of(features[half:])
    lines = [f"two covariances: {time.perf_counter() - start:.1f} s"]
    generator = torch.Generator().manual_seed(1)
    for width in widths:
        start = time.perf_counter()
        (chunk,) = draw_chunks(features.shape[1], width, 1, generator)
        found = reconstruct(fitted, chunk)
        scores = [found.r_squared("complement", on) for on in (None, scored)]
        left = [found.residual_correlation("complement", on) for on in (None, scored)]
        folded = ChunkClassifiers.folded(weight, None, [found])
        (error,) = chunk_errors(features[half:], labels[half:], folded).tolist()
        lines.append(
            f"{width} neurons: {time.perf_counter() - start:.1f} s; R^2 "
            f"{scores[0]:.4f} in sample, {scores[1]:.4f} held out; residual correlation "
            f"{left[0]:.4f}, {left[1]:.4f}; folded error {error:.4f}"
        )
    return lines


def measured(size: Size, threads: int) -> float:
    """Print what a child process found, and return its memory above the features."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
        f"from clone_memory import Size, measure_peak; measure_peak({size}, {threads})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    result = json.loads(done.stdout)
    for line in result["lines"]:
        print(line)
    square = 8 * size.width**2 / 2**30
    print(
        f"memory: {result['above']:.2f} GiB above {result['features']:.2f} GiB of "
        f"features; a W x W matrix is {square:.3f} GiB"
    )
    return float(result["above"])


def main() -> None:
    """Print the peak, and judge the claim."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a small size")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    arguments = parser.parse_args()
    size = SMOKE if arguments.smoke else FULL
    print(
        f"N = {size.samples}, W = {size.width}, K = {size.classes}; "
        f"{arguments.threads} thread(s)"
    )
    above = measured(size, arguments.threads)
    if arguments.smoke:
        print("this size is too small for the claim, which is about the full one")
        return
    holds = above <= MEMORY_CLAIM
    print(
        f"claim (at most {MEMORY_CLAIM:g} GiB above the features): "
        f"{'holds' if holds else 'does not hold'}"
    )
    if not holds:
        sys.exit(1)


if __name__ == "__main__":
    main()
