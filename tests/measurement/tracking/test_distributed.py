"""Tracking inside a job of two gloo processes, which is started once."""

import math
import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from layerpeel._checks import UndefinedWarning
from layerpeel.measurement import ClassMoments
from layerpeel.measurement.tracking import Clones, CSVLogger, Tracker
from layerpeel.measurement.tracking.subset import FixedData
from tests.measurement.tracking.networks import arrays, loader, network
from tests.measurement.tracking.processes import together
from tests.measurement.tracking.test_torchmetrics import (
    D,
    K,
    NeuralCollapse,
    data,
    numbers,
    updated,
    weight,
)

SHARDS = {"uneven": [(0, 11), (11, 80)], "empty": [(0, 80), (80, 80)]}


def job(rank, size, folder):
    """What a process finds: everything that the tests below look at."""
    return {
        "metric": {name: metric(bounds[rank]) for name, bounds in SHARDS.items()},
        "running": running(rank, folder),
        "samples": samples(),
        "clones": {name: clones(size, rank) for name, size in CACHES.items()},
        "running clones": running_clones(rank),
    }


def metric(bounds):
    """What the metric computes, and how many samples it holds afterwards."""
    (h, y), part = data(), slice(*bounds)
    metric = NeuralCollapse(K, D, weight())
    for a, b in zip(h[part].split(9), y[part].split(9), strict=True):
        metric.update(a, b)
    values = numbers(metric.compute())
    return values, float(metric.moments[:K, D].sum())


def still():
    """A network whose features do not depend on the batch they are in."""
    model = network().double()
    for module in (model[1], model[3]):
        module.training = False
    return model


def running(rank, folder):
    (x, y), part = arrays(), slice(0, 7) if rank == 0 else slice(7, 60)
    names, log = ["nc1", "nc3"], CSVLogger(folder + f"/{rank}.csv")
    with Tracker(still(), mode="running", metrics=names, loggers=log) as tracker:
        with tracker.batch(y[part]):
            tracker.model(x[part].double())
        return tracker.measure(0)


def samples():
    """The rows of a subset that this process reads."""
    return torch.cat([x for x, _ in FixedData(loader(), 13, 0).batches])


# What one process cannot keep, none reads a second time.
CACHES = {"kept": [2**20, 2**20], "lost": [2**20, 10]}
FOLLOWED = Clones([2, 4], repeats=4)


def clones(cache_bytes=(2**20,), rank=0):
    """What is followed of a network, each process with its share of the data."""
    options = {"cache_bytes": cache_bytes[rank]}
    tracker = Tracker(
        still(), in_double(), metrics=[], clones=FOLLOWED, seed=2, options=options
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedWarning)
        return tracker.measure(0)


def in_double():
    x, y = arrays()
    return DataLoader(TensorDataset(x.double(), y), 16)


def running_clones(rank):
    """The same from the features of training, where processes have uneven shares."""
    (x, y), part = arrays(), slice(0, 7) if rank == 0 else slice(7, 60)
    model = still()
    with Tracker(model, mode="running", metrics=[], clones=FOLLOWED, seed=2) as tracker:
        with tracker.batch(y[part]):
            model(x[part].double())
        return tracker.measure(0)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    return together(job, 2, str(folder)), folder


def test_two_metrics_are_one(found):
    expected = numbers(updated(data()).compute())
    for rank, results in enumerate(found[0]):
        for name, bounds in SHARDS.items():
            values, held = results["metric"][name]
            assert values == pytest.approx(expected, rel=1e-10)
            assert held == bounds[rank][1] - bounds[rank][0]  # it goes on by itself


def test_running_statistics_are_those_of_all_processes(found):
    (x, y), model = arrays(), still()
    h = model[:6](x.double()).detach()
    metric = NeuralCollapse(3, 6, model[6], metrics=["nc1", "nc3"])
    metric.update(h, y)
    expected = numbers(metric.compute())
    for results in found[0]:
        assert results["running"] == pytest.approx(expected, rel=1e-10)
    assert ClassMoments.of(h, y, 3).num_samples == 60


def test_the_first_process_alone_writes(found):
    assert (found[1] / "0.csv").read_text().count("\n") == 3
    assert not (found[1] / "1.csv").exists()


def test_processes_share_a_subset(found):
    whole = FixedData(loader(), 13, 0)
    rows = torch.cat([x for x, _ in whole.batches])
    parts = [results["samples"] for results in found[0]]
    assert [len(part) for part in parts] == [7, 6]
    assert torch.equal(parts[0], rows[::2])
    assert torch.equal(parts[1], rows[1::2])


def test_chunks_are_read_on_the_samples_of_all_processes(found):
    expected = clones()
    for results in found[0]:
        assert results["clones"]["kept"] == pytest.approx(expected, rel=1e-9)


def test_folding_takes_the_features_of_all_processes(found):
    expected = clones()
    for results in found[0]:
        for name, value in results["clones"]["lost"].items():
            if "folded" in name:
                assert math.isnan(value)
            else:
                assert value == pytest.approx(expected[name], rel=1e-9)


def test_running_clones_are_those_of_all_processes(found):
    expected = {k: v for k, v in clones().items() if "error" not in k}
    for results in found[0]:
        assert results["running clones"] == pytest.approx(expected, rel=1e-6)
