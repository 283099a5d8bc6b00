import copy
import math

import numpy as np
import pytest
import torch
from scipy import integrate
from sklearn.linear_model import LinearRegression
from torch import nn

from layerpeel._checks import LayerError, UndefinedWarning
from layerpeel.measurement.clones.evidence.nulls import (
    correlation_floor,
    rotated,
    spectrum_null,
    untrained,
)
from layerpeel.measurement.clones.reconstruction.reconstruction import reconstruct
from layerpeel.measurement.statistics.covariance import Covariance


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def features(n=200, width=8, rank=8):
    sizes = torch.logspace(0, -1, rank, dtype=torch.float64)
    return (draw(n, rank) * sizes) @ draw(rank, width, seed=1) + 3


@pytest.mark.parametrize("samples", [3, 4, 5, 30, 10_000])
def test_floor_is_the_mean_of_the_density_of_correlations(samples):
    power = (samples - 4) / 2

    def density(r):
        return (1 - r * r) ** power

    if power < 0:  # an end that quad would meet: r = sin(t) instead
        floor, total = 2 / math.pi, 1
    else:
        ends = {"points": [10 / math.sqrt(samples)]} if samples > 1000 else {}
        floor = integrate.quad(lambda r: r * density(r), 0, 1, **ends)[0]
        total = integrate.quad(density, 0, 1, **ends)[0]
    assert correlation_floor(samples) == pytest.approx(floor / total, rel=1e-7)


@pytest.mark.parametrize("fitted", [0, 10])
def test_floor_agrees_with_regressions_of_noise(fitted):
    values = []
    for seed in range(300):
        h = draw(25, 12 + fitted, seed=seed).numpy()
        left = h[:, fitted:] - h[:, fitted:].mean(0)
        if fitted:
            chunk = h[:, :fitted]
            left = left - LinearRegression().fit(chunk, left).predict(chunk)
        pairs = np.corrcoef(left.T)[np.triu_indices(12, 1)]
        values.append(np.abs(pairs).mean())
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values) - correlation_floor(25, fitted=fitted)) < 4 * error


def test_floor_tends_to_its_approximation():
    exact, near = (correlation_floor(10**6, exact=e) for e in (True, False))
    assert exact == pytest.approx(near, rel=1e-5)
    assert exact != near
    assert correlation_floor(2) == pytest.approx(1)
    with pytest.warns(UndefinedWarning, match="5 samples.*4 neurons"):
        assert math.isnan(correlation_floor(5, fitted=4))


def test_a_rotation_keeps_eigenvalues_and_is_uniform():
    covariance = Covariance.of(features())
    turned = rotated(covariance, seeded())
    torch.testing.assert_close(turned.eigenvalues, covariance.eigenvalues)
    assert float(turned.mean.norm()) == pytest.approx(float(covariance.mean.norm()))
    assert torch.equal(turned.scatter, turned.scatter.T)
    # The mean over uniform rotations is the mean eigenvalue in every direction.
    simple = Covariance(
        torch.tensor(1), torch.zeros(3).double(), torch.diag(torch.ones(3).double())
    )
    simple.scatter[0, 0] = 7
    g = seeded(1)
    draws = torch.stack([rotated(simple, g).scatter for _ in range(2000)])
    expected = torch.eye(3, dtype=torch.float64) * 3
    error = draws.std(0) / math.sqrt(2000)
    assert bool(((draws.mean(0) - expected).abs() < 4 * error).all())


@pytest.mark.parametrize("scope", ["all", "complement"])
@pytest.mark.parametrize("rank", [7, 8])
def test_null_curves_are_regressions_on_rotated_data(scope, rank):
    h = features(rank=rank)
    found = spectrum_null(
        Covariance.of(h), [6, 1, 2], seeded(4), repeats=2, scope=scope
    )
    assert found.widths.tolist() == [1, 2, 6]
    g = seeded(4)
    for repeat in range(2):
        gauss = torch.randn(8, 8, generator=g, dtype=torch.float64)
        q, r = torch.linalg.qr(gauss)
        turned = (h @ (q * r.diagonal().sign()).T).numpy()
        for i, width in enumerate([1, 2, 6]):
            target = turned if scope == "all" else turned[:, width:]
            fit = LinearRegression().fit(turned[:, :width], target)
            left = target - fit.predict(turned[:, :width])
            centred = target - target.mean(0)
            expected = 1 - np.square(left).sum() / np.square(centred).sum()
            assert float(found.r_squared[i, repeat]) == pytest.approx(expected)
            sizes = np.sqrt(np.square(left).sum(0))
            sizes[sizes < 1e-7] = np.inf  # nothing is left
            pairs = np.abs(left.T @ left / np.outer(sizes, sizes))
            expected = pairs[np.triu_indices(len(pairs), 1)].mean()
            assert float(found.correlation[i, repeat]) == pytest.approx(
                expected, abs=1e-9
            )


