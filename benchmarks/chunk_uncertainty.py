"""Disagreement of disjoint chunks as a score of uncertainty, against max-softmax.

Disjoint chunks of the last hidden layer of one trained network are an ensemble whose
mean is the network itself. Does their disagreement tell wrong decisions, and inputs of
another kind, better than one less the largest softmax probability? There is no claim:
the tables give the area under the receiver operating characteristic (AUROC) of every
score, its mean over seeds, and how many seeds it wins; the last lines say who wins.

Networks: perceptrons of 128 hidden ReLU units on scikit-learn's digits, one hidden
layer, full-batch, small weight decay. Half of the digits are held out; of the classes 5
to 9 only 8 samples are trained on, so that there are enough errors to detect.

- Errors: wrong decisions on held-out digits, as they are and with added noise; ensembles
  of several numbers of chunks.
- Other inputs: held-out digits (negatives) against the same with added noise or with
  their pixels permuted (positives).

    python benchmarks/chunk_uncertainty.py            # the tables, with 1 thread
    python benchmarks/chunk_uncertainty.py --smoke    # seconds, for a look at the script
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

import layerpeel as lp
from layerpeel.measurement.clones import chunk_ensemble, error_detection
from layerpeel.measurement.clones.errors.ensemble import BASELINE, SCORES, ChunkEnsemble
from layerpeel.studies.minority_collapse import Settings, imbalanced_digits
from layerpeel.studies.training import Training, perceptron, train

FULL = {"seeds": 5, "width": 128, "epochs": 1500}
SMOKE = {"seeds": 2, "width": 32, "epochs": 60}
CHUNKS = (2, 4, 8, 16)
STRENGTHS = (0.1, 0.2, 0.4, 0.8)
SHOWN = (BASELINE, *SCORES)
# Chunks of the comparison with other inputs, and of the one over strengths of noise.
MIDDLE = 8


class Row(NamedTuple):
    """One line of a table: the areas of all scores on one setting, by seed."""

    name: str
    areas: Sequence[Mapping[str, float]]
    share: float

    def means(self) -> dict[str, float]:
        """Return the mean area of every score over seeds where it is defined."""
        return {name: mean_of([area[name] for area in self.areas]) for name in SHOWN}

    def wins(self) -> dict[str, int]:
        """Count the seeds in which a score is the best; of equal ones the baseline."""
        wins = dict.fromkeys(SHOWN, 0)
        for area in self.areas:
            if area[BASELINE] == area[BASELINE]:
                wins[max(SHOWN, key=lambda name: (area[name], name == BASELINE))] += 1
        return wins

    def winner(self) -> str:
        """Return the score with the largest mean; of equal ones the baseline."""
        means = self.means()
        return max(SHOWN, key=lambda name: (means[name], name == BASELINE))

    def __str__(self) -> str:
        means, wins = self.means(), self.wins()
        cells = "  ".join(f"{means[name]:.3f} ({wins[name]})" for name in SHOWN)
        return f"{self.name:<22} {100 * self.share:5.1f} %   {cells}   {self.winner()}"


def mean_of(values: Sequence[float]) -> float:
    """Return the mean of the values that are defined; NaN if none is."""
    defined = [value for value in values if value == value]
    return statistics.fmean(defined) if defined else float("nan")


class Trained(NamedTuple):
    """A trained network and the held-out digits of its seed."""

    model: nn.Sequential
    inputs: Tensor
    labels: Tensor
    seed: int

    def ensemble(self, inputs: Tensor, chunks: int) -> ChunkEnsemble:
        """Cut the last hidden layer into disjoint chunks, by an order of the seed."""
        head = self.model[-1]
        assert isinstance(head, nn.Linear)
        with torch.no_grad():
            features = self.model[:-1](inputs)
        order = torch.randperm(head.in_features, generator=self.generator())
        parts = order.tensor_split(chunks)
        return chunk_ensemble(features, head.weight, head.bias, parts)

    def generator(self) -> torch.Generator:
        """Return a source of randomness of this seed."""
        return torch.Generator().manual_seed(1000 + self.seed)

    def noisy(self, strength: float) -> Tensor:
        """Return held-out digits with Gaussian noise added; pixels are from 0 to 1."""
        noise = torch.randn(self.inputs.shape, generator=self.generator())
        return self.inputs + strength * noise

    def permuted(self) -> Tensor:
        """Return held-out digits with their pixels in another order."""
        order = torch.randperm(self.inputs.shape[1], generator=self.generator())
        return self.inputs[:, order]


def trained(seed: int, width: int, epochs: int) -> Trained:
    """Train a network on imbalanced digits."""
    split = imbalanced_digits(Settings(minority_count=8, test_share=0.5), seed)
    model = perceptron((64, width, 10), seed)
    settings = Training(weight_decay=1e-4, max_epochs=epochs)
    train(model, split.inputs[split.train], split.labels[split.train], settings)
    return Trained(model, split.inputs[split.test], split.labels[split.test], seed)


def error_row(
    name: str, networks: Sequence[Trained], chunks: int, strength: float
) -> Row:
    """Detect wrong decisions."""
    found = [
        error_detection(one.ensemble(one.noisy(strength), chunks), one.labels)
        for one in networks
    ]
    share = statistics.fmean(each.wrong / each.total for each in found)
    return Row(name, [each.auroc for each in found], share)


def outlier_row(name: str, networks: Sequence[Trained], strength: float | None) -> Row:
    """Detect inputs of another kind: noisy ones, or permuted ones without a strength."""
    areas = []
    for one in networks:
        other = one.permuted() if strength is None else one.noisy(strength)
        joined = one.ensemble(torch.cat([one.inputs, other]), MIDDLE)
        areas.append(outlier_areas(joined, len(one.inputs)))
    return Row(name, areas, 0.5)


def outlier_areas(joined: ChunkEnsemble, inliers: int) -> dict[str, float]:
    """Return the AUROC of all scores for the samples after the first ``inliers``."""
    scores = {BASELINE: 1 - joined.logits.softmax(1).amax(1)}
    scores |= {name: joined.disagreement(name) for name in SCORES}
    return {name: area_of(s[:inliers], s[inliers:]) for name, s in scores.items()}


def area_of(low: Tensor, high: Tensor) -> float:
    """Return the chance that one of ``high`` is above one of ``low``; ties are half."""
    above = (high[:, None] > low).double().mean()
    return float(above + (high[:, None] == low).double().mean() / 2)


def table(title: str, share: str, rows: Sequence[Row]) -> None:
    """Print rows and who wins how many of them."""
    columns = "  ".join(f"{name:<9}" for name in SHOWN)
    print(f"\n{title}\n{'':<22} {share:>7}   {columns}   best mean")
    for row in rows:
        print(row)
    best = [row.winner() for row in rows]
    counts = {name: best.count(name) for name in SHOWN if name in best}
    said = ", ".join(f"{name} {count}" for name, count in counts.items())
    gains = [
        max(row.means()[name] for name in SCORES) - row.means()[BASELINE]
        for row in rows
    ]
    print(
        f"best mean AUROC of {len(rows)} settings: {said}; best disagreement less "
        f"{BASELINE}: {min(gains):+.3f} to {max(gains):+.3f}"
    )


def main() -> None:
    """Train networks, and print who detects what."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a small size")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", lp.UndefinedWarning)  # no error at all: NaN
    seeds, width, epochs = (SMOKE if arguments.smoke else FULL).values()
    start = time.perf_counter()
    networks = [trained(seed, width, epochs) for seed in range(seeds)]
    print(
        f"{seeds} networks of {width} hidden units on {len(networks[0].labels)} held-out "
        f"digits, trained in {time.perf_counter() - start:.0f} s; AUROC, mean over seeds "
        "(seeds won)"
    )
    errors = [error_row(f"{p} chunks", networks, p, 0.0) for p in CHUNKS]
    errors += [
        error_row(f"{MIDDLE} chunks, noise {s:g}", networks, MIDDLE, s)
        for s in STRENGTHS
    ]
    table("Wrong decisions", "wrong", errors)
    others = [outlier_row(f"noise {s:g}", networks, s) for s in STRENGTHS]
    others.append(outlier_row("permuted pixels", networks, None))
    table(f"Other inputs, {MIDDLE} chunks", "other", others)
    if arguments.smoke:
        print("this size is too small to say who wins")


if __name__ == "__main__":
    main()
