import math
import warnings

import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.measurement.clones import error_detection
from layerpeel.studies.training import perceptron
from tests.benchmarks.scripts import script


@pytest.fixture(scope="module")
def bench():
    return script("chunk_uncertainty")


@pytest.fixture
def networks(bench):
    random = torch.Generator().manual_seed(0)
    inputs, labels = torch.rand(40, 64, generator=random), torch.arange(40) % 10
    return [
        bench.Trained(perceptron((64, 12, 10), s), inputs, labels, s) for s in (0, 1)
    ]


def test_every_neuron_is_in_one_chunk_so_that_the_mean_is_the_network(networks):
    for one in networks:
        for chunks in (2, 5, 12):
            ensemble = one.ensemble(one.inputs, chunks)
            assert len(ensemble.members) == chunks
            with torch.no_grad():
                whole = one.model(one.inputs).double()
            torch.testing.assert_close(ensemble.logits, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "area"),
    [([0.0, 1.0], [2.0], 1.0), ([1.0, 3.0], [2.0, 3.0], 0.625), ([1.0], [1.0], 0.5)],
)
def test_the_area_is_that_of_all_pairs(bench, low, high, area):
    assert bench.area_of(torch.tensor(low), torch.tensor(high)) == area


def test_rows_average_over_seeds_and_count_who_wins(bench):
    scores = bench.SHOWN
    values = ([0.7, 0.8, 0.6, 0.7], [0.9, 0.8, 0.6, 0.9], [math.nan] * 4)
    areas = [dict(zip(scores, row, strict=True)) for row in values]
    row = bench.Row("name", areas, 0.25)
    expected = dict(zip(scores, [0.8, 0.8, 0.6, 0.8], strict=True))
    assert row.means() == pytest.approx(expected)
    # The second seed is a tie, which is no win over the baseline.
    assert list(row.wins().values()) == [1, 1, 0, 0]
    assert row.winner() == bench.BASELINE
    assert "25.0 %" in str(row)
    assert str(row).endswith(bench.BASELINE)


def test_errors_are_detected_on_noisy_digits(bench, networks):
    row = bench.error_row("noise", networks, 4, 0.5)
    found = error_detection(
        networks[1].ensemble(networks[1].noisy(0.5), 4), networks[1].labels
    )
    assert row.areas[1] == found.auroc
    assert 0 < row.share < 1


def test_the_same_inputs_are_no_outliers_and_huge_noise_is(bench, networks):
    same = bench.outlier_row("none", networks, 0.0).areas
    assert all(area == pytest.approx(0.5) for seed in same for area in seed.values())
    for strength in (None, 50.0):
        joined = bench.outlier_row("some", networks, strength).areas
        assert all(set(seed) == set(bench.SHOWN) for seed in joined)
    # Logits of huge inputs are large, and so is the variance of what chunks say.
    assert all(seed["variance"] > 0.99 for seed in joined)


def test_the_tables_say_who_wins(bench, monkeypatch, capsys, networks):
    monkeypatch.setattr(bench.torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr("sys.argv", ["chunk_uncertainty.py", "--smoke"])
    monkeypatch.setattr(bench, "trained", lambda seed, width, epochs: networks[seed])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedWarning)
        bench.main()
    out = capsys.readouterr().out
    rows = len(bench.CHUNKS) + len(bench.STRENGTHS)
    assert f"best mean AUROC of {rows} settings: " in out
    assert "permuted pixels" in out
    assert out.endswith("this size is too small to say who wins\n")
