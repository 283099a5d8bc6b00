"""What an edit costs, in passes of the model over its data.

A perceptron of ten million parameters and a loader of batches. A pass is one forward
pass of the model over the loader, without gradients; printed beside it is the ratio to a
pass forward and backward, as training makes it. The time of an edit is all of it: the
model is copied and traced, the data are read, the edited model is run and compared.
Edit and passes are timed back to back in processor time, since a shared machine is not
always as fast; printed are medians over such rounds.

An edit takes a pass of the given model, and one of what comes after the first change of
the edited one: the later the change, the less. After the first layer nearly all of both
models has to be run, and so it is where layers are merged. Clones and cosines take the
covariance of what is read as well, and clones a pivot per neuron that is kept.

Claim: printed for each edit; less than two passes where a layer is inserted in the middle
of the network or later, and where nothing is found to merge.

    python benchmarks/edit_cost.py            # minutes, with 2 threads
    python benchmarks/edit_cost.py --smoke    # seconds, for a look at the script
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from layerpeel.edits import deepen, linearity, merge_layers, narrow, widen

Batches: TypeAlias = list[tuple[Tensor, Tensor]]
EditOf: TypeAlias = Callable[[nn.Module, Batches], Any]

FULL = {"width": 1024, "hidden": 10, "batches": 16, "size": 256, "rounds": 3}
SMOKE = {"width": 64, "hidden": 10, "batches": 4, "size": 32, "rounds": 1}
CLASSES = 10
COPIES = 64


@dataclass(frozen=True)
class Row:
    """An edit, the model that is edited, and the most passes that it takes."""

    name: str
    edit: EditOf
    model: nn.Module
    claim: float


def rows(model: nn.Sequential) -> list[Row]:
    """Return the edits of a model, and of ones made from it that hold something."""
    places = [name for name, module in model.named_children() if _is_linear(module)]
    first, middle, last = places[0], places[len(places) // 2], places[-2]
    half = torch.as_tensor(model.get_submodule(middle).weight).shape[0] // 2
    copied = widen(model, middle, COPIES).model
    linear = _with_lines(model, [middle, places[len(places) // 2 + 2]])
    return [
        Row("deepen, first layer", lambda m, d: deepen(m, first, d), model, 2.7),
        Row("deepen, middle layer", lambda m, d: deepen(m, middle, d), model, 2),
        Row("deepen, last layer", lambda m, d: deepen(m, last, d), model, 2),
        Row(
            "deepen, middle, residual",
            lambda m, d: deepen(m, middle, d, residual=True),
            model,
            2,
        ),
        Row("widen, middle", lambda m, d: widen(m, middle, 64, data=d), model, 2.5),
        Row("merge_layers, of none", merge_layers, model, 2),
        Row("merge_layers, of several", merge_layers, linear, 3),
        Row("narrow, critical", lambda m, d: narrow(m, middle, data=d), copied, 2.5),
        Row(
            "narrow, cosine, to half",
            lambda m, d: narrow(m, middle, data=d, method="cosine", width=half),
            model,
            3,
        ),
        Row(
            "narrow, clones, to half",
            lambda m, d: narrow(m, middle, data=d, method="clones", width=half),
            model,
            6,
        ),
        Row("linearity (no edit)", linearity, model, 4.5),
    ]


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def _with_lines(model: nn.Sequential, paths: list[str]) -> nn.Sequential:
    """Return a copy in which some layers have biases that no data outweigh."""
    copy = deepcopy(model)
    with torch.no_grad():
        for size, path in zip((1e2, 1e4), paths, strict=True):
            torch.as_tensor(copy.get_submodule(path).bias).add_(size)
    return copy


def perceptron(width: int, hidden: int) -> nn.Sequential:
    """Return a network with as many hidden layers of a width."""
    widths, layers = [width] * (hidden + 1), list[nn.Module]()
    for a, b in pairwise(widths):
        linear = nn.Linear(a, b)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        layers += [linear, nn.ReLU()]
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


def compare(row: Row, data: Batches, rounds: int) -> tuple[float, float, float]:
    """Return the median time of an edit, and its ratios to both kinds of passes."""
    timed = [
        (
            seconds(lambda: row.edit(row.model, data)),
            seconds(lambda: forward(row.model, data)),
            seconds(lambda: backward(row.model, data)),
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
    warnings.simplefilter("ignore")  # of what is undefined
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
    missed = []
    for row in rows(model):
        time_, inference, training = compare(row, data, rounds)
        missed += [row.name] if inference >= row.claim else []
        print(
            f"{row.name:<26} {1e3 * time_:8.1f} ms   {inference:6.2f} forward passes "
            f"(claim: below {row.claim:g})   {training:6.2f} forward and backward"
        )
    if arguments.smoke:
        print("this size is too small for the claims, which are about the full one")
        return
    print(f"claims: {'do not hold for ' + ', '.join(missed) if missed else 'hold'}")
    if missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
