import math

import numpy as np
import pytest
import torch

from layerpeel.geometry import geometry_distance
from layerpeel.measurement import ENERGY_CENTRINGS, ENERGY_CONVENTIONS
from layerpeel.program import PeeledProblem, collapse_threshold
from layerpeel.reports import solved_counts
from layerpeel.reports.prediction import predict
from tests.program.layer_peeled_reference import mean_cosine, solve_nuclear
from tests.reports.networks import balanced_network, network, predicted_network

TWO_GROUPS = [60] * 5 + [12] * 5


def test_every_energy_convention_is_solved_and_the_default_is_first():
    predictions = predict(predicted_network(TWO_GROUPS, (2.0, 3.0)))
    assert [item.convention for item in predictions.items] == list(ENERGY_CONVENTIONS)
    assert predictions.default is predictions.items[0]
    assert predictions.default.convention == "sample_mean"


def test_a_network_at_the_optimum_is_recognised_from_its_uncentred_energies():
    # The program's own energies are uncentred, so this convention must find them again.
    measurement = predicted_network(TWO_GROUPS, (2.0, 3.0))
    predictions = predict(measurement)
    uncentred = next(p for p in predictions.items if p.convention == "uncentred")
    assert uncentred.energy.classifiers == pytest.approx(2.0, rel=1e-9)
    assert uncentred.energy.features == pytest.approx(3.0, rel=1e-9)
    direct = PeeledProblem(TWO_GROUPS, energy=(2.0, 3.0)).solve()
    assert geometry_distance(
        uncentred.solution.geometry, direct.geometry
    ).classifier_gram == pytest.approx(0, abs=1e-6)
    assert uncentred.distance.classifier_gram < 1e-6
    assert predictions.etf_distance.classifier_gram > 0.1
    log_threshold = math.log(
        collapse_threshold(majority=5, minority=5, energy=(2.0, 3.0))
    )
    assert uncentred.log_threshold == pytest.approx(log_threshold, rel=1e-9)


@pytest.mark.parametrize("convention", ENERGY_CONVENTIONS)
def test_a_network_at_the_predicted_optimum_is_at_distance_zero(convention):
    # Energies that the convention reads off an optimum give another optimum, whose
    # vectors are the measured ones: centring must then agree on both sides.
    measurement = predicted_network(TWO_GROUPS, (2.0, 3.0))
    prediction = {p.convention: p for p in predict(measurement).items}[convention]
    again = network(
        TWO_GROUPS,
        prediction.solution.classifiers(16),
        prediction.solution.class_means(16),
    )
    centring = ENERGY_CENTRINGS[convention]
    distance = geometry_distance(again.geometry(centring), prediction.geometry)
    assert distance.classifier_gram < 1e-6
    assert distance.feature_gram < 1e-6
    assert distance.logits < 1e-6


def test_a_named_minority_that_is_more_frequent_has_no_threshold():
    predictions = predict(balanced_network([10, 10, 100, 100], minority=[2, 3]))
    assert predictions.imbalance == 0.1
    assert all(math.isnan(item.log_threshold) for item in predictions.items)


def test_balanced_classes_are_predicted_to_end_in_the_etf_without_threshold():
    predictions = predict(balanced_network([20] * 4))
    assert predictions.default is not None
    assert predictions.default.minority_cosine == pytest.approx(-1 / 3, abs=1e-9)
    assert math.isnan(predictions.default.log_threshold)
    assert predictions.default.distance.classifier_gram == pytest.approx(0, abs=1e-7)
    assert predictions.imbalance == 1.0


def test_groups_are_solved_at_their_mean_counts():
    counts = [60, 64, 56, 12, 10, 14]
    predictions = predict(balanced_network(counts))
    assert predictions.class_counts == (60.0, 60.0, 60.0, 12.0, 12.0, 12.0)
    assert predictions.imbalance == 5.0


@pytest.mark.filterwarnings("ignore::layerpeel.UndefinedWarning")
def test_counts_that_the_program_does_not_cover_give_a_reason():
    predictions = predict(balanced_network([50, 50, 2, 0]))
    assert predictions.items == ()
    assert predictions.default is None
    assert "no samples" in predictions.reason
    assert predictions.class_counts == ()
    assert math.isnan(predictions.imbalance)
    assert predictions.etf_distance.classifier_gram == pytest.approx(0, abs=1e-7)


TAIL = [100, 31, 10, 3]


def test_a_long_tail_is_solved_at_every_count():
    measurement = predicted_network(TAIL, (1.0, 2.0))
    predictions = predict(measurement)
    assert predictions.tail
    assert predictions.class_counts == tuple(map(float, TAIL))
    groups = measurement.groups
    assert groups.minority == (2, 3)
    assert predictions.imbalance == pytest.approx(65.5 / 6.5)
    uncentred = next(p for p in predictions.items if p.convention == "uncentred")
    assert uncentred.distance.classifier_gram < 1e-5
    logits = solve_nuclear(TAIL, (1.0, 2.0))[1]
    U, S, _ = np.linalg.svd(logits)
    gram = ((U * S) @ U.T)[2:, 2:]
    assert uncentred.minority_cosine == pytest.approx(mean_cosine(gram), abs=1e-3)
    # There is no single ratio: classes pass the threshold one by one.
    assert all(math.isnan(item.log_threshold) for item in predictions.items)


@pytest.mark.parametrize(
    ("counts", "energy"), [(TAIL, (1.0, 0.5)), (TWO_GROUPS, (0.8, 2.0))]
)
def test_classes_collapse_at_the_multiplier_of_the_budget(counts, energy):
    predictions = predict(predicted_network(counts, energy))
    uncentred = next(p for p in predictions.items if p.convention == "uncentred")
    problem = PeeledProblem(counts, energy=energy)
    logits = problem.solve(1e-11).logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(problem.class_level().data_term(logits), logits)
    limit = sum(counts) * float(torch.linalg.matrix_norm(gradient, 2))
    assert uncentred.threshold_count == pytest.approx(limit, rel=1e-5)
    below = tuple(k for k, count in enumerate(counts) if count <= limit)
    assert uncentred.below_threshold == below
    assert len(below) >= 2
    said = uncentred.to_dict()
    assert said["threshold_count"] == uncentred.threshold_count
    assert said["below_threshold"] == list(below)


def test_the_threshold_count_agrees_with_the_threshold_ratio():
    for item in predict(predicted_network(TWO_GROUPS, (1.0, 4.0), noise=0.2)).items:
        collapsed = math.log(60 / 12) >= item.log_threshold
        assert (item.threshold_count >= 12) is collapsed
        assert item.below_threshold == ((5, 6, 7, 8, 9) if collapsed else ())


def test_very_many_distinct_counts_are_solved_in_groups(monkeypatch):
    monkeypatch.setattr(solved_counts, "MOST_DISTINCT", 5)
    monkeypatch.setattr(solved_counts, "BINS", 3)
    predictions = predict(balanced_network([100, 60, 31, 18, 10, 6]))
    assert len(set(predictions.class_counts)) == 3
    assert "in 3 groups" in predictions.solved.note
    assert predictions.default.minority_cosine < 1


def test_a_vanished_minority_has_no_predicted_cosine():
    # Energies so small, and counts so uneven, that the minority block is zero.
    measurement = predicted_network([4000] * 7 + [4] * 3, (0.5, 0.5))
    predictions = predict(measurement)
    uncentred = next(p for p in predictions.items if p.convention == "uncentred")
    assert math.isnan(uncentred.minority_cosine)
    assert torch.all(uncentred.solution.geometry.classifier_norms[7:] == 0)