def reconstructed(covariance, width, scope):
    found = reconstruct(covariance, torch.arange(width))
    return found.r_squared(scope), found.residual_correlation(scope)


@pytest.mark.parametrize("scope", ["all", "complement"])
def test_null_curves_are_reconstructions_of_the_rotated_layer(scope):
    covariance = Covariance.of(features(width=12, rank=9))
    found = spectrum_null(covariance, [2, 5], seeded(2), repeats=1, scope=scope)
    turned = rotated(covariance, seeded(2))
    for i, width in enumerate([2, 5]):
        expected = reconstructed(turned, width, scope)
        got = float(found.r_squared[i]), float(found.correlation[i])
        assert got == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("scope", ["all", "complement"])
def test_chunks_beyond_the_rank_leave_nothing(scope):
    covariance = Covariance.of(features(rank=3))
    if scope == "complement":
        with pytest.warns(UndefinedWarning, match="5 neurons: fewer than two"):
            found = spectrum_null(covariance, [5], seeded(), repeats=2)
        assert found.correlation.isnan().all()
    else:
        found = spectrum_null(covariance, [5], seeded(), repeats=2, scope=scope)
        assert found.correlation.tolist() == [[0.0, 0.0]]
    assert found.r_squared.tolist() == [[1.0, 1.0]]


def test_the_whole_layer_leaves_nothing():
    with pytest.warns(UndefinedWarning, match="7, 8 neurons"):
        inside = spectrum_null(Covariance.of(features()), [7, 8], seeded(), repeats=1)
    assert inside.r_squared.isnan().flatten().tolist() == [False, True]
    assert inside.correlation.isnan().all()
    whole = spectrum_null(Covariance.of(features()), [8], seeded(), scope="all")
    assert whole.r_squared.tolist() == [[1.0] * 10]
    assert whole.correlation.tolist() == [[0.0] * 10]


def test_independent_features_equal_their_null_and_clones_do_not():
    noise = draw(4000, 24)
    clones = noise[:, :6].repeat(1, 4) + 0.3 * noise
    null = {}
    for name, h in {"noise": noise, "clones": clones}.items():
        covariance = Covariance.of(h)
        null[name] = spectrum_null(covariance, [6], seeded(), repeats=5)
    fit = LinearRegression().fit(noise[:, :6], noise[:, 6:])
    own = fit.score(noise[:, :6], noise[:, 6:])
    spread = null["noise"].r_squared
    assert abs(own - float(spread.mean())) < 0.005
    # One clone of each: more than six random directions of the same spectrum.
    chunk, rest = clones[:, :6], clones[:, 6:]
    fit = LinearRegression().fit(chunk, rest)
    assert fit.score(chunk, rest) > float(null["clones"].r_squared.max())


WRONG = {
    "zero": ({"widths": [0]}, "`widths`.*>= 1"),
    "beyond": ({"widths": [9]}, "between 1 and the layer's, 8; got 9"),
    "none": ({"widths": []}, "got none"),
    "repeats": ({"widths": [1], "repeats": 0}, "`repeats`"),
    "scope": ({"widths": [1], "scope": "outside"}, "`scope`.*'all', 'complement'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_refuses(case):
    arguments, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        spectrum_null(Covariance.of(features()), generator=seeded(), **arguments)


def test_refuses_no_data():
    with pytest.raises(ValueError, match="at least one sample"):
        spectrum_null(Covariance.empty(3), [1], seeded())


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(16, 8),
        nn.LayerNorm(8),
        nn.MultiheadAttention(8, 2),
    )


def test_an_untrained_copy_is_fresh_and_reproducible():
    model = network()
    with torch.no_grad():
        for value in model.state_dict().values():
            value.fill_(5)
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    fresh, same, other = (untrained(model, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    for name, value in fresh.state_dict().items():
        assert not bool((value == 5).any()), name
        assert torch.equal(value, same.state_dict()[name])
    assert not torch.equal(fresh[3].weight, other[3].weight)
    assert fresh[1].running_mean.tolist() == [0.0] * 4
    # As PyTorch initialises it: the attention has the last word on its projection.
    assert fresh[5].out_proj.bias.tolist() == [0.0] * 8


def test_tied_parameters_stay_tied():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    fresh = untrained(model, seeded())
    assert fresh[1].weight is fresh[0].weight
    assert fresh[0].weight is not model[0].weight


def test_refuses_parameters_that_cannot_be_reset():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1))

    model = nn.Sequential(nn.Linear(2, 2), Scale())
    with pytest.raises(LayerError, match=r"1 \(Scale\).*"):
        untrained(model, seeded())
