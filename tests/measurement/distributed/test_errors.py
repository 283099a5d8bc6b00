import pytest

from layerpeel._checks import HeadError
from layerpeel.measurement.distributed import shared_errors


def test_the_others_hear_who_raised_what(job):
    raised = job.raised("one_raises")
    assert raised.pop(1) == ("NonFiniteError", "`features` has 3 NaN")
    for rank, (name, message) in zip([0, *range(2, job.size)], raised, strict=True):
        assert name == "RankError"
        assert "rank 1 raised NonFiniteError: `features` has 3 NaN" in message
        assert f"Rank {rank} did well" in message


def test_each_raises_its_own_error(job):
    raised = job.raised("two_raise")
    for rank in range(2):
        assert raised[rank] == ("HeadError", f"no head on rank {rank}")
    for name, message in raised[2:]:
        assert name == "RankError"
        assert "rank 0 raised HeadError: no head on rank 0" in message
        assert "rank 1 raised HeadError: no head on rank 1" in message


def test_an_interrupt_is_told_too(job):
    (first, *rest) = job.found("interrupted")
    assert first["returned"] == "interrupted"
    for one in rest:
        assert one["raised"] == "RankError"
        assert "rank 0 raised KeyboardInterrupt" in one["message"]


def test_without_errors_nothing_happens(job):
    assert job.returned("none_raises") == [42] * job.size


def test_outside_of_a_job_it_is_an_ordinary_block():
    with pytest.raises(HeadError, match=r"^none$"), shared_errors():
        raise HeadError("none")
