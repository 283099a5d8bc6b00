import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerpeel._checks import ShapeError, UndefinedWarning
from layerpeel.measurement.clones.reconstruction.nested import (
    independent_width,
    nested_r_squared,
)
from layerpeel.measurement.clones.reconstruction.reconstruction import reconstruct
from layerpeel.measurement.statistics.covariance import Covariance
from tests.measurement.clones.layers import (
    correlated,
    degenerate,
    least_squares,
    normal,
    seeded,
)

LAYERS = {
    "correlated": (correlated(), 1.1 * correlated(seed=5) + 1),
    "wider than a panel": (normal(400, 150), normal(300, 150, seed=1) + 0.1),
    "copies and constants": (degenerate(), degenerate(seed=9)),
    "copies, wide": (degenerate().repeat(1, 12), degenerate(seed=9).repeat(1, 12)),
    "float32": (correlated().float(), correlated(seed=5).float()),
}


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("scope", ["all", "complement"])
@pytest.mark.parametrize("layer", LAYERS)
def test_every_width_is_a_regression_on_the_data(layer, scope, held_out):
    fitted, scored = (rows.double() for rows in LAYERS[layer])
    scored = scored if held_out else fitted
    width = fitted.shape[1]
    order = torch.randperm(width, generator=seeded(3))
    other = Covariance.of(scored) if held_out else None
    curve = nested_r_squared(Covariance.of(fitted), order, scope, other)
    for size in {1, 2, width // 2, width - 2, width} | set(range(1, min(width, 10))):
        missed = scored - least_squares(fitted, order[:size], scored)
        columns = order if scope == "all" else order[size:]
        total = (scored - scored.mean(0))[:, columns].square().sum()
        if total <= 1e-12:
            assert curve[size - 1].isnan()
            continue
        expected = float(1 - missed[:, columns].square().sum() / total)
        assert float(curve[size - 1]) == pytest.approx(expected, rel=1e-8, abs=1e-10)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["all", "complement"]), st.booleans())
def test_nested_and_single_chunks_agree(seed, scope, held_out):
    covariance = Covariance.of(correlated(50, 10, seed=seed % 40))
    other = Covariance.of(correlated(50, 10, seed=seed % 40 + 1)) if held_out else None
    order = torch.randperm(10, generator=seeded(seed))
    curve = nested_r_squared(covariance, order, scope, other)
    for size in range(1, 10):
        found = reconstruct(covariance, order[:size]).r_squared(scope, other)
        assert float(curve[size - 1]) == pytest.approx(found, rel=1e-8, abs=1e-6)


def test_in_sample_curves_never_fall_and_end_at_one():
    curve = nested_r_squared(Covariance.of(degenerate()), torch.arange(9))
    assert bool((curve.diff() >= 0).all())
    assert float(curve[-1]) == 1.0
    # The copy, the sum, the constant and the dead one add nothing.
    assert curve.diff()[3:7].tolist() == [0.0] * 4


def test_fewer_samples_than_neurons_reconstruct_all_in_sample():
    curve = nested_r_squared(Covariance.of(normal(5, 12)), torch.arange(12))
    assert float(curve[2]) < 0.99
    assert torch.allclose(curve[3:], torch.ones(9, dtype=torch.float64), atol=1e-12)


def test_without_variance_there_is_no_curve():
    constant = Covariance.of(torch.full((9, 3), 0.1))
    with pytest.warns(UndefinedWarning, match="no neuron varies over the 9 samples"):
        curve = nested_r_squared(constant, torch.arange(3))
    assert bool(curve.isnan().all())


def test_what_does_not_fit_is_refused():
    covariance = Covariance.of(normal(9, 3))
    with pytest.raises(ShapeError, match="all 3 neurons"):
        nested_r_squared(covariance, torch.arange(2))
    with pytest.raises(ValueError, match="distinct"):
        nested_r_squared(covariance, torch.tensor([0, 1, 1]))
    with pytest.raises(ValueError, match="`scope`"):
        nested_r_squared(covariance, torch.arange(3), "some")
    with pytest.raises(ShapeError, match="the 3 neurons"):
        nested_r_squared(covariance, torch.arange(3), held_out=Covariance.empty(2))


def test_held_out_neurons_inside_a_chunk_are_none_outside_of_it():
    features = normal(60, 8)
    features[:, 1] = 0.5  # dead here, alive elsewhere
    features[:, 4] = features[:, 0] - features[:, 2]  # a combination here only
    other = normal(50, 8, seed=1)
    order = torch.tensor([1, 0, 2, 4, 3, 5, 6, 7])
    curve = nested_r_squared(
        Covariance.of(features), order, "complement", Covariance.of(other)
    )
    mean = features.mean(0)
    for w in range(1, 8):
        basis = [j for j in order[:w].tolist() if j not in (1, 4)]
        rest = order[w:]
        centred = (features - mean)[:, basis]
        fit = torch.linalg.pinv(centred) @ (features - mean)[:, rest]
        missed = (other - mean)[:, rest] - (other - mean)[:, basis] @ fit
        total = (other - other.mean(0))[:, rest].square().sum()
        expected = 1 - missed.square().sum() / total
        assert float(curve[w - 1]) == pytest.approx(float(expected), abs=1e-9)


def test_the_first_combination_of_earlier_neurons_ends_what_is_independent():
    features = normal(60, 6)
    features[:, 1] = 3.0
    features[:, 4] = features[:, 0] + features[:, 2]
    covariance = Covariance.of(features)
    assert independent_width(covariance, torch.tensor([1, 0, 2, 4, 3, 5])) == 3
    assert independent_width(covariance, torch.tensor([5, 3, 1, 2, 0, 4])) == 5
    few = Covariance.of(normal(5, 6))
    assert independent_width(few, torch.arange(6)) == 4
