"""What a Hessian-vector product costs, in units of a gradient.

Forward over reverse costs a small multiple of a gradient, whatever the number of
parameters. The dense Hessian of a small network computes its columns together, so that
each costs less than a product on its own.

Claim: a product costs at most 5 times a gradient. Ratios are medians over pairs of runs.

    python benchmarks/hvp.py            # the claim, with 2 threads
    python benchmarks/hvp.py --smoke    # seconds, for a look at the script
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from layerpeel.landscape import Risk

FULL = {"scale": 8, "samples": 512, "pairs": 15}
SMOKE = {"scale": 1, "samples": 32, "pairs": 3}
CLAIM = 5.0


def networks(scale: int) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Return networks with the shape of their inputs."""
    width = 32 * scale
    perceptron = nn.Sequential(
        nn.Linear(32, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(),
        nn.Linear(width, 10),
    )  # fmt: skip
    convolutional = nn.Sequential(
        nn.Conv2d(3, 2 * scale, 3, padding=1), nn.BatchNorm2d(2 * scale), nn.ReLU(),
        nn.Conv2d(2 * scale, 2 * scale, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * scale, 10),
    )  # fmt: skip
    layer = nn.TransformerEncoderLayer(8 * scale, 2, 16 * scale, batch_first=True)
    transformer = nn.Sequential(
        nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(32 * scale, 10)
    )
    return {
        "perceptron, tanh": (perceptron, (32,)),
        "convolutions, ReLU": (convolutional, (3, 16, 16)),
        "transformer": (transformer, (4, 8 * scale)),
    }


def seconds(run: Callable[[], object]) -> float:
    """Return the wall-clock time of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(risk: Risk, pairs: int) -> tuple[float, float, float]:
    """Return the median ratio of paired runs, and both medians in milliseconds."""
    direction = torch.ones(risk.size, dtype=torch.float64)
    seconds(risk.gradient), seconds(lambda: risk.product(direction))  # warm up
    timed = [
        (seconds(lambda: risk.product(direction)), seconds(risk.gradient))
        for _ in range(pairs)
    ]
    ratio = statistics.median(product / gradient for product, gradient in timed)
    product, gradient = (1e3 * statistics.median(c) for c in zip(*timed, strict=True))
    return ratio, product, gradient


def main() -> None:
    """Time products and gradients on networks of three families."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a small size")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    scale, samples, pairs = (SMOKE if arguments.smoke else FULL).values()
    print(
        f"{samples} samples, float64; {arguments.threads} threads; median of {pairs} pairs"
    )
    torch.manual_seed(0)
    ratios = []
    for name, (model, shape) in networks(scale).items():
        data = [(torch.randn(samples, *shape), torch.arange(samples) % 10)]
        risk = Risk.of(model.eval(), cross_entropy, data)
        ratio, product, gradient = compare(risk, pairs)
        ratios.append(ratio)
        print(
            f"{name:<20} p = {risk.size:>8,}  product {product:8.1f} ms  gradient "
            f"{gradient:8.1f} ms  ratio {ratio:.2f}"
        )
    if arguments.smoke:
        print("this size is too small for the claim, which is about the full one")
    else:
        verdict = "holds" if max(ratios) <= CLAIM else "does not hold"
        print(f"claim (ratios at most {CLAIM:g}): {verdict} at {max(ratios):.2f}")
        if max(ratios) > CLAIM:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
