import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from layerpeel._checks import NonFiniteError, ShapeError, UndefinedWarning
from layerpeel.measurement.clones.keeping.keep import keep, output_change
from layerpeel.measurement.statistics.covariance import Covariance


def draw(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def layer(n=300, width=12, seed=0):
    """Correlated neurons of different sizes, far from the origin."""
    mixing = draw(width, width, seed=seed + 1) * torch.logspace(0, -3, width).double()
    return draw(n, width, seed=seed) @ mixing.T + 5 * draw(width, seed=seed + 2)


def consumer(width=12, outputs=4, seed=9):
    return draw(outputs, width, seed=seed), draw(outputs, seed=seed + 1)


def planted(copies, base=7, n=400, dead=3, dtype=torch.float64):
    """Exact clones, affine ones, dead and constant neurons, in random order."""
    h = draw(n, base).relu().to(dtype)
    parts = [h] + [h * 2.0**i for i in range(1, copies)]
    parts += [torch.zeros(n, dead, dtype=dtype), torch.full((n, 1), 3.7, dtype=dtype)]
    whole = torch.cat(parts, 1)
    order = torch.randperm(
        whole.shape[1], generator=torch.Generator().manual_seed(copies)
    )
    return whole[:, order]


@pytest.mark.parametrize("copies", [1, 2, 5])
@pytest.mark.parametrize("with_consumer", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_planted_clones_are_found_and_no_output_moves(copies, with_consumer, dtype):
    h = planted(copies, dtype=dtype)
    v, b = consumer(h.shape[1])
    kept = keep(Covariance.of(h), *((v, b) if with_consumer else ()), tolerance=0.0)
    assert (kept.width, kept.rank) == (7, 7)
    expected = h.double() @ v.T + b if with_consumer else h.double()
    assert (kept.outputs(h) - expected).abs().max() < 1e-9
    assert kept.change.relative < 1e-7


def test_nearly_exact_clones_are_separated_only_above_the_tolerance():
    h = draw(500, 6)
    h = torch.cat([h, h + 1e-4 * draw(500, 6, seed=5)], 1)
    covariance = Covariance.of(h)
    v, b = consumer(12)
    assert keep(covariance, v, b, tolerance=1e-3).width == 6
    assert keep(covariance, v, b, tolerance=1e-7).width == 12


@pytest.mark.parametrize("seed", range(5))
def test_an_output_in_which_large_neurons_cancel_is_kept(seed):
    h = draw(300, 6, seed=seed)
    h = torch.cat([h, h + 1e-6 * draw(300, 6, seed=seed + 50)], 1)
    v = draw(3, 6, seed=seed + 90) * torch.logspace(0, -4, 6)
    v, b = torch.cat([v, -v], 1), torch.zeros(3)
    kept = keep(Covariance.of(h), v, b, tolerance=1e-6)
    z = h @ v.T
    moved = (kept.outputs(h) - z).square().sum(1).mean().sqrt()
    assert float(moved / (z - z.mean(0)).square().sum(1).mean().sqrt()) < 1e-6


@pytest.mark.parametrize("width", [1, 3, 8, 12])
@pytest.mark.parametrize("select", ["pivoted", "random"])
def test_folding_is_a_regression_on_the_chunk(width, select):
    h, (v, b) = layer(), consumer()
    kept = keep(
        Covariance.of(h),
        v,
        b,
        width=width,
        select=select,
        generator=torch.Generator().manual_seed(3),
    )
    z = h @ v.T + b
    chunk = h[:, kept.neurons].numpy()
    fit = LinearRegression().fit(chunk, z.numpy())
    np.testing.assert_allclose(kept.outputs(h), fit.predict(chunk), atol=1e-8)
    moved = (kept.outputs(h) - z).square().sum(1)
    rms = float(moved.mean().sqrt())
    scale = float((z - z.mean(0)).square().sum(1).mean().sqrt())
    assert kept.change.rms == pytest.approx(rms, abs=1e-7 * scale)
    assert kept.change.relative == pytest.approx(rms / scale, abs=1e-7)
    assert float(kept.relative_changes[-1]) == pytest.approx(rms / scale, abs=1e-7)
    assert float(moved.max().sqrt()) <= kept.change.largest + 1e-7 * scale
    back = torch.from_numpy(LinearRegression().fit(chunk, h).predict(chunk))
    left = float((h - back).square().sum(1).mean().sqrt())
    assert kept.residual == pytest.approx(left, abs=1e-6)
    assert kept.change.rms <= kept.consumer_bound(float(torch.linalg.norm(v, 2))) + 1e-6


def test_the_first_choice_is_the_best_of_all():
    h, (v, b) = layer(), consumer()
    z = (h @ v.T).numpy()
    scores = [
        LinearRegression().fit(h[:, [j]], z).predict(h[:, [j]]) - z for j in range(12)
    ]
    best = int(np.argmin([np.square(s - s.mean(0)).sum() for s in scores]))
    assert keep(Covariance.of(h), v, b, width=1).neurons.tolist() == [best]
    assert keep(Covariance.of(h), width=1).neurons.tolist() == [int(h.var(0).argmax())]


def test_each_further_choice_is_the_best_beside_those_before():
    h, (v, _) = layer(width=6), consumer(6)
    z = (h @ v.T).numpy()
    order = keep(Covariance.of(h), v, width=4).order.tolist()
    for i in range(4):
        left = {}
        for j in set(range(6)) - set(order[:i]):
            chunk = h[:, [*order[:i], j]]
            error = LinearRegression().fit(chunk, z).predict(chunk) - z
            left[j] = np.square(error).sum()
        assert min(left, key=left.get) == order[i]


@pytest.mark.parametrize("outputs", [1, 4, 30])
def test_the_smallest_width_that_meets_the_tolerance_is_kept(outputs):
    h, (v, b) = layer(), consumer(outputs=outputs)
    kept = keep(Covariance.of(h), v, b, tolerance=0.05)
    assert kept.change.relative <= 0.05 < float(kept.relative_changes[-2])
    assert 1 < kept.width < 12
    assert torch.equal(kept.order.sort().values, kept.neurons)
    everything = keep(Covariance.of(h), v, b, width=12)
    steps = everything.relative_changes
    assert bool((steps.diff() <= 1e-9).all())
    assert torch.equal(everything.order[: kept.width], kept.order)


def test_pivots_do_better_than_chance():
    h, (v, b) = layer(width=12), consumer()
    pivoted = keep(Covariance.of(h), v, b, width=5).change.rms
    g = torch.Generator().manual_seed(0)
    chances = [
        keep(Covariance.of(h), v, b, width=5, select="random", generator=g).change.rms
        for _ in range(20)
    ]
    assert pivoted < sorted(chances)[5]  # the best quarter of chunks
    assert len(set(chances)) > 10


def test_random_chunks_with_duplicates_and_dead_neurons_are_folded_too():
    h = planted(3)
    v, b = consumer(h.shape[1])
    kept = keep(
        Covariance.of(h),
        v,
        b,
        width=24,
        select="random",
        generator=torch.Generator().manual_seed(1),
    )
    assert kept.width == 24 > kept.rank == 7
    torch.testing.assert_close(kept.outputs(h), h @ v.T + b, rtol=0, atol=1e-9)
    assert int((kept.weight == 0).all(0).sum()) == 17


def test_a_random_chunk_that_meets_a_tolerance_ends_with_a_neuron_it_needs():
    h = planted(3)
    v, b = consumer(h.shape[1])
    kept = keep(
        Covariance.of(h),
        v,
        b,
        tolerance=0.0,
        select="random",
        generator=torch.Generator().manual_seed(1),
    )
    assert (kept.width >= 7, kept.rank) == (True, 7)
    assert float(kept.relative_changes[-2]) > 1e-3
    torch.testing.assert_close(kept.outputs(h), h @ v.T + b, rtol=0, atol=1e-9)


def test_widths_beyond_the_rank_get_weight_zero():
    h = planted(2)
    v, b = consumer(h.shape[1])
    kept = keep(Covariance.of(h), v, b, width=10)
    assert (kept.width, kept.rank) == (10, 7)
    assert len(set(kept.neurons.tolist())) == 10
    torch.testing.assert_close(kept.outputs(h), h @ v.T + b, rtol=0, atol=1e-9)


def test_fewer_samples_than_neurons():
    h = draw(5, 20)
    kept = keep(Covariance.of(h), tolerance=0.0)
    assert kept.width == 4
    torch.testing.assert_close(kept.outputs(h), h, rtol=0, atol=1e-9)


def test_change_on_other_data_includes_the_shift_of_its_mean():
    h, (v, b) = layer(), consumer()
    other = layer(n=77, seed=40) + 2.0
    kept = keep(Covariance.of(h), v, b, width=4)
    after = (kept.weight, kept.bias)
    change = output_change(Covariance.of(other), (v, b), after, kept.neurons)
    moved = kept.outputs(other) - (other @ v.T + b)
    rms = float(moved.square().sum(1).mean().sqrt())
    assert change.rms == pytest.approx(rms, rel=1e-9)
    assert change.rms > 2 * kept.change.rms
    assert float(moved.norm(dim=1).max()) <= change.largest


@pytest.mark.parametrize("shift", [0.0, 1e5])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_shift_and_scale_of_features_change_no_choice(shift, scale):
    h, (v, b) = layer(), consumer()
    plain = keep(Covariance.of(h), v, b, width=6)
    moved = keep(Covariance.of((h + shift) * scale), v, b, width=6)
    assert moved.order.tolist() == plain.order.tolist()
    assert moved.change.relative == pytest.approx(plain.change.relative, rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 11), st.sampled_from([0.3, 1.0, 3.0]))
def test_no_more_decisions_change_than_the_bound_says(seed, width, size):
    h, (v, b) = layer(n=80, seed=seed), consumer(seed=seed + 7)
    z = h @ (size * v).T + b
    kept = keep(Covariance.of(h), size * v, b, width=width)
    top = z.topk(2).values
    changed = (kept.outputs(h).argmax(1) != z.argmax(1)).double().mean()
    bound = kept.decision_bound(top[:, 0] - top[:, 1])
    assert float(changed) <= bound <= 1


def test_the_decision_bound_by_hand():
    h = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).double()
    kept = keep(Covariance.of(h), torch.eye(2) * torch.tensor([2.0, 1.0]), width=1)
    assert kept.neurons.tolist() == [0]
    change = (kept.change.rms, kept.change.relative, kept.change.largest)
    assert change == pytest.approx((math.sqrt(0.5), math.sqrt(0.2), math.sqrt(2)))
    # A quarter has margin 0, the others 10: 1/4 + 2 * 0.5 / 100.
    assert kept.decision_bound(torch.tensor([10.0, 0.0, 10.0, 10.0])) == (
        pytest.approx(0.26)
    )
    assert kept.decision_bound(torch.zeros(4)) == 1


