import math

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from layerpeel._json import json_text
from layerpeel.program.cross_entropy import CrossEntropy
from layerpeel.program.limits import seli
from layerpeel.program.solution import Status
from tests.program.layer_peeled_reference import objective, residual

CASES = {
    # counts, scale, margin
    "balanced": ([7.0] * 4, None, None),
    "two classes": ([9.0, 2.0], None, None),
    "step": ([40.0, 40.0, 4.0, 4.0], None, None),
    "long tail": ([60.0, 20.0, 5.0, 1.0], None, None),
    "scales": ([60.0, 20.0, 5.0, 1.0], [1.0, 0.5, 2.0, 3.0], None),
    "margins": ([60.0, 20.0, 5.0, 1.0], None, [1.0, 3.0, 0.7, 2.0]),
    "both": ([60.0, 20.0, 5.0, 1.0], [1.0, 0.5, 2.0, 3.0], [1.0, 3.0, 0.7, 2.0]),
    "both, in groups": ([9.0, 9.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 1.0, 1]),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
each_way = pytest.mark.parametrize("per", ["sample", "class"])


def parts(case, per):
    counts, scale, margin = case
    ones = np.ones(len(counts))
    delta = np.sqrt(counts) if per == "sample" else ones
    return (
        delta,
        ones if scale is None else np.array(scale),
        ones if margin is None else np.array(margin),
    )


def solved(case, per):
    counts, scale, margin = case
    return seli(counts, loss=CrossEntropy(scale=scale, margin=margin), per=per)


def gaps(logits, scale):
    scaled = scale[:, None] * logits
    return np.diag(scaled) - scaled


def interior_point(delta, scale, margin):
    """The nuclear-norm program itself."""
    K = len(delta)
    logits = cp.Variable((K, K))
    constraints = [
        scale[k] * logits[k, k] - scale[j] * logits[j, k] >= margin[k]
        for k in range(K)
        for j in range(K)
        if j != k
    ]
    problem = cp.Problem(cp.Minimize(cp.normNuc(logits @ np.diag(delta))), constraints)
    problem.solve(solver=cp.CLARABEL)
    return problem.value, logits.value


@cases
@each_way
def test_is_the_optimum_of_the_nuclear_norm_program(case, per):
    limit = solved(case, per)
    value, logits = interior_point(*parts(case, per))
    assert limit.status is Status.CLOSED_FORM
    assert limit.nuclear_norm == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(limit.logits, logits, atol=1e-4)
    assert abs(limit.certificate.gap) < 1e-13


@cases
@each_way
def test_factors_are_balanced_and_give_the_logits(case, per):
    limit = solved(case, per)
    delta, scale, margin = parts(case, per)
    W, H = limit.factors.classifiers().numpy(), limit.factors.class_means().numpy()
    np.testing.assert_allclose(W @ H.T, limit.logits, atol=1e-13)
    assert np.sum(W**2) == pytest.approx(limit.nuclear_norm)
    assert np.sum((delta[:, None] * H) ** 2) == pytest.approx(limit.nuclear_norm)
    off = ~np.eye(len(delta), dtype=bool)
    every = np.broadcast_to(margin, off.shape)
    np.testing.assert_allclose(gaps(limit.logits.numpy(), scale)[off], every[off])


@cases
def test_gram_matrices_are_roots_by_a_dense_svd(case):
    limit = solved(case, "sample")
    delta = parts(case, "sample")[0]
    left, values, right = np.linalg.svd(limit.logits.numpy() * delta)
    W = (left * values) @ left.T
    H = (right.T * values) @ right / np.outer(delta, delta)
    np.testing.assert_allclose(limit.geometry.classifier_gram, W, atol=1e-12)
    np.testing.assert_allclose(limit.geometry.feature_gram, H, atol=1e-12)


positive = st.floats(1e-2, 1e2)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.floats(1.0, 1e6), positive, positive), min_size=2, max_size=9)
)
def test_multipliers_prove_every_instance(rows):
    case = tuple(zip(*rows, strict=True))
    limit = solved(case, "sample")
    delta, scale, margin = parts(case, "sample")
    multipliers = limit.multipliers.numpy()
    assert (multipliers >= 0).all()
    assert not np.diag(multipliers).any()
    assert 0 <= limit.certificate.gap < 1e-8
    # Any feasible logits: the bound says that none has a smaller norm.
    generator = np.random.default_rng(len(rows))
    other = generator.standard_normal(multipliers.shape) * margin / scale
    slack = np.min((gaps(other, scale) / margin)[~np.eye(len(delta), dtype=bool)])
    other += (1 - slack) * np.diag(margin / scale)
    norm = np.linalg.svd(other * delta, compute_uv=False).sum()
    assert norm >= limit.certificate.lower_bound * (1 - 1e-12)


