import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score

from layerpeel._checks import ShapeError, UndefinedWarning
from layerpeel.measurement.clones.reconstruction.reconstruction import (
    constant_neurons,
    reconstruct,
)
from layerpeel.measurement.statistics.covariance import Covariance
from tests.measurement.clones.layers import (
    correlated,
    degenerate,
    least_squares,
    normal,
)

# Fitted rows, scored rows, chunk. The scored ones have another mean and spread.
CASES = {
    "one neuron": (correlated(), 1.1 * correlated(seed=5) + 1, [4]),
    "a few": (correlated(), 1.1 * correlated(seed=5) + 1, [7, 0, 3]),
    "all but one": (correlated(), 1.1 * correlated(seed=5), [8, 1, 0, 3, 2, 4, 5, 7]),
    "two samples more": (correlated(9), correlated(30, seed=5), [0, 1, 2, 3, 4, 5, 8]),
    "copy and sum": (degenerate(), 2 * degenerate(seed=9) + 1, [0, 4, 1, 2, 5]),
    "dead and constant": (degenerate(), degenerate(seed=9), [7, 1, 6, 3]),
    "fewer samples": (normal(5, 12), normal(30, 12, seed=1) + 0.3, [*range(2, 11)]),
}


def residual(case, *, held_out):
    fitted, scored, chunk = CASES[case]
    scored = scored if held_out else fitted
    return scored, scored - least_squares(fitted, chunk, scored), chunk


def neurons_of(scope, width, chunk):
    return [j for j in range(width) if scope == "all" or j not in chunk]


def slow_r_squared(rows, missed, columns):
    true, found = rows[:, columns].numpy(), (rows - missed)[:, columns].numpy()
    total = ((true - true.mean(0)) ** 2).sum()
    return 1 - ((true - found) ** 2).sum() / total


def slow_correlation(rows, missed, columns, scope):
    spread = rows[:, columns].std(0)
    missed = missed[:, columns].numpy()
    missed = missed - missed.mean(0)
    alive = [
        j for j in range(len(columns)) if missed[:, j].std() > 1e-7 * spread[j] + 1e-15
    ]
    total = 0.0
    for a in alive:
        for b in alive:
            if a < b:
                total += abs(np.corrcoef(missed[:, a], missed[:, b])[0, 1])
    count = len(columns) if scope == "all" else len(alive)
    return total / (count * (count - 1) / 2)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("scope", ["all", "complement"])
@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_regressions_on_the_data(case, scope, held_out):
    rows, missed, chunk = residual(case, held_out=held_out)
    columns = neurons_of(scope, rows.shape[1], chunk)
    found = reconstruct(Covariance.of(CASES[case][0]), chunk)
    other = Covariance.of(rows) if held_out else None
    expected = slow_r_squared(rows, missed, columns)
    assert found.r_squared(scope, other) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    if case == "all but one" and scope == "complement":
        with pytest.warns(UndefinedWarning, match="takes two"):
            assert math.isnan(found.residual_correlation(scope, other))
    elif case == "fewer samples" and not held_out and scope == "complement":
        with pytest.warns(UndefinedWarning, match="0 are not reconstructed"):
            assert math.isnan(found.residual_correlation(scope, other))
    else:
        expected = slow_correlation(rows, missed, columns, scope)
        got = found.residual_correlation(scope, other)
        assert got == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("paper", [False, True])
@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_all_scores_at_once_are_those_one_by_one(case, held_out, paper):
    fitted, scored, chunk = CASES[case]
    found = reconstruct(Covariance.of(fitted), chunk, paper=paper)
    data = Covariance.of(scored) if held_out else None
    for scope, both in found.scores(data).items():
        with warnings.catch_warnings():  # where a score is undefined, only one by one
            warnings.simplefilter("ignore", UndefinedWarning)
            correlation = found.residual_correlation(scope, data)
            expected = found.r_squared(scope, data), correlation
        assert both == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    ("case", "rank"),
    [("a few", 3), ("copy and sum", 3), ("dead and constant", 2), ("fewer samples", 4)],
)
def test_the_rank_is_that_of_independent_neurons(case, rank):
    fitted, _, chunk = CASES[case]
    assert reconstruct(Covariance.of(fitted), chunk).rank == rank


@pytest.mark.parametrize("case", CASES)
def test_the_paper_is_followed_to_the_letter(case):
    fitted, _, chunk = CASES[case]
    rows = fitted.numpy()
    # Without its fallback to least norm, the solver fails on singular chunks.
    model = Ridge(alpha=1e-8, solver="svd").fit(rows[:, chunk], rows)
    predicted = model.predict(rows[:, chunk])
    spread = np.cov((rows - predicted).T)
    deviation = np.sqrt(np.diag(spread))
    ratio = np.abs(spread) / (np.outer(deviation, deviation) + 1e-8)
    expected = ratio[np.tril_indices(len(ratio), -1)].mean()
    found = reconstruct(Covariance.of(fitted), chunk, paper=True)
    r_squared = r2_score(rows, predicted, multioutput="variance_weighted")
    assert found.r_squared() == pytest.approx(r_squared, abs=1e-10)
    assert found.residual_correlation() == pytest.approx(expected, abs=1e-6)


