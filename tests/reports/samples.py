"""Pages with plausible content, and with content that tries to break out of it."""

from __future__ import annotations

import math
from functools import cache

import torch

from layerpeel.geometry import ClassGroups, Geometry, simplex_etf
from layerpeel.reports.finding import Finding, NotApplicable, Passed, Severity
from layerpeel.reports.html import render_html
from layerpeel.reports.page import Page, Section
from layerpeel.reports.picture import Picture
from layerpeel.reports.pictures import (
    class_accuracy,
    class_mean_projection,
    cosine_matrices,
    norms_against_counts,
)
from layerpeel.reports.table import Table

NAMES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]
HOSTILE = [
    "<script>alert(1)</script>",
    "]]>",
    '"onload="alert(1)',
    "$x$ and $y_{}$",
    "&lt;b&gt;&#60;",
    "url(#hostile-0)",
    "{{ 7 * 7 }}{% raw %}",
    "[bold red]rich[/]\x1b[31m\x00\ud800",
    "a very long name " * 12,
    "naïve 😀 大 <!--",
]


class Sample:
    """Half of the classes are rare, and their classifiers have nearly merged."""

    def __init__(self, num_classes: int, noise: float = 0.05) -> None:
        random = torch.Generator().manual_seed(0)
        half, width = num_classes // 2, num_classes + 6

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=random, dtype=torch.float64)

        self.minority = list(range(half, num_classes))
        self.groups = ClassGroups(tuple(range(half)), tuple(self.minority))
        self.counts = torch.full((num_classes,), 5000.0, dtype=torch.float64)
        self.counts[half:] = 50.0
        frame = simplex_etf(num_classes, width)
        merged = frame.clone()
        merged[half:] = 0.35 * frame[half:] + 1.6 * frame[half:].mean(0)
        self.classifiers = merged + noise * normal(num_classes, width)
        self.means = 3 * self.classifiers + 3 * noise * normal(num_classes, width)
        self.predicted = Geometry.of(merged, 3 * merged)
        self.measured = Geometry.of(self.classifiers, self.means)
        self.labels = torch.arange(num_classes).repeat_interleave(60)
        self.points = self.means[self.labels] + 0.5 * normal(len(self.labels), width)
        self.train = torch.full((num_classes,), 0.99, dtype=torch.float64)
        self.train[half:] = 0.9
        held_out = self.train - 0.05 - 0.06 * normal(num_classes).abs()
        held_out[half:] -= 0.5
        self.test = held_out.clamp(0, 1)


def pictures(sample: Sample, names: list[str]) -> list[Picture]:
    return [
        Picture(
            "cosines",
            "Cosines between classifiers",
            "Minority classifiers lie close together, as `solve` predicts.",
            "Two matrices. Minority pairs have a cosine of 0.7 on average.",
            lambda: cosine_matrices(
                {
                    "measured": sample.measured.classifier_cosines,
                    "predicted": sample.predicted.classifier_cosines,
                },
                names,
                sample.groups,
            ),
        ),
        Picture(
            "norms",
            "Norms against class counts",
            "Rare classes have shorter classifiers.",
            "Norms rise with the number of samples.",
            lambda: norms_against_counts(
                sample.counts,
                {
                    "classifier": sample.measured.classifier_norms,
                    "class mean": sample.measured.feature_norms,
                },
                {"classifier": sample.predicted.classifier_norms},
                names,
                sample.minority,
            ),
        ),
        Picture(
            "accuracy",
            "Accuracy of each class",
            "Rare classes are learnt but not generalised.",
            "Held-out accuracy of minority classes is below 45 %.",
            lambda: class_accuracy(
                {"training": sample.train, "held out": sample.test},
                names,
                sample.counts,
                sample.minority,
            ),
        ),
        Picture(
            "projection",
            "Features in the plane of the class means",
            "",
            "The minority means are close to each other.",
            lambda: class_mean_projection(
                sample.points,
                sample.labels,
                sample.means,
                sample.classifiers,
                names,
                sample.minority,
            ),
        ),
    ]


