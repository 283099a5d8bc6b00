import pytest

from layerpeel._checks import MergeError
from layerpeel.measurement.distributed import LocalReducer, reducer
from tests.measurement.files.values import VALUES


def test_ranks_say_and_hear_in_order(job):
    ranks = range(job.size)
    heard = [{"rank": rank} for rank in ranks]
    expected = [[rank, job.size, ["fc", ["a", "b"], None], heard] for rank in ranks]
    assert job.returned("alike") == expected


def test_ranks_that_disagree_all_raise(job):
    for name, message in job.raised("unlike"):
        assert name == "RankError"
        assert "must have the same head" in message
        assert all(f"rank {rank}" in message for rank in range(job.size))


def test_the_first_rank_warns_of_data_measured_twice(job):
    (first, *rest) = job.warnings("copies")
    assert len(first) == 1
    assert f"rank {job.size - 1} measured the same as a rank before it" in first[0]
    assert rest == [[]] * (job.size - 1)
    assert job.warnings("no_copies") == [[]] * job.size


def test_one_process_is_on_its_own(recwarn):
    alone = reducer()
    assert isinstance(alone, LocalReducer)
    assert (alone.rank, alone.size) == (0, 1)
    value, loader = VALUES["moments"](), [1, 2]
    assert alone.merge(value) is value
    assert alone.data(loader) is loader
    assert alone.gathered("a") == ["a"]
    assert alone.common("head", "fc") == "fc"
    alone.warn_of_copies(value)
    with pytest.raises(MergeError):
        alone.merge(None)
    with pytest.raises(ZeroDivisionError), alone.errors():
        raise ZeroDivisionError
    assert not recwarn.list
