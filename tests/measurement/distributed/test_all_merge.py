import pytest
import torch

from layerpeel._checks import MergeError
from layerpeel.measurement.distributed import all_merge
from layerpeel.measurement.files import load_statistic
from layerpeel.measurement.statistics.nearest_mean import Decisions, NearestMean
from layerpeel.measurement.statistics.row_statistics import RowStatistics
from layerpeel.measurement.statistics.units import UnitRange
from tests.measurement.distributed.checks import CLASSES, WIDTH, data

MERGES = {
    "uneven_shards": False,
    "light_shards": True,
    "empty_shards": False,
    "nothing_on_some_ranks": False,
    "one_class_on_one_rank": False,
}


def whole(*, light=False):
    return RowStatistics.of(*data(), light=light)


def merged(job, check):
    """Return the value that all ranks hold, bit by bit."""
    digests = job.returned(check)
    assert len(set(digests)) == 1
    values = [
        load_statistic(job.folder / f"{check}.{rank}.safetensors")
        for rank in range(job.size)
    ]
    return values[0]


@pytest.mark.parametrize("check", MERGES)
def test_shards_merge_to_the_value_of_one_process(job, check):
    value, expected = merged(job, check), whole(light=MERGES[check])
    assert value.moments.count.tolist() == torch.bincount(data()[1]).tolist()
    for name in ("count", "mean", "scatter", "trace"):
        one, other = getattr(value.moments, name), getattr(expected.moments, name)
        if other is None:
            assert one is None
        else:
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12 * WIDTH * 1e4)
    assert value.confusion.class_counts.equal(expected.confusion.class_counts)
    assert value.confusion.accuracy == expected.confusion.accuracy
    assert value.units.low.equal(expected.units.low)
    assert value.units.high.equal(expected.units.high)
    assert value.loss.mean == pytest.approx(expected.loss.mean, rel=1e-12)


@pytest.mark.parametrize("check", ["uneven_shards", "one_class_on_one_rank"])
def test_moments_are_those_of_two_passes_over_all_rows(job, check):
    features, labels, _ = data()
    moments = merged(job, check).moments
    for k in range(CLASSES):
        rows = features[labels == k]
        centred = rows - rows.mean(0)
        assert moments.trace[k] == pytest.approx(
            float(centred.square().sum()), rel=1e-12
        )
    centred = torch.cat(
        [(r := features[labels == k]) - r.mean(0) for k in range(CLASSES)]
    )
    scatter = centred.T @ centred
    torch.testing.assert_close(
        moments.scatter, scatter, rtol=0, atol=1e-12 * float(scatter.trace())
    )


def test_an_empty_value_and_none_say_the_same(job):
    if job.size == 2:  # the same rank has the data in neither check, but all of it
        one, other = merged(job, "empty_shards"), merged(job, "nothing_on_some_ranks")
        assert one.moments.scatter.equal(other.moments.scatter)
    assert merged(job, "empty_shards").moments.scatter.equal(whole().moments.scatter)


def test_nc4_is_that_of_one_process(job):
    features, labels, logits = data()
    expected = NearestMean.of(
        [Decisions(features, labels, logits.argmax(1))], whole().moments
    )
    value = merged(job, "two_passes")
    assert value.agreed.equal(expected.agreed)
    assert value.count.equal(expected.count)
    assert value.against == expected.against == "all data"
    torch.testing.assert_close(
        value.class_averaged_covariance,
        expected.class_averaged_covariance,
        rtol=0,
        atol=1e-9,
    )


def test_values_merge_in_the_order_of_the_ranks(job):
    kept = job.returned("in_rank_order")
    assert all(one == kept[0] for one in kept)
    assert kept[0] == [0.0] * 60  # of the first rank, which has enough


def test_other_groups_than_all(job):
    half = job.size // 2
    count = [[job.size - half, 0], [0, 0]]
    assert job.returned("subgroup") == [None] * half + [count] * (job.size - half)
    assert job.returned("one_member") == [[1, float(k)] for k in range(job.size)]


REFUSED = {
    "nothing_at_all": "At least one process must have a value",
    "other_widths": "agree in `mean`; got shape (5, 7) and shape (5, 8)",
    "other_kinds": "merges with another one; got UnitRange",
    "no_statistic": "must give a statistic, or `None` without data; got Tensor",
}


@pytest.mark.parametrize("check", REFUSED)
def test_what_does_not_merge_is_refused_on_every_rank(job, check):
    for name, message in job.raised(check):
        assert name == "MergeError"
        assert REFUSED[check] in message


def test_the_message_names_the_ranks(job):
    last = {2: "rank 0 and rank 1", 4: "rank 2 and rank 3"}[job.size]
    assert all(last in message for _, message in job.raised("other_widths"))


def test_a_refused_merge_leaves_the_job_in_step(job):
    assert job.returned("still_in_step") == [[0.0]] * job.size


def test_a_killed_process_does_not_leave_the_others_waiting(job):
    names = [job.read(f"death.{rank}.json") for rank in range(1, job.size)]
    assert all(name for name in names)


def test_outside_of_a_job_the_value_is_returned():
    value = UnitRange.of(torch.tensor([[1.0]]))
    assert all_merge(value) is value
    with pytest.raises(MergeError, match="none has"):
        all_merge(None)
