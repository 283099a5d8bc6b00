import json
import math

import numpy as np
import pytest

from layerpeel.program import CrossEntropy, PeeledProblem
from layerpeel.reports.finding import Severity
from layerpeel.reports.forecasts import forecast
from layerpeel.reports.forecasts.tables import problem_table

CASES = {
    "merged": (
        {"class_counts": [5000] * 5 + [50] * 5, "energy": (1, 5)},
        Severity.PROBLEM,
        "The 5 classes of 50 samples share one classifier.",
    ),
    "apart": (
        {"class_counts": [60] * 5 + [50] * 5, "energy": (1, 5)},
        None,
        "No class collapses.",
    ),
    "one class vanishes": (
        {"class_counts": [500] * 3 + [1], "weight_decay": (1e-2, 1e-2), "loss": "mse"},
        Severity.PROBLEM,
        "The class of 1 samples vanishes.",
    ),
    "distinct": (
        {"class_counts": [500, 400, 300, 3, 2, 1], "energy": (1, 1)},
        Severity.WARNING,
        "3 of 6 classes have no more samples than classes merge at.",
    ),
    "deep": (
        {"class_counts": [9] * 3, "weight_decay": (1e-2, 1e-2, 1e-2)},
        None,
        "Best found, not proved: ",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_verdict_says_what_the_solution_shows(case):
    keywords, severity, verdict = case
    said = forecast(PeeledProblem(**keywords))
    assert said.verdict.startswith(verdict)
    assert said.severity is severity


def test_the_table_says_what_the_verdict_says():
    counts = np.geomspace(1280, 5, 40)
    said = forecast(PeeledProblem(counts, weight_decay=(1e-3, 2e-3)))
    below = counts <= counts.sum() ** 2 * 2e-6
    assert said.drawn_together == said.below == below.sum()
    assert said.verdict.startswith(f"{below.sum()} of 40 classes")
    states = [row[2] for row in said.page().sections[0].tables[0].rows]
    assert states[:2] == ["apart"] * 2
    assert states[2] == f"{below[10:15].sum()} of 5 drawn together"
    assert states[3:] == ["drawn together"] * 5


def test_a_rare_class_by_itself_is_no_warning():
    said = forecast(PeeledProblem([100] * 3 + [1], energy=(1, 5)))
    assert said.below == 1
    assert said.drawn_together == 0
    assert (said.severity, said.verdict) == (None, "No class collapses.")


PHASES = {
    # R0 = 4.0005 and R1 = 5.7053
    3.9: "before R0, where minority classes merge",
    4.1: "beyond R0, where the minority is merged",
    5.8: "beyond R1, where the minority is zero",
}


@pytest.mark.parametrize("ratio", PHASES)
def test_the_page_of_two_groups_has_their_phase_diagram(ratio):
    said = forecast(PeeledProblem([ratio] * 7 + [1] * 3, energy=(1, 5)))
    (picture,) = said.page().pictures()
    assert PHASES[ratio] in picture.caption
    assert f"R = {ratio:.4g} at the product 5 " in picture.alt
    assert picture.alt in said.to_html()


@pytest.mark.parametrize(
    ("counts", "keywords"),
    [
        ([9, 5, 1, 1], {}),
        ([9, 9, 9, 1], {}),
        ([9, 9, 1, 1], {"features": "nonnegative"}),
        ([9, 9, 1, 1], {"class_weights": [1, 1, 2, 2]}),
        ([9, 9, 1, 1], {"bias": "free"}),
    ],
    ids=str,
)
def test_other_problems_have_no_phase_diagram(counts, keywords):
    said = forecast(PeeledProblem(counts, energy=(1, 5), **keywords))
    assert list(said.page().pictures()) == []


@pytest.mark.parametrize(("ratio", "drawn"), [(1e5, 1), (1e12, 0)])
def test_a_page_draws_no_diagram_that_takes_seconds(ratio, drawn):
    said = forecast(PeeledProblem([ratio] * 2 + [1] * 2, energy=(1e4, 1e4)))
    assert said.to_html().count("<svg") == drawn


def test_many_collapsed_groups_are_counted():
    counts = [1e4] * 5 + [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    said = forecast(PeeledProblem(counts, energy=(1, 5)))
    assert said.collapsed == 10
    assert said.verdict.endswith("So it goes for 2 more groups.")


def test_below_counts_distinct_classes_under_the_threshold():
    counts = np.geomspace(500, 1, 12)
    problem = PeeledProblem(counts, weight_decay=(5e-3, 5e-3))
    threshold = float(counts.sum()) ** 2 * 2.5e-5
    said = forecast(problem)
    assert said.below == int((counts <= threshold).sum()) > 2
    # The rank drops by about as many dimensions; that is observed, not proved.
    rank = said.solution.factors.classifiers().shape[1]
    assert rank <= 12 - said.below


def test_text_and_html_and_json_have_the_same_content(tmp_path):
    said = forecast(PeeledProblem([500] * 3 + [5] * 3, energy=(1, 2)))
    content = json.loads(said.to_json())
    text, html = said.to_text(120), said.to_html()
    for table in (t for section in content["sections"] for t in section["tables"]):
        assert table["title"] in text
        assert table["title"] in html
    for sentence in said.advice.sentences:
        assert sentence in " ".join(text.split())
    assert content["status"] == "CERTIFIED"
    assert content["gap"] == said.solution.certificate.gap
    assert [group["state"] for group in content["groups"]] == ["APART", "MERGED"]
    assert content["thresholds"]["ratio"] == pytest.approx(100)
    assert content["geometry"]["logits"][0][0] == float(said.solution.logits[0, 0])
    saved = said.save(tmp_path / "f.json").read_text(encoding="utf-8")
    assert json.loads(saved) == content


@pytest.mark.parametrize("width", [72, 80, 100])
def test_the_state_of_every_group_fits_a_narrow_terminal(width):
    said = forecast(PeeledProblem([500] * 3 + [5] * 3, energy=(1, 2)))
    lines = said.to_text(width).split("\n")
    assert max(map(len, lines)) <= width
    assert any("merged" in line and line.startswith("5 ") for line in lines)


def test_a_given_solution_is_not_solved_again():
    problem = PeeledProblem([500] * 3 + [5] * 3, energy=(1, 2))
    solution = problem.solve(method="spectral")
    assert forecast(problem, solution).solution is solution


def test_thousands_of_samples_and_infinities_are_valid_json():
    said = forecast(PeeledProblem([1e12] * 2 + [1] * 2, energy=(1e4, 1e4)))
    content = json.loads(said.to_json(), parse_constant=pytest.fail)
    assert content["thresholds"]["collapse"] == "Infinity"
    assert math.isfinite(content["thresholds"]["log_collapse"])


def test_plot_draws_the_cosines():
    fig, ax = forecast(PeeledProblem([9, 9, 1], energy=(1, 1))).plot()
    assert ax.get_figure() is fig


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"energy": (1, 5)}, "energies E_W = 1, E_H = 5, features per class"),
        (
            {"weight_decay": (1e-3, 2e-3, 3e-3)},
            "decay 0.001, 0.002 on layers, 0.003 on features per sample",
        ),
        ({"energy": (1, 5), "bias": "free"}, "free"),
        ({"energy": (1, 5), "bias": 0.25}, "ridge 0.25"),
        ({"energy": (1, 5), "width": 7}, "free, width 7"),
        ({"energy": (1, 5), "features": "nonnegative"}, "nonnegative"),
        (
            {
                "energy": (1, 5),
                "loss": CrossEntropy(smoothing=0.1, scale=[1, 2]),
                "class_weights": [1, 2],
            },
            "cross-entropy, label smoothing 0.1, scale per class, class weights",
        ),
        ({"energy": (1, 5), "loss": "mse"}, "squared error"),
    ],
    ids=str,
)
def test_the_problem_is_said_in_words(keywords, said):
    rows = dict(problem_table(PeeledProblem([3, 2], **keywords)).rows)
    assert said in rows.values()