@pytest.mark.parametrize("num_classes", [4, 6, 10])
@pytest.mark.parametrize("ratio", [1.0, 10.0, 1000.0])
def test_step_imbalance_has_the_published_ratios(num_classes, ratio):
    K, half = num_classes, num_classes // 2
    geometry = seli([3.0 * ratio] * half + [3.0] * half).geometry
    q, root = math.sqrt((ratio + 1) / 2), math.sqrt(ratio)
    norms = geometry.classifier_norms.square()
    assert float(norms[0] / norms[-1]) == pytest.approx(
        ((1 - 2 / K) * root + q / K) / ((1 - 2 / K) + q / K)
    )
    norms = geometry.feature_norms.square()
    assert float(norms[0] / norms[-1]) == pytest.approx(
        ((1 - 2 / K) / root + 1 / (K * q)) / ((1 - 2 / K) + 1 / (K * q))
    )
    for first, second, spread in [(0, 1, root), (-1, -2, 1.0)]:
        cosine = float(geometry.classifier_cosines[first, second])
        assert cosine == pytest.approx((q - 2 * spread) / ((K - 2) * spread + q))


COUNTS = [60.0, 20.0, 5.0, 1.0]


def deviation_from_simplex(cosines):
    off = ~torch.eye(len(cosines), dtype=torch.bool)
    return float((cosines[off] + 1 / (len(cosines) - 1)).abs().max())


def test_energies_end_in_a_simplex_frame_for_any_counts():
    geometry = seli(COUNTS, per="class").geometry
    assert deviation_from_simplex(geometry.classifier_cosines) < 1e-14
    assert deviation_from_simplex(geometry.feature_cosines) < 1e-14


def test_margins_against_the_roots_of_the_counts_restore_the_classifiers():
    roots = np.sqrt(COUNTS)
    restored = seli(COUNTS, loss=CrossEntropy(margin=1 / roots))
    assert deviation_from_simplex(restored.geometry.classifier_cosines) < 1e-13
    for loss in (CrossEntropy(), CrossEntropy(scale=roots), CrossEntropy(margin=roots)):
        other = seli(COUNTS, loss=loss)
        assert deviation_from_simplex(other.geometry.classifier_cosines) > 0.1


def test_offsets_do_not_matter():
    shifted = seli(COUNTS, loss=CrossEntropy(offset=[0.0, 1.0, -2.0, 3.0]))
    assert torch.equal(shifted.logits, seli(COUNTS).logits)


def test_regularised_solutions_approach_it():
    """Direct minimisation over the factors, at ever weaker decay."""
    counts = np.array([20.0, 5.0, 2.0, 1.0])
    weights = counts / counts.sum()
    generator = np.random.default_rng(0)

    def solve(mu):
        def value_and_gradient(x):
            W, G = x.reshape(2, 4, 4)
            logits = W @ G.T / np.sqrt(counts)
            slope = residual(logits) * weights / np.sqrt(counts)
            gradient = np.stack([slope @ G + mu * W, slope.T @ W + mu * G])
            return objective(logits, counts) + mu / 2 * (x @ x), gradient.ravel()

        start = generator.standard_normal(32)
        options = {"maxiter": 20000, "maxfun": 40000, "ftol": 0, "gtol": 1e-12}
        found = minimize(
            value_and_gradient, start, jac=True, method="L-BFGS-B", options=options
        )
        W, G = found.x.reshape(2, 4, 4)
        return W @ G.T / np.sqrt(counts)

    target = seli(counts).logits.numpy()
    target = target / np.linalg.norm(target)
    distances = []
    for mu in (1e-2, 1e-3, 1e-4, 1e-6):
        logits = solve(mu)
        distances.append(np.linalg.norm(logits / np.linalg.norm(logits) - target))
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.2
    assert distances[-1] < 0.1


def test_many_classes():
    limit = seli(np.geomspace(1280, 5, 200))
    assert limit.certificate.gap < 1e-13
    assert limit.factors.spectrum.rank == 199
    norms = seli([5000.0] * 150 + [50.0] * 150).geometry.classifier_norms
    assert len(norms.unique()) == 2  # to the last bit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_counts": [3.0]}, "at least 2 classes"),
        ({"class_counts": [3.0, 0.0]}, "above 0"),
        ({"class_counts": [3.0, math.nan]}, "above 0"),
        ({"loss": CrossEntropy(smoothing=0.1)}, "smoothing"),
        ({"loss": CrossEntropy(scale=[1.0, 2.0, 3.0])}, "each of the 2 classes; got 3"),
        ({"loss": CrossEntropy(margin=[1.0])}, "`loss.margin`"),
    ],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        seli(**{"class_counts": [3.0, 2.0], **arguments})


def test_is_drawn_and_written():
    limit = seli(COUNTS)
    fig, ax = limit.plot()
    assert ax.get_figure() is fig
    content = json_text(limit.to_dict())
    assert '"CLOSED_FORM"' in content
    assert "CLOSED_FORM" in repr(limit)
