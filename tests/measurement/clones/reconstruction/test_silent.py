import numpy as np
import pytest
import torch

import layerpeel as lp
from layerpeel.measurement.clones.reconstruction.silent import (
    SILENT_SHARE,
    carriers,
    hardly_varying,
    silenced,
    silent_neurons,
)
from layerpeel.measurement.statistics.covariance import Covariance

EPS = torch.finfo(torch.float64).eps


def silent_of(features):
    batches = [(part, torch.zeros(len(part))) for part in features.split(64)]
    found = silent_neurons(Covariance.of(features), batches, EPS)
    return found.nonzero().flatten().tolist()


def firing(amount, samples=200, width=6, seed=0):
    """Features of which neuron 2 fires by some amount, on the first sample only."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(samples, width, generator=generator, dtype=torch.float64)
    features[:, 2] = 0.0
    features[0, 2] = amount
    return features


@pytest.mark.parametrize(("amount", "expected"), [(0.0, [2]), (0.05, [2]), (0.5, [])])
def test_what_fires_less_than_a_tenth_of_the_others_and_once_is_silent(
    amount, expected
):
    assert silent_of(firing(amount)) == expected


@pytest.mark.parametrize(("factor", "silent"), [(0.99, True), (1.01, False)])
def test_the_limit_is_a_share_of_the_variance_in_one_sample(factor, silent):
    others = float(Covariance.of(firing(0.0)).scatter.trace())
    # Of six neurons and 200 samples, its own scatter being in the mean as well.
    limit = SILENT_SHARE * others / (6 * 200 - SILENT_SHARE)
    amount = (factor * limit / (1 - 1 / 200)) ** 0.5
    assert silent_of(firing(amount)) == ([2] if silent else [])


def test_neurons_that_do_not_vary_are_silent_and_so_are_all_of_a_dead_layer():
    assert silent_of(torch.ones(5, 3)) == [0, 1, 2]


@pytest.mark.parametrize("scale", [1e-2, 1e-3, 1e-6])
def test_a_scaled_copy_is_not_silent_however_small(scale):
    features = firing(1.0)
    features[:, 2] = scale * features[:, 1]
    assert hardly_varying(Covariance.of(features), EPS)[2] or scale == 1e-2
    assert silent_of(features) == []


def test_scaled_copies_reconstruct_as_regressions_on_the_data_do():
    base = firing(0.3, samples=100, width=4)
    base[:, 2] = torch.randn(100, generator=torch.Generator().manual_seed(1))
    features = torch.cat([base, 1e-3 * base], 1)
    profile = lp.clone_profile_features(features, widths=[8], repeats=1)
    assert profile.silent.tolist() == []
    assert profile.rank == 4


def test_carriers_are_the_samples_that_a_variance_comes_from():
    values = torch.zeros(1000, 3, dtype=torch.float64)
    values[:500, 0], values[500:, 0] = 1.0, -1.0
    values[0, 1] = 1.0
    batches = [(part, torch.zeros(len(part))) for part in values.split(300)]
    found = carriers(batches, values.mean(0))
    assert found[0] == pytest.approx(1000)
    assert found[1] == pytest.approx(1.0, abs=0.01)
    assert found[2].isnan()


def test_silenced_neurons_are_held_at_their_mean():
    covariance = Covariance.of(firing(0.05) + 3)
    held = silenced(covariance, torch.arange(6) == 2)
    assert torch.equal(held.mean, covariance.mean)
    rest = [0, 1, 3, 4, 5]
    assert torch.equal(held.scatter[rest][:, rest], covariance.scatter[rest][:, rest])
    assert not held.scatter[2].any()
    assert not held.scatter[:, 2].any()


def test_nothing_is_copied_where_nothing_is_silent():
    covariance = Covariance.of(firing(1.0))
    assert silenced(covariance, torch.zeros(6, dtype=torch.bool)) is covariance


def test_a_silent_neuron_does_not_spoil_held_out_data():
    train, test = firing(1e-4, samples=400, width=8), firing(0.0, 400, 8, seed=1)
    test[:40, 2] = 1.0  # fires at full size on other data
    profiles = [
        lp.clone_profile_features(
            train, eval_features=test, widths=[7], repeats=8, paper=paper
        )
        for paper in (False, True)
    ]
    mended, protocol = (p.held_out.r_squared["all"] for p in profiles)
    assert (mended > 0.5).all()
    assert (protocol < -100).any()  # what the paper's definition makes of it
    assert profiles[0].silent.tolist() == [2]


def test_all_other_neurons_reconstruct_as_if_it_was_not_there():
    features = firing(0.05, samples=300, width=8)
    rest = [0, 1, 3, 4, 5, 6, 7]
    profile = lp.clone_profile_features(features, widths=[1], repeats=20)
    alone = features[:, rest].numpy()
    centred = alone - alone.mean(0)
    chosen = {
        round(
            1
            - sum(np.linalg.lstsq(centred[:, [j]], centred, rcond=None)[1])
            / (centred**2).sum(),
            9,
        )
        for j in range(7)
    }
    for value in profile.fitted.r_squared["all"][0].tolist():
        # The silent neuron varies by a share of about 1e-6 that nothing reconstructs.
        near = min(abs(value - other) for other in [*chosen, 0.0])
        assert near < 1e-5
