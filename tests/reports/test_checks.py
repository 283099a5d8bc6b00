import re
from pathlib import Path

import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.geometry import simplex_etf
from layerpeel.measurement import measure_features
from layerpeel.reports.advice import advise
from layerpeel.reports.candidates import candidates
from layerpeel.reports.checks import ALL_CHECKS, CHECKS, Evidence, explain
from layerpeel.reports.finding import Finding, NotApplicable, Passed, Severity
from layerpeel.reports.prediction import predict
from tests.reports.networks import balanced_network, network, predicted_network

FINDINGS_PAGE = Path(__file__).parents[2] / "docs" / "findings.md"
COLLAPSING = [90] * 3 + [3] * 3


def outcome(code, measurement, variants=None):
    predictions = predict(measurement)
    advice = advise(measurement, predictions)
    evidence = Evidence(measurement, predictions, advice, variants)
    return next(check for check in CHECKS if check.code == code)(evidence)


def merged_minority(closeness, counts=COLLAPSING):
    """Minority classifiers moved towards their mean by a share of the way."""
    frame = 3 * simplex_etf(6, 16)
    centre = frame[3:].mean(0)
    frame[3:] += closeness * (centre - frame[3:])
    return network(counts, frame, 3 * simplex_etf(6, 16))


def test_codes_are_unique_and_in_order():
    codes = [check.code for check in ALL_CHECKS]
    assert codes == sorted(set(codes))
    assert all(re.fullmatch(r"LP\d{3}", code) for code in codes)


def test_every_code_is_documented_under_its_anchor_and_no_other():
    documented = re.findall(r"^## (LP\d{3}): (.+)$", FINDINGS_PAGE.read_text(), re.M)
    assert documented == [(check.code, check.title) for check in ALL_CHECKS]


def test_the_documentation_says_what_explain_says():
    page = " ".join(FINDINGS_PAGE.read_text().split())
    for check in ALL_CHECKS:
        assert check.explanation in page, check.code
        assert check.source in page, check.code


def test_explain_lists_the_codes_when_asked_for_another():
    assert explain("lp001").startswith(
        "LP001: Minority classifiers have drawn together"
    )
    with pytest.raises(ValueError, match=r"'LP001'.*'LP009'.*got 'LP999'"):
        explain("LP999")


@pytest.mark.parametrize(
    ("closeness", "severity"),
    [(0.0, None), (0.2, Severity.WARNING), (0.8, Severity.PROBLEM)],
)
def test_the_minority_cosine_is_judged_by_its_way_to_one(closeness, severity):
    said = outcome("LP001", merged_minority(closeness))
    assert (said.severity if isinstance(said, Finding) else None) == severity
    # The number in the sentence, against a direct computation.
    frame = 3 * simplex_etf(6, 16)
    frame[3:] += closeness * (frame[3:].mean(0) - frame[3:])
    rows = torch.nn.functional.normalize(frame - frame.mean(0))
    expected = float((rows[3:] @ rows[3:].T)[~torch.eye(3, dtype=torch.bool)].mean())
    assert f"{expected:+.3f}" in said.measured


def test_a_vanished_minority_has_no_cosine_to_judge():
    frame = 3 * simplex_etf(6, 16)
    frame[3:] = frame[:3].mean(0)  # the mean row, which centring takes away
    with pytest.warns(UndefinedWarning, match="has vanished"):
        said = outcome("LP001", network(COLLAPSING, frame, 3 * simplex_etf(6, 16)))
    assert isinstance(said, NotApplicable)
    assert "vanished" in said.reason
    with pytest.warns(UndefinedWarning, match="has vanished"):
        lost = outcome("LP003", network(COLLAPSING, frame, 3 * simplex_etf(6, 16)))
    assert isinstance(lost, Finding)
    assert lost.severity is Severity.PROBLEM
    assert "vanished" in lost.measured


@pytest.mark.parametrize("code", ["LP001", "LP002", "LP003"])
def test_balanced_classes_have_no_minority_to_judge(code):
    said = outcome(code, balanced_network([20] * 4))
    assert isinstance(said, NotApplicable)
    assert "no minority" in said.reason


def test_a_single_minority_class_has_no_pair():
    said = outcome("LP001", balanced_network([90, 90, 90, 3]))
    assert isinstance(said, NotApplicable)
    assert "no pair" in said.reason


@pytest.mark.parametrize(
    ("wrong", "severity"), [(1, None), (2, Severity.WARNING), (4, Severity.PROBLEM)]
)
def test_held_out_recall_is_preferred_and_averaged_over_classes(wrong, severity):
    frame = 3 * simplex_etf(6, 16)
    labels = torch.arange(6).repeat_interleave(4)
    features = frame[labels].clone()
    features[-wrong:] = frame[0]  # of class 5, one of three minority classes
    measurement = network(
        COLLAPSING, frame, frame, eval_features=features, eval_labels=labels
    )
    said = outcome("LP002", measurement)
    assert (said.severity if isinstance(said, Finding) else None) == severity
    assert (
        "On held-out data, mean recall is 100.0% over the majority classes and "
        f"{1 - wrong / 12:.1%}" in said.measured
    )


def test_without_held_out_data_training_recall_is_judged_and_named():
    said = outcome("LP002", merged_minority(0.0))
    assert isinstance(said, Passed)
    assert "training data" in said.measured


def test_the_norm_ratio_is_found():
    frame = 3 * simplex_etf(6, 16)
    means = frame.clone()
    frame = frame - frame.mean(0)
    frame[3:] *= 0.25
    said = outcome("LP003", network(COLLAPSING, frame, means))
    norms = (frame - frame.mean(0)).norm(dim=1)
    ratio = float(norms[:3].mean() / norms[3:].mean())
    assert isinstance(said, Finding)
    assert f"{ratio:.2f} times" in said.measured


