import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel._warnings import UndefinedWarning
from layerpeel.measurement.clones.reconstruction.ceiling import reconstruction_ceiling
from layerpeel.measurement.statistics.covariance import Covariance
from tests.measurement.clones import planted, slow
from tests.measurement.clones.layers import correlated, degenerate, normal

LAYERS = {
    "correlated": correlated(samples=160),
    "independent": normal(160, 8) + 3,
    "duplicates": correlated(samples=160, width=5).repeat(1, 2),
    "dead, constant and sums": degenerate(samples=160),
    "fewer samples than neurons": normal(160, 200),
    "one neuron": normal(160, 1),
    "two copies": normal(160, 1).repeat(1, 2),
}


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_is_one_regression_on_the_others_for_each_neuron(name, held_out):
    h = LAYERS[name]
    if name == "fewer samples than neurons":
        h = h[:, :60] if not held_out else h[:, :20]
    fitted = h[:40] if h.shape[1] > 20 else h[:100]
    scored = fitted
    if held_out:
        # What is singular stays so: of its regressions there are many otherwise.
        moved = 0.0 if "dead" in name or "copies" in name else 0.3
        scored = h[len(fitted) :] * (1 + moved) + moved
    other = Covariance.of(scored) if held_out else None
    found = reconstruction_ceiling(Covariance.of(fitted), other)
    expected = slow.leave_one_out(fitted.numpy(), scored.numpy())
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_neurons_that_vary_in_held_out_data_alone_are_missed_in_full():
    fitted, scored = normal(90, 5), normal(70, 5, seed=3) + 1
    fitted[:, 2] = 4.0
    found = reconstruction_ceiling(Covariance.of(fitted), Covariance.of(scored))
    expected = slow.leave_one_out(fitted.numpy(), scored.numpy())
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("noise", [0.05, 0.5, 2.0])
def test_noise_that_clones_do_not_share_is_below_it(noise):
    matrix = planted.mixing(5, 4)
    _, h = planted.layer(matrix, 40_000, noise)
    found = reconstruction_ceiling(Covariance.of(h))
    expected = planted.shared(planted.covariance(matrix, noise))
    assert found == pytest.approx(expected, abs=5e-3)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([1e-6, 1.0, 1e6]),
    st.sampled_from([0.0, 1.0, 1e4]),
)
def test_depends_on_no_common_unit_and_no_origin(seed, scale, shift):
    h = correlated(samples=50, width=6, seed=seed)
    plain = reconstruction_ceiling(Covariance.of(h))
    moved = reconstruction_ceiling(Covariance.of((h + shift) * scale))
    assert moved == pytest.approx(plain, rel=1e-6, abs=1e-9)
    assert plain <= 1


def test_copies_in_single_precision_share_everything():
    h = normal(300, 4).float()
    h = torch.cat([h, h * 3, h + 1], dim=1)
    eps = torch.finfo(torch.float32).eps
    found = reconstruction_ceiling(Covariance.of(h), eps=eps)
    assert found == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    "h",
    [torch.full((9, 3), 0.1), torch.zeros(9, 3), normal(1, 3)],
    ids=["constant", "dead", "one sample"],
)
def test_is_undefined_where_nothing_varies(h):
    with pytest.warns(UndefinedWarning, match="none of them varies over"):
        assert math.isnan(reconstruction_ceiling(Covariance.of(h)))


def test_is_undefined_on_held_out_data_that_do_not_vary():
    held_out = Covariance.of(torch.ones(5, 3))
    with pytest.warns(UndefinedWarning, match="over the 5 samples"):
        found = reconstruction_ceiling(Covariance.of(normal(9, 3)), held_out)
    assert math.isnan(found)


@pytest.mark.parametrize("width", [512, 1024])
@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-7])
def test_many_copies_of_one_signal_share_everything(width, noise):
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(1500, 1, generator=generator, dtype=torch.float64)
    other = torch.randn(1500, width, generator=generator, dtype=torch.float64)
    covariance = Covariance.of(signal + noise * other)
    assert reconstruction_ceiling(covariance) == pytest.approx(1.0, abs=1e-6)
