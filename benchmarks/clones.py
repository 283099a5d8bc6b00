"""Clones of a layer from one covariance, against one ridge regression per chunk.

How well a chunk reconstructs its layer is a function of one covariance, and the logits
of all disjoint chunks are sums of one another. So curves over all widths cost little
more than a pass over the data.

Claims, for 10,000 samples of 512 neurons, against scikit-learn's Ridge in float64 in
the same run, with 40 chunks at each dyadic width:

- R^2 and the mean absolute residual correlation together, the covariance included: at
  least 50 times faster, and equal to 1e-6;
- R^2 of every width from 1 to 512 by one factorisation a permutation: at least 3,000
  times faster for each width.

The errors of all disjoint chunks of all dyadic widths are timed, without a claim, against
two kinds of pass of the classifier: the product `features @ weight.T`, and the
contributions `weight[:, :, None] * columns` of every neuron to every logit, once, in
blocks that a cache holds. What costs more is deciding 1,023 times for each sample.

A regression takes long: one per width is timed, and stands for all 40. A claim that
fails ends the script with code 1.

    python benchmarks/clones.py            # the claims, with 1 thread
    python benchmarks/clones.py --smoke    # seconds, for a look at the script
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from layerpeel.measurement.clones import (
    ChunkClassifiers,
    DyadicTree,
    GaussianCurve,
    chunk_errors,
    disjoint_chunks,
    draw_chunks,
    draw_permutation,
    dyadic_sizes,
    nested_r_squared,
    reconstruct,
)
from layerpeel.measurement.statistics.covariance import Covariance

FULL = {"samples": 10_000, "width": 512, "classes": 10, "repeats": 40}
SMOKE = {"samples": 500, "width": 32, "classes": 5, "repeats": 3}
SCORES_CLAIM, NESTED_CLAIM, AGREEMENT = 50.0, 3000.0, 1e-6

T = TypeVar("T")


def layer(samples: int, width: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return features of clones with noise, labels and a classifier."""
    generator = torch.Generator().manual_seed(0)
    signals = torch.randn(samples, width // 8, generator=generator, dtype=torch.float64)
    mixing = torch.randn(width // 8, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(samples, width, generator=generator, dtype=torch.float64)
    features = signals @ mixing / (width // 8) ** 0.5 + 0.3 * noise + 1
    weight = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    return features, (features @ weight.T).argmax(1), weight


def timed(run: Callable[[], T]) -> tuple[T, float]:
    """Return a result and the wall-clock seconds it took."""
    start = time.perf_counter()
    result = run()
    return result, time.perf_counter() - start


def ridge(rows: np.ndarray, chunk: np.ndarray) -> np.ndarray:
    """Return the predictions of the protocol, refitted on the data."""
    chosen = rows[:, chunk]
    return np.asarray(Ridge(alpha=1e-8).fit(chosen, rows).predict(chosen))


def on_the_data(rows: np.ndarray, chunk: np.ndarray) -> tuple[float, float]:
    """Return R^2 and the mean absolute residual correlation of the protocol."""
    predicted = ridge(rows, chunk)
    score = r2_score(rows, predicted, multioutput="variance_weighted")
    spread = np.cov((rows - predicted).T)
    deviation = np.sqrt(np.diag(spread))
    ratio = np.abs(spread) / (np.outer(deviation, deviation) + 1e-8)
    return float(score), float(ratio[np.tril_indices(len(ratio), -1)].mean())


def scores(covariance: Covariance, chunk: Tensor) -> tuple[float, float]:
    """Return the same from the covariance."""
    found = reconstruct(covariance, chunk)
    return found.r_squared(), found.residual_correlation()


def compare_scores(features: Tensor, repeats: int) -> tuple[float, float, float]:
    """Print and return ratio, disagreement and seconds of the covariance."""
    generator = torch.Generator().manual_seed(1)
    width = features.shape[1]
    chunks = {w: draw_chunks(width, w, repeats, generator) for w in dyadic_sizes(width)}
    # The whole layer leaves no residual: nothing to compare there but rounding.
    del chunks[width]
    covariance, once = timed(lambda: Covariance.of(features))
    found, ours = timed(
        lambda: {w: [scores(covariance, c) for c in chunks[w]] for w in chunks}
    )
    theirs, apart = 0.0, 0.0
    for w, drawn in chunks.items():
        run = partial(on_the_data, features.numpy(), drawn[0].numpy())
        expected, seconds = timed(run)
        theirs += repeats * seconds
        apart = max(apart, *np.abs(np.subtract(expected, found[w][0])))
    ratio = theirs / (ours + once)
    print(
        f"R^2 and residual correlation: {repeats} chunks at {len(chunks)} widths in "
        f"{ours:.2f} s and {once:.2f} s for the covariance; Ridge {theirs:.0f} s; "
        f"ratio {ratio:.0f}; largest difference {apart:.1e}"
    )
    return ratio, apart, once


def compare_nested(features: Tensor, once: float, repeats: int) -> float:
    """Print and return the ratio per width of R^2 alone."""
    generator = torch.Generator().manual_seed(2)
    width, covariance = features.shape[1], Covariance.of(features)
    orders = [draw_permutation(width, generator) for _ in range(repeats)]
    nested_r_squared(covariance, orders[0])  # warm up
    _, seconds = timed(lambda: [nested_r_squared(covariance, o) for o in orders])
    ours = (seconds + once) / (repeats * width)
    rows = features.numpy()
    sizes = dyadic_sizes(width)
    _, theirs = timed(
        lambda: [r2_score(rows, ridge(rows, orders[0][:w].numpy())) for w in sizes]
    )
    ratio = theirs / len(sizes) / ours
    print(
        f"R^2 of every width: {1e3 * seconds / repeats:.1f} ms a permutation, "
        f"{1e6 * ours:.0f} us a width with its share of the covariance; Ridge "
        f"{1e3 * theirs / len(sizes):.0f} ms a width; ratio {ratio:.0f}"
    )
    return ratio


def contributions(features: Tensor, weight: Tensor) -> None:
    """Compute what each neuron adds to each logit, once, and keep none of it."""
    rows = max(1, 2**17 // weight.numel())
    buffer = torch.empty(*weight.shape, rows, dtype=weight.dtype)
    for block in torch.split(features, rows):
        out = buffer[:, :, : len(block)]
        torch.mul(weight[:, :, None], block.T.contiguous(), out=out)


def compare_errors(features: Tensor, labels: Tensor, weight: Tensor) -> None:
    """Print the price of all disjoint chunks in passes of the classifier."""
    width = features.shape[1]
    order = draw_permutation(width, torch.Generator().manual_seed(3))
    tree = DyadicTree(weight, None, order)
    whole = ChunkClassifiers.of(weight, None, order[None])
    runs: dict[str, Callable[[], object]] = {
        "tree": lambda: tree.wrong(features, labels),
        "product": lambda: features @ weight.T,
        "contributions": lambda: contributions(features, weight),
        "whole": lambda: whole.wrong(features, labels),
        "separate": lambda: [
            chunk_errors(
                features,
                labels,
                ChunkClassifiers.of(weight, None, disjoint_chunks(order, w)),
            )
            for w in tree.sizes
        ],
        "Gaussian": lambda: GaussianCurve.of(
            features, labels, weight, None, tree.sizes
        ),
    }
    took = {}
    for name, run in runs.items():
        again = 1 if name in {"separate", "Gaussian"} else 5
        took[name] = statistics.median(timed(run)[1] for _ in range(again))
    ratio = {name: took["tree"] / seconds for name, seconds in took.items()}
    print(
        f"errors of all {2 * width - 1} disjoint chunks: {took['tree']:.2f} s; "
        f"{ratio['contributions']:.1f} times the contributions of every neuron once, "
        f"{ratio['product']:.0f} times the product alone, {ratio['whole']:.1f} times the "
        f"error of the whole classifier, {ratio['separate']:.2f} times every size by "
        f"itself; the Gaussian curve without chunks: {took['Gaussian']:.2f} s"
    )


def main() -> None:
    """Time curves of reconstruction and of errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a small size")
    parser.add_argument("--threads", type=int, default=1, help="of both sides")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    samples, width, classes, repeats = (SMOKE if arguments.smoke else FULL).values()
    print(f"N = {samples}, W = {width}, float64; {arguments.threads} thread(s)")
    features, labels, weight = layer(samples, width, classes)
    threadpool_limits(arguments.threads)
    ratio, apart, once = compare_scores(features, repeats)
    nested = compare_nested(features, once, repeats)
    compare_errors(features, labels, weight)
    if arguments.smoke:
        print("this size is too small for the claims, which are about the full one")
        return
    holds = ratio >= SCORES_CLAIM and nested >= NESTED_CLAIM and apart <= AGREEMENT
    print(
        f"claims (at least {SCORES_CLAIM:g} and {NESTED_CLAIM:g} times, equal to "
        f"{AGREEMENT:g}): {'hold' if holds else 'do not hold'}"
    )
    if not holds:
        sys.exit(1)


if __name__ == "__main__":
    main()
