"""What an edit costs, in passes of the model over its data.

A perceptron of ten million parameters and a loader of batches. A pass is one forward
pass of the model over the loader, without gradients; printed beside it is the ratio to a
pass forward and backward, as training makes it. The time of an edit is all of it: the
model is copied and traced, the data are read, the edited model is run and compared.
Edit and passes are timed back to back in processor time, since a shared machine is not
always as fast; printed are medians over such rounds.

Inserting a layer takes a pass of the given model, and one of what comes after the
insertion of the edited one: the later the insertion, the less. After the first layer
nearly all of both models has to be run.

Claim: an edit in the middle of the network costs less than two passes.

    python benchmarks/edit_cost.py            # minutes, with 2 threads
    python benchmarks/edit_cost.py --smoke    # seconds, for a look at the script
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from layerpeel.edits import deepen, merge_layers, narrow, widen

Batches: TypeAlias = list[tuple[Tensor, Tensor]]
EditOf: TypeAlias = Callable[[nn.Module, Batches], Any]

FULL = {"width": 1024, "hidden": 10, "batches": 16, "size": 256, "rounds": 5}
SMOKE = {"width": 64, "hidden": 10, "batches": 4, "size": 32, "rounds": 2}
CLASSES = 10
CLAIM = 2.0


def edits(model: nn.Sequential) -> Mapping[str, tuple[EditOf, bool]]:
    """Return the edits by name, and whether the claim is about them."""
    places = [name for name, module in model.named_children() if _is_linear(module)]
    first, middle, last = places[0], places[len(places) // 2], places[-2]
    return {
        "deepen, first layer": (lambda m, d: deepen(m, first, d), False),
        "deepen, middle layer": (lambda m, d: deepen(m, middle, d), True),
        "deepen, last layer": (lambda m, d: deepen(m, last, d), True),
        "deepen, middle, residual": (
            lambda m, d: deepen(m, middle, d, residual=True),
            True,
        ),
        "widen, middle": (lambda m, d: widen(m, middle, 64, data=d), False),
        "merge_layers": (lambda m, d: merge_layers(m, d), False),
        "narrow, critical, middle": (lambda m, d: narrow(m, middle, data=d), False),
        "narrow, clones, middle": (
            lambda m, d: narrow(
                m, middle, data=d, method="clones", width=len(d[0][0][0]) // 2
            ),
            False,
        ),
    }


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def perceptron(width: int, hidden: int) -> nn.Sequential:
    """Return a network with as many hidden layers of a width."""
    widths, layers = [width] * (hidden + 1), list[nn.Module]()
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, CLASSES))


def forward(model: nn.Module, data: Batches) -> None:
    """Run a model over the data."""
    with torch.no_grad():
        for inputs, _ in data:
            model(inputs)


def backward(model: nn.Module, data: Batches) -> None:
    """Compute the gradient on each batch."""
    for inputs, labels in data:
        torch.autograd.backward(cross_entropy(model(inputs), labels))
        model.zero_grad()


def seconds(run: Callable[[], object]) -> float:
    """Return the processor time of one run; the clock would count other programs too."""
    start = time.process_time()
    run()
    return time.process_time() - start


def compare(
    edit: EditOf, model: nn.Module, data: Batches, rounds: int
) -> tuple[float, float, float]:
    """Return the median time of an edit, and its ratios to both kinds of passes."""
    timed = [
        (
            seconds(lambda: edit(model, data)),
            seconds(lambda: forward(model, data)),
            seconds(lambda: backward(model, data)),
        )
        for _ in range(rounds + 1)
    ][1:]  # without the one that warms up
    time_ = statistics.median(t for t, _, _ in timed)
    inference = statistics.median(t / f for t, f, _ in timed)
    training = statistics.median(t / b for t, _, b in timed)
    return time_, inference, training


def main() -> None:
    """Time the edits of a large network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a small size")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    width, hidden, batches, size, rounds = (SMOKE if arguments.smoke else FULL).values()
    torch.manual_seed(0)
    model = perceptron(width, hidden).eval()
    data = [
        (torch.randn(size, width), torch.arange(size) % CLASSES) for _ in range(batches)
    ]
    count = sum(p.numel() for p in model.parameters())
    print(
        f"{count:,} parameters, {batches} batches of {size}; {arguments.threads} threads; "
        f"median of {rounds} rounds"
    )
    claimed = []
    for name, (edit, in_claim) in edits(model).items():
        time_, inference, training = compare(edit, model, data, rounds)
        claimed += [inference] if in_claim else []
        print(
            f"{name:<26} {1e3 * time_:8.1f} ms   {inference:5.2f} forward passes   "
            f"{training:5.2f} forward and backward"
        )
    if arguments.smoke:
        print("this size is too small for the claim, which is about the full one")
        return
    verdict = "holds" if max(claimed) < CLAIM else "does not hold"
    print(f"claim (below {CLAIM:g} forward passes): {verdict} at {max(claimed):.2f}")
    if max(claimed) >= CLAIM:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
