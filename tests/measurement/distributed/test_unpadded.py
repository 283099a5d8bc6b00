from collections import namedtuple

import numpy as np
import pytest
import torch

from layerpeel.measurement.distributed.unpadded import first_rows, without_padding
from tests.measurement.distributed.checks import ACCELERATED, PADDED, strange


def once_each(shards, count):
    """Whether the ranks together have every sample once."""
    return sorted(index for shard in shards for index in shard) == list(range(count))


@pytest.mark.parametrize("index", range(len(PADDED)), ids=lambda i: str(PADDED[i]))
def test_pytorch_padding_is_left_out(job, index):
    shards = [found[index] for found in job.returned("padding_samplers")]
    assert once_each(shards, PADDED[index][0])


@pytest.mark.parametrize(
    "index", range(len(ACCELERATED)), ids=lambda i: str(ACCELERATED[i])
)
def test_accelerate_padding_is_left_out(job, index):
    shards = [found[index] for found in job.returned("accelerate_loaders")]
    assert once_each(shards, ACCELERATED[index][0])


def test_lightning_padding_is_left_out(job):
    found = job.returned("lightning_samplers")
    for index in range(2):
        assert once_each([one[index] for one in found], 9)


def test_padding_is_left_out_in_every_pass(job):
    found = job.returned("one_padded")
    for index in range(2):
        assert once_each([one[index] for one in found], 4 * job.size - 1)


def test_the_number_left_out_is_said_once(job):
    (first, *rest) = job.warnings("one_padded")
    count = 4 * job.size - 1
    assert len(first) == 1
    assert f"repeat 1 of {count} samples" in first[0]
    assert rest == [[]] * (job.size - 1)


@pytest.mark.parametrize("check", ["nothing_padded", "dropping_sampler", "own_shards"])
def test_what_repeats_nothing_is_left_alone(job, check):
    assert all(np.all(found) for found in job.returned(check))
    assert job.warnings(check) == [[]] * job.size


def test_an_unknown_sampler_is_doubted(job):
    (first, *rest) = job.warnings("unknown_sampler")
    assert len(first) == 1
    assert "cannot be excluded: the sampler `Strange` is not known" in first[0]
    assert rest == [[]] * (job.size - 1)
    assert job.returned("unknown_sampler") == [list(range(12))] * job.size


def test_an_unknown_sampler_whose_counts_add_up_is_not(job):
    assert job.warnings("unknown_sampler_that_adds_up") == [[]] * job.size
    assert once_each(job.returned("unknown_sampler_that_adds_up"), 12)


def test_samplers_that_do_not_divide_the_data_are_doubted(job):
    (first, *_) = job.warnings("samplers_of_one_rank")
    assert any("do not divide one data set" in text for text in first)


def test_outside_of_a_job_the_loader_is_returned(recwarn):
    loader = strange(range(12))
    assert without_padding(loader) is loader
    assert not recwarn.list


Pair = namedtuple("Pair", "inputs labels")
x, y = torch.arange(6).view(3, 2), torch.tensor([0, 1, 0])
STRUCTURES = {
    "tuple": ((x, y), (x[:2], y[:2])),
    "list": ([x, y], [x[:2], y[:2]]),
    "named tuple": (Pair(x, y), Pair(x[:2], y[:2])),
    "mapping": ({"ids": x, "labels": y}, {"ids": x[:2], "labels": y[:2]}),
    "nested": (({"a": x, "b": [x]}, y), ({"a": x[:2], "b": [x[:2]]}, y[:2])),
    "array": ((x.numpy(), y.numpy()), (x[:2].numpy(), y[:2].numpy())),
    "plain labels": ((x, [0, 1, 0]), (x[:2], [0, 1])),
    "texts": ((("a", "b", "c"), y), (("a", "b"), y[:2])),
    "beside": ((x, y, torch.ones(4), torch.tensor(3.0), "ab", None), None),
}


def flat(value):
    if isinstance(value, dict):
        return {key: flat(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [type(value).__name__, *map(flat, value)]
    if isinstance(value, torch.Tensor | np.ndarray):
        return [type(value).__name__, value.tolist()]
    return value


@pytest.mark.parametrize("name", STRUCTURES)
def test_rows_are_cut_and_structure_is_kept(name):
    raw, expected = STRUCTURES[name]
    if expected is None:
        expected = (x[:2], y[:2], *raw[2:])
    assert flat(first_rows(raw, 2, 3)) == flat(expected)


def test_two_samples_are_no_pair_of_arrays():
    pair = (x[:2], y[:2])
    assert flat(first_rows(pair, 1, 2)) == flat((x[:1], y[:1]))
