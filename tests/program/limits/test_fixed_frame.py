import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from layerpeel import Geometry, simplex_etf
from layerpeel._json import json_text
from layerpeel.program.energy import Energy
from layerpeel.program.limits import fixed_frame
from layerpeel.program.solution import Status
from tests.program.layer_peeled_reference import objective, residual

COUNTS = [4, 2, 1]
E_W, E_H, DECAY = 1.7, 2.3, 3e-2


def sample_problem(counts, classifiers):
    """Loss and gradient over every sample of every class, with the frame held fixed."""
    W = math.sqrt(classifiers) * simplex_etf(len(counts)).numpy()
    labels = np.repeat(np.arange(len(counts)), counts)

    def value_and_gradient(H):
        logits = H @ W.T
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        softmax = shifted / shifted.sum(axis=1, keepdims=True)
        loss = -np.log(softmax[np.arange(len(labels)), labels]).mean()
        return loss, (softmax - np.eye(len(counts))[labels]) @ W / len(labels)

    return W, labels, value_and_gradient


def best_of_starts(value_and_gradient, shape):
    generator = np.random.default_rng(2)
    options = {"maxiter": 20000, "maxfun": 40000, "ftol": 0, "gtol": 1e-11}

    def flat(x):
        value, gradient = value_and_gradient(x.reshape(shape))
        return value, gradient.ravel()

    runs = [
        minimize(
            flat,
            generator.standard_normal(shape).ravel(),
            jac=True,
            method="L-BFGS-B",
            options=options,
        )
        for _ in range(3)
    ]
    return min(runs, key=lambda run: run.fun)


def through_scaling(value_and_gradient, scale):
    """Minimise over a constraint set parametrised by rescaling, with its gradient."""

    def composed(x):
        H, pull = scale(x)
        value, gradient = value_and_gradient(H)
        return value, pull(gradient)

    return composed


def on_spheres(x):
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    unit, radius = x / norms, math.sqrt(E_H)

    def pull(g):
        return radius / norms * (g - unit * (unit * g).sum(axis=1, keepdims=True))

    return radius * unit, pull


def on_mean_budget(labels):
    counts = np.bincount(labels)
    roots = np.sqrt(counts[labels])[:, None]

    def scale(x):
        size = np.linalg.norm(x)
        unit, radius = x / size, math.sqrt(len(counts) * E_H)

        def pull(g):
            g = g * roots
            return radius / size * (g - unit * (unit * g).sum())

        return radius * unit * roots, pull

    return scale


def reference(way):
    W, labels, loss = sample_problem(COUNTS, E_W)
    shape = (len(labels), len(COUNTS))
    if way == "each":
        run = best_of_starts(through_scaling(loss, on_spheres), shape)
        H = on_spheres(run.x.reshape(shape))[0]
    elif way == "mean":
        scale = on_mean_budget(labels)
        run = best_of_starts(through_scaling(loss, scale), shape)
        H = scale(run.x.reshape(shape))[0]
    else:
        share = np.array(COUNTS, dtype=float)[labels][:, None] ** (way == "class")

        def penalised(H):
            value, gradient = loss(H)
            penalty = DECAY / share * H
            return value + (penalty * H).sum() / 2, gradient + penalty

        run = best_of_starts(penalised, shape)
        H = run.x.reshape(shape)
    means = [H[labels == k].mean(axis=0) for k in range(len(COUNTS))]
    spread = max(np.ptp(H[labels == k], axis=0).max() for k in range(len(COUNTS)))
    return run.fun, spread, W, np.stack(means)


WAYS = {
    "each": {"energy": (E_W, E_H)},
    "mean": {"energy": (E_W, E_H), "budget": "mean"},
    "sample": {"classifiers": E_W, "feature_decay": DECAY},
    "class": {"classifiers": E_W, "feature_decay": DECAY, "per": "class"},
}


@pytest.mark.parametrize("way", WAYS)
def test_is_the_optimum_over_all_samples(way):
    value, spread, W, means = reference(way)
    frame = fixed_frame(COUNTS, **WAYS[way])
    geometry = Geometry.of(torch.from_numpy(W), torch.from_numpy(means))
    assert frame.status is Status.CLOSED_FORM
    assert frame.objective == pytest.approx(value, rel=1e-12)
    assert spread < 1e-5
    np.testing.assert_allclose(frame.feature_norms, geometry.feature_norms, atol=1e-5)
    for name in ("classifier_gram", "feature_gram", "logits"):
        expected = getattr(geometry, name)
        np.testing.assert_allclose(getattr(frame.geometry, name), expected, atol=2e-5)


