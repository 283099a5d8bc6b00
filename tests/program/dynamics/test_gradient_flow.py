import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from scipy.optimize import minimize

from layerpeel import simplex_etf
from layerpeel._json import json_text
from layerpeel.program.dynamics import balanced_flow, gradient_flow_margin


def labels_of(counts):
    return np.repeat(np.arange(len(counts)), counts)


def margins_of(W, H, labels):
    logits = H @ W.T
    return logits[np.arange(len(labels)), labels][:, None] - logits


def log_loss_and_slope(x, labels, num_classes, width):
    """The logarithm of the mean cross-entropy, and its gradient: the same path."""
    W = x[: num_classes * width].reshape(num_classes, width)
    H = x[num_classes * width :].reshape(len(labels), width)
    odds = np.exp(-margins_of(W, H, labels))
    odds[np.arange(len(labels)), labels] = 0
    loss = np.log1p(odds.sum(axis=1)).sum()
    off = odds / (1 + odds.sum(axis=1, keepdims=True))
    off[np.arange(len(labels)), labels] = -off.sum(axis=1)
    gradient = np.concatenate([(off.T @ H).ravel(), (off @ W).ravel()])
    return math.log(loss / len(labels)), gradient / loss


def normalised_margin(x, labels, num_classes, width):
    W = x[: num_classes * width].reshape(num_classes, width)
    H = x[num_classes * width :].reshape(len(labels), width)
    off = labels[:, None] != np.arange(num_classes)
    return margins_of(W, H, labels)[off].min() / (x @ x)


@pytest.mark.parametrize("counts", [[2, 2, 2], [4, 2, 1], [3, 1]])
def test_gradient_flow_approaches_it_from_below(counts):
    """Integrate the flow of the logarithm of the loss, for as long as it takes."""
    labels, K = labels_of(counts), len(counts)
    start = 0.3 * np.random.default_rng(0).standard_normal((K + len(labels)) * 4)

    def velocity(_, x):
        # Time is measured so that the squared norm grows at a constant rate in the end.
        return -log_loss_and_slope(x, labels, K, 4)[1] / (x @ x)

    found = solve_ivp(velocity, (0, 1000), start, t_eval=[100, 1000], rtol=1e-6)
    margins = [normalised_margin(x, labels, K, 4) for x in found.y.T]
    limit = gradient_flow_margin(counts)
    assert margins[0] < margins[1] < limit
    assert margins[1] == pytest.approx(limit, rel=5e-3)


@pytest.mark.parametrize("counts", [[1, 1, 1], [2, 1, 1], [3, 2]])
def test_no_parameters_have_a_larger_margin(counts):
    """Least norms for a margin of one, over classifiers and every feature."""
    labels, K = labels_of(counts), len(counts)
    size = (K + len(labels)) * 3
    off = labels[:, None] != np.arange(K)

    def margins(x):
        W, H = x[: 3 * K].reshape(K, 3), x[3 * K :].reshape(-1, 3)
        return margins_of(W, H, labels)[off] - 1

    generator = np.random.default_rng(1)
    norms = []
    for _ in range(6):
        run = minimize(
            lambda x: x @ x,
            generator.standard_normal(size),
            jac=lambda x: 2 * x,
            constraints={"type": "ineq", "fun": margins},
            method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-12},
        )
        if run.success:
            norms.append(run.fun)
    assert 1 / min(norms) == pytest.approx(gradient_flow_margin(counts), rel=1e-6)


def test_balanced_margin():
    for K, n in [(2, 3), (5, 7), (40, 2)]:
        expected = 1 / (2 * (K - 1) * math.sqrt(n))
        assert gradient_flow_margin([n] * K) == pytest.approx(expected, rel=1e-12)


def test_balanced_flow_is_that_of_all_parameters():
    K, n, start = 3, 2, 0.05
    times = [0.0, 3.0, 12.0, 40.0, 100.0]
    frame = simplex_etf(K).numpy()
    # Z = a (I - J / K) with |w|^2 = sqrt(n) a (K - 1) / K, and h = w / sqrt(n).
    W = math.sqrt(math.sqrt(n) * start * (K - 1) / K) * frame
    labels = labels_of([n] * K)
    x = torch.from_numpy(np.concatenate([W, W[labels] / math.sqrt(n)]))

    def loss(parameters):
        classifiers, features = parameters[:K], parameters[K:]
        target = torch.from_numpy(labels)
        return torch.nn.functional.cross_entropy(features @ classifiers.T, target)

    def velocity(_, flat):
        point = torch.from_numpy(flat.reshape(x.shape).copy()).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(point), point)
        return -gradient.numpy().ravel()

    found = solve_ivp(
        velocity, (0, 100), x.numpy().ravel(), t_eval=times, rtol=1e-10, atol=1e-12
    )
    flow = balanced_flow(K, n, start=start, times=times)
    for flat, gap, value in zip(found.y.T, flow.gaps, flow.losses, strict=True):
        point = flat.reshape(x.shape)
        logits = point[K:] @ point[:K].T
        assert logits[0, 0] - logits[0, 1] == pytest.approx(float(gap), rel=1e-7)
        assert float(loss(torch.from_numpy(point))) == pytest.approx(float(value))
    assert flow.gaps[0] == pytest.approx(start, rel=1e-12)


@pytest.mark.parametrize("start", [1e-8, 0.5, 30.0])
@pytest.mark.parametrize("time", [1e-3, 10.0, 1e8, 1e100])
def test_balanced_flow_takes_the_time_of_its_speed(start, time):
    K, n = 10, 9.0
    gap = float(balanced_flow(K, n, start=start, times=[time]).gaps[0])
    assert gap >= start

    def pace(log_a):
        a = math.exp(log_a)
        return math.sqrt(n) * (math.exp(a) + K - 1) / 2

    taken, _ = quad(pace, math.log(start), math.log(gap), limit=500, epsrel=1e-10)
    # Where the start is large against what the time changes, digits of it are lost.
    noise = 1e-15 * pace(math.log(start))
    assert taken == pytest.approx(time, rel=1e-6, abs=10 * noise)


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="`times`"):
        balanced_flow(3, 4, start=1.0, times=[-1.0])
    with pytest.raises(ValueError, match="`times`"):
        balanced_flow(3, 4, start=1.0, times=[])
    with pytest.raises(ValueError, match="start"):
        balanced_flow(3, 4, start=0.0, times=[1.0])
    with pytest.raises(ValueError, match="at least 2 classes"):
        gradient_flow_margin([3])


def test_is_drawn_and_written():
    flow = balanced_flow(3, 4, start=0.1, times=np.linspace(0, 10, 5))
    _, ax = flow.plot()
    assert len(ax.lines) == 1
    assert '"gaps"' in json_text(flow.to_dict())


@pytest.mark.parametrize("start", [710.0, 1000.0])
def test_gaps_beyond_the_exponential_integral_are_refused(start):
    with pytest.raises(ValueError, match="`start` and `times` must be such that Ei"):
        balanced_flow(3, 4, start=start, times=[1])
    with pytest.raises(ValueError, match=r"and times up to 1.7e\+308"):
        balanced_flow(3, 0.25, start=1.0, times=[0, 1.7e308])
    # Just below, a gap does not grow any more.
    assert balanced_flow(3, 4, start=700.0, times=[1e6]).gaps.tolist() == pytest.approx(
        [700.0]
    )
