import json
import math

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from layerpeel.geometry import simplex_etf
from layerpeel.program import Energy, PeeledProblem
from layerpeel.reports.candidates import ETF, MEASURES, candidates
from tests.reports.networks import balanced_network, network, predicted_network

STEP = [60] * 3 + [6] * 2
TAIL = [60, 20, 12, 4, 2]
VARIANTS = {
    "LPM": ("class", {}),
    "LPM, bias": ("class", {"bias": "free"}),
    "LPM, ReLU": ("class", {"features": "nonnegative"}),
    "LPM, ReLU, bias": ("class", {"features": "nonnegative", "bias": "free"}),
    "UFM": ("sample", {}),
    "UFM, bias": ("sample", {"bias": "free"}),
    "UFM, ReLU": ("sample", {"features": "nonnegative"}),
    "UFM, ReLU, bias": ("sample", {"features": "nonnegative", "bias": "free"}),
}


@pytest.fixture(scope="module")
def step():
    return candidates(predicted_network(STEP, (1.5, 4.0), noise=0.3))


@pytest.mark.parametrize(
    ("name", "counts"),
    [*((name, STEP) for name in VARIANTS), ("LPM", TAIL), ("UFM, bias", TAIL)],
)
def test_a_network_at_the_optimum_of_a_variant_is_recognised(name, counts):
    per, variant = VARIANTS[name]
    energy = Energy(1.5, 2.5, per=per)
    solution = PeeledProblem(counts, energy=energy, **variant).solve()
    measured = network(counts, solution.classifiers(16), solution.class_means(16))
    # The program's own energies are uncentred, so this convention finds them again.
    found = candidates(measured, convention="uncentred")
    assert {item.name for item in found.items} == {*VARIANTS, ETF}
    itself = next(item for item in found.items if item.name == name)
    assert max(itself.gram, itself.cosines, itself.norms) < 2e-3
    assert itself.gram < 2e-5
    assert itself.gram <= found.nearest().gram + 1e-5
    assert found.etf.gram > 0.1
    assert itself.minority_cosine == pytest.approx(found.minority_cosine, abs=1e-4)
    assert itself.norm_ratio == pytest.approx(found.norm_ratio, rel=1e-4)


def test_a_network_at_the_etf_is_recognised_however_its_means_are_centred():
    for convention in ("sample_mean", "uncentred"):
        found = candidates(balanced_network(STEP), convention=convention)
        assert found.nearest().name == ETF
        assert found.etf.gram == pytest.approx(0.0, abs=1e-9)


def test_energies_are_averaged_over_classes_or_samples():
    # Features rebuilt by hand: means about the sample mean, plus spread.
    noisy = predicted_network(STEP, (1.5, 4.0), noise=0.5)
    means, counts = noisy.moments.class_means, torch.tensor(STEP).double()
    centred = means - (counts @ means) / counts.sum()
    squares = centred.square().sum(1) + noisy.moments.trace / counts
    energies = {
        item.name: item.problem.energy
        for item in candidates(noisy).items
        if item.problem
    }
    assert energies["LPM"].features == pytest.approx(float(squares.mean()))
    per_sample = float(counts @ squares / counts.sum())
    assert energies["UFM"].features == pytest.approx(per_sample)
    assert energies["UFM"].per == "sample"
    assert len({energy.classifiers for energy in energies.values()}) == 1
    without_spread = candidates(noisy, convention="means_only")
    energy = next(i.problem.energy for i in without_spread.items if i.name == "UFM")
    assert energy.features == pytest.approx(
        float(counts @ centred.square().sum(1) / counts.sum())
    )


def test_predictions_are_centred_as_the_network_is(step):
    item = next(i for i in step.items if i.name == "UFM, ReLU")
    again = network(STEP, item.solution.classifiers(16), item.solution.class_means(16))
    expected = again.geometry("sample")
    assert item.geometry.feature_gram.numpy() == pytest.approx(
        expected.feature_gram.numpy(), abs=1e-9
    )
    assert item.geometry.logits.numpy() == pytest.approx(
        expected.logits.numpy(), abs=1e-9
    )