counts_lists = st.lists(st.floats(1.0, 1e5), min_size=2, max_size=8)
energies = st.floats(1e-3, 1e2)


@settings(deadline=None, max_examples=60)
@given(counts_lists, energies, energies, st.sampled_from(list(WAYS)))
def test_bounds_hold_and_are_tight(counts, classifiers, amount, way):
    given_as = {
        "each": {"energy": (classifiers, amount)},
        "mean": {"energy": (classifiers, amount), "budget": "mean"},
    }.get(way, {"classifiers": classifiers, "feature_decay": amount, "per": way})
    frame = fixed_frame(counts, **given_as)
    certificate, norms = frame.certificate, frame.feature_norms.numpy()
    assert 0 <= certificate.gap < 1e-10
    loss = objective(frame.geometry.logits.numpy(), counts)
    if way in ("each", "mean"):
        assert certificate.objective == pytest.approx(loss, rel=1e-12)
        assert (norms**2).mean() == pytest.approx(amount)
    else:
        share = np.array(counts) if way == "sample" else np.ones(len(counts))
        penalty = amount / 2 * share @ norms**2
        assert certificate.objective == pytest.approx(loss + penalty, rel=1e-12)
        if way == "sample":
            np.testing.assert_allclose(norms, norms[0], rtol=1e-9)


def test_spends_little_on_the_rare_at_low_energy_and_evenly_at_high():
    counts = [1000.0, 10.0]
    low = fixed_frame(counts, energy=(1.0, 1e-6), budget="mean").feature_norms
    assert float(low[0] / low[1]) == pytest.approx(100, rel=1e-2)
    high = fixed_frame(counts, energy=(1.0, 1e6), budget="mean").feature_norms
    assert float(high[0] / high[1]) == pytest.approx(1, rel=1e-2)


def test_extremes_stay_finite():
    for energy in [(1e-12, 1e-12), (1e6, 1e6)]:
        for budget in ("each", "mean"):
            frame = fixed_frame([1e12, 3, 1], energy=energy, budget=budget)
            assert torch.isfinite(frame.feature_norms).all()
            assert math.isfinite(frame.objective)
    for decay in (1e-200, 1e200):
        frame = fixed_frame([1e12, 3, 1], classifiers=1.0, feature_decay=decay)
        assert torch.isfinite(frame.feature_norms).all()


def test_dot_regression_is_zero_at_its_target_only():
    frame = fixed_frame(COUNTS, energy=(4.0, 9.0))
    assert frame.dot_regression(6.0) == 0
    assert frame.dot_regression(5.0) == pytest.approx(0.1)  # (6 - 5)^2 / (2 * 5)


def test_softmax_residual_is_met_by_the_penalty():
    """Stationarity in the original variables, without the scalar equation."""
    frame = fixed_frame(COUNTS, classifiers=E_W, feature_decay=DECAY)
    W = math.sqrt(E_W) * simplex_etf(3).numpy()
    H = frame.feature_norms[:, None].numpy() * simplex_etf(3).numpy()
    gradient = residual(W @ H.T).T @ W / sum(COUNTS)
    np.testing.assert_allclose(gradient, -DECAY * H, atol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Either `energy`"),
        ({"energy": (1, 1), "feature_decay": 1.0}, "Either `energy`"),
        ({"classifiers": 1.0}, "Either `energy`"),
        ({"energy": (1, 0)}, "energy.features"),
        ({"energy": (1, math.nan)}, "energy.features"),
        ({"classifiers": 1.0, "feature_decay": -1.0}, "feature_decay"),
        ({"classifiers": 0.0, "feature_decay": 1.0}, "classifiers"),
        ({"class_counts": [3, -1], "energy": (1, 1)}, "above 0"),
    ],
)
def test_says_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        fixed_frame(**{"class_counts": COUNTS, **arguments})


def test_is_drawn_and_written():
    frame = fixed_frame([500, 50, 5], energy=(1.0, 4.0), budget="mean")
    _, ax = frame.plot()
    assert ax.lines[0].get_ydata().tolist() == sorted(frame.feature_norms.tolist())
    assert '"feature_norms"' in json_text(frame.to_dict())


def test_a_mean_budget_is_per_class():
    energy = Energy(1.0, 9.0, "sample")
    with pytest.raises(ValueError, match=r"`energy` must be per class: the frame with"):
        fixed_frame([500, 5, 5], energy=energy, budget="mean")
    # A bound on every norm knows no classes.
    each = fixed_frame([500, 5, 5], energy=energy)
    assert each.feature_norms.tolist() == [3.0, 3.0, 3.0]
