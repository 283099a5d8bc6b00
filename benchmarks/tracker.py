"""What a `Tracker` costs, as a share of an epoch, on the network of the demo.

The digits of ``layerpeel demo`` (five classes of 4 samples, the rest at full size) and
its perceptron of 64 hidden units, trained in two ways: full batch, as the demo does, whose
epoch is a single step, and in shuffled batches of 32 from a ``DataLoader``. For each, the
time of an epoch alone, and the time that a tracker adds to it: evaluating all training
data, evaluating a fixed subset of 200, and running statistics. A tracker that records every
``m`` epochs costs a share ``1 / m`` of what evaluation is printed with; running
statistics cost theirs in every epoch. Each pair is timed back to back in
processor time, since the speed of a shared machine drifts; printed is the median.

    python benchmarks/tracker.py            # half a minute
    python benchmarks/tracker.py --smoke    # seconds, for a look at the script
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from layerpeel.measurement.tracking import Tracker
from layerpeel.studies.minority_collapse import Settings, imbalanced_digits
from layerpeel.studies.training import perceptron

Batches: TypeAlias = Iterable[tuple[Tensor, Tensor]]

SUBSET = 200


def training_data() -> tuple[Tensor, Tensor]:
    """Return the imbalanced digits of the demo."""
    split = imbalanced_digits(Settings(), seed=0)
    return split.inputs[split.train], split.labels[split.train]


def epoch_of(
    model: nn.Module,
    batches: Batches,
    each: Callable[[Tensor], object] = lambda labels: None,
) -> Callable[[], None]:
    """Return a function that trains for one epoch."""
    settings = Settings().training
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.learning_rate / 10,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )

    def epoch() -> None:
        for inputs, labels in batches:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), labels)
            each(labels)
            torch.autograd.backward(loss)
            optimizer.step()

    return epoch


def seconds(run: Callable[[], object]) -> float:
    """Return the processor time of one run; the clock would count other programs too."""
    start = time.process_time()
    run()
    return time.process_time() - start


def network(inputs: Tensor) -> nn.Module:
    """Return the demo's perceptron with its initial weights."""
    return perceptron((inputs.shape[1], Settings().hidden, 10), seed=0)


def evaluation(
    inputs: Tensor, labels: Tensor, batches: Batches, pairs: int, subset: int | None
) -> tuple[float, float]:
    """Return the median times of an epoch, and of the evaluation after it."""
    model = network(inputs)
    data = DataLoader(TensorDataset(inputs, labels), batch_size=256)
    tracker, epoch = Tracker(model, data, subset=subset), epoch_of(model, batches)
    epoch(), tracker.step(0)  # warm up: the head is found, the model probed
    timed = [
        (seconds(epoch), seconds(lambda t=t: tracker.step(t)))
        for t in range(1, pairs + 1)
    ]
    epochs, added = zip(*timed, strict=True)
    return statistics.median(epochs), statistics.median(added)


def running(inputs: Tensor, batches: Batches, pairs: int) -> tuple[float, float]:
    """Return the median times of an epoch, and of what running statistics add."""
    plain, tracked = network(inputs), network(inputs)
    alone = epoch_of(plain, batches)
    with Tracker(tracked, mode="running") as tracker:
        watched = epoch_of(tracked, batches, tracker.update)
        alone(), watched(), tracker.step(0)
        timed = []
        for t in range(1, pairs + 1):
            base = seconds(alone)
            both = seconds(lambda t=t: (watched(), tracker.step(t)))
            timed.append((base, both - base))
    epochs, added = zip(*timed, strict=True)
    return statistics.median(epochs), statistics.median(added)


def main() -> None:
    """Print the overhead of every way to track, for both ways to train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="few epochs")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pairs = 3 if arguments.smoke else 60
    inputs, labels = training_data()
    ways = {
        "batches of 32": DataLoader(
            TensorDataset(inputs, labels),
            batch_size=32,
            shuffle=True,
            generator=torch.Generator().manual_seed(0),
        ),
        "full batch": [(inputs, labels)],
    }
    print(
        f"N = {len(labels)}, 64 hidden units, {arguments.threads} thread(s), median of "
        f"{pairs} epochs; the last column is added time over the time of an epoch"
    )
    for way, batches in ways.items():
        costs = {
            "evaluate all": evaluation(inputs, labels, batches, pairs, None),
            f"evaluate {SUBSET}": evaluation(inputs, labels, batches, pairs, SUBSET),
            "running statistics": running(inputs, batches, pairs),
        }
        for name, (epoch, more) in costs.items():
            print(
                f"{way:<14} {name:<19} epoch {1e3 * epoch:7.2f} ms   added "
                f"{1e3 * more:7.2f} ms   overhead {more / epoch:8.1%}"
            )
    if arguments.smoke:
        print("so few epochs are for a look at the script, not for its numbers")


if __name__ == "__main__":
    main()