def test_a_constant_layer_keeps_one_neuron_and_its_mean():
    h = torch.full((9, 4), 2.5)
    v, b = consumer(4)
    with pytest.warns(UndefinedWarning, match="does not vary"):
        kept = keep(Covariance.of(h), v, b, tolerance=0.0)
    assert (kept.width, kept.rank) == (1, 0)
    assert kept.change.rms < 1e-14
    torch.testing.assert_close(kept.outputs(h), h.double() @ v.T + b)


good = {"tolerance": 0.1}
WRONG = {
    "neither": ({}, ValueError, "neither"),
    "both": ({"width": 1, "tolerance": 0.1}, ValueError, "both"),
    "too wide": ({"width": 5}, ValueError, "at most the layer's, 4; got 5"),
    "no width": ({"width": 0}, ValueError, "`width`.*>= 1"),
    "tolerance": ({"tolerance": -1.0}, ValueError, "`tolerance`.*at least 0"),
    "nan": ({"tolerance": math.nan}, ValueError, "`tolerance`"),
    "select": ({"width": 1, "select": "pivot"}, ValueError, "Did you mean 'pivoted'"),
    "generator": ({"width": 1, "select": "random"}, ValueError, "`generator`"),
    "weight": (good | {"weight": torch.zeros(2, 3)}, ShapeError, r"\(C, 4\).*\(2, 3\)"),
    "bias": (
        good | {"weight": torch.zeros(2, 4), "bias": torch.zeros(3)},
        ShapeError,
        r"`bias`.*\(2,\).*\(3,\)",
    ),
    "finite": (
        good | {"weight": torch.full((2, 4), math.inf)},
        NonFiniteError,
        "`weight`",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_refuses(case):
    arguments, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        keep(Covariance.of(draw(10, 4)), **arguments)


def test_refuses_a_covariance_of_no_or_infinite_data():
    with pytest.raises(ValueError, match="at least one sample"):
        keep(Covariance.empty(3), width=1)
    with pytest.raises(NonFiniteError, match="`covariance`"):
        keep(Covariance.of(torch.full((3, 2), math.inf)), width=1)
    kept = keep(Covariance.of(draw(9, 3)), width=1)
    with pytest.raises(ShapeError, match="margins"):
        kept.decision_bound(torch.zeros(0))


@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_copies_up_to_the_rounding_of_float32_are_copies(shift):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(500, 6, generator=generator)
    scales = 1 + torch.rand(8, generator=generator)
    features = torch.cat([(base + shift) * float(a) for a in scales], 1)
    assert features.dtype == torch.float32
    weight = torch.randn(3, 48, generator=generator)
    covariance = Covariance.of(features)
    kept = keep(covariance, weight, tolerance=0.0, eps=torch.finfo(torch.float32).eps)
    assert kept.width == kept.rank == 6
    assert kept.change.relative < 1e-4
    if shift:  # to float64 that rounding is a neuron of its own
        assert keep(covariance, weight, tolerance=0.0).rank > 6
