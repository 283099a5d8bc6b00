"""What it costs to screen all neurons of a layer for a split, in backward passes.

The Hessian of a wide network is never formed, nor the matrices of a neuron: a few
products give the lowest curvatures of all neurons at once. The capture of the layer's
inputs and of the gradient behind it is included.

Claim: all neurons of a 256-wide layer cost at most 20 backward passes of the network over
the data. Ratios are medians over pairs of runs; a backward pass is timed without the
forward pass before it.

    python benchmarks/split_screening.py            # the claim, with 2 threads
    python benchmarks/split_screening.py --smoke    # seconds, for a look at the script
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from layerpeel.edits.data import Data
from layerpeel.edits.graph import Graph
from layerpeel.edits.width.certificate import screen_splits

FULL = {"width": 256, "samples": 4096, "pairs": 5}
SMOKE = {"width": 16, "samples": 64, "pairs": 2}
CLAIM = 20.0


def networks(width: int) -> dict[str, tuple[nn.Module, str]]:
    """Return networks with the path of the layer to screen."""
    return {
        "one hidden layer, tanh": (
            nn.Sequential(nn.Linear(784, width), nn.Tanh(), nn.Linear(width, 10)),
            "0",
        ),
        "two hidden layers, ReLU": (
            nn.Sequential(
                nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                nn.Linear(width, 10),
            ),
            "2",
        ),
        "three hidden layers, GELU": (
            nn.Sequential(
                nn.Linear(784, width), nn.GELU(), nn.Linear(width, width), nn.GELU(),
                nn.Linear(width, width), nn.GELU(), nn.Linear(width, 10),
            ),
            "2",
        ),
    }  # fmt: skip


def seconds(run: Callable[[], object]) -> float:
    """Return the wall-clock time of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def backward(model: nn.Module, data: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Return the time of the backward passes over the data."""
    total = 0.0
    for x, y in data:
        loss = cross_entropy(model(x), y)
        total += seconds(loss.backward)
    model.zero_grad()
    return total


def compare(
    model: nn.Module,
    path: str,
    data: list[tuple[torch.Tensor, torch.Tensor]],
    pairs: int,
) -> tuple[float, float, float]:
    """Return the median ratio of paired runs, and both medians in milliseconds."""
    graph = Graph(model)
    layer, held = graph.layer(path), Data(data, model)

    def screening() -> None:
        screen_splits(graph, layer, held, cross_entropy)

    seconds(screening), backward(model, data)  # warm up
    timed = [(seconds(screening), backward(model, data)) for _ in range(pairs)]
    ratio = statistics.median(one / other for one, other in timed)
    one, other = (1e3 * statistics.median(c) for c in zip(*timed, strict=True))
    return ratio, one, other


def main() -> None:
    """Time screenings and backward passes on three networks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a small size")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    width, samples, pairs = (SMOKE if arguments.smoke else FULL).values()
    print(
        f"{samples} samples, float32, layer of width {width}; {arguments.threads} "
        f"threads; median of {pairs} pairs"
    )
    torch.manual_seed(0)
    x, y = torch.randn(samples, 784), torch.arange(samples) % 10
    data = list(zip(torch.split(x, 1024), torch.split(y, 1024), strict=True))
    ratios = []
    for name, (model, path) in networks(width).items():
        ratio, screening, one = compare(model.eval(), path, data, pairs)
        ratios.append(ratio)
        print(
            f"{name:<26} screening {screening:8.1f} ms  backward pass {one:8.1f} ms  "
            f"ratio {ratio:.2f}"
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
