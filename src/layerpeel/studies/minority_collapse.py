r"""Minority collapse on real data, from cause to cure: the study behind the demo.

Claim
    Fang et al. 2021 (arXiv 2101.12699): under imbalance the
    classifiers of rare classes draw together, and oversampling parts them again.
Data
    Scikit-learn's digits (8 x 8 pixels) with a step imbalance: five classes at their
    full training size, about 135 samples, and five classes of 4 samples.
Network
    A perceptron of 64 hidden ReLU units, cross-entropy, weight decay 1.5e-2 on all
    parameters, full-batch gradient descent with momentum, until the regularised loss is
    stationary. The decay is large on purpose: the minority cannot be fitted.
Command
    ``layerpeel demo``; a few seconds of training on one core.
Expected
    Minority recall on held-out digits about 0 and a mean minority cosine clearly above
    the balanced -1/9; after oversampling at the advised rate, recall above 0.7 and a
    cosine near -1/9.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from layerpeel.datasets import (
    ArrayLoader,
    load_digits,
    step_imbalance,
    stratified_split,
)
from layerpeel.remedies import oversampled_indices
from layerpeel.reports.advice import Advice
from layerpeel.reports.compare import Comparison, compare
from layerpeel.reports.diagnose import diagnose
from layerpeel.reports.report import Report
from layerpeel.reports.table import Table
from layerpeel.studies.training import Trained, Training, perceptron, train

_BATCH = 256


@dataclass(frozen=True)
class Settings:
    """What the study varies.

    Attributes:
        minority: The classes to make rare.
        minority_count: Samples of each that are kept.
        test_share: Share of every class that is held out, before thinning.
        hidden: Width of the hidden layer.
        training: How to train, and when to stop.
    """

    minority: tuple[int, ...] = (5, 6, 7, 8, 9)
    minority_count: int = 4
    test_share: float = 0.25
    hidden: int = 64
    training: Training = field(default_factory=Training)


@dataclass(frozen=True)
class StudyResult:
    """What the study found, and where it was written.

    Attributes:
        comparison: The reports before and after oversampling.
        before: How the first training ended.
        after: How the second training ended.
        report_path: The HTML report of the whole story.
    """

    comparison: Comparison
    before: Trained
    after: Trained
    report_path: Path

    @property
    def table(self) -> Table:
        """The key numbers, before and after."""
        return self.comparison.table


@dataclass(frozen=True, eq=False)
class Split:
    """Imbalanced training data and untouched held-out data.

    Attributes:
        inputs: All images, with shape :math:`(n, 64)`.
        labels: Their classes, with shape :math:`(n,)`.
        train: Indices of the imbalanced training samples.
        test: Indices of the held-out samples.
        class_names: Names of the classes.
    """

    inputs: Float32[Tensor, "n p"]
    labels: Int64[Tensor, " n"]
    train: Int64[Tensor, " m"]
    test: Int64[Tensor, " t"]
    class_names: tuple[str, ...]


def run(
    out: Path,
    *,
    seed: int = 0,
    settings: Settings | None = None,
    progress: bool | None = None,
) -> StudyResult:
    """Train, diagnose, oversample as advised, retrain, compare, and write the reports.

    Writes ``report.html`` (the whole story), ``report.json``, ``before.html`` and
    ``after.html`` (the two diagnoses) and ``picture.svg``, each whole or not at all.

    Args:
        out: An existing directory.
        seed: Seed of the split, of the samples kept and of the initial weights.
        settings: What to vary.
        progress: Whether to show progress bars; by default when standard error is a
            terminal.

    Returns:
        What was found.

    Raises:
        ImportError: If scikit-learn or jinja2 is not installed.
        OSError: If ``out`` cannot be written to.
    """
    settings = settings or Settings()
    split = imbalanced_digits(settings, seed)
    before, first = _train_and_diagnose(
        split, split.train, settings, seed, "As it was", progress
    )
    assert first.advice is not None  # the settings name a minority
    repeated = oversampled_indices(split.labels[split.train], first.advice.rates)
    after, second = _train_and_diagnose(
        split, split.train[repeated], settings, seed, "Oversampled", progress
    )
    comparison = compare(
        first,
        second,
        names=("as it was", f"oversampled x{first.advice.rate}"),
        title="Minority collapse on digits, and its cure",
        story=_story(settings, split, first.advice, before, after),
    )
    return StudyResult(comparison, before, after, _write(out, comparison))


def imbalanced_digits(settings: Settings, seed: int) -> Split:
    """Hold out a part of the digits and thin out the minority classes of the rest.

    Args:
        settings: Which classes to thin out, and how far.
        seed: Seed of both draws.

    Returns:
        The split.
    """
    digits = load_digits()
    generator = torch.Generator().manual_seed(seed)
    train_part, test = stratified_split(digits.labels, settings.test_share, generator)
    kept = step_imbalance(
        digits.labels[train_part],
        settings.minority,
        settings.minority_count,
        generator,
    )
    return Split(
        digits.inputs, digits.labels, train_part[kept], test, digits.class_names
    )


def _train_and_diagnose(
    split: Split,
    indices: Int64[Tensor, " m"],
    settings: Settings,
    seed: int,
    title: str,
    progress: bool | None,
) -> tuple[Trained, Report]:
    model = perceptron(
        (split.inputs.shape[1], settings.hidden, len(split.class_names)), seed
    )
    trained = train(
        model,
        split.inputs[indices],
        split.labels[indices],
        settings.training,
        description=f"training: {title.lower()}",
        progress=progress,
    )
    report = diagnose(
        trained.model,
        ArrayLoader(split.inputs, split.labels, _BATCH, indices),
        eval_loader=ArrayLoader(split.inputs, split.labels, _BATCH, split.test),
        class_names=split.class_names,
        minority=settings.minority,
        title=title,
        progress=progress,
    )
    return trained, report


def _story(
    settings: Settings, split: Split, advice: Advice, before: Trained, after: Trained
) -> str:
    majority = len(split.class_names) - len(settings.minority)
    return (
        f"Digits with {majority} classes at full size and {len(settings.minority)} "
        f"classes of {settings.minority_count} samples; a perceptron of "
        f"{settings.hidden} hidden units with weight decay "
        f"{settings.training.weight_decay:g}, trained full-batch until its regularised "
        f"loss is stationary: {_ending(before)}.\n\n"
        f"The diagnosis advised: {advice.action} {advice.reason}\n\n"
        f"So every minority sample was repeated {advice.rate} times, and a network with "
        "the same initial weights was trained in the same way: "
        f"{_ending(after)}. Its report counts the repeated samples, as its loss did; "
        "the held-out digits are the same for both."
    )


def _ending(trained: Trained) -> str:
    how = "stopped" if trained.stationary else "still falling"
    return (
        f"{how} after {trained.epochs} epochs at {trained.loss:.4f}, having fallen by "
        f"{trained.last_decrease:.1e} of itself over the last look"
    )


def _write(out: Path, comparison: Comparison) -> Path:
    comparison.first.save(out / "before.html")
    comparison.second.save(out / "after.html")
    comparison.save(out / "report.json")
    comparison.pictures[0].save(out / "picture.svg")
    return comparison.save(out / "report.html")