def test_absent_classes_are_named():
    with pytest.warns(UndefinedWarning, match="samples"):
        measurement = balanced_network(
            [20, 20, 0], class_names=["cat", "dog", "<script>alert(1)</script>"]
        )
    said = outcome("LP004", measurement)
    assert isinstance(said, Finding)
    assert "<script>alert(1)</script>" in said.measured
    assert isinstance(outcome("LP008", measurement), NotApplicable)


@pytest.mark.parametrize(("noise", "found"), [(0.05, False), (3.0, True)])
def test_scatter_and_nearest_mean_are_found_in_noisy_features(noise, found):
    measurement = balanced_network([40] * 4, noise=noise)
    assert isinstance(outcome("LP005", measurement), Finding) is found
    # Weights that ignore the noise directions disagree with the nearest mean.
    skewed = network([40] * 4, simplex_etf(4, 16), 3 * simplex_etf(4, 16), noise=noise)
    assert isinstance(outcome("LP007", skewed), Finding) is found


@pytest.mark.parametrize(
    ("dead", "severity"), [(1, None), (4, Severity.NOTE), (12, Severity.WARNING)]
)
def test_dead_units_are_counted(dead, severity):
    means = torch.randn(
        4, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    means[:, :dead] = 0
    labels = torch.arange(4).repeat(9)
    said = outcome("LP006", measure_features(means[labels], labels, weight=means))
    assert (said.severity if isinstance(said, Finding) else None) == severity
    assert said.measured.startswith(f"{dead} of 16")


def test_a_prediction_no_nearer_than_the_etf_is_admitted():
    # Features at a balanced ETF although the counts are as uneven as can be.
    frame = simplex_etf(6, 16)
    said = outcome("LP008", network([5000] * 3 + [3] * 3, frame, frame))
    assert isinstance(said, Finding)
    near = outcome("LP008", predicted_network([90] * 3 + [30] * 3, (1.5, 1.5)))
    assert isinstance(near, Passed)


def test_the_nearest_variant_is_named_beside_the_prediction():
    measurement = predicted_network([90] * 3 + [30] * 3, (1.5, 1.5), noise=0.1)
    variants = candidates(measurement)
    said = outcome("LP008", measurement, variants)
    nearest = variants.nearest()
    assert f"the nearest is {nearest.name} at {nearest.gram:.3f}" in said.measured
    assert "variants" not in outcome("LP008", measurement).measured


@pytest.fixture(scope="module")
def tail():
    """Drawn together, in a long tail."""
    frame = 3 * simplex_etf(5, 16)
    frame[2:] += 0.8 * (frame[2:].mean(0) - frame[2:])
    measurement = network([90, 30, 9, 5, 3], frame, 3 * simplex_etf(5, 16))
    predictions = predict(measurement)
    return Evidence(measurement, predictions, advise(measurement, predictions))


def test_theory_is_asked_of_long_tails_too(tail):
    said = {check.code: check(tail) for check in CHECKS}
    assert not isinstance(said["LP008"], NotApplicable)
    assert "from the prediction" in said["LP008"].measured
    cosine = tail.predictions.default.minority_cosine
    assert f"puts it at {cosine:+.3f}" in said["LP001"].measured
    assert f"{max(tail.predictions.cosines):+.3f}" in said["LP009"].measured


def test_the_drawn_together_minority_of_a_long_tail_is_lifted_by_class(tail):
    said = next(check for check in CHECKS if check.code == "LP001")(tail)
    assert isinstance(said, Finding)
    assert said.action.startswith("Draw the ")
    assert "generator=" in said.command


def test_the_spread_over_energy_conventions_is_found():
    # An offset common to all features counts in one convention only.
    frame = 1.2 * simplex_etf(6, 16)
    shifted = network([90] * 3 + [6] * 3, frame, frame + 2.0)
    assert isinstance(outcome("LP009", shifted), Finding)
    agreed = predicted_network([90] * 3 + [60] * 3, (4.0, 6.0))
    assert isinstance(outcome("LP009", agreed), Passed)
    assert isinstance(outcome("LP009", balanced_network([20] * 4)), NotApplicable)


@pytest.mark.filterwarnings("ignore::layerpeel.UndefinedWarning")
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1e-40, 1.0])
def test_a_last_layer_that_has_vanished_is_a_problem_for_balanced_classes_too(scale):
    frame = scale * simplex_etf(4, 16)
    said = outcome("LP010", network([9] * 4, frame, simplex_etf(4, 16)))
    assert isinstance(said, Passed if scale == 1.0 else Finding)


@pytest.mark.filterwarnings("ignore::layerpeel.UndefinedWarning")
@pytest.mark.parametrize("code", ["LP005", "LP007"])
def test_one_sample_per_class_shows_no_collapse(code):
    said = outcome(code, balanced_network([1] * 4))
    assert isinstance(said, NotApplicable)
    assert "its own class mean" in said.reason


def test_two_classes_have_no_prediction_to_fit():
    assert isinstance(outcome("LP008", balanced_network([100, 5])), NotApplicable)


@pytest.mark.filterwarnings("ignore::layerpeel.UndefinedWarning")
def test_recall_is_that_of_the_minority_classes_that_have_samples():
    said = outcome("LP002", balanced_network([50, 50, 50, 4, 4, 0], minority=[3, 4, 5]))
    assert isinstance(said, Passed)
    assert "100.0% over the minority" in said.measured