def test_distances_are_means_over_classifiers_and_class_means():
    measured = predicted_network(STEP, (1.5, 4.0), noise=0.3)
    item = candidates(measured).items[3]
    ours, theirs = measured.geometry(), item.geometry
    grams, cosines, norms = [], [], []
    for name in ("classifier_gram", "feature_gram"):
        a, b = (getattr(g, name).numpy() for g in (ours, theirs))
        grams.append(np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b)))
        u, v = (np.sqrt(np.diag(m)) for m in (a, b))
        off = ~np.eye(len(a), dtype=bool)
        cosines.append(np.abs(a / np.outer(u, u) - b / np.outer(v, v))[off].mean())
        norms.append(np.linalg.norm(u / np.linalg.norm(u) - v / np.linalg.norm(v)))
    assert item.gram == pytest.approx(np.mean(grams))
    assert item.cosines == pytest.approx(np.mean(cosines))
    assert item.norms == pytest.approx(np.mean(norms))
    rows = theirs.classifier_norms
    assert item.norm_ratio == pytest.approx(float(rows[:3].mean() / rows[3:].mean()))


def test_every_measure_ranks_and_the_summary_says_by_how_much(step):
    assert step.items == step.ranked()
    for measure in MEASURES:
        values = [getattr(item, measure) for item in step.ranked(measure)]
        assert values == sorted(values)
        first, second = step.ranked(measure)[:2]
        assert step.nearest(measure) is first
        near, next_ = getattr(first, measure), getattr(second, measure)
        assert f"{first.name} at {near:.3f}, then {second.name} at {next_:.3f}" in (
            step.summary
        )
    assert f"{ETF} at {step.etf.gram:.3f}" in step.summary
    with pytest.raises(ValueError, match="'gram', 'cosines', 'norms'"):
        step.ranked("angle")


def test_the_table_holds_what_was_measured_and_every_candidate(step):
    table = step.table()
    assert table.rows[0] == (
        "measured", None, None, None, step.minority_cosine, step.norm_ratio
    )  # fmt: skip
    assert [row[0] for row in table.rows[1:]] == [item.name for item in step.items]
    assert step.summary in table.note


def test_the_json_holds_every_number(step):
    content = json.loads(json.dumps(step.to_dict()))
    assert [item["name"] for item in content["items"]] == [i.name for i in step.items]
    assert content["nearest"]["gram"] == step.nearest().name
    for said, item in zip(content["items"], step.items, strict=True):
        assert said["gram"] == item.gram
        assert ("status" in said) is (item.solution is not None)


def test_candidates_are_drawn_nearest_on_top(step):
    fig, ax = step.plot()
    assert isinstance(ax, Axes)
    assert ax.figure is fig
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[-1] == step.nearest().name
    again, same = step.plot(ax)
    assert (again, same) == (fig, ax)


def test_many_classes_leave_out_what_takes_long():
    found = candidates(balanced_network([20] * 16 + [4] * 16))
    names = {item.name for item in found.items}
    assert names == {*VARIANTS, ETF} - {"LPM, ReLU, bias", "UFM, ReLU, bias"}
    assert "left out above 30 classes" in found.note


def test_a_single_minority_class_has_no_cosine_and_a_ratio():
    found = candidates(balanced_network([50, 50, 50, 3]))
    assert math.isnan(found.minority_cosine)
    assert found.norm_ratio == pytest.approx(1.0)


def test_all_variants_agree_on_balanced_classes():
    found = candidates(balanced_network([20] * 4))
    assert max(item.gram for item in found.items) < 1e-6
    assert math.isnan(found.norm_ratio)


@pytest.mark.filterwarnings("ignore::layerpeel.UndefinedWarning")
@pytest.mark.parametrize(
    ("measured", "options", "message"),
    [
        (lambda: balanced_network([9, 9, 0]), {}, "no samples"),
        (
            lambda: network([9, 9, 3], 0 * simplex_etf(3, 16), simplex_etf(3, 16)),
            {},
            "positive and finite",
        ),
        (
            lambda: balanced_network([9, 9, 3]),
            {"convention": "sample"},
            "Did you mean 'sample_mean'",
        ),
    ],
    ids=["absent", "no energy", "convention"],
)
def test_networks_without_candidates_are_refused(measured, options, message):
    with pytest.raises(ValueError, match=message):
        candidates(measured(), **options)
