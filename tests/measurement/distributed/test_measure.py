import pytest
import torch
from torch.utils.data import DataLoader

from layerpeel.measurement import measure
from tests.measurement.distributed import checks

TOGETHER = [
    "measured",
    "measured_without_cache",
    "measured_on_one_rank",
    "measured_wrapped",
]


@pytest.fixture(scope="module")
def alone():
    loader = DataLoader(checks.samples(), 16)
    measurement = measure(checks.network(), loader, eval_loader=loader, layers="all")
    return checks.numbers(measurement)


def assert_equal(found, expected):
    assert tuple(found["counts"]) == expected["counts"]
    assert found["against"] == "all data"
    # Batches of other sizes round the forward pass differently.
    for name in ("nc1", "nc4", "loss", "accuracy", "eval_accuracy"):
        torch.testing.assert_close(
            torch.tensor(found[name], dtype=torch.float64),
            torch.tensor(expected[name], dtype=torch.float64),
            rtol=1e-10,
            atol=0.0,
        )
    if found["cdnv"]:
        torch.testing.assert_close(
            torch.tensor(found["cdnv"]),
            torch.tensor(expected["cdnv"]),
            rtol=1e-10,
            atol=0,
        )


@pytest.mark.parametrize("check", TOGETHER)
def test_a_job_measures_what_one_process_does(job, alone, check):
    assert_equal(job.returned(check)[0], alone)


@pytest.mark.parametrize("check", TOGETHER)
def test_every_rank_has_the_same_bits(job, check):
    first, *others = job.returned(check)
    assert others
    for other in others:
        assert other == first


@pytest.mark.parametrize("check", ["measured", "measured_on_one_rank"])
def test_layers_are_profiled_together(job, check):
    assert len(job.returned(check)[0]["cdnv"]) == 3


def test_repeated_samples_are_left_out_and_said(job):
    said = [text for one in job.warnings("measured") for text in one]
    assert any("repeat" in text or "padding" in text for text in said), said


def test_a_tracker_records_the_whole_on_every_rank(job, alone):
    first, *others = job.returned("tracked")
    assert all(other == first for other in others)
    assert first[0] == first[1]
    assert first[0]["nc1"] == pytest.approx(alone["nc1"][0], rel=1e-10)
    assert first[0]["1/cdnv"] == pytest.approx(alone["cdnv"][1], rel=1e-10)
    assert job.warnings("tracked") == [[]] * job.size


def test_one_rank_can_measure_alone(job, alone):
    first, *others = job.returned("measured_alone")
    assert_equal(first, alone)
    assert others == [None] * (job.size - 1)


def test_a_job_without_data_says_so_on_every_rank(job):
    for name, message in job.raised("measured_nothing"):
        assert name == "BatchError"
        assert "at least one sample" in message


def test_all_raise_when_one_has_features_that_are_not_finite(job):
    raised = job.raised("measured_nan")
    name, message = raised.pop(1)
    assert name == "NonFiniteError"
    assert "1 of" in message
    for name, message in raised:
        assert name == "RankError"
        assert "rank 1 raised NonFiniteError" in message


def test_networks_that_differ_are_refused(job):
    for name, message in job.raised("measured_other_weights"):
        assert name == "RankError"
        assert "same last layer" in message