def class_table(sample: Sample, names: list[str]) -> Table:
    rows = [
        (name, int(count), float(train), float(test), bool(count < 100))
        for name, count, train, test in zip(
            names, sample.counts, sample.train, sample.test, strict=True
        )
    ]
    rows[1] = (names[1], int(sample.counts[1]), math.nan, math.inf, None)
    columns = ("class", "samples", "train accuracy", "held-out accuracy", "minority")
    return Table("Classes", columns, rows, "Accuracies are those of `eval` mode.")


def wide_table(names: list[str]) -> Table:
    columns = ["quantity", *(name[:40] for name in names), *(f"c{i}" for i in range(8))]
    rows = [
        [f"row {i}", *(i * 0.12345 + j for j in range(len(columns) - 1))]
        for i in range(3)
    ]
    return Table("A wide table", columns, rows)


def findings(name: str = "dog") -> tuple[Finding, ...]:
    return (
        Finding(
            code="LP001",
            title=f"Minority classifiers have merged, with {name} among them",
            severity=Severity.PROBLEM,
            measured="The mean cosine of minority pairs is 0.70; balanced it is -0.11.",
            threshold="0.5 between the classifiers of minority classes",
            source="Fang et al. 2021, Figure 3; the value is a convention",
            action="Sample minority classes 40 times as often, to restore the frame.",
            command='lp.oversampling([5000] * 5 + [50] * 5, energy=(1, 10), target="etf")',
            explanation=(
                "Past a threshold the optimum merges the minority classifiers.\n\n"
                "This does not prove that `model` reached that optimum."
            ),
        ),
        Finding(
            code="LP004",
            title="Two classes share a mean feature",
            severity=Severity.WARNING,
            measured="The means of `cat` and `deer` differ by 1.2e-9.",
            threshold="1e-7 of the largest norm",
            source="rounding",
            action="Look at the labels of these classes.",
        ),
        Finding(
            code="LP001",
            title="Norms follow the counts",
            severity=Severity.NOTE,
            measured="A ratio of 1.4.",
            threshold="1.2",
            source="a convention",
            action="Nothing needs to be done.",
            explanation="Shorter classifiers predict their class less often.",
        ),
    )


def outcomes(name: str = "dog") -> tuple[Passed | NotApplicable, ...]:
    return (
        Passed("LP002", "Features have collapsed within classes", "NC1 is 0.013."),
        NotApplicable(
            "LP003", f"Held-out accuracy of {name}", "No held-out data were given."
        ),
    )


def page(num_classes: int = 10, names: list[str] | None = None) -> Page:
    """A page with everything on it."""
    sample = Sample(num_classes)
    if names is None:
        names = (
            NAMES if num_classes == 10 else [f"class {k}" for k in range(num_classes)]
        )
    return Page(
        title=f"Diagnosis of a classifier of {names[0]} and others",
        subtitle=f"{num_classes} classes, 25250 samples, 64 features",
        verdict=(
            "Minority collapse: the classifiers of the rare classes have merged. "
            "Oversample them 40 times, or fix the head."
        ),
        severity=Severity.PROBLEM,
        sections=(
            Section("Findings", findings=findings(names[2])),
            Section(
                "What the last layer looks like",
                "Measured in `eval` mode, in float64.\n\nBeside it the prediction.",
                pictures=pictures(sample, names),
                tables=(class_table(sample, names), wide_table(names[:10])),
            ),
            Section(
                "Before and after",
                tables=(
                    Table("Before", ("name", "value"), [("cosine", 0.7)]),
                    Table("After", ("name", "value"), [("cosine", -0.11)]),
                ),
                columns=True,
            ),
            Section("Other checks", outcomes=outcomes(names[1])),
        ),
        footer="Measured on the CPU.",
    )


def hostile_page() -> Page:
    return page(len(HOSTILE), HOSTILE)


def empty_page() -> Page:
    """The least a page can be."""
    return Page("Nothing to report", "", "All is well.", None, ())


PAGES = {
    "ten classes": page,
    "hundred classes": lambda: page(100),
    "hostile names": hostile_page,
    "empty": empty_page,
}


@cache
def html(name: str) -> str:
    return render_html(PAGES[name]())