def test_held_out_scores_are_those_of_scikit_learn_on_data_with_another_mean():
    fitted, scored, chunk = CASES["a few"]
    model = LinearRegression().fit(fitted[:, chunk].numpy(), fitted.numpy())
    expected = r2_score(
        scored.numpy(),
        model.predict(scored[:, chunk].numpy()),
        multioutput="variance_weighted",
    )
    found = reconstruct(Covariance.of(fitted), chunk)
    other = Covariance.of(scored)
    assert found.r_squared(held_out=other) == pytest.approx(expected, abs=1e-11)
    # The shift matters: without it the answer is another one.
    centred = Covariance(other.count, Covariance.of(fitted).mean, other.scatter)
    assert abs(found.r_squared(held_out=centred) - expected) > 0.05


def test_the_published_relation_between_scopes():
    rows = normal(300, 20)
    found = reconstruct(Covariance.of(rows), [*range(5)])
    # Among neurons of one variance, a quarter is trivially reconstructed.
    equal = rows / rows.std(0)
    found = reconstruct(Covariance.of(equal), [*range(5)])
    complement = (found.r_squared() - 0.25) / 0.75
    assert found.r_squared("complement") == pytest.approx(complement, abs=1e-12)
    share = (15 * 14) / (20 * 19)
    assert found.residual_correlation() == pytest.approx(
        share * found.residual_correlation("complement"), rel=1e-12
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("biased", [False, True])
def test_a_folded_classifier_reads_the_reconstructed_layer(case, biased):
    fitted, scored, chunk = CASES[case]
    width = fitted.shape[1]
    weight = normal(4, width, seed=2).float()
    bias = normal(4, seed=3).float() if biased else None
    whole = least_squares(fitted, chunk, scored)
    whole[:, chunk] = scored[:, chunk]
    expected = whole @ weight.double().T + (bias.double() if biased else 0)
    found = reconstruct(Covariance.of(fitted), chunk).folded(weight, bias)
    assert torch.allclose(found.logits(scored), expected, rtol=1e-8, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 11), st.sampled_from([1e-6, 1.0, 1e5]))
def test_scale_order_and_place_do_not_matter(seed, size, scale):
    rows = correlated(60, 12, seed=seed % 50)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    chunk, shuffled = order[:size], order[:size].flip(0)
    found = reconstruct(Covariance.of(rows), chunk)
    moved = reconstruct(Covariance.of(scale * (rows + 3)), shuffled)
    for scope in ("all", "complement"):
        expected = found.r_squared(scope)
        assert moved.r_squared(scope) == pytest.approx(expected, abs=1e-10)
    correlation = found.residual_correlation()
    assert moved.residual_correlation() == pytest.approx(correlation, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_planted_clones_leave_nothing(dtype):
    base = normal(100, 6).to(dtype)
    rows = torch.cat([base, 2 * base + 1, 3 - base, base[:, :1]], dim=1)
    chunk = [0, 7, 14, 3, 10, 17, 18, 6]
    eps = torch.finfo(dtype).eps
    found = reconstruct(Covariance.of(rows), chunk, eps=eps)
    assert found.rank == 6
    assert found.r_squared("complement") == pytest.approx(1, abs=1e-12)
    assert found.residual_correlation() == 0


def test_noisy_clones_by_hand():
    signal, noise = normal(4000, 1), 0.5 * normal(4000, 30, seed=1)
    covariance = Covariance.of(signal + noise)
    # Neurons s + e with var(e) = 1/4: from w of them, the best guess of s misses
    # 1 / (1 + 4 w) of it, so that 1.25 R^2 of another neuron is 4 w / (1 + 4 w).
    for size in (1, 5, 20):
        left = 1 / (1 + 4 * size)
        found = reconstruct(covariance, [*range(size)])
        expected = (1 - left) / 1.25
        assert found.r_squared("complement") == pytest.approx(expected, abs=0.02)
        expected = left / (left + 0.25)
        got = found.residual_correlation("complement")
        assert got == pytest.approx(expected, abs=0.03)


def test_constant_neurons_stay_so_through_merges():
    rows = degenerate(999).float()
    merged = Covariance.empty(9)
    for part in rows.split(7):
        merged = merged.merge(Covariance.of(part))
    assert constant_neurons(merged).nonzero().flatten().tolist() == [6, 7]


def test_a_chunk_of_dead_neurons_predicts_the_mean():
    found = reconstruct(Covariance.of(degenerate()), [7, 6])
    assert found.rank == 0
    assert found.r_squared() == 0.0
    assert float(found.coefficients.abs().max()) == 0.0


@pytest.mark.parametrize(
    ("rows", "chunk", "scope"),
    [
        (torch.ones(9, 3, dtype=torch.float64), [0], "all"),
        (normal(1, 3), [0], "all"),
        (normal(9, 3), [0, 1, 2], "complement"),
    ],
)
@pytest.mark.parametrize("paper", [False, True])
def test_without_variance_there_is_no_score(rows, chunk, scope, paper):
    found = reconstruct(Covariance.of(rows), chunk, paper=paper)
    with pytest.warns(UndefinedWarning, match=r"R\^2 of a chunk"):
        assert math.isnan(found.r_squared(scope))


def test_what_does_not_fit_is_refused():
    found = reconstruct(Covariance.of(normal(9, 3)), [0])
    with pytest.raises(ValueError, match="`scope` must be one of"):
        found.r_squared("outside")
    with pytest.raises(ShapeError, match="the 3 neurons"):
        found.r_squared(held_out=Covariance.empty(4))
    with pytest.raises(ShapeError, match=r"shape \(K, 3\)"):
        found.folded(torch.ones(2, 4))
